//! Two engines joined by a link in memory: what one program says, the other hears.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use genie_channel::{AppHalf, Command, Doorbell, FromLoop, LoopHalf, Sizes, local, parts};
use genie_gpudev::Mapping;
use genie_poll::wire::{Wire, Written};
use genie_poll::{Channel, Engine, EngineConfig, PeerPlace};
use genie_transport::{Config, ConnectionId, Epoch, Protection, Role, Secret};

type Queue = Rc<RefCell<VecDeque<Vec<u8>>>>;

const FRAME_MAX: usize = 9014;
/// Frames that the link holds; more are lost, as on any link.
const QUEUE_MAX: usize = 1024;
const LIMIT: Duration = Duration::from_secs(20);

/// One end of the link. Every `lose`th frame that leaves is lost.
struct Ends {
    out: Queue,
    back: Queue,
    room: Vec<u8>,
    lose: usize,
    count: usize,
}

impl Wire for Ends {
    fn receive(&mut self, mut take: impl FnMut(&mut [u8])) -> usize {
        let mut count = 0;
        while count < 32
            && let Some(mut frame) = self.back.borrow_mut().pop_front()
        {
            take(&mut frame);
            count += 1;
        }
        count
    }

    fn transmit(&mut self, mut write: impl FnMut(&mut [u8]) -> Option<Written>) -> usize {
        let mut sent = 0;
        while let Some(Written { len, data }) = write(&mut self.room) {
            assert!(
                data.is_none_or(|data| data.data().is_empty()),
                "it was not asked for"
            );
            sent += 1;
            self.count += 1;
            let lost = self.lose > 0 && self.count.is_multiple_of(self.lose);
            let mut out = self.out.borrow_mut();
            if !lost && out.len() < QUEUE_MAX {
                out.push_back(self.room[..len].to_vec());
            }
        }
        sent
    }

    fn is_backlogged(&self) -> bool {
        false
    }

    fn frame_max(&self) -> usize {
        FRAME_MAX
    }
}

fn address(host: u8) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::new(10, 77, 0, host), 7700)
}

struct Pair {
    a: Engine<Ends>,
    b: Engine<Ends>,
}

impl Pair {
    fn new(lose: usize) -> Self {
        let (one, two) = (Queue::default(), Queue::default());
        let engine = |host: u8, out: &Queue, back: &Queue| {
            let ends = Ends {
                out: Rc::clone(out),
                back: Rc::clone(back),
                room: vec![0; FRAME_MAX],
                lose,
                count: 0,
            };
            let config = EngineConfig {
                mac: [2, 0, 0, 0, 0, host],
                address: address(host),
                prefix: 24,
                router: None,
                mtu: 9000,
                seed: 1,
            };
            Engine::new(ends, &config, Arc::new(|| ())).unwrap()
        };
        Self {
            a: engine(1, &one, &two),
            b: engine(2, &two, &one),
        }
    }

    /// A connection with a program at each end: the initiator's, and the responder's.
    fn connect(&mut self, id: u64, seal: bool) -> [Program; 2] {
        let protection = if seal {
            Protection::Sealed(Secret([7; 32]))
        } else {
            Protection::Checksummed
        };
        let config = |role| Config::new(ConnectionId(id), Epoch(1), role, protection.clone());
        let (initiator, half) = Program::new();
        let channel = initiator.channel(config(Role::Initiator), PeerPlace::At(address(2)), half);
        self.a.open_channel(channel).unwrap();
        let (responder, half) = Program::new();
        let channel = responder.channel(config(Role::Responder), PeerPlace::Learned, half);
        self.b.open_channel(channel).unwrap();
        [initiator, responder]
    }

    fn turn(&mut self) {
        self.a.turn();
        self.b.turn();
    }

    /// Turns until `done`.
    fn until(&mut self, mut done: impl FnMut() -> bool) {
        let deadline = Instant::now() + LIMIT;
        while !done() {
            assert!(Instant::now() < deadline, "nothing more happens");
            self.turn();
        }
    }
}

/// A program: what it heard.
struct Program {
    app: Option<AppHalf>,
    memory: Arc<Mapping>,
    heard: Vec<u8>,
    sent: usize,
    received: usize,
    failed: usize,
    ended: Option<u8>,
}

impl Program {
    fn new() -> (Self, LoopHalf) {
        let (app, half) = local(Sizes::LOCAL, Doorbell::new().unwrap()).unwrap();
        let program = Self {
            app: Some(app),
            memory: Arc::new(Mapping::create(64 << 20).unwrap()),
            heard: Vec::new(),
            sent: 0,
            received: 0,
            failed: 0,
            ended: None,
        };
        (program, half)
    }

    fn channel(&self, config: Config, peer: PeerPlace, half: LoopHalf) -> Channel {
        Channel {
            config,
            peer,
            half,
            source: Some(Arc::clone(&self.memory)),
            sink: Some(Arc::clone(&self.memory)),
        }
    }

    fn say(&mut self, bytes: &[u8]) -> usize {
        self.app.as_mut().unwrap().sender.try_stream(bytes).unwrap()
    }

    fn put(&mut self, command: Command) {
        assert!(self.app.as_mut().unwrap().sender.try_put(command).unwrap());
    }

    fn listen(&mut self) {
        let Some(app) = &mut self.app else { return };
        while let Ok(Some(message)) = app.receiver.try_next() {
            match message {
                FromLoop::Stream(bytes) => self.heard.extend_from_slice(bytes),
                FromLoop::Sent { .. } => self.sent += 1,
                FromLoop::Received { .. } => self.received += 1,
                FromLoop::BulkFailed { .. } => self.failed += 1,
                FromLoop::Ended { code, .. } => self.ended = Some(code),
            }
        }
    }
}

fn pattern(len: usize, seed: u32) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2_654_435_761) | 1;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state as u8
        })
        .collect()
}

#[test]
fn a_stream_arrives_whole_and_in_order() {
    for (lose, seal) in [(0, false), (0, true), (20, false), (7, true)] {
        let mut pair = Pair::new(lose);
        let [mut one, mut two] = pair.connect(5, seal);
        let bytes = pattern(1 << 20, 3);
        let (mut there, mut back) = (0, 0);
        pair.until(|| {
            there += one.say(&bytes[there..]);
            back += two.say(&bytes[back..]);
            one.listen();
            two.listen();
            one.heard.len() >= bytes.len() && two.heard.len() >= bytes.len()
        });
        assert!(
            one.heard == bytes && two.heard == bytes,
            "lose {lose} seal {seal}"
        );
    }
}

#[test]
fn bulk_lands_where_it_was_wanted() {
    for (lose, seal) in [(0, false), (50, true)] {
        let mut pair = Pair::new(lose);
        let [mut one, mut two] = pair.connect(6, seal);
        let bytes = pattern(20 << 20, 9);
        one.memory.write(4096, &bytes).unwrap();
        let mut count = 0;
        for part in parts(bytes.len() as u64) {
            let len = part.end - part.start;
            one.put(Command::Send {
                place: 4096 + part.start,
                len,
            });
            two.put(Command::Receive {
                place: 128 + part.start,
                len,
            });
            count += 1;
        }
        one.say(b"after");
        pair.until(|| {
            one.listen();
            two.listen();
            two.received == count && one.sent == count && two.heard == b"after"
        });
        let mut landed = vec![0; bytes.len()];
        two.memory.read(128, &mut landed).unwrap();
        assert!(landed == bytes);
        assert_eq!((one.failed, two.failed), (0, 0));
    }
}

#[test]
fn refused_bulk_does_not_travel() {
    let mut pair = Pair::new(0);
    let [mut one, mut two] = pair.connect(7, true);
    one.put(Command::Send {
        place: 0,
        len: 8 << 20,
    });
    two.put(Command::Refuse { len: 8 << 20 });
    pair.until(|| {
        one.listen();
        one.sent == 1
    });
    let frames = pair.a.counters().snapshot().frames_sent;
    assert!(frames < 20, "{frames} frames for bulk that was refused");
}

#[test]
fn what_a_program_said_before_it_left_is_heard() {
    let mut pair = Pair::new(5);
    let [mut one, mut two] = pair.connect(8, true);
    let bytes = pattern(200_000, 1);
    assert_eq!(one.say(&bytes), bytes.len());
    one.put(Command::Finish);
    one.app = None;
    pair.until(|| {
        two.listen();
        two.ended.is_some()
    });
    assert!(two.heard == bytes);
    assert_eq!(two.ended, Some(genie_channel::ended::FINISHED));
    pair.until({
        let deadline = Instant::now() + Duration::from_millis(200);
        move || Instant::now() > deadline
    });
    assert_eq!(pair.a.connections(), 0, "the connection is forgotten");
}

#[test]
fn a_program_that_asks_for_memory_that_is_not_its_own_ends_alone() {
    let mut pair = Pair::new(0);
    let [mut one, mut two] = pair.connect(9, true);
    let [mut other, mut peer] = pair.connect(10, true);
    one.put(Command::Send {
        place: 64 << 20,
        len: 20 << 10,
    });
    pair.until(|| {
        one.listen();
        two.listen();
        one.ended.is_some() && two.ended.is_some()
    });
    other.say(b"still here");
    pair.until(|| {
        peer.listen();
        peer.heard == b"still here"
    });
}

#[test]
fn receiving_outside_of_the_memory_fails_that_bulk_and_no_byte_is_written() {
    let mut pair = Pair::new(0);
    let [mut one, mut two] = pair.connect(11, true);
    one.put(Command::Send {
        place: 0,
        len: 20 << 10,
    });
    two.put(Command::Receive {
        place: (64 << 20) - 100,
        len: 20 << 10,
    });
    pair.until(|| {
        one.listen();
        two.listen();
        two.failed == 1 && one.sent == 1
    });
    one.say(b"goes on");
    pair.until(|| {
        two.listen();
        two.heard == b"goes on"
    });
}

#[test]
fn a_peer_that_vanishes_is_an_end_within_two_seconds() {
    let mut pair = Pair::new(0);
    let [mut one, mut two] = pair.connect(12, true);
    one.say(b"hello");
    pair.until(|| {
        two.listen();
        two.heard == b"hello"
    });
    let started = Instant::now();
    while one.ended.is_none() && started.elapsed() < LIMIT {
        // Only one of them goes on.
        pair.a.turn();
        one.listen();
    }
    assert_eq!(one.ended, Some(genie_channel::ended::LOST));
    assert!(
        started.elapsed() < Duration::from_secs(4),
        "a bound, not a measure"
    );
}

#[test]
fn frames_of_nobody_are_counted_and_dropped() {
    let mut pair = Pair::new(0);
    let [mut one, mut two] = pair.connect(13, true);
    one.say(b"a");
    pair.until(|| {
        two.listen();
        two.heard == b"a"
    });
    let before = pair.b.counters().snapshot();
    let mut frame = vec![0_u8; 100];
    let from = pair.a.place();
    genie_poll::packet::write(frame.first_chunk_mut().unwrap(), from, pair.b.place(), 58);
    for garbage in 0..100_u8 {
        frame[42..].fill(garbage);
        pair.a.wire().out.borrow_mut().push_back(frame.clone());
    }
    // And one whose header is damaged.
    frame[20] ^= 0xff;
    pair.a.wire().out.borrow_mut().push_back(frame);
    for _ in 0..20 {
        pair.turn();
    }
    let after = pair.b.counters().snapshot();
    assert_eq!(after.frames_dropped - before.frames_dropped, 100);
    assert_eq!(after.frames_damaged - before.frames_damaged, 1);
    one.say(b"b");
    pair.until(|| {
        two.listen();
        two.heard == b"ab"
    });
}

#[test]
fn a_name_that_is_taken_is_refused_and_the_first_lives() {
    let mut pair = Pair::new(0);
    let [mut one, mut two] = pair.connect(14, true);
    let (again, half) = Program::new();
    let config = Config::new(
        ConnectionId(14),
        Epoch(2),
        Role::Initiator,
        Protection::Checksummed,
    );
    let channel = again.channel(config, PeerPlace::At(address(2)), half);
    assert!(pair.a.open_channel(channel).is_err());
    one.say(b"x");
    pair.until(|| {
        two.listen();
        two.heard == b"x"
    });
}
