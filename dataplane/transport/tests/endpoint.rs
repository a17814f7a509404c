//! Many connections on one endpoint.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends where it can't go on"
)]

mod sim;

use std::time::Duration;

use genie_transport::{
    Config, Connection, ConnectionError, ConnectionId, Endpoint, Epoch, Event, Grant, Protection,
    Role, SourceId, Time, TransferId,
};
use sim::forge::{data_block, forge, message_block};
use sim::transfer::whole;
use sim::{ID, Memory, Nowhere, staged};

fn endpoint(role: Role, now: Time) -> Endpoint {
    let mut endpoint = Endpoint::new();
    for id in 0..64 {
        let config = Config::new(ConnectionId(id), Epoch(1), role, Protection::Checksummed);
        endpoint.open(config, now).unwrap();
    }
    endpoint
}

/// Passes all frames, and returns whose they were.
fn pass(from: &mut Endpoint, to: &mut Endpoint, now: Time) -> Vec<u64> {
    let mut buffer = vec![0; 9000];
    let mut senders = Vec::new();
    while let Some(sent) = from.poll_transmit(now, &mut Nowhere, &mut buffer) {
        let taken = to.handle(&mut buffer[..sent.len], now, &mut Nowhere);
        assert_eq!(taken, Ok(sent.connection));
        senders.push(sent.connection.0);
    }
    senders
}

#[test]
fn each_has_its_turn_and_the_idle_are_left_alone() {
    let now = Time(1);
    let (mut a, mut b) = (
        endpoint(Role::Initiator, now),
        endpoint(Role::Responder, now),
    );
    assert_eq!(pass(&mut a, &mut b, now), []);
    for id in [3, 40, 63] {
        for _ in 0..20 {
            let connection = a.connection(ConnectionId(id)).unwrap();
            connection.send_message(&[1; 1000]).unwrap();
        }
    }
    let order = pass(&mut a, &mut b, now);
    let turns: Vec<_> = order.iter().copied().take(6).collect();
    assert_eq!(turns, [3, 40, 63, 3, 40, 63]);
    let mut heard = Vec::new();
    while let Some(connection) = b.poll_news() {
        heard.push(connection.config().id.0);
        while connection.read_message(<[u8]>::len).is_some() {}
    }
    assert_eq!(heard, [3, 40, 63]);
    assert!(a.poll_news().is_none());
}

#[test]
fn the_earliest_deadline_is_kept_whatever_comes_and_goes() {
    let mut now = Time(1);
    let (mut a, mut b) = (
        endpoint(Role::Initiator, now),
        endpoint(Role::Responder, now),
    );
    for round in 0..700_u64 {
        match round % 7 {
            0 => {
                let id = ConnectionId(round % 64);
                let connection = a.connection(id).unwrap();
                let _full = connection.send_message(b"hello");
            }
            1 if round % 3 == 0 => {
                // Is forgotten and comes back, so that the others move.
                let id = ConnectionId((round / 21) % 64);
                for (end, role) in [(&mut a, Role::Initiator), (&mut b, Role::Responder)] {
                    assert!(end.remove(id).is_some());
                    let epoch = Epoch(round as u32);
                    let config = Config::new(id, epoch, role, Protection::Checksummed);
                    end.open(config, now).unwrap();
                }
            }
            _ => {}
        }
        pass(&mut a, &mut b, now);
        pass(&mut b, &mut a, now);
        for end in [&mut a, &mut b] {
            while let Some(connection) = end.poll_news() {
                while connection.read_message(<[u8]>::len).is_some() {}
                assert_eq!(connection.poll_event(), None);
            }
            // These get lost.
            let buffer = &mut [0; 9000];
            while end.poll_transmit(now, &mut Nowhere, buffer).is_some() {}
            let kept = end.timeout();
            if round % 5 == 0 {
                let earliest = end
                    .connections()
                    .filter_map(|connection| connection.timeout());
                assert_eq!(kept, earliest.min());
            }
        }
        now = now.after(Duration::from_micros(30 * (round % 50)));
    }
}

type Act = fn(&mut Connection, Grant, TransferId);

/// Idle connections are not asked, so each call that gives them something to say must be noticed.
#[test]
fn what_the_program_does_is_sent_at_once() {
    let acts: [(&str, Act); 7] = [
        ("release", |connection, _, _| connection.release(128_000)),
        ("read", |connection, _, _| {
            while connection.read_message(<[u8]>::len).is_some() {}
        }),
        ("revoke", |connection, grant, _| connection.revoke(grant)),
        ("cancel", |connection, _, id| connection.cancel(id)),
        ("message", |connection, _, _| {
            connection.send_message(b"hello").unwrap();
        }),
        ("send", |connection, grant, _| {
            connection.send(whole(grant, SourceId(0), 100)).unwrap();
        }),
        ("close", |connection, _, _| connection.close()),
    ];
    for (name, act) in acts {
        let (mut memory, mut end) = (Memory::default(), Endpoint::new());
        let connection = end.open(staged(), Time(0)).unwrap();
        let region = memory.add_region(200_000);
        memory.add_source(vec![1; 100]);
        let grant = connection.grant(region, 200_000).unwrap();
        let id = connection.send(whole(grant, SourceId(0), 100)).unwrap();
        for number in 0..20 {
            let (mut control, mut data) = (message_block(number, 3), Vec::new());
            if number < 16 {
                control.extend(data_block(region.0, grant.generation, number * 8000, 8000));
                data.resize(8000, 1);
            }
            let taken = end.handle(&mut forge(number, &control, &data), Time(1), &mut memory);
            assert_eq!(taken, Ok(ID));
        }
        let (now, mut out) = (Time(100_000), vec![0; 9000]);
        while end.poll_transmit(now, &mut memory, &mut out).is_some() {}
        let idle = end.timeout();
        assert!(idle > Some(now));
        let connection = end.connection(ID).unwrap();
        assert!(
            connection.status().ended.is_none(),
            "looking is not touching"
        );
        assert!(end.poll_transmit(now, &mut memory, &mut out).is_none());
        assert_eq!(end.timeout(), idle);
        act(end.connection(ID).unwrap(), grant, id);
        assert!(end.timeout() <= idle);
        let sent = end.poll_transmit(now, &mut memory, &mut out);
        assert!(sent.is_some(), "{name}");
    }
}

#[test]
fn a_connection_that_dies_alone_is_news() {
    let mut now = Time(1);
    let mut end = endpoint(Role::Initiator, now);
    let mut died = 0;
    while let Some(due) = end.timeout() {
        now = now.max(due);
        while end
            .poll_transmit(now, &mut Nowhere, &mut [0; 9000])
            .is_some()
        {}
        while let Some(connection) = end.poll_news() {
            let event = connection.poll_event();
            assert_eq!(event, Some(Event::Ended(ConnectionError::PeerSilent)));
            died += 1;
        }
    }
    assert_eq!(died, 64);
    assert!(now < Time(0).after(Duration::from_secs(2)));
}
