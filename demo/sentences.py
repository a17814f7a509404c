"""What the demo embeds: a few subjects, several sentences each, and queries in other words."""

SENTENCES = (
    # Cooking
    "Let the dough rest for an hour before you roll it out.",
    "A pinch of salt brings out the taste of dark chocolate.",
    "Simmer the tomatoes with garlic until the sauce is thick.",
    "The bread is done when it sounds hollow as you tap it.",
    "Whisk the eggs into the warm milk, slowly, so that they do not curdle.",
    # Astronomy
    "Jupiter's moon Europa hides an ocean under its ice.",
    "The light of that star left it before Rome was founded.",
    "A solar eclipse happens when the moon stands between the earth and the sun.",
    "The telescope unfolded its mirror a million miles from home.",
    "Saturn's rings are mostly pieces of water ice.",
    # Medicine
    "The nurse measured her blood pressure twice that morning.",
    "Antibiotics do nothing against a virus.",
    "He was given a cast for his broken wrist.",
    "Vaccines teach the immune system what to look for.",
    "Too little sleep makes it harder to recover from an illness.",
    # Computers
    "The program crashed because it ran out of memory.",
    "A compiler turns source text into machine instructions.",
    "Packets that get lost on the way are sent a second time.",
    "Training the network took three days on eight graphics cards.",
    "She fixed the bug by swapping two lines of code.",
    # Weather and seasons
    "Dark clouds gathered, and soon hail was falling on the roofs.",
    "The first snow came early this year, in the middle of October.",
    "Fog kept the ferry in the harbour until noon.",
    "After weeks without rain the river had almost run dry.",
    # Money
    "The central bank raised interest rates by a quarter of a point.",
    "They put a little aside every month for their old age.",
    "The shop gives a discount to those who pay in cash.",
    "Shares fell sharply after the company missed its forecast.",
    # Music and sport
    "The violinist tuned her strings before the orchestra came in.",
    "He practised the same piano sonata all winter.",
    "The goalkeeper saved a penalty in the last minute.",
    "She finished the marathon in under three hours.",
    # Animals
    "The cat slept on the warm windowsill all afternoon.",
    "Swallows fly south when the days become short.",
    "A sheepdog can keep a whole flock together by itself.",
    "Octopuses change their colour to hide from hunters.",
)

QUERIES = (
    "How do I know that my loaf is baked through?",
    "Which moon might have a sea below its frozen surface?",
    "Will a pill help me get rid of a common cold?",
    "What happens to data that does not arrive at the other computer?",
    "Why did the stock price drop?",
    "Where do birds go before winter?",
    "runner completes a long race",
    "Why was the boat late?",
)
