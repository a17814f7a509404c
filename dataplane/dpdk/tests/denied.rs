//! What the kernel, or an installation, does not allow, in processes that are started without it. Each
//! says what is missing, and DPDK logs no line of its own. Needs root, `setpriv` and `unshare`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends where it can't go on"
)]

mod common;

use std::process::{Command, Output};

use genie_dpdk::{
    AfPacket, AfXdp, Eal, EalOptions, Mempool, MempoolConfig, MempoolError, Port, PortConfig,
    PortError, Vdev,
};
use nix::unistd::geteuid;

/// What a child is to try; its parent has arranged what is missing.
const CASE: &str = "GENIE_TEST_DENIED";

/// This program again, as `child`, behind `before`; or nothing, and the reason printed.
fn run(case: &str, before: &[&str]) -> Option<Output> {
    if std::env::var_os(CASE).is_some() {
        return None;
    }
    if let Err(reason) = genie_dpdk_sys::load() {
        eprintln!("skipped: {reason}");
        return None;
    }
    if !geteuid().is_root() {
        eprintln!("skipped: only root can take permissions away");
        return None;
    }
    let output = Command::new(before[0])
        .args(&before[1..])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture"])
        .env(CASE, case)
        .output();
    match output {
        Ok(output) => Some(output),
        Err(error) => {
            eprintln!("skipped: {}: {error}", before[0]);
            None
        }
    }
}

/// It did what it was to, and DPDK wrote no line.
fn assert_quiet(output: &Output) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("child: "), "it was not run: {said}");
    for word in ["EAL:", "PMD", "rte_", "ETHDEV", "init_internals"] {
        assert!(!said.contains(word), "{said}");
    }
}

#[test]
fn sockets_that_may_not_be_opened_are_named_with_what_is_missing() {
    let nothing = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"];
    if let Some(output) = run("capabilities", &nothing) {
        assert_quiet(&output);
    }
}

#[test]
fn an_interface_that_is_not_there_is_no_line_in_dpdks_log() {
    if let Some(output) = run("interface", &["env"]) {
        assert_quiet(&output);
    }
}

#[test]
fn drivers_that_are_not_installed_are_named() {
    let Some(folder) = folder_of_drivers() else {
        return eprintln!("skipped: DPDK's drivers are not in a folder of their own");
    };
    let hide = format!("mount -t tmpfs none {folder} && exec \"$@\"");
    let before = ["unshare", "--mount", "sh", "-c", &hide, "sh"];
    if let Some(output) = run("drivers", &before) {
        let said = String::from_utf8_lossy(&output.stderr);
        if said.contains("unshare failed") {
            return eprintln!("skipped: {said}");
        }
        assert!(output.status.success(), "{said}");
        assert!(said.contains("child: "), "it was not run: {said}");
    }
}

/// Where this process's EAL took its drivers from.
fn folder_of_drivers() -> Option<String> {
    if std::env::var_os(CASE).is_some() {
        return None;
    }
    let _turn = common::eal()?;
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    let path = maps
        .lines()
        .find(|line| line.contains("/librte_mempool_ring.so"))?
        .split_whitespace()
        .last()?;
    let (folder, _) = path.rsplit_once('/')?;
    // Not the folder of DPDK itself, without which nothing would start.
    (!maps.contains(&format!("{folder}/librte_eal.so"))).then(|| folder.to_owned())
}

fn refused(eal: &Eal, pool: &Mempool, vdev: Vdev) -> PortError {
    let error = Port::open(eal, &vdev.into(), &PortConfig::default(), pool).unwrap_err();
    eprintln!("child: {error}");
    error
}

#[test]
fn child() {
    let Ok(case) = std::env::var(CASE) else {
        return;
    };
    let eal = Eal::start(EalOptions::anywhere(64).validate().unwrap()).unwrap();
    if case == "drivers" {
        let error = Mempool::new(&eal, MempoolConfig::new("pool", 63, 256)).unwrap_err();
        eprintln!("child: {error}");
        assert_eq!(error, MempoolError::NoDriver);
        return;
    }
    let pool = common::pool(&eal, "denied", 255, 2048);
    let open = |name: &str| {
        [
            refused(&eal, &pool, Vdev::AfPacket(AfPacket::new(name))),
            refused(&eal, &pool, Vdev::AfXdp(AfXdp::new(name))),
        ]
    };
    let missing = |error: PortError| match error {
        PortError::NoCapability { missing, .. } => missing,
        other => panic!("{other:?}"),
    };
    match case.as_str() {
        "interface" => {
            for error in open("genie-absent0") {
                assert!(matches!(error, PortError::NoInterface { .. }), "{error:?}");
            }
        }
        _ => {
            let [packet, xdp] = open("lo");
            assert_eq!(missing(packet), "CAP_NET_RAW");
            let all = "CAP_NET_RAW and CAP_NET_ADMIN and CAP_BPF";
            assert_eq!(missing(xdp), all);
        }
    }
}
