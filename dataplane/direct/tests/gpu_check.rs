//! The program `genie-gpu-check`, on the host device.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends where it can't go on"
)]

use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value;

const CHECKS: [&str; 12] = [
    "copies",
    "memory",
    "pools",
    "pool_latency",
    "gather",
    "paths",
    "gpudev",
    "staged_over_link",
    "sealed_over_link",
    "direct_over_link",
    "split_over_link",
    "damaged_over_link",
];

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_genie-gpu-check"))
        .args(arguments)
        .output()
        .unwrap()
}

#[test]
fn the_host_device_passes_and_the_report_says_it_is_none() {
    let file: PathBuf = std::env::temp_dir().join(format!("genie-gpu-{}.json", std::process::id()));
    let name = file.to_str().unwrap();
    let output = run(&["--device", "host:0", "--time-ms", "50", "--json", name]);
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{log}");
    let report: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    std::fs::remove_file(&file).unwrap();
    assert_eq!(report["schema_version"], 1);
    assert_eq!(
        (&report["device"], &report["is_gpu"]),
        (&"host:0".into(), &false.into())
    );
    let checks = report["checks"].as_array().unwrap();
    let names: Vec<_> = checks
        .iter()
        .map(|check| check["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, CHECKS);
    for check in checks {
        let skipped = genie_dpdk::is_built().is_err() && check["status"] == "skipped";
        assert!(check["status"] == "passed" || skipped, "{check}");
    }
    let paths = &checks[5]["found"];
    assert!(
        paths["note"].as_str().unwrap().contains("not a GPU"),
        "{paths}"
    );
    assert!(
        paths["direct_over_staged"].as_f64().unwrap() > 0.0,
        "{paths}"
    );
}

#[test]
fn a_device_that_is_not_there_ends_with_77() {
    // Nobody has 128 GPUs.
    let output = run(&["--device", "cuda:127"]);
    let log = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(77), "{log}");
    assert!(log.contains("cuda:127"), "{log}");
}

#[test]
fn a_name_that_is_no_device_is_refused() {
    let output = run(&["--device", "tpu:0"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("is no device"));
}

#[test]
fn the_script_says_that_there_is_no_gpu() {
    if std::path::Path::new("/dev/nvidia0").exists() {
        return eprintln!("skipped: this machine has an NVIDIA GPU");
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../scripts/gpu-check");
    let file = std::env::temp_dir().join(format!("genie-gpu-none-{}.json", std::process::id()));
    let output = Command::new(script).arg("--json").arg(&file).output();
    let output = output.unwrap();
    let _ = std::fs::remove_file(&file);
    let log = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(77), "{log}");
    assert!(log.contains("no NVIDIA GPU"), "{log}");
    let wrong = Command::new(script).arg("--nonsense").output().unwrap();
    assert_eq!(wrong.status.code(), Some(2));
}
