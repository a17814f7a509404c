//! Executors that say what they may not, and what becomes of their sessions; with tensors in shared
//! memory, and in pools of the device.

use std::time::Duration;

use genie_session::fault::Code;
use genie_session::frame::{Header, Kind};

use crate::client::{Client, pattern};
use crate::fake;
use crate::process::Daemon;

const GONE_MAX: Duration = Duration::from_secs(5);
const TENSORS: [&str; 2] = ["auto", "pools"];

#[test]
fn an_executor_that_breaks_the_protocol_loses_its_session_and_no_other() {
    for tensors in TENSORS {
        let daemon = Daemon::start(&["--tensors", tensors]);
        let mut other = Client::connect(&daemon.address);
        let kept = other.upload(&pattern(3_000_000));
        for (operator, reason) in [
            (fake::STRAY, "a reply outside its memory"),
            (fake::FAR, "a reply outside its memory"),
            (fake::TWICE, "a free of a place that is not taken"),
            (fake::NOISE, "a frame that an executor may not send"),
        ] {
            let mut client = Client::connect(&daemon.address);
            let storage = client.upload(&pattern(100_000));
            assert!(client.fetch(storage, 100_000) == pattern(100_000));
            client.call(1, operator);
            client.ask(storage, 100_000, 2);
            let fault = client.lost();
            assert_eq!(fault.code, Code::ExecutorDied, "{tensors} {operator}");
            assert!(fault.message.contains(reason), "{tensors}: {fault:?}");
        }
        daemon.wait_metric("genie_sessions", 1.0, GONE_MAX);
        assert!(other.fetch(kept, 3_000_000) == pattern(3_000_000));
    }
}

#[test]
fn bulk_of_every_length_comes_back_whole() {
    for tensors in TENSORS {
        let daemon = Daemon::start(&["--tensors", tensors]);
        let mut client = Client::connect(&daemon.address);
        for len in [
            0,
            1,
            100_000,
            (8 << 20) - 1,
            8 << 20,
            (8 << 20) + 1,
            50 << 20,
        ] {
            let storage = client.upload(&pattern(len));
            let back = client.fetch(storage, len);
            assert!(back == pattern(len), "{tensors}: {len}");
        }
        // Pings come between frames, never between the parts of one bulk.
        let storage = client.upload(&pattern(30 << 20));
        client.ask(storage, 30 << 20, 77);
        client.say(Header::new(Kind::Ping, 5, 0));
        for _ in 0..2 {
            let frame = client.next();
            match frame.header.kind {
                Kind::Data => assert!(frame.raw == pattern(30 << 20), "{tensors}"),
                kind => assert_eq!((kind, frame.header.seq), (Kind::Pong, 5)),
            }
        }
        let staged = daemon.metric("genie_staged_copies_total");
        assert_eq!(staged > 0.0, tensors == "pools", "{tensors}: {staged}");
    }
}

#[test]
fn a_session_that_ends_gives_its_pools_back() {
    let daemon = Daemon::start(&["--tensors", "pools"]);
    for turn in 0..6 {
        let mut client = Client::connect(&daemon.address);
        for _ in 0..3 {
            client.upload(&pattern(40 << 20));
        }
        let last = client.upload(b"end");
        assert_eq!(client.fetch(last, 3), b"end");
        if turn % 2 == 1 {
            client.call(1, fake::CRASH);
            assert_eq!(client.lost().code, Code::ExecutorDied);
        }
        drop(client);
        daemon.wait_metric("genie_sessions", 0.0, GONE_MAX);
    }
    // Six sessions had more than 190 MiB each.
    let name = "process_resident_memory_bytes";
    daemon.wait_metric_where(name, |bytes| bytes < f64::from(150 << 20), GONE_MAX);
}
