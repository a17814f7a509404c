//! What holds executors in, seen from outside: by the kernel's own books of their processes.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends where it can't go on"
)]

mod common;

use std::path::PathBuf;

use common::{NURSERY, Nursery};
use genie_gpudev::sandbox::{PARTS, Part};
use genie_gpudev::zygote::{Event, ZygoteProgram};
use genie_gpudev::{DeviceKind, Limits, SandboxMode, Zygote};

fn proc(pid: u32, name: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/{name}"))
}

fn read(pid: u32, name: &str) -> String {
    String::from_utf8_lossy(&std::fs::read(proc(pid, name)).unwrap()).into_owned()
}

/// A line of /proc/PID/status.
fn status(pid: u32, name: &str) -> String {
    let text = read(pid, "status");
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap().trim().to_owned()
}

fn has(part: Part) -> bool {
    NURSERY.info.sandbox.has(part)
}

/// Where the first mapping of libtorch begins.
fn libtorch(pid: u32) -> u64 {
    let maps = read(pid, "maps");
    let line = maps.lines().find(|line| line.contains("libtorch_cpu"));
    let start = line.and_then(|line| line.split('-').next()).unwrap();
    u64::from_str_radix(start, 16).unwrap()
}

#[test]
fn every_part_is_accounted_for() {
    let sandbox = &NURSERY.info.sandbox;
    let parts: Vec<Part> = sandbox.parts.iter().map(|held| held.part).collect();
    for part in PARTS {
        assert!(parts.contains(&part), "{part}: {sandbox:?}");
    }
    for held in &sandbox.parts {
        assert_ne!(held.note, "", "{held:?}");
    }
    // These take no right and no namespace.
    for part in [Part::Environment, Part::Capabilities, Part::Privileges] {
        assert!(sandbox.has(part), "{sandbox:?}");
    }
}

#[test]
fn the_kernel_s_books_agree() {
    let mut client = NURSERY.session(300, Limits::default());
    client.barrier().unwrap();
    let pid = client.executor.pid;
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(status(pid, set).trim_start_matches('0'), "", "{set}");
    }
    assert_eq!(status(pid, "NoNewPrivs"), "1");
    assert_eq!(status(pid, "Seccomp") == "2", has(Part::Calls));
    let own = status(std::process::id(), "Uid").starts_with('0') && has(Part::User);
    if own {
        let ids = status(pid, "Uid") + &status(pid, "Gid");
        assert!(!ids.split_whitespace().any(|id| id == "0"), "{ids}");
        assert_eq!(status(pid, "Groups"), "");
    }
    let limits = read(pid, "limits");
    if own {
        let line = limits
            .lines()
            .find(|line| line.starts_with("Max processes"));
        let most: u64 = line
            .unwrap()
            .split_whitespace()
            .nth(2)
            .unwrap()
            .parse()
            .unwrap();
        assert!(most < 1 << 20, "{most}");
    }
    let core = limits
        .lines()
        .find(|line| line.starts_with("Max core file"));
    assert_eq!(core.unwrap().split_whitespace().nth(4), Some("0"));
}

#[test]
fn namespaces_are_its_own() {
    let mut clients = [301, 302].map(|session| NURSERY.session(session, Limits::default()));
    clients
        .iter_mut()
        .for_each(|client| client.barrier().unwrap());
    let [one, other] = clients.each_ref().map(|client| client.executor.pid);
    let namespace = |pid, name: &str| std::fs::read_link(proc(pid, &format!("ns/{name}"))).unwrap();
    for (part, name) in [
        (Part::Network, "net"),
        (Part::Ipc, "ipc"),
        (Part::Files, "mnt"),
        (Part::Processes, "pid"),
    ] {
        if has(part) {
            assert_ne!(
                namespace(one, name),
                namespace(std::process::id(), name),
                "{name}"
            );
        }
    }
    if has(Part::Processes) {
        assert_ne!(namespace(one, "pid"), namespace(other, "pid"));
    }
}

#[test]
fn its_environment_is_what_libraries_read() {
    let mut client = NURSERY.session(303, Limits::default());
    client.barrier().unwrap();
    let environment = read(client.executor.pid, "environ");
    let names: Vec<&str> = environment
        .split('\0')
        .filter_map(|pair| Some(pair.split_once('=')?.0))
        .collect();
    assert!(names.contains(&"LD_LIBRARY_PATH"), "{names:?}");
    // Every shell and every runner of tests has these.
    for name in ["PATH", "HOME", "PWD", "CARGO_MANIFEST_DIR"] {
        assert!(!names.contains(&name), "{names:?}");
    }
}

#[test]
fn a_zygote_has_a_layout_of_its_own_and_its_executors_share_it() {
    let mut clients = [304, 305].map(|session| NURSERY.session(session, Limits::default()));
    clients
        .iter_mut()
        .for_each(|client| client.barrier().unwrap());
    let [one, other] = clients
        .each_ref()
        .map(|client| libtorch(client.executor.pid));
    assert_eq!(one, other);
    assert_eq!(one, libtorch(NURSERY.info.pid));
    let second = Nursery::start();
    assert_ne!(one, libtorch(second.info.pid));
}

#[test]
fn off_is_off_and_an_accelerator_has_less() {
    for (sandbox, device, files, privileges) in [
        (SandboxMode::Off, DeviceKind::Host(0), false, false),
        (SandboxMode::Auto, DeviceKind::Cuda(0), false, true),
    ] {
        let program = ZygoteProgram {
            executable: env!("CARGO_BIN_EXE_genie-executor").into(),
            libtorch: common::libtorch(),
            sandbox,
            operator_libraries: Vec::new(),
            device,
        };
        let (zygote, info) = Zygote::start_program(&program, |_: Event| {}).unwrap();
        assert_eq!(info.sandbox.has(Part::Files), files, "{:?}", info.sandbox);
        assert!(!info.sandbox.has(Part::Calls));
        assert_eq!(info.sandbox.has(Part::Privileges), privileges);
        drop(zygote);
    }
}
