//! AF_XDP and AF_PACKET over a veth pair: two processes, each in a network namespace of its own that
//! the test makes and removes; frames go there and back, every byte compared. Needs root and `ip`.
//!
//! As long as a wire's MTU allows, too: AF_PACKET's ring is made for it, AF_XDP's mbufs up to a page.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends where it can't go on"
)]

mod common;

use std::fs::File;
use std::io::Read as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::dialogue::{Dialogue, LIMIT};
use genie_dpdk::{AfPacket, AfXdp, Eal, Mempool, OpenPort, Port, PortConfig, PortError, Vdev};
use nix::sched::{CloneFlags, setns};

const NAMESPACE: &str = "GENIE_TEST_VETH_NAMESPACE";
const DRIVER: &str = "GENIE_TEST_VETH_DRIVER";
const SIDE: &str = "GENIE_TEST_VETH_SIDE";
const MTU: &str = "GENIE_TEST_VETH_MTU";
/// A file that the side which answers makes once it listens.
const READY: &str = "GENIE_TEST_VETH_READY";
/// The interface of each namespace.
const INTERFACE: &str = "genie0";
/// What a child ends with where the driver is missing, as `nextest` and others have it.
const SKIPPED: i32 = 77;

/// Two namespaces with a veth pair between them, and the processes in them.
struct Scene {
    namespaces: [String; 2],
    ready: PathBuf,
    children: Vec<Child>,
}

fn ip(words: &[&str]) -> Result<(), String> {
    let output = Command::new("ip").args(words).output();
    let output = output.map_err(|error| format!("`ip` can't be run: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

impl Scene {
    /// The MTU of each end.
    fn new(driver: &str, mtus: [u16; 2]) -> Result<Self, String> {
        let [mtu, other] = mtus;
        let name = |side| format!("genie-{driver}-{mtu}-{other}-{}-{side}", std::process::id());
        let scene = Self {
            namespaces: [name("a"), name("b")],
            ready: std::env::temp_dir().join(name("ready")),
            children: Vec::new(),
        };
        let [a, b] = scene.namespaces.each_ref().map(String::as_str);
        ip(&["netns", "add", a])?;
        ip(&["netns", "add", b])?;
        ip(&[
            "link", "add", INTERFACE, "netns", a, "type", "veth", "peer", "name", INTERFACE,
            "netns", b,
        ])?;
        for (namespace, mtu) in [a, b].into_iter().zip(mtus) {
            let within = ["-n", namespace, "link", "set", INTERFACE];
            ip(&[&within[..], &["addrgenmode", "none"]].concat())?;
            ip(&[&within[..], &["mtu", &mtu.to_string(), "up"]].concat())?;
        }
        Ok(scene)
    }

    /// This program again, in the namespace of `side`.
    fn start(&mut self, driver: &str, mtu: u16, side: usize) {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "side", "--nocapture"])
            .env(NAMESPACE, format!("/run/netns/{}", self.namespaces[side]))
            .env(DRIVER, driver)
            .env(SIDE, side.to_string())
            .env(MTU, mtu.to_string())
            .env(READY, &self.ready)
            .stdin(Stdio::piped())
            .spawn();
        self.children.push(child.unwrap());
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = std::fs::remove_file(&self.ready);
        for namespace in &self.namespaces {
            let _ = ip(&["netns", "del", namespace]);
        }
    }
}

fn cross(driver: &str, mtu: u16) {
    if std::env::var_os(NAMESPACE).is_some() {
        return;
    }
    if let Err(reason) = genie_dpdk_sys::load() {
        return eprintln!("skipped: {reason}");
    }
    let mut scene = match Scene::new(driver, [mtu; 2]) {
        Ok(scene) => scene,
        Err(reason) => return eprintln!("skipped: no namespaces: {reason}"),
    };
    scene.start(driver, mtu, 0);
    scene.start(driver, mtu, 1);
    // The one that asks ends first; the other waits for its pipe to be closed.
    let asked = scene.children[0].wait().unwrap();
    let answered = scene.children[1].wait().unwrap();
    if asked.code() == Some(SKIPPED) || answered.code() == Some(SKIPPED) {
        return eprintln!("skipped: see above");
    }
    assert!(asked.success() && answered.success(), "{asked}, {answered}");
}

#[test]
fn frames_cross_by_af_packet() {
    cross("af_packet", 1500);
}

#[test]
fn jumbo_frames_cross_by_af_packet() {
    cross("af_packet", 9000);
}

#[test]
fn frames_cross_by_af_xdp() {
    cross("af_xdp", 1500);
}

#[test]
fn frames_of_most_of_a_page_cross_by_af_xdp() {
    cross("af_xdp", AfXdp::mtu_max());
}

/// The other end's frames are too long for XDP, which the kernel says late: the driver has filled its
/// ring, and leaves that behind.
#[test]
fn af_xdp_that_fails_takes_no_memory_for_ever() {
    if std::env::var_os(NAMESPACE).is_some() {
        return;
    }
    if let Err(reason) = genie_dpdk_sys::load() {
        return eprintln!("skipped: {reason}");
    }
    let mut scene = match Scene::new("failing", [1500, 9000]) {
        Ok(scene) => scene,
        Err(reason) => return eprintln!("skipped: no namespaces: {reason}"),
    };
    scene.start("failing", 1500, 0);
    let ended = scene.children[0].wait().unwrap();
    match ended.code() {
        Some(SKIPPED) => eprintln!("skipped: see above"),
        _ => assert!(ended.success(), "{ended}"),
    }
}

/// More often than the EAL has memory for.
fn fail(eal: &Eal) {
    let address = Vdev::AfXdp(AfXdp::new(INTERFACE)).into();
    for round in 0..30 {
        let pool = common::pool(eal, "failing", 8191, AfXdp::data_bytes(1500));
        match Port::open(eal, &address, &PortConfig::default(), &pool) {
            Ok(_) => {
                eprintln!("skipped: this kernel has XDP on frames of any length");
                std::process::exit(SKIPPED);
            }
            Err(PortError::Refused { .. }) => {}
            Err(error @ PortError::NoCapability { .. }) => {
                eprintln!("skipped: {error}");
                std::process::exit(SKIPPED);
            }
            Err(error) => panic!("round {round}: {error}"),
        }
        assert!(pool.in_use() > 0, "or this shows nothing");
        // SAFETY: no mbuf was taken here, and the port is closed.
        unsafe { pool.discard() };
    }
}

fn open(eal: &Eal, driver: &str) -> Result<(Mempool, OpenPort), PortError> {
    let mtu = genie_dpdk::interface_mtu(INTERFACE)?;
    let (vdev, data_bytes) = match driver {
        "af_xdp" => {
            let xdp = AfXdp {
                force_copy: true,
                ..AfXdp::new(INTERFACE)
            };
            (Vdev::AfXdp(xdp), AfXdp::data_bytes(mtu))
        }
        _ => {
            let packet = AfPacket::new(INTERFACE).with_mtu(mtu);
            let data_bytes = packet.data_bytes();
            (Vdev::AfPacket(packet), data_bytes)
        }
    };
    let pool = common::pool(eal, "veth", 8191, data_bytes);
    let config = PortConfig {
        rx_interrupts: true,
        promiscuous: true,
        ..PortConfig::default()
    };
    let opened = Port::open(eal, &vdev.into(), &config, &pool)?;
    Ok((pool, opened))
}

/// A child: asks or answers.
#[test]
fn side() {
    let Some(namespace) = std::env::var_os(NAMESPACE) else {
        return;
    };
    let driver = std::env::var(DRIVER).unwrap();
    // This thread, and those that it starts from here on: the EAL's too.
    setns(File::open(namespace).unwrap(), CloneFlags::CLONE_NEWNET).unwrap();
    let turn = common::eal().unwrap();
    if driver == "failing" {
        return fail(&turn.eal);
    }
    let (pool, mut opened) = match open(&turn.eal, &driver) {
        Ok(opened) => opened,
        Err(error @ (PortError::NoDevice { .. } | PortError::NoCapability { .. })) => {
            eprintln!("skipped: net_{driver}: {error}");
            std::process::exit(SKIPPED);
        }
        Err(error) => panic!("{error}"),
    };
    assert!(opened.port.wait_for_link(LIMIT).unwrap());
    let mtu: u16 = std::env::var(MTU).unwrap().parse().unwrap();
    assert_eq!(genie_dpdk::interface_mtu(INTERFACE), Ok(mtu));
    if mtu == 1500 {
        // While it runs; the frames that follow have the first MTU again.
        for mtu in [1200, 1500] {
            opened.port.set_mtu(mtu).unwrap();
            assert_eq!(opened.port.mtu().unwrap(), mtu);
        }
    }
    // Asked for, and neither driver has one: it must say so, and hand out nothing to wait for.
    let granted = opened.port.granted();
    assert!(!granted.rx_interrupts, "{granted:?}");
    assert!(!opened.rx[0].has_interrupt() && opened.rx[0].arm().unwrap().is_none());
    let dialogue = Dialogue {
        frames: 2000,
        frame_bytes: usize::from(mtu) + 14,
        window: 64,
    };
    let ready = PathBuf::from(std::env::var_os(READY).unwrap());
    if std::env::var(SIDE).as_deref() == Ok("0") {
        eprintln!("net_{driver} granted {granted:?}");
        let end = Instant::now() + LIMIT;
        while !ready.exists() {
            assert!(Instant::now() < end, "the other side never came");
            std::thread::sleep(Duration::from_millis(2));
        }
        dialogue.ask(&pool, &mut opened);
    } else {
        File::create(ready).unwrap();
        dialogue.answer(&pool, &mut opened);
        std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
    }
    drop(opened);
    // net_af_xdp leaves what is in its rings behind: 2048 to be filled, and what it has sent.
    let left = if driver == "af_xdp" { 4096 } else { 0 };
    assert!(pool.in_use() <= left, "{} mbufs were lost", pool.in_use());
}
