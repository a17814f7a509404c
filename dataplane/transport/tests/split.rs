//! Frames whose data are named, not copied.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends where it can't go on"
)]

mod sim;

use genie_transport::{
    Connection, DropReason, Event, Grant, HEADER_BYTES, Header, Role, SourceId, Time,
    TransferError, TransferId,
};
use sim::forge::{damaged_block, forge};
use sim::transfer::{GRANT, whole};
use sim::{Link, Memory, Pair, Random, config, configs};

/// A split sender, and transfers of `len` bytes each.
fn pair(link: Link, count: usize, len: usize) -> (Pair<Memory>, Vec<(Grant, TransferId)>) {
    let mut pair = Pair::new(link, Random(1), [Memory::default(), Memory::default()]);
    pair.ends[0].split = true;
    pair.open(configs(1, false));
    let transfers = (0..count).map(|_| pair.send(vec![9; len])).collect();
    (pair, transfers)
}

#[test]
fn a_source_that_changes_all_the_time_fails_its_transfer_alone() {
    // Small transfers share frames: the innocent ones must not be blamed.
    for len in [3_000, 50_000] {
        let (mut pair, transfers) = pair(Link::perfect(), 3, len);
        pair.ends[0].memory.changing = Some(SourceId(1));
        let (mut sent, mut received) = (Vec::new(), Vec::new());
        while sent.len() < 3 || received.len() < 3 {
            assert!(pair.step());
            assert!(pair.now.0 < 1_000_000_000, "it never fails");
            sent.extend(pair.events(0));
            received.extend(pair.events(1));
        }
        let error = TransferError::SourceChanged;
        assert!(sent.contains(&Event::SendFailed(transfers[1].1, error)));
        let error = TransferError::PeerCancelled;
        assert!(received.contains(&Event::ReceiveFailed(transfers[1].0, error)));
        for at in [0, 2] {
            assert!(sent.contains(&Event::Sent(transfers[at].1)), "{sent:?}");
            assert!(received.contains(&Event::Received(transfers[at].0)));
            assert_eq!(pair.ends[1].memory.regions[at], vec![9; len]);
        }
        let drops = pair.connection(1).drops().of(DropReason::BadDataTag);
        assert!((16..1000).contains(&drops), "{drops} repeats");
        assert_eq!(pair.connection(0).counters().frames_damaged, drops);
        assert_eq!(pair.connection(0).status().ended, None);
    }
}

#[test]
fn a_source_that_stops_changing_arrives() {
    let (mut pair, transfers) = pair(Link::perfect(), 1, 50_000);
    pair.ends[0].memory.changing = Some(SourceId(0));
    while pair.connection(0).counters().frames_damaged < 10 {
        assert!(pair.step());
    }
    pair.ends[0].memory.changing = None;
    let mut events = Vec::new();
    while events.is_empty() {
        assert!(pair.step());
        events = pair.events(0);
    }
    assert_eq!(events, [Event::Sent(transfers[0].1)]);
    let memory = &pair.ends[0].memory.sources[0];
    assert_eq!(&pair.ends[1].memory.regions[0], memory);
}

#[test]
fn a_link_that_damages_frames_is_not_taken_for_a_source() {
    let link = Link {
        flip: 0.3,
        ..Link::perfect()
    };
    let (mut pair, transfers) = pair(link, 20, 100_000);
    let mut sent = Vec::new();
    while sent.len() < transfers.len() {
        assert!(pair.step());
        sent.extend(pair.events(0));
    }
    assert!(sent.iter().all(|event| matches!(event, Event::Sent(_))));
    assert!(pair.connection(0).counters().frames_damaged > 50);
}

/// The peer says of everything that it came damaged.
#[test]
fn only_what_was_not_copied_can_have_changed() {
    for split in [false, true] {
        let mut memory = Memory::default();
        let mut connection = Connection::new(config(Role::Responder, 1, false), Time(0)).unwrap();
        let source = memory.add_source(vec![1; 1100]);
        let id = connection.send(whole(GRANT, source, 1100)).unwrap();
        let mut buffer = vec![0; 9000];
        let mut blamed = Vec::new();
        for round in 0..40 {
            let now = Time(1 + round * 1000);
            let sent = if split {
                let sent = connection.poll_transmit_split(now, &mut memory, &mut buffer);
                sent.is_some_and(|sent| !sent.data().is_empty())
            } else {
                connection
                    .poll_transmit(now, &mut memory, &mut buffer)
                    .is_some()
            };
            assert!(sent || !blamed.is_empty());
            let mut report = forge(round, &damaged_block(round), b"");
            assert_eq!(connection.handle(&mut report, now, &mut memory), Ok(()));
            blamed.extend(connection.poll_event().map(|event| (round, event)));
        }
        let error = TransferError::SourceChanged;
        let expected = split.then_some((15, Event::SendFailed(id, error)));
        assert_eq!(blamed, Vec::from_iter(expected));
    }
}

fn sender(sealed: bool, data_at: Option<usize>, memory: &mut Memory) -> Connection {
    let mut config = config(Role::Initiator, 1, sealed);
    (config.mtu, config.data_at) = (8900, data_at);
    let mut connection = Connection::new(config, Time(0)).unwrap();
    for generation in 0..4 {
        let source = memory.add_source(vec![1; 2_500]);
        let grant = Grant {
            generation,
            ..GRANT
        };
        connection.send(whole(grant, source, 2_500)).unwrap();
    }
    connection
}

#[test]
fn the_data_are_named_in_order_and_only_where_the_cpu_need_not_seal_them() {
    let mut memory = Memory::default();
    let mut head = vec![0; 9000];
    let frame = sender(false, None, &mut memory)
        .poll_transmit_split(Time(1), &mut memory, &mut head)
        .unwrap();
    let lens: Vec<_> = frame
        .data()
        .iter()
        .map(|span| (span.source.0, span.len))
        .collect();
    assert_eq!(lens, [(0, 2_500), (1, 2_500), (2, 2_500), (3, 692)]);
    assert!(frame.head_len < 200, "{}", frame.head_len);

    let frame = sender(true, None, &mut memory)
        .poll_transmit_split(Time(1), &mut memory, &mut head)
        .unwrap();
    assert!(frame.data().is_empty() && frame.head_len > 8_000);
}

#[test]
fn data_begin_where_the_peer_wants_them() {
    for data_at in 160..260 {
        let mut memory = Memory::default();
        let mut sender = sender(false, Some(data_at), &mut memory);
        let mut head = vec![0; 9000];
        let mut frames = 0;
        while let Some(frame) = sender.poll_transmit_split(Time(1), &mut memory, &mut head) {
            let header = Header::parse(&head).unwrap();
            let control = HEADER_BYTES + usize::from(header.control_len);
            assert_eq!(frame.head_len, data_at);
            assert_eq!(control + 8, data_at, "two sums of four bytes follow");
            assert!(frame.frame_len() <= 8900);
            frames += 1;
        }
        assert!(frames >= 2);
    }
}
