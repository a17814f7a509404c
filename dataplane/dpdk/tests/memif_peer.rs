//! A memif peer that is killed and comes back, over and over, while packets run both ways at full
//! speed. This side must not crash, must find the next peer, and must lose no mbuf.
//!
//! The peer is this program again. The next one starts its EAL while the one before is at work, and
//! opens its port when it is told to by a line on its standard input.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends where it can't go on"
)]

mod common;

use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use genie_dpdk::{
    Burst, Eal, Memif, MemifRole, Mempool, MempoolConfig, OpenPort, Port, PortConfig, Vdev,
};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, connect, send, socket,
};

const SOCKET: &str = "GENIE_TEST_PEER_SOCKET";
const ROLE: &str = "GENIE_TEST_PEER_ROLE";
const FRAME_BYTES: usize = 8000;
/// A peer is killed when it has sent this many frames, at the least.
const FRAMES: usize = 200;
/// For all rounds, on a machine that does other things too.
const LIMIT: Duration = Duration::from_secs(60);

fn open(eal: &Eal, role: MemifRole, socket: &Path) -> (Mempool, OpenPort) {
    let memif = Memif::new(role, socket).jumbo();
    let config = MempoolConfig::new("peer", 4095, memif.data_bytes());
    let pool = Mempool::new(eal, config).unwrap();
    let vdev = Vdev::Memif(memif).into();
    let opened = Port::open(eal, &vdev, &PortConfig::default(), &pool).unwrap();
    (pool, opened)
}

/// Sends and receives once; says how many frames came.
fn exchange(pool: &Mempool, opened: &mut OpenPort, out: &mut Burst, back: &mut Burst) -> usize {
    if out.is_empty() && pool.alloc_into(out, 32).is_ok() {
        for mbuf in out.as_mut_slice() {
            mbuf.append(FRAME_BYTES).unwrap().fill(0xa5);
        }
    }
    opened.tx[0].send(out);
    let count = opened.rx[0].receive(back);
    for mbuf in back.drain() {
        assert_eq!(mbuf.len(), FRAME_BYTES);
        assert_eq!(mbuf.data().last(), Some(&0xa5));
    }
    count
}

struct Scene {
    folder: PathBuf,
    socket: PathBuf,
    role: &'static str,
    peers: Vec<Child>,
}

impl Scene {
    fn new(role: &'static str) -> Self {
        let name = format!("genie-peer-{role}-{}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&folder).unwrap();
        let socket = folder.join("link.sock");
        Self {
            folder,
            socket,
            role,
            peers: Vec::new(),
        }
    }

    fn prepare(&mut self) {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "peer", "--nocapture"])
            .env(SOCKET, &self.socket)
            .env(ROLE, self.role)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn();
        self.peers.push(child.unwrap());
    }

    fn tell_next(&mut self) {
        let last = self.peers.last_mut().unwrap();
        last.stdin.take().unwrap().write_all(b"now\n").unwrap();
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        for peer in &mut self.peers {
            let _ = peer.kill();
            let _ = peer.wait();
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn survive(ours: MemifRole, theirs: &'static str, rounds: usize) {
    if std::env::var_os(SOCKET).is_some() {
        return;
    }
    let Some(turn) = common::eal() else { return };
    let mut scene = Scene::new(theirs);
    let (pool, mut opened) = open(&turn.eal, ours, &scene.socket);
    assert!(!opened.port.link().unwrap().up, "nobody is there yet");
    let (mut out, mut back) = (Burst::new(), Burst::new());
    scene.prepare();
    let end = Instant::now() + LIMIT;
    for round in 0..rounds {
        scene.tell_next();
        scene.prepare();
        let mut seen = 0;
        // Traffic runs on while the link comes up, and while the peer dies: not one burst is left out.
        while seen < FRAMES + round * 7 {
            assert!(Instant::now() < end, "round {round}: {seen} frames came");
            if seen == 0 {
                opened.port.link().unwrap();
            }
            seen += exchange(&pool, &mut opened, &mut out, &mut back);
        }
        let mut dying = scene.peers.remove(0);
        dying.kill().unwrap();
        while opened.port.state().unwrap().up {
            assert!(Instant::now() < end, "round {round}: the link stays up");
            exchange(&pool, &mut opened, &mut out, &mut back);
        }
        dying.wait().unwrap();
    }
    assert_eq!(opened.tx[0].send(&mut out), 0, "no peer takes nothing");
    drop((opened, out, back));
    assert_eq!(pool.in_use(), 0, "mbufs were lost");
}

#[test]
fn a_server_survives_its_clients() {
    survive(MemifRole::Server, "client", 22);
}

#[test]
fn a_client_survives_its_servers() {
    survive(MemifRole::Client, "server", 10);
}

/// The port is closed while the peer dies, and opened again on the same socket.
#[test]
fn closing_while_the_peer_dies_is_no_harm() {
    if std::env::var_os(SOCKET).is_some() {
        return;
    }
    let Some(turn) = common::eal() else { return };
    let mut scene = Scene::new("client");
    let (mut out, mut back) = (Burst::new(), Burst::new());
    scene.prepare();
    for _ in 0..5 {
        let (pool, mut opened) = open(&turn.eal, MemifRole::Server, &scene.socket);
        scene.tell_next();
        scene.prepare();
        assert!(opened.port.wait_for_link(LIMIT).unwrap());
        let end = Instant::now() + LIMIT;
        while exchange(&pool, &mut opened, &mut out, &mut back) == 0 {
            assert!(Instant::now() < end, "nothing came");
        }
        let mut dying = scene.peers.remove(0);
        dying.kill().unwrap();
        drop(opened);
        out.clear();
        assert_eq!(pool.in_use(), 0);
        dying.wait().unwrap();
    }
}

/// Whoever may open the socket can connect to a server: it must bear what they do there. (One who
/// leaves before the server has greeted it makes EAL panic, unless the driver is watched.)
#[test]
fn strangers_at_the_socket_do_no_harm() {
    if std::env::var_os(SOCKET).is_some() {
        return;
    }
    let Some(turn) = common::eal() else { return };
    let mut scene = Scene::new("client");
    scene.prepare();
    let (pool, mut opened) = open(&turn.eal, MemifRole::Server, &scene.socket);
    let address = UnixAddr::new(&scene.socket).unwrap();
    for round in 0..200_usize {
        let stranger = socket(
            AddressFamily::Unix,
            SockType::SeqPacket,
            SockFlag::empty(),
            None,
        );
        let stranger = stranger.unwrap();
        connect(stranger.as_raw_fd(), &address).unwrap();
        // Nothing, less than a message, or one of a type that there is not.
        let words = vec![0xff; [0, 3, 128][round % 3]];
        if !words.is_empty() {
            let _ = send(stranger.as_raw_fd(), &words, MsgFlags::MSG_NOSIGNAL);
        }
    }
    scene.tell_next();
    let (mut out, mut back) = (Burst::new(), Burst::new());
    let end = Instant::now() + LIMIT;
    let mut seen = 0;
    while seen < FRAMES {
        assert!(Instant::now() < end, "{seen} frames came");
        seen += exchange(&pool, &mut opened, &mut out, &mut back);
    }
    drop((opened, out, back));
    assert_eq!(pool.in_use(), 0);
}

/// The other process: works until it is killed, or its parent is gone.
#[test]
fn peer() {
    let Some(socket) = std::env::var_os(SOCKET) else {
        return;
    };
    let role = match std::env::var(ROLE).as_deref() {
        Ok("server") => MemifRole::Server,
        _ => MemifRole::Client,
    };
    let turn = common::eal().unwrap();
    let mut line = String::new();
    if std::io::stdin().read_line(&mut line).unwrap() == 0 {
        return;
    }
    let (pool, mut opened) = open(&turn.eal, role, Path::new(&socket));
    let (mut out, mut back) = (Burst::new(), Burst::new());
    let end = Instant::now() + LIMIT;
    while Instant::now() < end {
        opened.port.link().unwrap();
        for _ in 0..64 {
            exchange(&pool, &mut opened, &mut out, &mut back);
        }
    }
}
