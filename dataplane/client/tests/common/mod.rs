//! A gateway that a test drives, and behind it as much of a node as the test needs.
#![allow(
    dead_code,
    reason = "each test binary that has this module uses some of it"
)]

#[path = "../../../channel/tests/common/socket.rs"]
mod socket;

use std::collections::VecDeque;
use std::io;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use genie_channel::attach::{Request, answer_attach, read_request};
use genie_channel::{Doorbell, FromApp, LoopHalf, Sizes, ToApp, parts};
use genie_client::address::Address;
use genie_client::link::Link;
use genie_control_api::v1::Transport;
use genie_session::frame::{HEADER_BYTES, HELLO_BYTES, Header, Kind, decode_hello};
use socket::Socket;

pub const LONG: Duration = Duration::from_secs(20);
pub const TOKEN: [u8; 32] = [7; 32];
pub const SIZES: Sizes = Sizes {
    ring_bytes: 0,
    arena_bytes: 64 << 20,
};

pub fn go_on() -> io::Result<()> {
    Ok(())
}

/// A gateway, as far as its socket goes.
pub struct Gateway(Socket);

impl Gateway {
    pub fn new() -> Self {
        Self(Socket::new())
    }

    pub fn address(&self) -> Address {
        Address::parse(&format!("unix://{}", self.0.path.display())).unwrap()
    }

    /// The next client, and what it asks for.
    pub fn accept(&self) -> (UnixStream, Request) {
        let stream = self.0.accept();
        let request = read_request(&stream, LONG).unwrap();
        (stream, request)
    }

    /// A client that was given a channel, and the loop's half of it.
    pub fn attached(&self, sizes: Sizes) -> (Link, Node) {
        std::thread::scope(|scope| {
            let address = self.address();
            let client = scope.spawn(move || {
                let offered = transport();
                Link::open(&address, None, Some(&offered), LONG).unwrap()
            });
            let doorbell = Doorbell::new().unwrap();
            let (stream, request) = self.accept();
            let Request::Attach(offer) = request else {
                panic!("{request:?}");
            };
            assert_eq!(offer.connection, 5);
            assert_eq!(offer.peer.to_string(), "10.0.0.7:7700");
            let half = answer_attach(stream, sizes, &doorbell, "").unwrap();
            (client.join().unwrap(), Node::new(half, doorbell))
        })
    }
}

/// What a node offers.
pub fn transport() -> Transport {
    Transport {
        connection: 5,
        epoch: 1,
        secret: vec![3; 32],
        sealed: true,
        address: "10.0.0.7:7700".to_owned(),
        mtu_max: 8900,
    }
}

/// A poll loop and a node in one, as seen from the client's channel.
pub struct Node {
    pub half: LoopHalf,
    pub doorbell: Doorbell,
    pub stream: VecDeque<u8>,
    /// Bulk that the client announced: place and length.
    pub sends: VecDeque<(u64, u64)>,
    /// Where the client wants bulk; `None` where it does not.
    pub receives: VecDeque<(Option<u64>, u64)>,
    pub is_finished: bool,
}

impl Node {
    fn new(half: LoopHalf, doorbell: Doorbell) -> Self {
        Self {
            half,
            doorbell,
            stream: VecDeque::new(),
            sends: VecDeque::new(),
            receives: VecDeque::new(),
            is_finished: false,
        }
    }

    /// Takes one thing from the client. False if there is none.
    pub fn step(&mut self) -> bool {
        match self.half.try_next().unwrap() {
            None => return false,
            Some(FromApp::Stream(bytes)) => self.stream.extend(bytes),
            Some(FromApp::Send { place, len }) => self.sends.push_back((place, len)),
            Some(FromApp::Receive { place, len }) => {
                self.receives.push_back((Some(place), len));
            }
            Some(FromApp::Refuse { len }) => self.receives.push_back((None, len)),
            Some(FromApp::Finish) => self.is_finished = true,
        }
        true
    }

    /// Takes things until `done`.
    pub fn until(&mut self, done: impl Fn(&Self) -> bool) {
        let started = Instant::now();
        while !done(self) {
            if !self.step() {
                std::thread::yield_now();
            }
            assert!(started.elapsed() < LONG, "the client does not go on");
        }
    }

    pub fn read(&mut self, len: usize) -> Vec<u8> {
        self.until(|node| node.stream.len() >= len);
        self.stream.drain(..len).collect()
    }

    pub fn header(&mut self) -> Header {
        let bytes = self.read(HEADER_BYTES);
        Header::decode(&bytes.try_into().unwrap()).unwrap()
    }

    pub fn tell(&mut self, message: ToApp<'_>) {
        let started = Instant::now();
        while !self.half.try_tell(message).unwrap() {
            std::thread::yield_now();
            assert!(started.elapsed() < LONG, "the client takes nothing");
        }
    }

    pub fn say(&mut self, header: Header) {
        self.tell(ToApp::Stream(&header.encode()));
    }

    /// Answers the hello.
    pub fn welcome(&mut self) {
        let hello = self.read(HELLO_BYTES);
        assert_eq!(decode_hello(&hello.try_into().unwrap()).unwrap(), TOKEN);
        self.say(Header::new(Kind::Welcome, 0, 0));
    }

    /// Takes bulk of `len` bytes that the client announced, part by part.
    pub fn take(&mut self, len: u64) -> Vec<u8> {
        let mut whole = Vec::new();
        for part in parts(len) {
            self.until(|node| !node.sends.is_empty());
            let (place, len) = self.sends.pop_front().unwrap();
            assert_eq!(len, part.end - part.start);
            let mut bytes = vec![0; len as usize];
            self.half.arena().unwrap().read(place, &mut bytes).unwrap();
            self.tell(ToApp::Sent { place });
            whole.extend(bytes);
        }
        whole
    }

    /// Gives bulk where the client wants it, part by part.
    pub fn give(&mut self, bytes: &[u8]) {
        for part in parts(bytes.len() as u64) {
            self.until(|node| !node.receives.is_empty());
            let (place, len) = self.receives.pop_front().unwrap();
            assert_eq!(len, part.end - part.start);
            let place = place.expect("it is wanted");
            let part = &bytes[part.start as usize..part.end as usize];
            self.half.arena().unwrap().write(place, part).unwrap();
            self.tell(ToApp::Received { place });
        }
    }
}

/// Bytes that differ everywhere.
pub fn pattern(len: usize, seed: usize) -> Vec<u8> {
    (0..len)
        .map(|at| ((at + seed).wrapping_mul(0x9e37_79b1) >> 13) as u8)
        .collect()
}
