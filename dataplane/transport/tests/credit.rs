//! Credit: what a receiver takes, and how a sender learns of it.

mod sim;

use std::time::Duration;

use genie_transport::{
    Connection, Credit, DropReason, Grant, Priority, RegionId, Role, Time, Transfer,
};
use sim::forge::{ack_block, data_block, forge};
use sim::{Memory, config};

#[test]
fn data_beyond_the_credit_is_dropped_until_it_is_released() {
    let mut memory = Memory::default();
    let mut staged = config(Role::Responder, 1, false);
    (staged.credit, staged.credit_when) = (128 << 10, Credit::WhenReleased);
    let mut connection = Connection::new(staged, Time(0)).unwrap();
    let region = memory.add_region(200_000);
    let grant = connection.grant(region, 200_000).unwrap();
    let mut number = 0;
    let mut push = |connection: &mut Connection, at: u64| {
        number += 1;
        let block = data_block(region.0, grant.generation, at, 8000);
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
    let mut memory = Memory::default();
    let mut staged = config(Role::Responder, 1, false);
    (staged.credit, staged.credit_when) = (128 << 10, Credit::WhenReleased);
    let mut connection = Connection::new(staged, Time(0)).unwrap();
    let region = memory.add_region(200_000);
    let grant = connection.grant(region, 200_000).unwrap();
    for piece in 0..16 {
        let block = data_block(region.0, grant.generation, piece * 8000, 8000);
        let handled =
            connection.handle(&mut forge(piece, &block, &[1; 8000]), Time(1), &mut memory);
        assert_eq!(handled, Ok(()));
    }
    let mut out = vec![0; 9000];
    let now = Time(2).after(Duration::from_millis(1));
    while connection
        .poll_transmit(now, &mut memory, &mut out)
        .is_some()
    {}
    assert!(connection.timeout() > Some(now));
    connection.release(128_000);
    assert!(connection.timeout() <= Some(now), "the peer waits for it");
    assert!(
        connection
            .poll_transmit(now, &mut memory, &mut out)
            .is_some()
    );
    assert!(
        connection
            .poll_transmit(now, &mut memory, &mut out)
            .is_none(),
        "once"
    );
}

#[test]
fn a_sender_without_credit_asks_for_it() {
    let mut memory = Memory::default();
    let mut connection = Connection::new(config(Role::Responder, 1, false), Time(0)).unwrap();
    let source = memory.add_source(vec![1; 1 << 20]);
    let grant = Grant {
        region: RegionId(0),
        generation: 0,
    };
    let (priority, len) = (Priority::Normal, 1 << 20);
    let transfer = Transfer {
        grant,
        offset: 0,
        source,
        source_offset: 0,
        len,
        priority,
    };
    connection.send(transfer).unwrap();
    let mut out = vec![0; 9000];
    let mut now = Time(1);
    let mut sent = 0;
    while connection
        .poll_transmit(now, &mut memory, &mut out)
        .is_some()
    {
        sent += 1;
    }
    // All arrived, and there is no room for more.
    let ack = ack_block(sent - 1, 0, 0, sent as u32 / 2);
    now = now.after(Duration::from_micros(100));
    assert_eq!(
        connection.handle(&mut forge(0, &ack, b""), now, &mut memory),
        Ok(())
    );
    assert_eq!(connection.status().in_flight_bytes, 0);
    // The path's MTU is tried meanwhile; that is answered too, still without credit.
    while connection
        .poll_transmit(now, &mut memory, &mut out)
        .is_some()
    {
        sent += 1;
    }
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
        while connection
            .poll_transmit(now, &mut memory, &mut out)
            .is_some()
        {}
    }
    assert_eq!(connection.status().transfers, 1);
}

#[test]
fn older_news_of_credit_do_not_overrule_newer() {
    let mut memory = Memory::default();
    let mut connection = Connection::new(config(Role::Responder, 1, false), Time(0)).unwrap();
    connection.send_message(b"one").unwrap();
    let mut out = vec![0; 9000];
    assert!(
        connection
            .poll_transmit(Time(1), &mut memory, &mut out)
            .is_some()
    );
    connection.send_message(b"two").unwrap();
    assert!(
        connection
            .poll_transmit(Time(1), &mut memory, &mut out)
            .is_some()
    );
    for (number, credit) in [(5, 500_000), (4, 100)] {
        let mut frame = forge(number, &ack_block(1, credit, 0, 1), b"");
        assert_eq!(connection.handle(&mut frame, Time(2), &mut memory), Ok(()));
    }
    assert_eq!(connection.status().credit_bytes, 500_000);
}
