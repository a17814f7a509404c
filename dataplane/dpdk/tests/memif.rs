//! Two processes on one memif link: jumbo frames there and back, every byte compared.
//!
//! The second process is this program again, told by an environment variable to be the peer.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends where it can't go on"
)]

mod common;

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use common::dialogue::{Dialogue, LIMIT};
use genie_dpdk::{
    Burst, Eal, LoadError, Memif, MemifRole, Mempool, OpenPort, Port, PortConfig, PortError, Vdev,
};

const SOCKET: &str = "GENIE_TEST_MEMIF_SOCKET";
const DIALOGUE: Dialogue = Dialogue {
    frames: 2000,
    frame_bytes: 8900,
    window: 256,
};

/// A folder that goes with the test, and the peer with it.
struct Scene {
    folder: PathBuf,
    peer: Option<Child>,
}

impl Scene {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("genie-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        Self { folder, peer: None }
    }

    fn start_peer(&mut self, socket: &Path) {
        let program = std::env::current_exe().unwrap();
        let mut command = Command::new(program);
        command
            .args(["--exact", "peer", "--nocapture"])
            .env(SOCKET, socket)
            .stdin(Stdio::piped());
        self.peer = Some(command.spawn().unwrap());
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        if let Some(peer) = &mut self.peer {
            let _ = peer.kill();
            let _ = peer.wait();
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn open(eal: &Eal, role: MemifRole, socket: &Path) -> (Mempool, OpenPort) {
    let memif = Memif::new(role, socket).jumbo();
    let pool = common::pool(eal, "jumbo", 4095, memif.data_bytes());
    let vdev = Vdev::Memif(memif).into();
    let opened = Port::open(eal, &vdev, &PortConfig::default(), &pool).unwrap();
    (pool, opened)
}

#[test]
fn jumbo_frames_cross_between_two_processes() {
    if std::env::var_os(SOCKET).is_some() {
        return;
    }
    let Some(turn) = common::eal() else { return };
    let mut scene = Scene::new("memif");
    let socket = scene.folder.join("link.sock");
    let (pool, mut opened) = open(&turn.eal, MemifRole::Server, &socket);
    assert!(!opened.port.link().unwrap().up, "nobody is there yet");
    let mut lost = Burst::new();
    pool.alloc_into(&mut lost, 8).unwrap();
    assert_eq!(opened.tx[0].send(&mut lost), 0, "no link takes nothing");
    drop(lost);
    assert_eq!(pool.in_use(), 0);

    scene.start_peer(&socket);
    let linked = opened.port.wait_for_link(LIMIT).unwrap();
    assert!(linked, "the peer never came");
    DIALOGUE.ask(&pool, &mut opened);
    let stats = opened.port.stats().unwrap();
    let frames = u64::from(DIALOGUE.frames);
    assert_eq!((stats.tx_packets, stats.rx_packets), (frames, frames));
    assert_eq!(stats.rx_bytes, frames * DIALOGUE.frame_bytes as u64);
    let status = scene.peer.take().unwrap().wait().unwrap();
    assert!(status.success(), "the peer found a difference");
    drop(opened);
    assert_eq!(
        pool.in_use(),
        0,
        "all mbufs are home once the port is closed"
    );
}

/// The other process: checks every frame and answers it with one of its own.
#[test]
fn peer() {
    let Some(socket) = std::env::var_os(SOCKET) else {
        return;
    };
    let turn = common::eal().unwrap();
    let (pool, mut opened) = open(&turn.eal, MemifRole::Client, Path::new(&socket));
    assert!(opened.port.wait_for_link(LIMIT).unwrap());
    DIALOGUE.answer(&pool, &mut opened);
    // Until the other side has fetched the last answer. It says so by closing the pipe, or dies.
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
    drop(opened);
    assert_eq!(pool.in_use(), 0);
}

/// Both ends in one process.
#[test]
fn what_the_driver_would_mix_up_is_refused() {
    if std::env::var_os(SOCKET).is_some() {
        return;
    }
    let Some(turn) = common::eal() else { return };
    let scene = Scene::new("refused");
    let socket = scene.folder.join("link.sock");
    let link = |role| Memif::new(role, socket.clone());
    let pool = common::pool(
        &turn.eal,
        "roomy",
        4095,
        link(MemifRole::Server).data_bytes(),
    );
    let exact = common::pool(&turn.eal, "exact", 255, 2048);
    let small = common::pool(&turn.eal, "small", 255, 2047);
    let end = |role, pool: &Mempool| {
        let vdev = Vdev::Memif(link(role)).into();
        Port::open(&turn.eal, &vdev, &PortConfig::default(), pool)
    };
    let error = end(MemifRole::Server, &small).unwrap_err();
    assert!(matches!(error, PortError::PoolTooSmall { .. }), "{error}");
    // The server first: within one process the driver shares a socket's entry between both.
    let mut server = end(MemifRole::Server, &exact).unwrap();
    let mut client = end(MemifRole::Client, &pool).unwrap();
    assert!(client.port.wait_for_link(LIMIT).unwrap());
    assert!(server.port.wait_for_link(LIMIT).unwrap());

    let packet = |pool: &Mempool, parts: &[usize]| {
        let mut parts = parts.iter().map(|&bytes| {
            let mut mbuf = pool.alloc().unwrap();
            mbuf.append(bytes).unwrap().fill(7);
            mbuf
        });
        let mut packet = parts.next().unwrap();
        parts.for_each(|part| packet.chain(part).unwrap());
        packet
    };
    let mut burst = Burst::new();
    for packet in [
        packet(&pool, &[100]),
        packet(&pool, &[100, 1900, 48]),
        packet(&pool, &[100, 2000]),
        packet(&exact, &[100, 100]),
        packet(&exact, &[2048]),
    ] {
        burst.push(packet).unwrap();
    }
    let mut seen = Vec::new();
    let mut back = Burst::new();
    let end = std::time::Instant::now() + LIMIT;
    while seen.len() < 3 {
        assert!(std::time::Instant::now() < end, "{seen:?}");
        client.tx[0].send(&mut burst);
        server.rx[0].receive(&mut back);
        seen.extend(back.drain().map(|mbuf| (mbuf.len(), mbuf.segment_count())));
    }
    assert_eq!(seen, [(100, 1), (2048, 1), (2048, 1)]);
    assert_eq!(client.tx[0].refused(), 2);
    drop((client, server));
    assert_eq!((pool.in_use(), exact.in_use()), (0, 0));
}

#[test]
fn without_dpdk_there_is_no_link() {
    let Err(reason) = genie_dpdk::is_built() else {
        return;
    };
    let error = genie_dpdk_sys::load().unwrap_err();
    assert_eq!(error, LoadError::NotBuilt { reason });
}
