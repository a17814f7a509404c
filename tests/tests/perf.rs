//! `genie-perf` against a real daemon and executor: every byte comes back, and the JSON is as
//! documented.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends where it can't go on"
)]

use std::process::Command;

use genie_tests::{Daemon, is_ready, program};

fn perf(address: &str, arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(program("genie-perf"))
        .args(["client", address])
        .args(arguments)
        .output()
        .expect("genie-perf starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.code(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

#[test]
fn every_byte_of_messages_and_transfers_comes_back() {
    if !is_ready() {
        return;
    }
    let daemon = Daemon::start(&[]);
    for test in ["lat", "bw"] {
        let (code, out, errors) = perf(
            &daemon.address,
            // Inline, bulk, and sizes that are no multiple of anything.
            &[
                test,
                "--size",
                "1,64,16385,1MiB,3000001",
                "--time",
                "0.1",
                "--warmup",
                "0",
                "--verify",
                "--json",
                "-",
            ],
        );
        assert_eq!(code, Some(0), "{errors}");
        let json: serde_json::Value = serde_json::from_str(&out).expect("JSON alone");
        assert_eq!(json["schema_version"], 1);
        assert_eq!(json["transport"], "tcp");
        let results = json["results"].as_array().expect("a list");
        assert_eq!(results.len(), if test == "lat" { 5 } else { 10 });
        for result in results {
            assert_eq!(result["verify_errors"], 0, "{result}");
            assert!(result["transfers"].as_u64() > Some(0), "{result}");
        }
    }
}

#[test]
fn a_node_that_is_not_there_is_a_clear_error() {
    if !is_ready() {
        return;
    }
    let (code, out, errors) = perf("127.0.0.1:1", &["lat"]);
    assert_eq!(code, Some(2));
    assert!(out.is_empty());
    assert!(
        errors.contains("no node answers at tcp://127.0.0.1:1"),
        "{errors}"
    );
}
