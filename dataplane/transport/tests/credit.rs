//! Credit: what a receiver takes, and how a sender learns of it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends where it can't go on"
)]

mod sim;

use std::time::Duration;

use genie_transport::{Connection, DropReason, Grant, Role, Time};
use sim::forge::{ack_block, data_block, forge};
use sim::transfer::{GRANT, drain, whole};
use sim::{Memory, config, staged};

/// An end that gives credit when told to, with a grant of 200,000 bytes.
fn receiver() -> (Connection, Memory, Grant) {
    let mut memory = Memory::default();
    let mut connection = Connection::new(staged(), Time(0)).unwrap();
    let grant = connection
        .grant(memory.add_region(200_000), 200_000)
        .unwrap();
    (connection, memory, grant)
}

#[test]
fn data_beyond_the_credit_is_dropped_until_it_is_released() {
    let (mut connection, mut memory, grant) = receiver();
    let mut number = 0;
    let mut push = |connection: &mut Connection, at: u64| {
        number += 1;
        let block = data_block(grant.region.0, grant.generation, at, 8000);
        connection.handle(&mut forge(number, &block, &[1; 8000]), Time(1), &mut memory)
    };
    for piece in 0..16 {
        assert_eq!(push(&mut connection, piece * 8000), Ok(()));
    }
    assert_eq!(
        push(&mut connection, 128_000),
        Err(DropReason::CreditOverrun)
    );
    connection.release(8000);
    assert_eq!(push(&mut connection, 128_000), Ok(()));
}

#[test]
fn a_release_is_told_at_once() {
    let (mut connection, mut memory, grant) = receiver();
    for piece in 0..16 {
        let block = data_block(grant.region.0, grant.generation, piece * 8000, 8000);
        let handled =
            connection.handle(&mut forge(piece, &block, &[1; 8000]), Time(1), &mut memory);
        assert_eq!(handled, Ok(()));
    }
    let now = Time(2).after(Duration::from_millis(1));
    drain(&mut connection, now, &mut memory);
    assert!(connection.timeout() > Some(now));
    connection.release(128_000);
    assert!(connection.timeout() <= Some(now), "the peer waits for it");
    assert_eq!(drain(&mut connection, now, &mut memory), 1, "once");
}

#[test]
fn a_sender_without_credit_asks_for_it() {
    let mut memory = Memory::default();
    let mut connection = Connection::new(config(Role::Responder, 1, false), Time(0)).unwrap();
    let source = memory.add_source(vec![1; 1 << 20]);
    let transfer = whole(GRANT, source, 1 << 20);
    connection.send(transfer).unwrap();
    let mut now = Time(1);
    let mut sent = drain(&mut connection, now, &mut memory);
    // All arrived, and there is no room for more.
    let ack = ack_block(sent - 1, 0, 0, sent as u32 / 2);
    now = now.after(Duration::from_micros(100));
    assert_eq!(
        connection.handle(&mut forge(0, &ack, b""), now, &mut memory),
        Ok(())
    );
    assert_eq!(connection.status().in_flight_bytes, 0);
    // The path's MTU is tried meanwhile; that is answered too, still without credit.
    sent += drain(&mut connection, now, &mut memory);
    let ack = ack_block(sent - 1, 0, 0, (sent / 2) as u32);
    assert_eq!(
        connection.handle(&mut forge(1, &ack, b""), now, &mut memory),
        Ok(())
    );
    while connection.status().in_flight_bytes == 0 {
        let due = connection.timeout().unwrap();
        assert!(
            due.since(now) < Duration::from_millis(10),
            "stuck until the keepalive"
        );
        now = now.max(due);
        drain(&mut connection, now, &mut memory);
    }
    assert_eq!(connection.status().transfers, 1);
}

#[test]
fn older_news_of_credit_do_not_overrule_newer() {
    let mut memory = Memory::default();
    let mut connection = Connection::new(config(Role::Responder, 1, false), Time(0)).unwrap();
    connection.send_message(b"one").unwrap();
    assert_eq!(drain(&mut connection, Time(1), &mut memory), 1);
    connection.send_message(b"two").unwrap();
    assert_eq!(drain(&mut connection, Time(1), &mut memory), 1);
    for (number, credit) in [(5, 500_000), (4, 100)] {
        let mut frame = forge(number, &ack_block(1, credit, 0, 1), b"");
        assert_eq!(connection.handle(&mut frame, Time(2), &mut memory), Ok(()));
    }
    assert_eq!(connection.status().credit_bytes, 500_000);
}
