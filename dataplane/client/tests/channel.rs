//! A data connection over a gateway's channel.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends where it can't go on"
)]

mod common;

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use common::{Gateway, LONG, Node, SIZES, TOKEN, go_on, pattern};
use genie_channel::{BULK_PART_MAX, INLINE_MAX, Sizes, ToApp};
use genie_client::handshake::handshake;
use genie_client::link::Link;
use genie_session::frame::{HEADER_BYTES, Header, Kind};

const PART: usize = BULK_PART_MAX as usize;

/// Runs the node's side in a thread, and the client's here.
fn with_node<R: Send>(
    node_does: impl FnOnce(&mut Node) -> R + Send,
    client_does: impl FnOnce(&Link),
) -> R {
    let gateway = Gateway::new();
    let (link, mut node) = gateway.attached(SIZES);
    std::thread::scope(|scope| {
        let node = scope.spawn(move || {
            let result = node_does(&mut node);
            (result, node)
        });
        client_does(&link);
        node.join().unwrap().0
    })
}

fn read_exact(link: &Link, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    let mut at = 0;
    while at < len {
        at += link.read(&mut bytes[at..]).unwrap().unwrap_or(0);
    }
    bytes
}

fn read_header(link: &Link) -> Header {
    let bytes = read_exact(link, HEADER_BYTES);
    Header::decode(&bytes.try_into().unwrap()).unwrap()
}

#[test]
fn a_session_opens_and_says_what_carries_it() {
    with_node(Node::welcome, |link| {
        handshake(link, &TOKEN, LONG).unwrap().unwrap();
        let (name, reason) = link.transport();
        assert_eq!(name, "dpdk");
        assert!(reason.starts_with("through the gateway at /"), "{reason}");
    });
}

#[test]
fn bulk_of_every_size_goes_out_and_comes_back() {
    let inline = INLINE_MAX as usize;
    for len in [0, 1, inline, inline + 1, PART, 3 * PART + 5, 10 * PART] {
        let header = Header::new(Kind::Bulk, 1, len as u64).with_payload(3);
        let bytes = pattern(len, 0);
        with_node(
            |node| {
                let header = node.header();
                assert_eq!(node.read(3), b"rec");
                let bytes = if len > inline {
                    node.take(header.aux)
                } else {
                    node.read(len)
                };
                node.say(Header::new(Kind::Ack, 1, 0));
                node.say(Header::new(Kind::Data, 1, len as u64));
                if len > inline {
                    node.give(&bytes);
                } else if len > 0 {
                    node.tell(ToApp::Stream(&bytes));
                }
                node.say(Header::new(Kind::Pong, 2, 0));
                assert!(node.sends.is_empty() && node.stream.is_empty());
            },
            |link| {
                let written = link.write_frame(&header.encode(), b"rec", &bytes, &mut go_on);
                written.unwrap();
                assert_eq!(read_header(link).kind, Kind::Ack);
                let data = read_header(link);
                assert_eq!(link.takes_apart(data.aux), len > inline);
                let back = if len > inline {
                    let mut back = vec![0; len];
                    let mut heard = 0;
                    let took = link.take_bulk(data.aux, Some(&mut back), &mut |came| {
                        heard += usize::from(came);
                        Ok(())
                    });
                    took.unwrap().unwrap();
                    assert!(heard > 0);
                    back
                } else {
                    read_exact(link, len)
                };
                assert!(back == bytes, "{len} bytes differ");
                assert_eq!(read_header(link).kind, Kind::Pong);
            },
        );
    }
}

#[test]
fn several_parts_are_under_way_at_once() {
    let most = with_node(
        |node| {
            node.say(Header::new(Kind::Data, 1, 6 * BULK_PART_MAX));
            node.until(|node| node.receives.len() >= 4);
            let ahead = node.receives.len();
            node.give(&pattern(6 * PART, 3));
            // What goes out is announced before what was announced earlier has left.
            node.header();
            node.until(|node| node.sends.len() >= 4);
            node.take(4 * BULK_PART_MAX);
            ahead
        },
        |link| {
            let len = read_header(link).aux;
            let mut back = vec![0; len as usize];
            link.take_bulk(len, Some(&mut back), &mut |_| Ok(()))
                .unwrap()
                .unwrap();
            assert!(back == pattern(6 * PART, 3));
            let header = Header::new(Kind::Bulk, 1, 4 * BULK_PART_MAX).encode();
            let bytes = vec![1; 4 * PART];
            link.write_frame(&header, &[], &bytes, &mut go_on).unwrap();
        },
    );
    assert_eq!(most, 4);
}

#[test]
fn a_writer_whose_memory_is_full_needs_no_reader() {
    let len = 8 * PART;
    with_node(
        |node| {
            let header = node.header();
            // Half of the arena, and no more until some of it is given back.
            node.until(|node| node.sends.len() >= 4);
            std::thread::sleep(Duration::from_millis(30));
            assert!(!node.step());
            // The stream's bytes come first, more than the ring holds: nobody reads them yet.
            for seq in 0..20_000 {
                node.say(Header::new(Kind::Ack, seq, 0));
            }
            assert!(node.take(header.aux) == pattern(len, 1));
        },
        |link| {
            let header = Header::new(Kind::Bulk, 1, len as u64).encode();
            let bytes = pattern(len, 1);
            link.write_frame(&header, &[], &bytes, &mut go_on).unwrap();
            for seq in 0..20_000 {
                assert_eq!(read_header(link).seq, seq);
            }
        },
    );
}

#[test]
fn a_writer_whose_ring_is_full_takes_in_what_comes() {
    let records = pattern(4 << 20, 5);
    with_node(
        |node| {
            // This loop takes nothing before it has told everything.
            for seq in 0..20_000 {
                node.say(Header::new(Kind::Ack, seq, 0));
            }
            assert!(node.read(4 << 20) == pattern(4 << 20, 5));
        },
        |link| {
            link.write_all(&[&records], &mut go_on).unwrap();
            for seq in 0..20_000 {
                assert_eq!(read_header(link).seq, seq);
            }
        },
    );
}

#[test]
fn a_thread_that_reads_serves_one_that_writes() {
    let len = 12 * PART;
    with_node(
        |node| {
            node.header();
            assert!(node.take(len as u64) == pattern(len, 2));
            node.say(Header::new(Kind::Pong, 9, 0));
        },
        |link| {
            std::thread::scope(|scope| {
                let reader = scope.spawn(|| assert_eq!(read_header(link).seq, 9));
                let header = Header::new(Kind::Bulk, 1, len as u64).encode();
                let bytes = pattern(len, 2);
                link.write_frame(&header, &[], &bytes, &mut go_on).unwrap();
                reader.join().unwrap();
            });
        },
    );
}

#[test]
fn whoever_waits_can_be_interrupted() {
    let stop = AtomicBool::new(false);
    let interrupted = || Err(io::Error::from(io::ErrorKind::Interrupted));
    with_node(
        |node| {
            // Nothing is ever given back, and nothing comes.
            node.say(Header::new(Kind::Data, 1, BULK_PART_MAX));
            while !stop.load(Ordering::Relaxed) {
                node.step();
            }
        },
        |link| {
            let bytes = vec![0; 8 * PART];
            let header = Header::new(Kind::Bulk, 1, bytes.len() as u64).encode();
            let error = link
                .write_frame(&header, &[], &bytes, &mut || interrupted())
                .unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::Interrupted);
            assert_eq!(read_header(link).kind, Kind::Data);
            let mut back = vec![0; PART];
            let ticks = AtomicUsize::new(0);
            let error = link
                .take_bulk(BULK_PART_MAX, Some(&mut back), &mut |heard| {
                    assert!(!heard);
                    match ticks.fetch_add(1, Ordering::Relaxed) {
                        2 => interrupted(),
                        _ => Ok(()),
                    }
                })
                .unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::Interrupted);
            assert!(link.read(&mut [0; 8]).unwrap().is_none(), "a tick");
            stop.store(true, Ordering::Relaxed);
        },
    );
}

#[test]
fn bulk_that_nobody_wants_does_not_travel() {
    with_node(
        |node| {
            node.say(Header::new(Kind::Data, 1, 2 * BULK_PART_MAX + 7));
            node.until(|node| node.receives.len() == 3);
            let lens = [BULK_PART_MAX, BULK_PART_MAX, 7];
            assert!(node.receives.iter().eq(lens.map(|len| (None, len)).iter()));
            node.say(Header::new(Kind::Pong, 2, 0));
        },
        |link| {
            let len = read_header(link).aux;
            link.take_bulk(len, None, &mut |_| Ok(())).unwrap().unwrap();
            assert_eq!(read_header(link).kind, Kind::Pong);
        },
    );
}

#[test]
fn bulk_that_is_lost_costs_its_tensor_only() {
    let len = 6 * BULK_PART_MAX;
    with_node(
        |node| {
            node.say(Header::new(Kind::Data, 1, len));
            node.until(|node| node.receives.len() >= 4);
            let (first, _) = node.receives.pop_front().unwrap();
            node.tell(ToApp::BulkFailed {
                place: first.unwrap(),
                code: 1,
                text: "the source changed",
            });
            // What was asked for comes or fails; the rest is refused.
            for _ in 0..3 {
                let (place, _) = node.receives.pop_front().unwrap();
                let place = place.unwrap();
                node.tell(ToApp::Received { place });
            }
            node.until(|node| node.receives.len() == 2);
            assert!(node.receives.iter().all(|(place, _)| place.is_none()));
            node.receives.clear();
            node.say(Header::new(Kind::Data, 2, BULK_PART_MAX));
            node.give(&pattern(PART, 8));
            // A bulk that could not be sent is the node's to complain about.
            node.header();
            node.until(|node| !node.sends.is_empty());
            let (place, _) = node.sends.pop_front().unwrap();
            node.tell(ToApp::BulkFailed {
                place,
                code: 1,
                text: "refused",
            });
            node.say(Header::new(Kind::Pong, 3, 0));
        },
        |link| {
            let mut back = vec![0; len as usize];
            assert_eq!(read_header(link).aux, len);
            let lost = link.take_bulk(len, Some(&mut back), &mut |_| Ok(()));
            assert_eq!(lost.unwrap(), Err("the source changed".to_owned()));
            let next = read_header(link);
            assert_eq!(next.seq, 2);
            let back = &mut back[..PART];
            link.take_bulk(next.aux, Some(back), &mut |_| Ok(()))
                .unwrap()
                .unwrap();
            assert!(back == pattern(PART, 8));
            let header = Header::new(Kind::Bulk, 1, BULK_PART_MAX).encode();
            link.write_frame(&header, &[], back, &mut go_on).unwrap();
            assert_eq!(read_header(link).seq, 3);
        },
    );
}

#[test]
fn the_end_is_told_with_its_reason() {
    for (code, text) in [(0, ""), (1, "the peer is silent")] {
        with_node(
            |node| {
                node.say(Header::new(Kind::Pong, 1, 0));
                node.tell(ToApp::Ended { code, text });
            },
            |link| {
                assert_eq!(read_header(link).seq, 1, "what came before is read first");
                let mut error = None;
                while error.is_none() {
                    error = link.read(&mut [0; 8]).err();
                }
                let error = error.unwrap();
                match code {
                    0 => assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof),
                    _ => assert_eq!(error.to_string(), text),
                }
                let written = link.write_all(&[&[0; 9 << 20]], &mut go_on);
                assert_eq!(written.unwrap_err().to_string(), error.to_string());
            },
        );
    }
}

#[test]
fn a_gateway_that_vanishes_ends_the_link() {
    let gateway = Gateway::new();
    let (link, node) = gateway.attached(SIZES);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| link.write_all(&[&[0; 9 << 20]], &mut go_on));
        std::thread::sleep(Duration::from_millis(20));
        drop(node);
        assert!(writer.join().unwrap().is_err());
    });
    assert!(link.read(&mut [0; 8]).is_err());
}

#[test]
fn shutting_down_says_goodbye_and_wakes_the_reader() {
    let gateway = Gateway::new();
    let (link, mut node) = gateway.attached(SIZES);
    let goodbye = Header::new(Kind::Goodbye, 0, 0).encode();
    link.write_all(&[&goodbye], &mut go_on).unwrap();
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut buffer = [0; 8];
            while link.read(&mut buffer).is_ok() {}
        });
        std::thread::sleep(Duration::from_millis(10));
        link.shutdown();
        reader.join().unwrap();
    });
    assert_eq!(node.header().kind, Kind::Goodbye);
    node.until(|node| node.is_finished);
    assert!(node.half.is_gone());
}

#[test]
fn who_sleeps_is_woken_by_what_comes() {
    let gateway = Gateway::new();
    let (link, mut node) = gateway.attached(SIZES);
    let readable = |millis| {
        let mut poll = libc::pollfd {
            fd: link.descriptor(),
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: one valid pollfd, and the link outlives the call.
        unsafe { libc::poll(&mut poll, 1, millis) > 0 }
    };
    assert!(!link.wait_readable(Duration::ZERO));
    assert!(link.arm());
    assert!(!readable(0));
    node.say(Header::new(Kind::Pong, 1, 0));
    assert!(readable(10_000));
    assert!(!link.arm(), "something is there");
    assert!(link.wait_readable(Duration::ZERO));
    assert_eq!(read_exact(&link, 8).len(), 8);
    assert!(!link.arm(), "the rest of it is");
    assert!(link.wait_readable(Duration::ZERO));
    read_exact(&link, HEADER_BYTES - 8);
    assert!(link.arm());
    assert!(!readable(0));
    assert_eq!(node.half.stats().wakes, 1, "one wake for one sleep");
    drop(node);
    assert!(readable(10_000));
    assert!(link.wait_readable(Duration::ZERO));
}

#[test]
fn a_gateway_that_shares_too_little_is_refused() {
    let gateway = Gateway::new();
    let small = Sizes {
        arena_bytes: 1 << 20,
        ..SIZES
    };
    std::thread::scope(|scope| {
        let address = gateway.address();
        let client = scope.spawn(move || {
            let offered = common::transport();
            Link::open(&address, None, Some(&offered), LONG).map(|_| ())
        });
        let (stream, _) = gateway.accept();
        let doorbell = genie_channel::Doorbell::new().unwrap();
        let _half = genie_channel::attach::answer_attach(stream, small, &doorbell, "").unwrap();
        let error = client.join().unwrap().unwrap_err();
        assert!(error.to_string().contains("raise its limit"), "{error}");
    });
}
