//! Replays the fuzzers' corpus, which needs no fuzzer; `cargo +nightly fuzz run frame` (or `pair`)
//! looks for more. Inputs are named after what they reach; those that a fuzzer keeps are not
//! committed.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends where it can't go on"
)]

mod sim;

#[path = "../fuzz/bodies/frame.rs"]
mod frame;
#[path = "../fuzz/bodies/pair.rs"]
mod pair;
#[path = "../fuzz/bodies/script.rs"]
mod script;

use std::path::Path;

fn replay(target: &str, run: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(target);
    let mut inputs = 0;
    for entry in std::fs::read_dir(&folder).expect("a corpus is committed") {
        let path = entry.expect("a readable folder").path();
        println!("{}", path.display());
        run(&std::fs::read(&path).expect("a readable file"));
        inputs += 1;
    }
    assert!(inputs > 5, "{inputs} inputs in {}", folder.display());
}

#[test]
fn the_corpus_of_frames() {
    replay("frame", frame::run);
}

#[test]
fn the_corpus_of_pairs() {
    replay("pair", pair::run);
}
