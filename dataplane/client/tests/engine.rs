//! The client's side of a session against a node that follows a script.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends where it can't go on"
)]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, mpsc};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use genie_client::address::Address;
use genie_client::control::Control;
use genie_client::engine::{Error, Exception, Host, Interrupted, Opened, Origin, Session};
use genie_client::link::Link;
use genie_control_api::v1::OpenSessionReply;
use genie_session::client::Draft;
use genie_session::frame::{HEADER_BYTES, Header, Kind};
use genie_session::record;
use genie_session::skeleton::tag;
use genie_session::varint::Reader;

const LONG: Duration = Duration::from_secs(20);

/// The node's end of the data connection.
struct Node(TcpStream);

struct Frame {
    kind: Kind,
    /// There is a fetch in it.
    asks: bool,
    raw: Vec<u8>,
}

impl Node {
    fn exact(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.0.read_exact(&mut bytes).unwrap();
        bytes
    }

    /// The next frame, pings answered.
    fn frame(&mut self) -> Frame {
        loop {
            let header: [u8; HEADER_BYTES] = self.exact(HEADER_BYTES).try_into().unwrap();
            let header = Header::decode(&header).unwrap();
            let payload = self.exact(header.payload_len as usize);
            let raw = match header.kind.has_raw_bytes() {
                true => self.exact(header.aux as usize),
                false => Vec::new(),
            };
            if header.kind == Kind::Ping {
                self.say(Header::new(Kind::Pong, header.seq, 0));
                continue;
            }
            return Frame {
                kind: header.kind,
                asks: asks(&payload),
                raw,
            };
        }
    }

    /// Reads up to a frame with a fetch in it.
    fn until_asked(&mut self) {
        while !self.frame().asks {}
    }

    fn say(&mut self, header: Header) {
        self.0.write_all(&header.encode()).unwrap();
    }

    /// The answer to fetch `id`, of which `bytes` are sent now.
    fn answer(&mut self, id: u64, len: usize, bytes: &[u8]) {
        self.say(Header::new(Kind::Data, id, len as u64));
        self.0.write_all(bytes).unwrap();
    }
}

fn asks(payload: &[u8]) -> bool {
    let mut reader = Reader::new(payload);
    let mut found = false;
    while !reader.is_empty() {
        let item = record::next_item(&mut reader).unwrap();
        found |= matches!(item, record::Item::Plain(plain) if plain.kind == record::Kind::Fetch);
    }
    found
}

type Handler = Box<dyn Fn(&Session) -> Result<(), Interrupted> + Send + Sync>;

/// A program whose handlers run on one thread, the one that made it.
struct Program {
    thread: ThreadId,
    handler: Option<Handler>,
    session: Arc<OnceLock<Arc<Session>>>,
}

impl Host for Program {
    fn look_at_signals(&self) -> Result<(), Interrupted> {
        match (&self.handler, self.session.get()) {
            (Some(handler), Some(session)) if self.runs_handlers() => handler(session),
            _ => Ok(()),
        }
    }

    fn runs_handlers(&self) -> bool {
        self.handler.is_some() && std::thread::current().id() == self.thread
    }

    fn is_interrupt_waiting(&self) -> bool {
        false
    }

    fn operator(&self, op: u32) -> String {
        format!("operator {op}")
    }

    fn line(&self, site: u32) -> String {
        format!("line {site}")
    }

    fn rest(&self) {}
}

fn session(handler: Option<Handler>) -> (Arc<Session>, Node) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = Address::parse(&listener.local_addr().unwrap().to_string()).unwrap();
    let link = Link::connect(&address, None, LONG).unwrap();
    let node = Node(listener.accept().unwrap().0);
    node.0.set_read_timeout(Some(LONG)).unwrap();
    let opened = OpenSessionReply {
        window_records: 4096,
        window_bytes: 1 << 30,
        ..OpenSessionReply::default()
    };
    let made = Arc::new(OnceLock::new());
    let program = Program {
        thread: std::thread::current().id(),
        handler,
        session: Arc::clone(&made),
    };
    let opened = Opened {
        node: address.to_string(),
        device: 0,
        reply: opened,
        link,
        control: Control::to_nobody(),
    };
    let session = Session::start(1, vec![opened], Box::new(program)).unwrap();
    assert!(made.set(Arc::clone(&session)).is_ok());
    (session, node)
}

fn alloc(session: &Session, bytes: usize) -> u64 {
    let draft = Draft {
        tail_numbers: &[bytes as i64],
        fresh: 1,
        ..Draft::new(record::Kind::Alloc)
    };
    let appended = session
        .record(session.first(), &draft, "", Origin::NONE, 0)
        .unwrap();
    appended.first_fresh
}

fn fetch(session: &Session, id: u64, into: &mut [u8]) -> Result<(), Error> {
    let draft = Draft {
        skeleton: &[tag::TENSOR, 0, 0, 1],
        storages: &[id],
        params: &[0, into.len() as i64, 1],
        ..Draft::new(record::Kind::Fetch)
    };
    session.fetch(session.first(), &draft, into, 0)
}

fn upload(session: &Session, id: u64, bytes: &[u8]) -> Result<(), Error> {
    // SAFETY: the bytes outlive the call.
    unsafe { session.upload(session.first(), id, bytes.as_ptr(), bytes.len(), 0) }
}

fn pattern(len: usize, seed: usize) -> Vec<u8> {
    (0..len)
        .map(|at| ((at + seed).wrapping_mul(0x9e37_79b1) >> 13) as u8)
        .collect()
}

#[test]
fn an_answer_comes_to_its_place() {
    let (session, mut node) = session(None);
    let there = std::thread::spawn(move || {
        node.until_asked();
        node.answer(1, 1 << 20, &pattern(1 << 20, 1)[..1000]);
        std::thread::sleep(Duration::from_millis(150));
        node.0.write_all(&pattern(1 << 20, 1)[1000..]).unwrap();
        node
    });
    let id = alloc(&session, 1 << 20);
    let mut bytes = vec![0; 1 << 20];
    fetch(&session, id, &mut bytes).unwrap();
    assert!(bytes == pattern(1 << 20, 1));
    assert_eq!(session.counters.read().round_trips, 1);
    drop(there.join().unwrap());
}

#[test]
fn a_lost_link_ends_every_wait() {
    let (session, mut node) = session(None);
    let id = alloc(&session, 8);
    std::thread::scope(|scope| {
        let waits: Vec<_> = (0..3)
            .map(|_| scope.spawn(|| fetch(&session, id, &mut [0; 8])))
            .collect();
        assert_eq!(node.frame().kind, Kind::Records);
        drop(node);
        for wait in waits {
            let error = wait.join().unwrap().unwrap_err();
            assert!(
                matches!(error, Error::Genie(Exception::NodeLost, _)),
                "{error}"
            );
        }
    });
    assert!(session.check().is_err());
}

#[test]
fn two_threads_get_each_its_own() {
    let (session, mut node) = session(None);
    let id = alloc(&session, 4);
    std::thread::scope(|scope| {
        let waits: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let mut bytes = [0; 4];
                    fetch(&session, id, &mut bytes).map(|()| bytes)
                })
            })
            .collect();
        node.until_asked();
        std::thread::sleep(Duration::from_millis(50));
        // The later question first, and half of the other between.
        node.answer(2, 4, &[2; 4]);
        node.answer(1, 2, &[1; 2]);
        node.answer(1, 2, &[1; 2]);
        let mut got: Vec<_> = waits
            .into_iter()
            .map(|wait| wait.join().unwrap().unwrap())
            .collect();
        got.sort_unstable();
        assert_eq!(got, [[1; 4], [2; 4]]);
    });
}

/// Memory that a caller has back is written by nobody.
#[test]
fn a_disconnect_while_another_thread_receives() {
    for round in 0..8 {
        let (session, mut node) = session(None);
        let len = 32 << 20;
        let id = alloc(&session, len);
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let one = scope.spawn(|| {
                let mut bytes = vec![0; len];
                let result = fetch(&session, id, &mut bytes);
                // The caller's own again.
                bytes.fill(7);
                std::thread::sleep(Duration::from_millis(30));
                assert!(bytes.iter().all(|&byte| byte == 7), "written after the end");
                result
            });
            // A second thread that waits may be the one that reads.
            let other = scope.spawn(|| fetch(&session, id, &mut [0; 8]));
            scope.spawn(|| {
                node.until_asked();
                node.say(Header::new(Kind::Data, 1, len as u64));
                // Nobody reads any more once the session is closed: a write must not wait for that.
                node.0
                    .set_write_timeout(Some(Duration::from_millis(50)))
                    .unwrap();
                while !stop.load(Ordering::Relaxed) {
                    match node.0.write(&[1; 64 << 10]) {
                        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                        Err(_) => break,
                        Ok(_) => {}
                    }
                }
            });
            std::thread::sleep(Duration::from_millis(5 + 3 * round));
            session.close();
            let error = one.join().unwrap().err();
            assert!(error.is_none_or(|error| matches!(error, Error::Genie(..))));
            assert!(other.join().unwrap().is_err());
            stop.store(true, Ordering::Relaxed);
        });
    }
}

#[test]
fn an_interrupt_in_the_midst_of_an_answer() {
    let asked = Arc::new(AtomicBool::new(false));
    let wants = Arc::clone(&asked);
    let (session, mut node) = session(Some(Box::new(move |_| {
        match wants.swap(false, Ordering::Relaxed) {
            true => Err(Interrupted),
            false => Ok(()),
        }
    })));
    let (half_sent, half) = mpsc::channel();
    let there = std::thread::spawn(move || {
        node.until_asked();
        node.answer(1, 1000, &[1; 400]);
        asked.store(true, Ordering::Relaxed);
        half.recv().unwrap();
        node.0.write_all(&[1; 600]).unwrap();
        node.until_asked();
        node.answer(2, 8, &[2; 8]);
        node
    });
    let id = alloc(&session, 1000);
    let mut bytes = vec![0; 1000];
    let began = Instant::now();
    assert_eq!(fetch(&session, id, &mut bytes), Err(Error::Interrupted));
    assert!(began.elapsed() < Duration::from_secs(1));
    bytes.fill(9);
    half_sent.send(()).unwrap();
    // The rest is nobody's, and what comes after it is right.
    let mut next = [0; 8];
    fetch(&session, id, &mut next).unwrap();
    assert_eq!(next, [2; 8]);
    assert!(bytes.iter().all(|&byte| byte == 9));
    drop(there.join().unwrap());
}

/// A thread that is stuck in the midst of a frame lets handlers run; they may use the session, and
/// what was being sent may change afterwards.
#[test]
fn a_handler_in_the_midst_of_an_upload() {
    for raises in [false, true] {
        let (start_reading, start) = mpsc::channel();
        let start_reading = Mutex::new(start_reading);
        let runs = Arc::new(AtomicUsize::new(0));
        let ran = Arc::clone(&runs);
        let (session, mut node) = session(Some(Box::new(move |session: &Session| {
            if ran.fetch_add(1, Ordering::Relaxed) > 0 {
                return Ok(());
            }
            // It records, and uploads something itself.
            let id = alloc(session, 100);
            upload(session, id, &[5; 100]).unwrap();
            start_reading.lock().unwrap().send(()).unwrap();
            if raises { Err(Interrupted) } else { Ok(()) }
        })));
        let len = 48 << 20;
        let there = std::thread::spawn(move || {
            start.recv_timeout(LONG).unwrap();
            let mut bulk = Vec::new();
            while bulk.is_empty() {
                bulk = node.frame().raw;
            }
            // Then the stream goes on as it should.
            node.until_asked();
            node.answer(1, 1, &[3]);
            (node, bulk)
        });
        let id = alloc(&session, len);
        let mut bytes = pattern(len, 4);
        let result = upload(&session, id, &bytes);
        assert_eq!(
            result,
            if raises {
                Err(Error::Interrupted)
            } else {
                Ok(())
            }
        );
        assert!(runs.load(Ordering::Relaxed) > 0, "no handler ran");
        bytes.fill(0);
        let mut one = [0];
        fetch(&session, id, &mut one).unwrap();
        assert_eq!(one, [3]);
        let (_node, bulk) = there.join().unwrap();
        assert!(bulk == pattern(len, 4), "it changed on its way");
    }
}

/// A window that is full is waited for with nothing in hand.
#[test]
fn a_handler_in_a_wait_for_room() {
    let runs = Arc::new(AtomicUsize::new(0));
    let ran = Arc::clone(&runs);
    let (session, mut node) = session(Some(Box::new(move |session: &Session| {
        if ran.fetch_add(1, Ordering::Relaxed) == 0 {
            session.free(session.first(), 1);
        }
        Err(Interrupted)
    })));
    let mut recorded = 0;
    let error = loop {
        let draft = Draft {
            tail_numbers: &[8],
            fresh: 1,
            ..Draft::new(record::Kind::Alloc)
        };
        match session.record(session.first(), &draft, "", Origin::NONE, 0) {
            Ok(_) => recorded += 1,
            Err(error) => break error,
        }
        assert!(recorded <= 4096, "no bound");
    };
    assert_eq!(error, Error::Interrupted);
    assert!(runs.load(Ordering::Relaxed) > 0);
    assert!(session.check().is_ok());
    assert_eq!(node.frame().kind, Kind::Records);
}

#[test]
fn eight_threads_upload_at_once() {
    let (session, mut node) = session(None);
    const EACH: usize = 50;
    let ids: Vec<u64> = (0..8).map(|_| alloc(&session, 100_000)).collect();
    let there = std::thread::spawn(move || {
        let mut seen = 0;
        while seen < 8 * EACH {
            let raw = node.frame().raw;
            if let Some(&first) = raw.first() {
                assert_eq!(raw.len(), 100_000);
                assert!(raw.iter().all(|&byte| byte == first), "two in one");
                seen += 1;
            }
        }
        node
    });
    std::thread::scope(|scope| {
        for (n, &id) in ids.iter().enumerate() {
            let session = &session;
            scope.spawn(move || {
                for _ in 0..EACH {
                    upload(session, id, &vec![n as u8 + 1; 100_000]).unwrap();
                }
            });
        }
    });
    drop(there.join().unwrap());
}
