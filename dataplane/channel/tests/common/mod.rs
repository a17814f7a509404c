//! A client that attaches, and the gateway's side of it.
#![allow(
    dead_code,
    reason = "each test binary that has this module uses some of it"
)]

mod socket;

use std::net::SocketAddrV4;
use std::time::Duration;

use genie_channel::attach::{Request, answer_attach, read_request};
use genie_channel::{AppHalf, Doorbell, LoopHalf, Offer, Sizes, attach};

pub use socket::Socket;

pub const LONG: Duration = Duration::from_secs(20);
pub const SIZES: Sizes = Sizes {
    ring_bytes: 0,
    arena_bytes: 1 << 20,
};

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

/// What a program says first that wants a channel.
pub fn hello() -> Vec<u8> {
    let mut hello = b"GENIEGW1\x02\x02".to_vec();
    hello.extend(53_u16.to_le_bytes());
    hello.extend(offer().encode());
    hello
}

/// And once it has mapped what it was sent.
pub const MAPPED: u8 = b'M';

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
