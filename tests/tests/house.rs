//! What a part of the house stands on.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends where it can't go on"
)]

use std::process::Command;

/// The crates that `package` is built with, itself among them.
fn dependencies(package: &str) -> Vec<String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(["tree", "--locked", "--offline", "--edges", "normal"])
        .args(["--prefix", "none", "--format", "{p}", "--package", package])
        .output()
        .expect("cargo runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8(output.stdout).expect("names");
    text.lines()
        .filter_map(|line| line.split_whitespace().next())
        .map(str::to_owned)
        .collect()
}

#[test]
fn the_python_extension_knows_neither_devices_nor_the_transport() {
    let found = dependencies("genie-py");
    assert!(found.iter().any(|name| name == "genie-client"), "{found:?}");
    for foreign in ["cudarc", "genie-gpudev", "genie-transport", "genie-dpdk"] {
        assert!(!found.iter().any(|name| name == foreign), "{foreign}");
    }
}

#[test]
fn the_engine_knows_no_python() {
    let found = dependencies("genie-client");
    for foreign in ["pyo3", "genie-recorder", "genie-py"] {
        assert!(!found.iter().any(|name| name == foreign), "{foreign}");
    }
}
