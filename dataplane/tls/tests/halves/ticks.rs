//! Timeouts in the middle of things, and what happens meanwhile.

use std::io::{self, IoSlice, Read, Write};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use genie_tls::{TlsRead, is_tick, write_all};

use crate::pair::{pair, pattern};
use crate::pipe::TICKS;

/// A socket whose calls give, or take, what it was told.
#[derive(Default)]
struct Script {
    /// What each call does: a tick, or at most so many bytes.
    calls: Vec<Result<usize, io::ErrorKind>>,
    at: usize,
    bytes: Vec<u8>,
}

impl Script {
    fn turn(&mut self) -> io::Result<usize> {
        let call = self.calls.get(self.at).copied().unwrap_or(Ok(usize::MAX));
        self.at += 1;
        call.map_err(io::Error::from)
    }
}

impl Read for Script {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let n = self.turn()?.min(into.len()).min(self.bytes.len());
        into[..n].copy_from_slice(&self.bytes[..n]);
        self.bytes.drain(..n);
        Ok(n)
    }
}

impl Write for Script {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.turn()?.min(bytes.len());
        self.bytes.extend_from_slice(&bytes[..n]);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Moves a few bytes, then ticks, of every kind.
fn interrupted() -> Vec<Result<usize, io::ErrorKind>> {
    let some = |kind: io::ErrorKind| [Ok(3), Err(kind), Err(kind), Ok(1000)];
    TICKS.into_iter().flat_map(some).collect()
}

#[test]
fn a_read_that_ticks_goes_on_where_it_was() {
    let [mut a, mut b] = pair(&rustls::version::TLS13);
    let sent = pattern(1, 100_000);
    let mut socket = Script::default();
    let mut parts = [IoSlice::new(&sent)];
    a.write
        .write(&mut socket, &mut parts, &mut |_| Ok(()))
        .unwrap();
    socket.calls = interrupted();
    socket.at = 0;
    let mut got = vec![0; sent.len()];
    let mut at = 0;
    let mut ticks = Vec::new();
    while at < got.len() {
        match b.read.read(&mut socket, &mut got[at..]) {
            Ok(n) => at += n,
            Err(error) => {
                assert!(is_tick(&error), "{error}");
                ticks.push(error.kind());
            }
        }
    }
    assert!(got == sent);
    let twice: Vec<_> = TICKS.into_iter().flat_map(|kind| [kind; 2]).collect();
    assert_eq!(ticks, twice, "each is told as it is");
}

#[test]
fn a_write_that_ticks_asks_and_goes_on_where_it_was() {
    let [mut a, mut b] = pair(&rustls::version::TLS13);
    let sent = pattern(2, 100_000);
    let mut socket = Script {
        calls: interrupted(),
        ..Script::default()
    };
    let mut ticks = Vec::new();
    let mut go_on = |tick: io::Error| {
        ticks.push(tick.kind());
        Ok(())
    };
    let mut parts = [IoSlice::new(&sent)];
    a.write.write(&mut socket, &mut parts, &mut go_on).unwrap();
    assert_eq!(ticks.len(), 2 * TICKS.len());
    let mut got = vec![0; sent.len()];
    read_exact(&mut b.read, &mut socket, &mut got);
    assert!(got == sent);
}

#[test]
fn what_was_sealed_when_a_write_gave_up_leaves_first() {
    let [mut a, mut b] = pair(&rustls::version::TLS13);
    let first = pattern(3, 5000);
    let mut socket = Script {
        calls: vec![Ok(700), Err(io::ErrorKind::WouldBlock)],
        ..Script::default()
    };
    let mut parts = [IoSlice::new(&first)];
    let error = a
        .write
        .write(&mut socket, &mut parts, &mut |tick| Err(tick))
        .unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    assert_eq!(socket.bytes.len(), 700);
    let mut parts = [IoSlice::new(b"next")];
    a.write
        .write(&mut socket, &mut parts, &mut |tick| Err(tick))
        .unwrap();
    let mut got = vec![0; first.len() + 4];
    read_exact(&mut b.read, &mut socket, &mut got);
    assert!(got == [&first, &b"next"[..]].concat());
}

#[test]
fn other_errors_are_not_ticks() {
    let [mut a, mut b] = pair(&rustls::version::TLS13);
    let broken = || Script {
        calls: vec![Err(io::ErrorKind::ConnectionReset)],
        ..Script::default()
    };
    let mut never = |tick: io::Error| -> io::Result<()> { panic!("asked at {tick}") };
    let mut parts = [IoSlice::new(b"x")];
    let error = a
        .write
        .write(&mut broken(), &mut parts, &mut never)
        .unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    assert!(!is_tick(&error));
    let error = b.read.read(&mut broken(), &mut [0]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    let mut full = Script {
        calls: vec![Ok(0)],
        ..Script::default()
    };
    let mut parts = [IoSlice::new(b"x")];
    let error = write_all(&mut full, &mut parts, &mut never).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::WriteZero);
}

#[test]
fn parts_in_the_clear_are_written_whole() {
    let mut socket = Script {
        calls: interrupted(),
        ..Script::default()
    };
    let sent = pattern(4, 9000);
    let mut parts = [&[][..], &sent[..5], &[], &sent[5..], &[]].map(IoSlice::new);
    let mut ticks = 0;
    write_all(&mut socket, &mut parts, &mut |_| {
        ticks += 1;
        Ok(())
    })
    .unwrap();
    assert!(socket.bytes == sent);
    assert_eq!(ticks, 2 * TICKS.len());
    // A socket that takes nothing is not asked for nothing.
    socket.calls = vec![Ok(0)];
    socket.at = 0;
    let mut nothing = [IoSlice::new(&[]); 2];
    write_all(&mut socket, &mut nothing, &mut |tick| Err(tick)).unwrap();
}

/// While one half waits for the socket the other one works: neither call may hold the lock.
#[test]
fn no_lock_is_held_over_a_call_of_the_socket() {
    /// At each call it uses the other half of the same end.
    struct Uses<F: FnMut()>(F, Script);
    impl<F: FnMut()> Write for Uses<F> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            (self.0)();
            self.1.write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    impl<F: FnMut()> Read for Uses<F> {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            (self.0)();
            self.1.read(into)
        }
    }
    let (done, is_done) = mpsc::channel();
    // Not joined: a lock that is held would keep it for ever.
    thread::spawn(move || {
        let [a, mut b] = pair(&rustls::version::TLS13);
        let (mut a_read, mut a_write) = (a.read, a.write);
        let sent = pattern(5, 300_000);
        let mut uses = 0;
        let mut socket = Uses(
            || {
                uses += usize::from(!a_read.has_more());
            },
            Script::default(),
        );
        let mut parts = [IoSlice::new(&sent)];
        a_write
            .write(&mut socket, &mut parts, &mut |_| Ok(()))
            .unwrap();
        let mut cipher = socket.1;
        assert!(uses > 1);

        let mut got = vec![0; sent.len()];
        read_exact(&mut b.read, &mut cipher, &mut got);
        assert!(got == sent);
        let mut back = Vec::new();
        let mut other = Script::default();
        let mut parts = [IoSlice::new(b"answer")];
        b.write
            .write(&mut other, &mut parts, &mut |_| Ok(()))
            .unwrap();
        let mut socket = Uses(
            || {
                let mut parts = [IoSlice::new(b"more")];
                a_write
                    .write(&mut back, &mut parts, &mut |_| Ok(()))
                    .unwrap();
            },
            other,
        );
        let mut answer = [0; 6];
        read_exact(&mut a_read, &mut socket, &mut answer);
        assert_eq!(&answer, b"answer");
        assert!(!back.is_empty());
        done.send(()).unwrap();
    });
    let ended = is_done.recv_timeout(Duration::from_secs(30));
    ended.expect("no half waits for the other");
}

fn read_exact(half: &mut TlsRead, from: &mut impl Read, into: &mut [u8]) {
    let mut at = 0;
    while at < into.len() {
        match half.read(from, &mut into[at..]) {
            Ok(0) => panic!("it ended at {at}"),
            Ok(n) => at += n,
            Err(error) => assert!(is_tick(&error), "{error}"),
        }
    }
}
