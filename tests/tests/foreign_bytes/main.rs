//! Every parser of bytes from others, over the committed corpus and for a moment over mutations of it
//! that nobody saw before. The seed is printed with a failure (PROPTEST_RNG_SEED repeats a run;
//! `scripts/test` draws one and says it); GENIE_FUZZ_MS is how long each parser gets, a second without.
//! `cargo +nightly fuzz` in `tests/fuzz` looks deeper, over the same bodies and corpus.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends where it can't go on"
)]

#[path = "../../fuzz/bodies.rs"]
mod bodies;
mod mutate;
#[path = "../../../controlplane/session/tests/simulation/rng.rs"]
mod rng;
mod seeds;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mutate::Mutator;

/// Longest input.
const INPUT_BYTES_MAX: usize = 64 << 10;
/// What one input may take, on a machine that does other things too.
const INPUT_TIME_MAX: Duration = Duration::from_secs(5);

fn corpus_of(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(target)
}

/// Says which input it was, if the parser panics.
struct Witness<'a> {
    target: &'a str,
    seed: u64,
    input: &'a [u8],
}

impl Drop for Witness<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let hex: String = self
                .input
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect();
            eprintln!(
                "{} with PROPTEST_RNG_SEED={}: these bytes did it: {hex}",
                self.target, self.seed
            );
        }
    }
}

fn one(target: &str, body: fn(&[u8]), seed: u64, input: &[u8]) {
    let started = Instant::now();
    let witness = Witness {
        target,
        seed,
        input,
    };
    body(input);
    let took = started.elapsed();
    assert!(took < INPUT_TIME_MAX, "{target} took {took:?}");
    drop(witness);
}

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.trim().parse().ok()
}

fn seed() -> u64 {
    from_environment("PROPTEST_RNG_SEED").unwrap_or_else(|| {
        std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(1, |since| since.as_nanos() as u64)
    })
}

fn fuzz(target: &str, body: fn(&[u8])) {
    let folder = corpus_of(target);
    let mut corpus = Vec::new();
    for entry in std::fs::read_dir(&folder).expect("a corpus is committed") {
        let path = entry.expect("a readable folder").path();
        corpus.push(std::fs::read(&path).expect("a readable file"));
    }
    assert!(!corpus.is_empty(), "nothing in {}", folder.display());
    corpus.sort();
    let seed = seed();
    for input in &corpus {
        one(target, body, seed, input);
    }
    let time = Duration::from_millis(from_environment("GENIE_FUZZ_MS").unwrap_or(1000));
    let (mut mutator, started, mut inputs) = (Mutator::new(seed), Instant::now(), 0_u64);
    while started.elapsed() < time {
        let input = mutator.next(&corpus, INPUT_BYTES_MAX);
        one(target, body, seed, &input);
        inputs += 1;
    }
    println!(
        "{target}: {inputs} mutations of {} inputs, seed {seed}",
        corpus.len()
    );
}

macro_rules! targets {
    ($($name:ident)+) => {
        $(#[test]
        fn $name() {
            let name = stringify!($name);
            let (_, body) = bodies::TARGETS
                .into_iter()
                .find(|(target, _)| *target == name)
                .expect("it is a target");
            fuzz(name, body);
        })+

        #[test]
        fn every_target_is_run() {
            let run = [$(stringify!($name)),+];
            assert_eq!(run, bodies::TARGETS.map(|(name, _)| name));
            let manifest = include_str!("../../fuzz/Cargo.toml");
            for name in run {
                assert!(manifest.contains(&format!("name = \"{name}\"")), "{name} has no fuzzer");
            }
        }
    };
}

targets! {
    records template chunk skeleton metas frame fault srg srg_json attach channel zygote netstack
    config address
}

/// The committed corpus has at least what is made here: with GENIE_WRITE_CORPUS set it is written.
#[test]
fn the_corpus_has_sound_inputs() {
    for (target, name, bytes) in seeds::all() {
        let file = corpus_of(target).join(name);
        if std::env::var_os("GENIE_WRITE_CORPUS").is_some() {
            std::fs::create_dir_all(corpus_of(target)).expect("a folder for the corpus");
            std::fs::write(&file, &bytes).expect("the corpus can be written");
        }
        assert!(file.is_file(), "{} is missing", file.display());
    }
}
