//! Data that arrive in device memory: nothing counts before it was verified.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends where it can't go on"
)]

mod sim;

use std::time::Duration;

use genie_transport::{
    Connection, ConnectionError, DeviceData, DropReason, Event, Grant, HEADER_BYTES, Role, Time,
    TransferError, Unverified, crc32c,
};
use sim::device::Device;
use sim::forge::{data_block, forge, message_block};
use sim::run::Run;
use sim::transfer::drain;
use sim::{Link, Memory, config, configs};

struct Receiver {
    connection: Connection,
    memory: Memory,
    grant: Grant,
    now: Time,
}

const PIECE: u64 = 1000;

impl Receiver {
    fn new(sealed: bool) -> Self {
        let mut memory = Memory::default();
        let now = Time(1);
        let mut connection = Connection::new(config(Role::Responder, 1, sealed), now).unwrap();
        let region = memory.add_region(3 * PIECE as usize);
        let grant = connection.grant(region, 3 * PIECE).unwrap();
        Self {
            connection,
            memory,
            grant,
            now,
        }
    }

    /// A frame with piece `at` of the grant, behind other blocks.
    fn take(
        &mut self,
        number: u64,
        at: u64,
        before: &[u8],
    ) -> Result<Option<Unverified>, DropReason> {
        let (region, generation) = (self.grant.region.0, self.grant.generation);
        let mut control = before.to_vec();
        control.extend(data_block(region, generation, at * PIECE, PIECE as u16));
        let data = vec![at as u8 + 1; PIECE as usize];
        let mut frame = forge(number, &control, &data);
        let (head, data) = frame.split_at_mut(HEADER_BYTES + control.len() + 8);
        let buffer = DeviceData {
            handle: number,
            len: data.len(),
        };
        let taken = self
            .connection
            .handle_split(head, buffer, self.now, &mut self.memory);
        if let Ok(Some(unverified)) = taken {
            assert_eq!(unverified.crc, crc32c(0, data), "of the data alone");
        }
        taken
    }

    fn wait_for(&mut self, number: u64, at: u64) -> Unverified {
        self.take(number, at, &[]).unwrap().expect("to be verified")
    }

    fn verified(&mut self, unverified: Unverified, fits: bool) {
        assert!(self.connection.verified(unverified.token, fits, self.now));
    }

    /// Lets the receiver answer, and returns whether it does.
    fn answers(&mut self) -> bool {
        self.now = self.now.after(Duration::from_millis(1));
        drain(&mut self.connection, self.now, &mut self.memory) > 0
    }
}

#[test]
fn nothing_is_acknowledged_or_whole_before_it_is_verified() {
    let mut end = Receiver::new(false);
    let pieces = [0, 1, 2].map(|at| end.wait_for(at, at));
    assert!(!end.answers());
    assert_eq!(end.connection.poll_event(), None);
    for (unverified, left) in pieces.into_iter().zip([2, 1, 0]) {
        end.verified(unverified, true);
        assert_eq!(end.connection.poll_event().is_some(), left == 0);
    }
    assert!(end.answers());
    assert_eq!(end.connection.counters().bytes_placed, 3 * PIECE);
    let orders = &end.memory.orders;
    let places: Vec<_> = orders
        .iter()
        .map(|(_, at, from)| (*at, from.handle, from.len))
        .collect();
    assert_eq!(
        places,
        [(0, 0, PIECE), (PIECE, 1, PIECE), (2 * PIECE, 2, PIECE)]
    );
    assert_eq!(end.take(0, 0, &[]), Err(DropReason::Replay));
}

#[test]
fn what_fails_is_counted_told_and_may_come_again() {
    let mut end = Receiver::new(false);
    let unverified = end.wait_for(0, 1);
    // Meanwhile the same bytes are neither placed nor acknowledged, whichever way they come.
    assert_eq!(end.take(1, 1, &[]), Err(DropReason::UnverifiedBytes));
    let block = data_block(end.grant.region.0, end.grant.generation, PIECE, 10);
    let whole = &mut forge(2, &block, &[2; 10]);
    let handled = end.connection.handle(whole, end.now, &mut end.memory);
    assert_eq!(handled, Err(DropReason::UnverifiedBytes));
    assert!(!end.answers());

    end.verified(unverified, false);
    assert_eq!(end.connection.drops().of(DropReason::BadDataTag), 1);
    assert!(end.answers(), "the sender is told");
    let again = end.wait_for(3, 1);
    end.verified(again, true);
    assert_eq!(end.take(4, 1, &[]), Ok(None), "a duplicate of what is here");
    assert_eq!(end.connection.drops().of(DropReason::DuplicateBytes), 1);
}

#[test]
fn a_revoked_grant_ends_when_the_last_gather_did() {
    let mut end = Receiver::new(false);
    let pieces = [0, 1].map(|at| end.wait_for(at, at));
    end.connection.revoke(end.grant);
    assert_eq!(end.connection.poll_event(), None);
    assert_eq!(end.take(2, 2, &[]), Err(DropReason::Revoked));
    end.verified(pieces[1], true);
    assert_eq!(end.connection.poll_event(), None);
    end.connection.close();
    assert_eq!(end.connection.poll_event(), None, "the end comes last");
    end.verified(pieces[0], false);
    let failed = Event::ReceiveFailed(end.grant, TransferError::Cancelled);
    assert_eq!(end.connection.poll_event(), Some(failed));
    let last = end.connection.poll_event();
    assert!(matches!(last, Some(Event::Ended(_))), "{last:?}");
}

#[test]
fn a_goodbye_in_the_same_frame_waits_for_the_data() {
    let mut end = Receiver::new(false);
    let mut control = data_block(end.grant.region.0, end.grant.generation, 0, 10);
    control.push(7);
    let mut frame = forge(0, &control, &[1; 10]);
    let (head, data) = frame.split_at_mut(HEADER_BYTES + control.len() + 8);
    let (handle, len) = (0, data.len());
    let buffer = DeviceData { handle, len };
    let taken = end
        .connection
        .handle_split(head, buffer, end.now, &mut end.memory);
    let unverified = taken.unwrap().unwrap();
    assert_eq!(end.connection.poll_event(), None);
    end.verified(unverified, true);
    let closed = ConnectionError::PeerClosed;
    let failed = Event::ReceiveFailed(end.grant, TransferError::Connection(closed));
    assert_eq!(end.connection.poll_event(), Some(failed));
    assert_eq!(end.connection.poll_event(), Some(Event::Ended(closed)));
}

#[test]
fn messages_do_not_wait_and_sealed_frames_are_refused() {
    let mut end = Receiver::new(false);
    let unverified = end.take(0, 0, &message_block(0, 9)).unwrap();
    assert_eq!(end.connection.read_message(<[u8]>::len), Some(9));
    assert!(unverified.is_some());

    let mut end = Receiver::new(true);
    let mut head = forge(0, &[4], b"");
    head[2] |= 1;
    let data = DeviceData { handle: 0, len: 0 };
    let taken = end
        .connection
        .handle_split(&mut head, data, end.now, &mut end.memory);
    assert_eq!(taken, Err(DropReason::SealedSplit));
}

#[test]
fn too_many_at_once_are_dropped_and_come_again() {
    let mut end = Receiver::new(false);
    let region = end.memory.add_region(2_000_000);
    let mut taken = Vec::new();
    // One grant remembers fewer parts than the table, so there are several.
    let refused = (0..).find_map(|number| {
        if number % 100 == 0 {
            end.grant = end.connection.grant(region, 1_000_000).unwrap();
        }
        match end.take(number, number % 100, &[]) {
            Ok(unverified) => taken.extend(unverified),
            Err(reason) => return Some(reason),
        }
        None
    });
    assert_eq!(refused, Some(DropReason::UnverifiedFull));
    assert_eq!(taken.len(), genie_transport::limits::UNVERIFIED_MAX);
    end.verified(taken[0], true);
    assert_eq!(end.wait_for(1_000_000, 99).len, PIECE as usize);
}

#[test]
fn a_region_that_is_gone_fails_its_grant_alone() {
    let mut end = Receiver::new(false);
    let first = end.wait_for(0, 0);
    end.memory.broken = Some((end.grant.region, PIECE));
    assert_eq!(end.take(1, 1, &[]), Err(DropReason::RegionFailed));
    assert_eq!(
        end.connection.poll_event(),
        None,
        "the first may be gathered now"
    );
    end.verified(first, true);
    let failed = Event::ReceiveFailed(end.grant, TransferError::RegionGone);
    assert_eq!(end.connection.poll_event(), Some(failed));
    assert!(end.answers(), "the sender is told");
}

#[test]
fn a_device_that_is_slow_and_often_wrong_still_gets_every_byte_once() {
    for seed in 0..20 {
        let mut run = Run::new(seed);
        run.pair.link = Link::perfect();
        run.open(1);
        run.pair.open(configs(2, false));
        for end in &mut run.pair.ends {
            end.device = Some(Device::new(200_000, 0.2));
        }
        for _ in 0..10 {
            run.add_job();
        }
        run.finish(20, 0.0);
        let devices = run.pair.ends.iter().map(|end| end.device.as_ref().unwrap());
        assert!(
            devices
                .map(|device| device.verified + device.failed)
                .sum::<u64>()
                > 5
        );
    }
}
