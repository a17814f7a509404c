//! Two engines joined by a link in memory: what one program says, the other hears.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends where it can't go on"
)]

mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{BUFFERS, DEATH_MAX, Pair, Program, address, pattern};
use genie_channel::{Command, parts};
use genie_poll::PeerPlace;
use genie_transport::{Config, ConnectionId, Epoch, Protection, Role};

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

/// Sends `bytes` in parts from one program to the other, and compares what lands.
fn send_bulk(pair: &mut Pair, one: &mut Program, two: &mut Program, bytes: &[u8]) {
    one.memory.write(4096, bytes).unwrap();
    let before = (one.sent, two.received);
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
    pair.until(|| {
        one.listen();
        two.listen();
        two.received == before.1 + count && one.sent == before.0 + count
    });
    let mut landed = vec![0; bytes.len()];
    two.memory.read(128, &mut landed).unwrap();
    assert!(landed == bytes);
}

#[test]
fn bulk_lands_where_it_was_wanted() {
    for (lose, seal) in [(0, false), (50, true)] {
        let mut pair = Pair::new(lose);
        let [mut one, mut two] = pair.connect(6, seal);
        let bytes = pattern(20 << 20, 9);
        send_bulk(&mut pair, &mut one, &mut two, &bytes);
        one.say(b"after");
        pair.until(|| {
            two.listen();
            two.heard == b"after"
        });
        assert_eq!((one.failed, two.failed), (0, 0));
    }
}

#[test]
fn a_device_places_what_arrives_in_its_memory() {
    for (lose, flip) in [(0, 0), (50, 0), (0, 13), (31, 7)] {
        let mut pair = Pair::new(lose);
        let buffers = pair.set_direct();
        pair.b.wire().flip = flip;
        let [mut one, mut two] = pair.connect(6, false);
        let bytes = pattern(20 << 20, 9);
        send_bulk(&mut pair, &mut one, &mut two, &bytes);
        let counters = pair.b.counters().snapshot();
        let frames = bytes.len() as u64 / 9000;
        assert!(counters.frames_gathered >= frames, "{counters:?}");
        assert_eq!(counters.frames_dropped > 0, flip > 0, "{counters:?}");
        assert_eq!((one.failed, two.failed), (0, 0));
        // And back, by the CPU: the other end has no device.
        send_bulk(&mut pair, &mut two, &mut one, &bytes[..3 << 20]);
        assert_eq!(pair.a.counters().snapshot().frames_gathered, 0);
        assert_eq!(buffers.free.borrow().len() as u64, BUFFERS);
    }
}

#[test]
fn what_is_sealed_is_opened_by_the_cpu() {
    let mut pair = Pair::new(50);
    let buffers = pair.set_direct();
    let [mut one, mut two] = pair.connect(6, true);
    send_bulk(&mut pair, &mut one, &mut two, &pattern(5 << 20, 9));
    assert_eq!(pair.b.counters().snapshot().frames_gathered, 0);
    assert_eq!(buffers.free.borrow().len() as u64, BUFFERS);
}

#[test]
fn a_program_that_leaves_midway_leaves_no_packet_with_the_device() {
    let mut pair = Pair::new(0);
    let buffers = pair.set_direct();
    let [mut one, mut two] = pair.connect(6, false);
    let [mut other, mut peer] = pair.connect(7, false);
    let len = 8 << 20;
    one.put(Command::Send { place: 0, len });
    two.put(Command::Receive { place: 0, len });
    pair.until({
        let counters = Arc::clone(pair.b.counters());
        move || counters.snapshot().frames_gathered > 20
    });
    two.app = None;
    let memory = Arc::downgrade(&two.memory);
    drop(two);
    pair.until(|| {
        one.listen();
        memory.strong_count() == 0
    });
    assert_eq!(buffers.free.borrow().len() as u64, BUFFERS);
    send_bulk(&mut pair, &mut other, &mut peer, &pattern(2 << 20, 4));
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
    vanish(false);
}

/// Then no frame is written, so nobody asks the transport for one.
#[test]
fn a_link_that_takes_no_frame_any_more_is_an_end_within_two_seconds() {
    vanish(true);
}

/// The other end is silent from some moment on; the link may be down, too.
fn vanish(is_down: bool) {
    let mut pair = Pair::new(0);
    let [mut one, mut two] = pair.connect(12, true);
    one.say(b"hello");
    pair.until(|| {
        two.listen();
        two.heard == b"hello"
    });
    // From here on only one of them goes on. What the other said before is heard first.
    while !pair.a.wire().back.borrow().is_empty() {
        pair.a.turn();
    }
    pair.a.wire().is_down = is_down;
    let heard = Instant::now();
    let mut late = 0;
    while one.ended.is_none() {
        // Turns are counted: a machine that keeps the test waiting makes nothing late. One ends the
        // connection, another tells the program.
        late += usize::from(heard.elapsed() >= DEATH_MAX);
        assert!(late <= 2, "it goes on as if the peer were there");
        pair.a.turn();
        one.listen();
    }
    assert_eq!(one.ended, Some(genie_channel::ended::LOST));
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
