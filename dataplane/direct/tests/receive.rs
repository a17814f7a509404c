//! Transfers over a software link into device memory, by both ways, every byte compared.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends where it can't go on"
)]

#[path = "../../dpdk/tests/common/eal.rs"]
mod eal;

use eal::eal;
use genie_direct::check::{LinkCheck, LinkReport, over_link};
use genie_direct::{PayloadPool, Reception, ReceptionError};
use genie_dpdk::{Mbuf, Mempool, MempoolConfig};
use genie_gpudev::device::{Device as _, HostDevice};
use genie_gpudev::receive::Way;
use genie_transport::{
    ConnectionId, DropReason, Endpoint, Epoch, HEADER_BYTES, Header, Role, Time,
};

fn run(check: LinkCheck) -> Option<LinkReport> {
    let turn = eal()?;
    let report = over_link(&turn.eal, &HostDevice::new(0), check).unwrap();
    println!("{report:?}");
    assert_eq!(report.bytes, check.transfers << 20);
    assert_eq!(report.card_played, check.split);
    Some(report)
}

fn check(way: Way) -> LinkCheck {
    LinkCheck {
        way,
        sealed: false,
        split: false,
        transfers: 32,
        corrupt_every: 0,
    }
}

#[test]
fn staged_data_is_copied_into_place() {
    let Some(report) = run(check(Way::Staged)) else {
        return;
    };
    assert_eq!((report.corrupt, report.way.as_str()), (0, "staged"));
}

#[test]
fn staged_data_may_be_sealed() {
    let sealed = LinkCheck {
        sealed: true,
        ..check(Way::Staged)
    };
    let Some(report) = run(sealed) else { return };
    assert!(report.sealed);
}

#[test]
fn direct_data_is_gathered_into_place() {
    let Some(report) = run(check(Way::Direct)) else {
        return;
    };
    assert_eq!((report.corrupt, report.way.as_str()), (0, "direct"));
}

#[test]
fn packets_that_a_card_splits_are_gathered_too() {
    let split = LinkCheck {
        split: true,
        corrupt_every: 70,
        ..check(Way::Direct)
    };
    let Some(report) = run(split) else { return };
    assert!(report.split && report.corrupt > 0, "{report:?}");
}

#[test]
fn damaged_data_is_dropped_and_comes_again() {
    let damaged = LinkCheck {
        corrupt_every: 50,
        ..check(Way::Direct)
    };
    let Some(report) = run(damaged) else { return };
    assert!(report.damaged > 0 && report.corrupt > 0, "{report:?}");
    let Some(report) = run(LinkCheck {
        way: Way::Staged,
        ..damaged
    }) else {
        return;
    };
    // The CPU had checked these before they were staged.
    assert!(report.damaged > 0 && report.corrupt == 0, "{report:?}");
}

#[test]
fn sealed_data_can_not_be_gathered() {
    let Some(turn) = eal() else { return };
    let sealed = LinkCheck {
        sealed: true,
        ..check(Way::Direct)
    };
    let refused = over_link(&turn.eal, &HostDevice::new(0), sealed).unwrap_err();
    assert!(refused.to_string().contains("staged"));
}

/// A frame with a sound header for a connection that does not exist, and `data` bytes of data.
fn frame(pool: &Mempool, skip: usize, data: u16) -> Mbuf {
    let header = Header {
        connection: ConnectionId(1),
        epoch: Epoch(1),
        packet_number: 1,
        sealed: false,
        sender: Role::Initiator,
        control_len: 0,
        data_len: data,
    };
    let mut bytes = [0; HEADER_BYTES];
    header.encode(&mut bytes);
    let mut mbuf = pool.alloc().unwrap();
    mbuf.append(skip).unwrap().fill(0);
    mbuf.extend_from_slice(&bytes).unwrap();
    mbuf.append(8 + usize::from(data)).unwrap().fill(0);
    mbuf
}

#[test]
fn packets_that_are_not_as_they_should_be_are_refused_and_freed() {
    let Some(turn) = eal() else { return };
    let host = HostDevice::new(0);
    let target = host.allocate(1 << 20).unwrap();
    for way in [Way::Staged, Way::Direct] {
        let named = |name: &str| MempoolConfig::new(format!("{name} {way}"), 63, 2048);
        let payload = PayloadPool::new(&turn.eal, &host, way, named("payload")).unwrap();
        let plain = Mempool::new(&turn.eal, named("plain")).unwrap();
        let pool = payload.mempool();
        let queue = host.queue().unwrap();
        let mut reception: Reception =
            Reception::new(&host, queue, payload.memory(), &target).unwrap();
        assert_eq!(reception.way(), way);
        let mut endpoint = Endpoint::new();
        let mut take = |mbuf| {
            reception
                .take(mbuf, 42, &mut endpoint, Time(0))
                .unwrap_err()
        };

        let unknown = take(frame(pool, 42, 100));
        let reason = DropReason::UnknownConnection;
        assert!(
            matches!(unknown, ReceptionError::Dropped(found) if found == reason),
            "{unknown}"
        );
        let elsewhere = take(frame(&plain, 42, 100));
        assert!(
            matches!(elsewhere, ReceptionError::Layout(_)),
            "{elsewhere}"
        );
        let short = take(frame(pool, 0, 0));
        assert!(matches!(short, ReceptionError::Layout(_)), "{short}");
        let mut long = frame(pool, 42, 100);
        for _ in 0..2 {
            long.chain(frame(pool, 0, 0)).unwrap();
        }
        let chained = take(long);
        assert!(matches!(chained, ReceptionError::Layout(_)), "{chained}");
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        for round in 0..2000 {
            let mut mbuf = frame(pool, 42, 200);
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            // Garbage of all kinds: from one wrong byte of the header to all of them.
            let bytes = mbuf.data_mut();
            bytes[42 + (random % 32) as usize] ^= (random >> 32) as u8 | 1;
            if round % 2 == 0 {
                bytes[46..74]
                    .iter_mut()
                    .for_each(|byte| *byte = byte.wrapping_add(round as u8));
            }
            mbuf.truncate(42 + (random >> 8) as usize % 240).unwrap();
            let refused = take(mbuf);
            let expected = matches!(
                refused,
                ReceptionError::Dropped(_) | ReceptionError::Layout(_)
            );
            assert!(expected, "{refused}");
        }
        assert_eq!(
            (pool.in_use(), plain.in_use(), reception.position()),
            (0, 0, 0)
        );
        assert!(reception.has_room() && reception.is_settled(0));
    }
}
