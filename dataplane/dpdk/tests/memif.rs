//! Two processes on one memif link: jumbo frames there and back, every byte compared.
//!
//! The second process is this program again, told by an environment variable to be the peer.

mod common;

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use genie_dpdk::{
    Burst, Eal, LoadError, Mbuf, Memif, MemifRole, Mempool, OpenPort, Port, PortConfig, Vdev,
};

const SOCKET: &str = "GENIE_TEST_MEMIF_SOCKET";
const FRAME_BYTES: usize = 8900;
/// 9344 bytes with the headroom: room for a whole buffer of the link.
const DATA_BYTES: u16 = 9216;
const FRAMES: u32 = 2000;
/// Frames under way at most, so that no ring overflows.
const WINDOW: u32 = 256;
const LIMIT: Duration = Duration::from_secs(10);

/// A folder that goes with the test, and the peer with it.
struct Scene {
    folder: PathBuf,
    peer: Option<Child>,
}

impl Scene {
    fn new() -> Self {
        let folder = std::env::temp_dir().join(format!("genie-memif-{}", std::process::id()));
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
    let pool = common::pool(eal, "jumbo", 4095, DATA_BYTES);
    let memif = Vdev::Memif(Memif::new(role, socket).jumbo());
    let opened = Port::open(eal, &memif.into(), &PortConfig::default(), &pool).unwrap();
    (pool, opened)
}

/// The content of frame `number`: no two frames and no two places are alike.
fn content(number: u32, salt: u64) -> Vec<u8> {
    let mut state = (u64::from(number) << 8 | salt).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = number.to_le_bytes().to_vec();
    while bytes.len() < FRAME_BYTES {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(FRAME_BYTES);
    bytes
}

fn check(mbuf: &Mbuf, number: u32, salt: u64) {
    assert_eq!(mbuf.len(), FRAME_BYTES);
    let bytes = mbuf.segments().collect::<Vec<_>>().concat();
    assert!(bytes == content(number, salt), "frame {number} differs");
}

fn fill(mbuf: &mut Mbuf, number: u32, salt: u64) {
    mbuf.extend_from_slice(&content(number, salt)).unwrap();
}

const OUT: u64 = 1;
const BACK: u64 = 2;

#[test]
fn jumbo_frames_cross_between_two_processes() {
    if std::env::var_os(SOCKET).is_some() {
        return;
    }
    let Some(turn) = common::eal() else { return };
    let mut scene = Scene::new();
    let socket = scene.folder.join("link.sock");
    let (pool, mut opened) = open(&turn.eal, MemifRole::Server, &socket);
    assert!(!opened.port.link().unwrap().up, "nobody is there yet");
    let mut lost = Burst::new();
    pool.alloc_into(&mut lost, 8).unwrap();
    assert_eq!(opened.tx[0].send(&mut lost), 0, "no link takes nothing");
    drop(lost);
    assert_eq!(pool.in_use(), 0);

    scene.start_peer(&socket);
    assert!(
        opened.port.wait_for_link(LIMIT).unwrap(),
        "the peer never came"
    );
    let (mut sent, mut seen) = (0, 0);
    let (mut outgoing, mut incoming) = (Burst::new(), Burst::new());
    let end = Instant::now() + LIMIT;
    while seen < FRAMES {
        assert!(Instant::now() < end, "sent {sent}, {seen} came back");
        while sent < FRAMES && sent - seen < WINDOW && outgoing.room() > 0 {
            let mut mbuf = pool.alloc().unwrap();
            fill(&mut mbuf, sent, OUT);
            outgoing.push(mbuf).unwrap();
            sent += 1;
        }
        opened.tx[0].send(&mut outgoing);
        if opened.rx[0].receive(&mut incoming) == 0 {
            std::thread::yield_now();
        }
        for mbuf in incoming.drain() {
            check(&mbuf, seen, BACK);
            seen += 1;
        }
    }
    let stats = opened.port.stats().unwrap();
    assert_eq!(
        (stats.tx_packets, stats.rx_packets),
        (FRAMES.into(), FRAMES.into())
    );
    assert_eq!(stats.rx_bytes, u64::from(FRAMES) * FRAME_BYTES as u64);
    let status = scene.peer.take().unwrap().wait().unwrap();
    assert!(status.success(), "the peer found a difference");
    drop((opened, outgoing, incoming));
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
    let (mut seen, mut answered) = (0, 0);
    let (mut outgoing, mut incoming) = (Burst::new(), Burst::new());
    let end = Instant::now() + LIMIT;
    while answered < FRAMES {
        assert!(Instant::now() < end, "saw {seen}, answered {answered}");
        if outgoing.room() >= 32 && opened.rx[0].receive(&mut incoming) == 0 {
            std::thread::yield_now();
        }
        for mbuf in incoming.drain() {
            check(&mbuf, seen, OUT);
            let mut answer = pool.alloc().unwrap();
            fill(&mut answer, seen, BACK);
            outgoing.push(answer).unwrap();
            seen += 1;
        }
        answered += opened.tx[0].send(&mut outgoing) as u32;
    }
    // Until the other side has fetched the last answer. It says so by closing the pipe, or dies.
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
    drop((opened, outgoing, incoming));
    assert_eq!(pool.in_use(), 0);
}

#[test]
fn without_dpdk_there_is_no_link() {
    let Err(reason) = genie_dpdk::is_built() else {
        return;
    };
    let error = genie_dpdk_sys::load().unwrap_err();
    assert_eq!(error, LoadError::NotBuilt { reason });
}
