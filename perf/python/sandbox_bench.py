"""What holding executors in costs: a node with its sandbox and one without, in one run.

Two nodes and a program for each take steps in turns; a figure is the median of the ratios of a
round. A process keeps the luck of its start (where its memory lies), so all are started anew a few
times. What is promised is in SPECIFICATION.md.

Exit status: 0; 1 with --check if a promised ratio is missed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts" / "lib"))

import command_line
from daemon import Daemon
from threads_bench import GPT2, TRANSFER, Side

RATIO_MAX = 1.02
# Steps in a turn: about half a second.
STEPS = {GPT2: 2, TRANSFER: 8}
SETTINGS = ("auto", "off")

Medians = dict[str, list[float]]


def rounds(name: str, count: int) -> Medians:
    """Milliseconds of a step with each setting, a median a round."""
    taken: Medians = {setting: [] for setting in SETTINGS}
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="genie-bench-")))
        sides = {}
        for setting in SETTINGS:
            node = Daemon("--sandbox", setting, log=folder / f"{setting}.log")
            address = stack.enter_context(node).address
            sides[setting] = stack.enter_context(Side(name, address))
        for number in range(count):
            for setting in SETTINGS if number % 2 else reversed(SETTINGS):
                taken[setting].append(statistics.median(sides[setting].steps(STEPS[name])))
            print(".", end="", file=sys.stderr, flush=True)
    return taken


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = command_line.parser(__doc__)
    parser.add_argument("--starts", type=int, default=4, help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=12, help="a start (default: %(default)s)")
    parser.add_argument("--json", metavar="FILE", help="write the figures there, too")
    parser.add_argument(
        "--check", action="store_true", help=f"exit status 1 if a ratio is above {RATIO_MAX}"
    )
    return parser.parse_args()


def main() -> int:
    """Measures and prints; the exit status."""
    options = arguments()
    figures = {}
    for name in STEPS:
        figures[name] = {setting: [] for setting in SETTINGS}
        for _ in range(options.starts):
            for setting, taken in rounds(name, options.rounds).items():
                figures[name][setting] += taken
    print(file=sys.stderr)
    print(f"{'':38}{'sandbox':>10}{'without':>10}   ratio   quartiles   (milliseconds, medians)")
    kept = True
    for name, of in figures.items():
        ratios = [held / free for held, free in zip(*of.values(), strict=True)]
        low, ratio, high = statistics.quantiles(ratios, n=4)
        missed = ratio > RATIO_MAX
        kept = kept and not missed
        held, free = (statistics.median(of[setting]) for setting in SETTINGS)
        print(
            f"{name:38}{held:10.2f}{free:10.2f}{ratio:8.3f}   {low:.2f} to {high:.2f}"
            f"   at most {RATIO_MAX}{': missed' if missed else ''}"
        )
    if options.json:
        Path(options.json).write_text(json.dumps(figures, indent=2) + "\n")
    return int(options.check and not kept)


if __name__ == "__main__":
    sys.exit(main())
