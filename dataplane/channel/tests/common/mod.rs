//! A gateway's socket in a folder of its own.
#![allow(
    dead_code,
    reason = "each test binary that has this module uses some of it"
)]

use std::net::SocketAddrV4;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use genie_channel::attach::{Request, answer_attach, read_request};
use genie_channel::{AppHalf, Doorbell, LoopHalf, Offer, Sizes, attach};

pub const LONG: Duration = Duration::from_secs(20);
pub const SIZES: Sizes = Sizes {
    ring_bytes: 0,
    arena_bytes: 1 << 20,
};

pub struct Socket {
    pub path: PathBuf,
    pub listener: UnixListener,
}

impl Socket {
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "genie-channel-{}-{}.sock",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let path = std::env::temp_dir().join(name);
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).unwrap();
        Self { path, listener }
    }

    pub fn accept(&self) -> UnixStream {
        self.listener.accept().unwrap().0
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

pub fn offer() -> Offer {
    Offer {
        connection: 7,
        epoch: 1,
        secret: [9; 32],
        sealed: true,
        peer: SocketAddrV4::new([10, 0, 0, 7].into(), 7700),
        mtu_max: 8900,
    }
}

/// A client that attached over a real socket, and the gateway's half.
pub fn attached(doorbell: &Doorbell) -> (AppHalf, LoopHalf) {
    let socket = Socket::new();
    std::thread::scope(|scope| {
        let client = scope.spawn(|| attach::attach(&socket.path, &offer(), LONG).unwrap());
        let stream = socket.accept();
        let request = read_request(&stream, LONG).unwrap();
        assert_eq!(request, Request::Attach(offer()));
        let half = answer_attach(stream, SIZES, doorbell, "").unwrap();
        (client.join().unwrap(), half)
    })
}
