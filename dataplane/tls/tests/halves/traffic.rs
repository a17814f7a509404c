//! What is written at one end is read at the other.

use std::io::{self, IoSlice};
use std::thread;

use genie_tls::{TlsRead, TlsWrite, is_tick};

use crate::pair::{End, VERSIONS, connections, pair, pattern};
use crate::pipe::{Pipe, pipe};

/// Each way; many times what rustls, the halves and the pipe hold together.
const BYTES: usize = 6_000_011;
/// Lengths of writes and of reads.
const LENGTHS: [usize; 9] = [1, 24, 100, 4096, 16_384, 16_385, 65_537, 300_000, 1_000_003];
/// A socket that moves what it can.
const WHOLE: &[usize] = &[usize::MAX];
/// One that moves little, or nothing in time.
const BROKEN_UP: &[usize] = &[1, 4, 0, 70_000, 5, 16_384, 0, 0, 4097, 30_000];

/// Writes all of `bytes`, as a header, nothing and a body each time.
fn write(half: &mut TlsWrite, to: &mut Pipe, bytes: &[u8]) {
    let mut rest = bytes;
    for len in LENGTHS.iter().cycle() {
        if rest.is_empty() {
            return;
        }
        let (now, later) = rest.split_at(rest.len().min(*len));
        let (header, body) = now.split_at(now.len().min(24));
        let mut parts = [header, &[], body].map(IoSlice::new);
        half.write(to, &mut parts, &mut |_| Ok(())).unwrap();
        rest = later;
    }
}

/// Reads `len` bytes.
fn read(half: &mut TlsRead, from: &mut Pipe, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    let mut at = 0;
    for wanted in LENGTHS.iter().rev().cycle() {
        if at == len {
            break;
        }
        let until = len.min(at + wanted);
        match half.read(from, &mut bytes[at..until]) {
            Ok(0) => panic!("it ended at {at}"),
            Ok(n) => at += n,
            Err(error) => assert!(is_tick(&error), "{error}"),
        }
    }
    bytes
}

/// Both ends write and read at once, with a thread for each half.
fn both_ways(mut ends: [End; 2], sizes: &'static [usize]) {
    let there = pattern(1, BYTES);
    let back = pattern(2, BYTES);
    let (mut to_b, mut from_a) = pipe(sizes);
    let (mut to_a, mut from_b) = pipe(sizes);
    let [a, b] = &mut ends;
    thread::scope(|scope| {
        scope.spawn(|| write(&mut a.write, &mut to_b, &there));
        scope.spawn(|| write(&mut b.write, &mut to_a, &back));
        let came_back = scope.spawn(|| read(&mut a.read, &mut from_b, BYTES));
        assert!(read(&mut b.read, &mut from_a, BYTES) == there);
        assert!(came_back.join().unwrap() == back);
    });
}

#[test]
fn much_goes_both_ways_at_once() {
    for version in VERSIONS {
        both_ways(pair(version), WHOLE);
    }
}

#[test]
fn short_calls_and_ticks_lose_nothing() {
    for version in VERSIONS {
        both_ways(pair(version), BROKEN_UP);
    }
}

#[test]
fn new_keys_in_the_middle_lose_nothing() {
    // rustls asks for new keys by itself, after terabytes. The answer to that lies before what an
    // end writes next, and takes its room.
    let mut connections = connections(&rustls::version::TLS13);
    for connection in &mut connections {
        connection.refresh_traffic_keys().unwrap();
    }
    both_ways(connections.map(End::from), WHOLE);
}

#[test]
fn ciphertext_may_come_byte_by_byte() {
    let [mut a, mut b] = pair(&rustls::version::TLS13);
    let sent = pattern(3, 40_000);
    let (mut to_b, mut from_a) = pipe(&[1]);
    thread::scope(|scope| {
        scope.spawn(|| write(&mut a.write, &mut to_b, &sent));
        assert!(read(&mut b.read, &mut from_a, sent.len()) == sent);
    });
}

/// Seals `parts`, and gives each write of the socket.
fn sealed(half: &mut TlsWrite, parts: &[&[u8]]) -> Vec<Vec<u8>> {
    struct Writes(Vec<Vec<u8>>);
    impl io::Write for Writes {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.push(bytes.to_vec());
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut writes = Writes(Vec::new());
    let mut parts: Vec<_> = parts.iter().map(|part| IoSlice::new(part)).collect();
    half.write(&mut writes, &mut parts, &mut |_| Ok(()))
        .unwrap();
    writes.0
}

/// A socket that has these bytes and must not be asked again.
struct Once(Vec<u8>);

impl io::Read for Once {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        assert!(!self.0.is_empty(), "asked, though there is more to give");
        let n = self.0.len().min(into.len());
        into[..n].copy_from_slice(&self.0[..n]);
        self.0.drain(..n);
        Ok(n)
    }
}

#[test]
fn what_was_taken_from_the_socket_is_read_before_it_is_asked_again() {
    // More plaintext than rustls holds, and all of it in one read of the socket.
    let [mut a, mut b] = pair(&rustls::version::TLS13);
    let sent = pattern(4, 3 * 16_384);
    let mut got = Vec::new();
    // Within a record, and between two.
    for len in [1000, 16_384] {
        let mut from = Once(sealed(&mut a.write, &[&sent]).concat());
        got.clear();
        for part in sent.chunks(len) {
            assert_eq!(b.read.has_more(), !got.is_empty());
            let mut some = vec![0; len];
            let n = b.read.read(&mut from, &mut some).unwrap();
            assert_eq!(n, part.len(), "as much as there is");
            got.extend_from_slice(&some[..n]);
        }
        assert!(got == sent);
        assert!(!b.read.has_more());
    }
    // And a large buffer gets many records at once.
    let mut from = Once(sealed(&mut a.write, &[&sent]).concat());
    assert_eq!(b.read.read(&mut from, &mut got).unwrap(), sent.len());
    assert!(got == sent);
}

#[test]
fn small_parts_leave_together_and_large_ones_in_bounded_pieces() {
    let [mut a, _b] = pair(&rustls::version::TLS13);
    let body = pattern(5, 500);
    let writes = sealed(&mut a.write, &[&[], &body[..24], &body, &[]]);
    assert_eq!(writes.len(), 1);
    assert!(writes[0].len() < 24 + 500 + 40, "one record");
    assert!(sealed(&mut a.write, &[]).is_empty());
    assert!(sealed(&mut a.write, &[&[], &[]]).is_empty());

    let large = pattern(6, 8 << 20);
    let writes = sealed(&mut a.write, &[&body[..24], &large]);
    let longest = writes.iter().map(Vec::len).max().unwrap();
    assert!(longest < 144 << 10, "{longest}");
    assert!(writes.len() <= 1 + (8 << 20) / (64 << 10));
}
