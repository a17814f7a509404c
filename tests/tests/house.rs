//! What a part of the house stands on.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends where it can't go on"
)]

use std::path::Path;
use std::process::Command;

/// What cargo says of this workspace.
fn cargo(arguments: &[&str]) -> String {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(arguments)
        .args(["--locked", "--offline"])
        .output()
        .expect("cargo runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("text")
}

/// The crates that `package` is built with, itself among them.
fn dependencies(package: &str) -> Vec<String> {
    let tree = ["tree", "--edges", "normal", "--prefix", "none"];
    let text = cargo(&[&tree[..], &["--format", "{p}", "--package", package]].concat());
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

/// Floors from the top down. What stands on one may rest on it and on those below.
const FLOORS: [&[&str]; 6] = [
    &["perf", "tests"],
    &["py-frontend"],
    &["dataplane"],
    &["gpudev"],
    &["controlplane"],
    &["hugepages"],
];

fn floor(folder: &Path) -> usize {
    let first = folder.iter().next().and_then(|name| name.to_str());
    FLOORS
        .iter()
        .position(|floor| first.is_some_and(|name| floor.contains(&name)))
        .unwrap_or_else(|| panic!("{} stands on no floor", folder.display()))
}

#[test]
fn no_crate_rests_on_one_of_a_floor_above() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let text = cargo(&["metadata", "--no-deps", "--format-version", "1"]);
    let metadata: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let mut arrows = 0;
    for package in metadata["packages"].as_array().expect("packages") {
        let manifest = Path::new(package["manifest_path"].as_str().unwrap());
        let own = manifest.parent().unwrap().strip_prefix(root).unwrap();
        for dependency in package["dependencies"].as_array().unwrap() {
            let Some(other) = dependency["path"].as_str() else {
                continue;
            };
            let other = Path::new(other).strip_prefix(root).unwrap();
            assert!(
                floor(own) <= floor(other),
                "{} rests on {}",
                own.display(),
                other.display()
            );
            arrows += 1;
        }
    }
    assert!(arrows > 50, "{arrows}");
}
