//! What an enemy may do: with the key, without it, and with bytes that mean nothing.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends where it can't go on"
)]

mod sim;

use std::time::Duration;

use genie_transport::{
    Blocks, DropReason, Event, Grant, HEADER_BYTES, Priority, Role, Time, Transfer,
};
use proptest::prelude::*;
use sim::forge::{ack_block, damaged_block, data_block, forge, message_block, reset_block};
use sim::victim::{REGION_BYTES, victim};
use sim::{Link, Memory, Pair, Random, config};

fn any_block() -> impl Strategy<Value = Vec<u8>> {
    let small = || prop_oneof![0u64..5, 4_000u64..12_000, Just(u64::MAX), any::<u64>()];
    let data = (0u64..4, 0u64..5, small(), 0u16..4000);
    prop_oneof![
        4 => data.prop_map(|(region, generation, at, len)| data_block(region, generation, at, len)),
        1 => (0u64..4, 0u64..5, 0u8..3).prop_map(|(region, at, by)| reset_block(region, at, by)),
        1 => (small(), 0u16..1100).prop_map(|(sequence, len)| message_block(sequence, len)),
        2 => (small(), small(), 0u32..9, 0u32..9)
            .prop_map(|(largest, credit, gap, run)| ack_block(largest, credit, gap, run)),
        1 => Just(vec![4]),
        1 => (0u64..20).prop_map(damaged_block),
        1 => proptest::collection::vec(any::<u8>(), 0..60),
    ]
}

proptest! {
    #[test]
    fn any_bytes_are_dropped_and_counted(
        frames in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 1..20),
        with_header in any::<bool>(),
    ) {
        let (mut connection, mut memory, _) = victim();
        for (number, mut frame) in frames.into_iter().enumerate() {
            if with_header && frame.len() > HEADER_BYTES {
                let genuine = forge(number as u64, &[], &[]);
                frame[..24].copy_from_slice(&genuine[..24]);
            }
            prop_assert!(connection.handle(&mut frame, Time(1), &mut memory).is_err());
            prop_assert_eq!(connection.drops().total(), number as u64 + 1);
        }
        prop_assert_eq!(connection.counters().bytes_placed, 0);
    }

    /// The memory asserts that each byte is written once, within bounds, and never after the end.
    #[test]
    fn a_peer_that_lies_writes_only_what_was_granted(
        frames in proptest::collection::vec(
            (0u64..40, proptest::collection::vec(any_block(), 0..6), any::<bool>()), 1..40),
    ) {
        let (mut connection, mut memory, grants) = victim();
        let mut now = Time(0);
        let mut out = vec![0; 9000];
        for (number, blocks, honest_length) in frames {
            let lengths = blocks.iter().filter(|block| block.first() == Some(&2));
            let total: u16 = lengths
                .filter_map(|block| Some(u16::from_be_bytes(block.get(25..27)?.try_into().ok()?)))
                .fold(0, u16::saturating_add);
            let len = if honest_length { total.min(20_000) } else { 7 };
            let mut frame = forge(number, &blocks.concat(), &vec![3; usize::from(len)]);
            let _counted = connection.handle(&mut frame, now, &mut memory);
            while let Some(event) = connection.poll_event() {
                if let Event::Received(grant) | Event::ReceiveFailed(grant, _) = event {
                    prop_assert!(grants.contains(&grant));
                    let region = grant.region.0 as usize;
                    prop_assert!(!memory.ended[region], "a grant ends once");
                    memory.ended[region] = true;
                    if event == Event::Received(grant) {
                        prop_assert!(memory.writes[region].iter().all(|&count| count == 1));
                    }
                }
            }
            // A window that shrinks leaves in flight what is; beyond it only a probe is sent.
            let before = connection.status().in_flight_bytes;
            while connection.poll_transmit(now, &mut memory, &mut out).is_some() {}
            let status = connection.status();
            prop_assert!(status.in_flight_bytes <= status.window_bytes.max(before) + 9000);
            now = now.after(Duration::from_micros(200));
            if let Some(timeout) = connection.timeout() {
                prop_assert!(timeout > Time(0), "something stays due for ever");
            }
        }
        let placed = memory.writes.iter().flatten().filter(|&&count| count == 1).count() as u64;
        prop_assert_eq!(connection.counters().bytes_placed, placed);
    }

    /// Without the key, recorded and altered frames change nothing: everything still arrives.
    #[test]
    fn an_enemy_on_the_path_can_only_delay(seed in any::<u64>()) {
        let memory: [Memory; 2] = Default::default();
        let mut pair = Pair::new(Link::perfect(), Random(seed), memory);
        pair.open([config(Role::Initiator, 1, true), config(Role::Responder, 1, true)]);
        let bytes: Vec<u8> = (0..60_000u32).map(|at| ((at * 31) >> 3) as u8).collect();
        let region = pair.ends[1].memory.add_region(bytes.len());
        let grant = pair.connection(1).grant(region, bytes.len() as u64).unwrap();
        let source = pair.ends[0].memory.add_source(bytes.clone());
        let (priority, len) = (Priority::Normal, bytes.len() as u64);
        let transfer = Transfer { grant, offset: 0, source, source_offset: 0, len, priority };
        pair.connection(0).send(transfer).unwrap();
        let mut arrived = false;
        let (start, mut injected) = (pair.now, 0);
        while pair.now.since(start) < Duration::from_millis(50) {
            for frame in pair.on_wire() {
                let mut altered = frame.clone();
                let at = pair.random.below(altered.len() as u64) as usize;
                altered[at] ^= 1 + pair.random.below(255) as u8;
                for (to, frame) in [(0, frame.clone()), (1, frame), (0, altered.clone()), (1, altered)] {
                    let after = Duration::from_nanos(pair.random.below(300_000));
                    if injected < 1000 && pair.random.chance(0.3) {
                        injected += 1;
                        pair.inject(to, frame, after);
                    }
                }
            }
            pair.step();
            if pair.events(1).contains(&Event::Received(grant)) {
                arrived = true;
                pair.ends[1].memory.ended[0] = true;
            }
        }
        prop_assert!(arrived);
        prop_assert_eq!(&pair.ends[1].memory.regions[0], &bytes);
        prop_assert_eq!(pair.connection(1).status().ended, None);
    }
}

#[test]
fn each_hostile_frame_is_counted_under_its_reason() {
    let (mut connection, mut memory, grants) = victim();
    let mut handle = |frame: &mut Vec<u8>| {
        let dropped = connection.handle(frame, Time(1), &mut memory).err();
        (dropped, *connection.drops())
    };
    let alter = |at: usize, xor: u8| {
        let mut frame = forge(900, &[4], b"");
        frame[at] ^= xor;
        frame
    };
    let whole = [
        (alter(0, 1), DropReason::BadMagic),
        (alter(1, 1), DropReason::BadVersion),
        (alter(2, 1), DropReason::WrongProtection),
        (alter(2, 2), DropReason::Reflected),
        (alter(5, 1), DropReason::UnknownConnection),
        (alter(15, 1), DropReason::StaleEpoch),
        (alter(15, 2), DropReason::FutureEpoch),
        (alter(24, 1), DropReason::Truncated),
        (alter(33, 1), DropReason::BadHeaderTag),
        (forge(901, &[99], b""), DropReason::Malformed),
        (
            forge(902, &ack_block(5_000, 0, 1, 1), b""),
            DropReason::AckOfUnsent,
        ),
        (
            forge(903, &message_block(64, 3), b""),
            DropReason::MessageOverrun,
        ),
    ];
    for (mut frame, reason) in whole {
        assert_eq!(handle(&mut frame).0, Some(reason));
    }
    let mut corrupt = forge(904, &data_block(0, grants[0].generation, 0, 3), b"abc");
    *corrupt.last_mut().unwrap() ^= 1;
    assert_eq!(handle(&mut corrupt).0, Some(DropReason::BadDataTag));
    let good = forge(905, &[4], b"");
    assert_eq!(handle(&mut good.clone()).0, None);
    assert_eq!(handle(&mut good.clone()).0, Some(DropReason::Replay));

    let pieces = [
        (
            (0, grants[0].generation, REGION_BYTES - 1),
            DropReason::OutOfBounds,
        ),
        ((0, grants[0].generation, u64::MAX), DropReason::OutOfBounds),
        ((1, grants[0].generation, 0), DropReason::WrongRegion),
        ((0, 999, 0), DropReason::UnknownGrant),
    ];
    for (number, ((region, generation, offset), reason)) in (906..).zip(pieces) {
        let mut frame = forge(number, &data_block(region, generation, offset, 3), b"abc");
        let (dropped, drops) = handle(&mut frame);
        assert_eq!(
            dropped, None,
            "the frame is acknowledged, its piece is not written"
        );
        assert!(drops.of(reason) > 0, "{reason}");
    }
    assert!(
        Blocks::parse(&data_block(0, 0, 0, 3).repeat(5), 15).is_none(),
        "five pieces"
    );
}

#[test]
fn what_was_not_placed_is_not_acknowledged() {
    let (mut connection, mut memory, grants) = victim();
    memory.broken = Some((grants[0].region, 5_000));
    connection.revoke(grants[1]);
    let mut handle = |number, grant: Grant, offset| {
        let block = data_block(grant.region.0, grant.generation, offset, 3);
        connection.handle(&mut forge(number, &block, b"abc"), Time(1), &mut memory)
    };
    assert_eq!(handle(0, grants[0], 0), Ok(()));
    assert_eq!(handle(1, grants[0], 5_000), Err(DropReason::RegionFailed));
    // The number was not taken for seen, so it is looked at again; the grant has ended.
    assert_eq!(handle(1, grants[0], 5_000), Err(DropReason::Revoked));
    assert_eq!(handle(2, grants[1], 0), Err(DropReason::Revoked));
    assert_eq!(handle(2, grants[2], 0), Ok(()));
}

#[test]
fn an_old_packet_number_is_too_old_once_it_is_forgotten() {
    let (mut connection, mut memory, _) = victim();
    for number in (1..400).map(|number| number * 2) {
        let handled = connection.handle(&mut forge(number, &[4], b""), Time(1), &mut memory);
        assert_eq!(handled, Ok(()));
    }
    let handled = connection.handle(&mut forge(3, &[4], b""), Time(1), &mut memory);
    assert_eq!(handled, Err(DropReason::TooOld));
}
