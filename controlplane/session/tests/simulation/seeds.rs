//! One run for every seed: a failing one is named, and `GENIE_SEED=n` replays it.

use std::ops::Range;
use std::panic::{RefUnwindSafe, catch_unwind, resume_unwind};

use super::rng::Rng;

fn seeds(default: u64) -> Range<u64> {
    let chosen = |name| {
        let text = std::env::var(name).ok()?;
        Some(text.parse::<u64>().expect("GENIE_SEED(S) is a number"))
    };
    match chosen("GENIE_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..chosen("GENIE_SEEDS").unwrap_or(default),
    }
}

/// Runs `count` seeds, or those that the environment names; `add` gets what each gave.
pub fn each<T>(
    name: &str,
    count: u64,
    run: impl Fn(Rng) -> T + RefUnwindSafe,
    mut add: impl FnMut(&T),
) {
    for seed in seeds(count) {
        match catch_unwind(|| run(Rng::new(seed))) {
            Ok(one) => add(&one),
            Err(panic) => {
                eprintln!("{name}: seed {seed} fails; GENIE_SEED={seed} replays it");
                resume_unwind(panic);
            }
        }
    }
}
