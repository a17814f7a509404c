//! What other nodes bring: let in by a token, once, and trusted in nothing.

use std::io::Write as _;
use std::time::Duration;

use genie_control_api::v1::{OfferWayRequest, OpenWayRequest};
use genie_session::fault::{Code, Fault};
use genie_session::frame::{self, Header, Kind, TOKEN_BYTES};
use genie_session::transfer::Transfer;

use crate::client::{Client, Connection, Frame, data, pattern};
use crate::process::Daemon;

const SOON: Duration = Duration::from_secs(5);
const RECEIVED: &str = "genie_peer_bytes_received_total";

fn offer(client: &Client, log: u32, from: u32) -> OfferWayRequest {
    OfferWayRequest {
        session_id: client.reply.session_id,
        data_token: client.reply.data_token.clone(),
        log,
        from,
    }
}

/// Another node, let in to bring what log 0 sends to log 1.
fn let_in(daemon: &Daemon, client: &mut Client) -> Box<dyn Connection> {
    let request = offer(client, 1, 0);
    let token = client.control.offer_way(request).unwrap().token;
    let token: [u8; TOKEN_BYTES] = token.try_into().unwrap();
    let mut peer = data(&daemon.address, None, &frame::encode_peer_hello(&token));
    let welcome = Frame::read(&mut *peer).unwrap();
    assert_eq!(welcome.header.kind, Kind::Welcome);
    peer
}

/// Bytes of a frame that brings `here` bytes of the `total` that a transfer has.
fn part(transfer: Transfer, here: u64, total: u64) -> Vec<u8> {
    let header = Header::new(Kind::Transfer, transfer.0, here).with_payload(8);
    let mut bytes = header.encode().to_vec();
    bytes.extend_from_slice(&total.to_le_bytes());
    bytes
}

fn named(from: usize, to: usize, number: u64) -> Transfer {
    Transfer::new(from, to, number).unwrap()
}

/// The daemon ends the connection, without a word.
fn ends(peer: &mut dyn Connection) -> bool {
    match peer.read(&mut [0; 64]) {
        Ok(n) => n == 0,
        // It had not read all that came.
        Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
    }
}

#[test]
fn values_arrive_whole_and_in_parts_and_their_memory_comes_back() {
    let daemon = Daemon::start(&[]);
    let mut client = Client::connect(&daemon.address);
    let kept = client.upload(&pattern(1000));
    let mut peer = let_in(&daemon, &mut client);
    let bytes = pattern(100_000);
    for number in 0..50 {
        let transfer = named(0, 1, number);
        let total = bytes.len() as u64;
        for chunk in bytes.chunks(if number % 2 == 0 { 100_000 } else { 33_333 }) {
            peer.write_all(&part(transfer, chunk.len() as u64, total))
                .unwrap();
            peer.write_all(chunk).unwrap();
        }
        peer.write_all(&part(named(0, 1, 1000 + number), 0, 0))
            .unwrap();
    }
    let fault = Fault::new(Code::Operator, 3, "it failed there").encode();
    let header = Header::new(Kind::TransferFault, named(0, 1, 9999).0, 0);
    peer.write_all(&header.with_payload(fault.len()).encode())
        .unwrap();
    peer.write_all(&fault).unwrap();
    daemon.wait_metric(RECEIVED, 50.0 * 100_000.0, SOON);
    assert_eq!(client.fetch(kept, 1000), pattern(1000));
}

#[test]
fn a_token_lets_in_once_and_nothing_else_does() {
    let daemon = Daemon::start(&[]);
    let mut client = Client::connect(&daemon.address);
    let request = offer(&client, 1, 0);
    let token = client.control.offer_way(request).unwrap().token;
    let token: [u8; TOKEN_BYTES] = token.try_into().unwrap();
    let knock = |token: &[u8; TOKEN_BYTES]| {
        let mut peer = data(&daemon.address, None, &frame::encode_peer_hello(token));
        let answer = Frame::read(&mut *peer).unwrap();
        (answer.header.kind, peer)
    };
    assert_eq!(knock(&[7; TOKEN_BYTES]).0, Kind::Lost);
    // Nor does a session's own token.
    let own: [u8; TOKEN_BYTES] = client.reply.data_token.clone().try_into().unwrap();
    assert_eq!(knock(&own).0, Kind::Lost);
    let (kind, _peer) = knock(&token);
    assert_eq!(kind, Kind::Welcome);
    assert_eq!(knock(&token).0, Kind::Lost);
    // What was offered is no way into a session.
    let mut stream = data(&daemon.address, None, &frame::encode_hello(&token));
    assert_eq!(Frame::read(&mut *stream).unwrap().header.kind, Kind::Lost);
    client.ping(1);
}

#[test]
fn what_a_node_makes_up_ends_its_connection_and_nothing_else() {
    let daemon = Daemon::start(&[]);
    let mut client = Client::connect(&daemon.address);
    let kept = client.upload(&pattern(1000));
    client.flush();
    let good = named(0, 1, 1);
    let with = |mut bytes: Vec<u8>, more: &[u8]| {
        bytes.extend_from_slice(more);
        bytes
    };
    for (what, bytes) in [
        ("other ends", part(named(1, 0, 1), 4, 4)),
        ("another sender", part(named(2, 1, 1), 4, 4)),
        ("more than announced", part(good, 5, 4)),
        ("a part without bytes", part(good, 0, 4)),
        (
            "more in a second part",
            with(with(part(good, 2, 4), b"ab"), &part(good, 3, 4)),
        ),
        (
            "another total",
            with(with(part(good, 2, 4), b"ab"), &part(good, 2, 5)),
        ),
        (
            "another transfer",
            with(with(part(good, 2, 4), b"ab"), &part(named(0, 1, 2), 2, 4)),
        ),
        (
            "an urgent one in another's midst",
            with(
                with(part(good.urgent(), 2, 4), b"ab"),
                &part(named(0, 1, 2).urgent(), 2, 2),
            ),
        ),
        (
            "one in the midst of what is ahead of another",
            with(
                with(part(good, 2, 4), b"ab"),
                &with(
                    with(part(named(0, 1, 2).urgent(), 1, 2), b"c"),
                    &part(good, 2, 4),
                ),
            ),
        ),
        (
            "bytes apart from a stream that has none",
            with(
                Header::new(Kind::Transfer, good.0, 4)
                    .with_payload(9)
                    .encode()
                    .to_vec(),
                &[4, 0, 0, 0, 0, 0, 0, 0, 1],
            ),
        ),
        (
            "no total",
            Header::new(Kind::Transfer, good.0, 4).encode().to_vec(),
        ),
        (
            "a frame of a client",
            Header::new(Kind::Records, 0, 0).encode().to_vec(),
        ),
        (
            "a frame of a node",
            Header::new(Kind::Synced, 0, 0).encode().to_vec(),
        ),
        ("no header", vec![0xff; 64]),
        (
            "a fault that is none",
            with(
                Header::new(Kind::TransferFault, good.0, 0)
                    .with_payload(3)
                    .encode()
                    .to_vec(),
                &[99, 1, 2],
            ),
        ),
    ] {
        let mut peer = let_in(&daemon, &mut client);
        peer.write_all(&bytes).unwrap();
        peer.flush().unwrap();
        assert!(ends(&mut *peer), "{what}");
        client.ping(1);
    }
    assert_eq!(client.fetch(kept, 1000), pattern(1000));
}

#[test]
fn what_is_urgent_comes_in_the_midst_of_what_is_not_and_what_is_given_up_ends_there() {
    let daemon = Daemon::start(&[]);
    let mut client = Client::connect(&daemon.address);
    let kept = client.upload(&pattern(1000));
    client.flush();
    let mut peer = let_in(&daemon, &mut client);
    let (long, urgent) = (named(0, 1, 1), named(0, 1, 2).urgent());
    let failed = |transfer: Transfer| {
        let fault = Fault::new(Code::SessionGone, 0, "given up").encode();
        let header = Header::new(Kind::TransferFault, transfer.0, 0);
        let mut bytes = header.with_payload(fault.len()).encode().to_vec();
        bytes.extend_from_slice(&fault);
        bytes
    };
    let mut say = |bytes: &[u8]| peer.write_all(bytes).unwrap();
    say(&part(long, 3, 9));
    say(b"abc");
    say(&part(urgent, 2, 4));
    say(b"12");
    say(&part(urgent, 2, 4));
    say(b"34");
    // It is whole before the one that it came in the midst of.
    daemon.wait_metric(RECEIVED, 4.0, SOON);
    say(&failed(named(0, 1, 3).urgent()));
    say(&part(long, 6, 9));
    say(b"defghi");
    daemon.wait_metric(RECEIVED, 13.0, SOON);
    // One that ends in its midst leaves nothing behind, and others come.
    for number in 10..40 {
        say(&part(named(0, 1, number), 1 << 20, 64 << 20));
        say(&vec![1; 1 << 20]);
        say(&failed(named(0, 1, number)));
    }
    say(&part(named(0, 1, 50), 1, 1));
    say(b"x");
    daemon.wait_metric(RECEIVED, 14.0, SOON);
    assert_eq!(client.fetch(kept, 1000), pattern(1000));
}

#[test]
fn more_than_there_is_room_for_is_dropped_and_the_connection_goes_on() {
    let daemon = Daemon::start(&["--memory", "16MiB"]);
    let mut client = Client::connect(&daemon.address);
    client.upload(&pattern(1000));
    client.flush();
    let mut peer = let_in(&daemon, &mut client);
    let total = 64 << 20;
    peer.write_all(&part(named(0, 1, 1), total, total)).unwrap();
    for _ in 0..64 {
        peer.write_all(&vec![1; 1 << 20]).unwrap();
    }
    peer.write_all(&part(named(0, 1, 2), 3, 3)).unwrap();
    peer.write_all(b"abc").unwrap();
    daemon.wait_metric(RECEIVED, total as f64 + 3.0, SOON);
    client.ping(1);
}

#[test]
fn a_way_needs_sessions_that_are_the_callers() {
    let daemon = Daemon::start(&[]);
    let (mut a, mut b) = (
        Client::connect(&daemon.address),
        Client::connect(&daemon.address),
    );
    let mut forged = offer(&a, 1, 0);
    forged.data_token = b.reply.data_token.clone();
    assert!(b.control.offer_way(forged).is_err());
    let mut unknown = offer(&a, 1, 0);
    unknown.session_id ^= 1;
    assert!(a.control.offer_way(unknown).is_err());
    let mut far = offer(&a, 1, 0);
    far.log = 128;
    assert!(a.control.offer_way(far).is_err());
    let request = offer(&b, 1, 0);
    let offered = b.control.offer_way(request).unwrap().token;
    let open = |to: u32, token: Vec<u8>, address: &str| OpenWayRequest {
        session_id: a.reply.session_id,
        data_token: a.reply.data_token.clone(),
        log: 0,
        to,
        token,
        address: address.to_owned(),
        transport: None,
    };
    // For other logs; to nobody; with nonsense.
    let (others, nobody) = (
        open(2, offered, ""),
        open(1, vec![1; TOKEN_BYTES], "127.0.0.1:1"),
    );
    let short = open(1, vec![1; 3], "");
    let myself = open(1, vec![1; TOKEN_BYTES], &daemon.address);
    for (what, request) in [
        ("others", others),
        ("nobody", nobody),
        ("short", short),
        ("self", myself),
    ] {
        assert!(a.control.open_way(request).is_err(), "{what}");
    }
    let request = offer(&b, 1, 0);
    let token = b.control.offer_way(request).unwrap().token;
    let (first, again) = (open(1, token, ""), open(1, vec![2; TOKEN_BYTES], ""));
    assert_eq!(a.control.open_way(first).unwrap().way, "memory");
    assert!(a.control.open_way(again).is_err());
    a.ping(1);
    b.ping(1);
}
