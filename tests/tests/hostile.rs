//! A client with a valid token sends nonsense on its data connection: it loses its session, and
//! another session in the middle of its work notices nothing.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends where it can't go on"
)]

use std::time::Duration;

use genie_client::bare::{self, Bare};
use genie_client::control::{self, Control};
use genie_client::handshake::handshake;
use genie_client::link::Link;
use genie_control_api::v1::OpenSessionReply;
use genie_session::client::{ClientLog, Draft};
use genie_session::frame::{HEADER_BYTES, Header, Kind};
use genie_session::record;
use genie_tests::{Daemon, is_ready};

const TIMEOUT: Duration = Duration::from_secs(5);

struct Session {
    link: Link,
    log: ClientLog,
    waits: i64,
    _control: Control,
    opened: OpenSessionReply,
}

impl Session {
    fn open(daemon: &Daemon) -> Self {
        let Bare {
            link,
            control,
            opened,
        } = bare::open(&daemon.target(), None, "test", TIMEOUT).expect("a session");
        Self {
            link,
            log: ClientLog::new(),
            waits: 0,
            _control: control,
            opened,
        }
    }

    fn send(&self, bytes: &[u8]) {
        let _ = self.link.write_all(&[bytes], &mut || Ok(()));
    }

    fn header(&self) -> Option<Header> {
        let mut raw = [0; HEADER_BYTES];
        let mut at = 0;
        let deadline = std::time::Instant::now() + TIMEOUT;
        while at < raw.len() {
            match self.link.read(&mut raw[at..]) {
                Ok(Some(n)) => at += n,
                Ok(None) => assert!(std::time::Instant::now() < deadline, "no answer"),
                Err(_) => return None,
            }
        }
        let header = Header::decode(&raw).expect("a header");
        let mut payload = vec![0; header.payload_len as usize];
        let mut at = 0;
        while at < payload.len() {
            match self.link.read(&mut payload[at..]) {
                Ok(Some(n)) => at += n,
                Ok(None) => {}
                Err(_) => return None,
            }
        }
        Some(header)
    }

    /// Makes a storage and waits until that has run.
    fn works(&mut self) -> bool {
        let alloc = Draft {
            tail_numbers: &[64],
            fresh: 1,
            ..Draft::new(record::Kind::Alloc)
        };
        self.log.append(&alloc).expect("a record");
        self.waits += 1;
        let barrier = Draft {
            tail_numbers: &[self.waits],
            ..Draft::new(record::Kind::Barrier)
        };
        self.log.append(&barrier).expect("a record");
        while let Some(message) = self.log.flush() {
            self.send(&message.header.encode());
            self.send(&message.payload);
        }
        loop {
            match self.header() {
                Some(header) if header.kind == Kind::Synced => {
                    return header.seq == self.waits as u64;
                }
                Some(header) if header.kind == Kind::Lost => return false,
                Some(_) => {}
                None => return false,
            }
        }
    }

    /// The session is over: it says so, or the connection ends.
    fn is_lost(&self) -> bool {
        loop {
            match self.header() {
                None => return true,
                Some(header) if header.kind == Kind::Lost => return true,
                Some(_) => {}
            }
        }
    }
}

fn records(seq: u64, payload: &[u8]) -> Vec<u8> {
    let header = Header::new(Kind::Records, seq, 0).with_payload(payload.len());
    [&header.encode()[..], payload].concat()
}

/// A name for a person, and what is sent.
fn attacks() -> Vec<(&'static str, Vec<u8>)> {
    let mut reference = Vec::new();
    record::put_plain(
        &mut reference,
        record::Kind::Resize,
        0,
        &[0, 1, 0],
        &[999, 8],
        &[],
        None,
    );
    let mut endless = vec![0xff; HEADER_BYTES];
    endless[0] = Kind::Records as u8;
    let from_node = Header::new(Kind::Data, 1, 1 << 40).encode().to_vec();
    let ring_only = Header::new(Kind::InstallPlan, 1, 0).encode().to_vec();
    let mut bulk = Vec::new();
    record::put_plain(
        &mut bulk,
        record::Kind::Barrier,
        0,
        &[0, 0],
        &[1],
        &[],
        None,
    );
    let header = Header::new(Kind::Bulk, 0, 4).with_payload(bulk.len());
    let bulk = [&header.encode()[..], &bulk, &[0; 4]].concat();
    vec![
        (
            "random bytes",
            (0..4096_u32)
                .map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8)
                .collect(),
        ),
        ("zeros", vec![0; 4096]),
        ("a payload without end", endless),
        ("a record of an unknown kind", records(0, &[0x0e, 1, 2, 3])),
        ("a record that is cut", records(0, &[1, 0, 200])),
        ("a storage that was never made", records(0, &reference)),
        ("a gap in the records", records(77, &[8, 0, 2, 0, 0, 0])),
        ("a frame of a node", from_node),
        ("a frame of the inside", ring_only),
        ("bulk of a barrier", bulk),
    ]
}

#[test]
fn nonsense_costs_its_own_session_only() {
    if !is_ready() {
        return;
    }
    let daemon = Daemon::start(&[]);
    let mut bystander = Session::open(&daemon);
    assert!(bystander.works());
    for (what, bytes) in attacks() {
        let attacker = Session::open(&daemon);
        attacker.send(&bytes);
        assert!(attacker.is_lost(), "{what}: the session lives");
        assert!(bystander.works(), "{what}: another session was disturbed");
    }
    // The lost sessions are gone from the node, too.
    let deadline = std::time::Instant::now() + TIMEOUT;
    loop {
        let status = control::status(&daemon.target(), None, TIMEOUT).expect("the node lives");
        let mut ids = status.sessions.iter().map(|session| session.id);
        if ids.all(|id| id == bystander.opened.session_id) {
            break;
        }
        assert!(
            std::time::Instant::now() < deadline,
            "{:?}",
            status.sessions
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_token_opens_only_its_own_session_and_only_when_right() {
    if !is_ready() {
        return;
    }
    let daemon = Daemon::start(&[]);
    let session = Session::open(&daemon);
    let mut forged = session.opened.data_token.clone();
    forged[0] ^= 1;
    let link = Link::connect(&daemon.target(), None, TIMEOUT).expect("a connection");
    let refused = handshake(&link, &forged, TIMEOUT);
    assert!(!matches!(refused, Ok(Ok(()))), "a forged token was let in");
    // The right one is in use: a second connection must not take the session over.
    let link = Link::connect(&daemon.target(), None, TIMEOUT).expect("a connection");
    let refused = handshake(&link, &session.opened.data_token, TIMEOUT);
    assert!(
        !matches!(refused, Ok(Ok(()))),
        "a session has two connections"
    );
}
