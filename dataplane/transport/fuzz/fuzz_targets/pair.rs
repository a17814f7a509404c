#![no_main]

#[path = "../bodies/pair.rs"]
mod body;
#[path = "../bodies/script.rs"]
mod script;
#[path = "../../tests/sim/mod.rs"]
mod sim;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| body::run(bytes));
