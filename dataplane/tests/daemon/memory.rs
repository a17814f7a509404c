//! The node's memory: sessions together take no more than there is, and who finds none left is told.

use std::time::Duration;

use genie_session::fault::Code;
use genie_session::frame::Kind;

use crate::client::{Client, pattern};
use crate::process::Daemon;

const SOON: Duration = Duration::from_secs(3);
const LEN: usize = 20 << 20;
/// What is read back of it.
const PART: usize = 1 << 20;

#[test]
fn who_finds_no_memory_left_is_told_and_no_other() {
    for tensors in ["auto", "pools"] {
        let daemon = Daemon::start(&["--node-memory", "48MiB", "--tensors", tensors]);
        assert_eq!(daemon.metric("genie_memory_bytes"), f64::from(48 << 20));
        let mut first = Client::connect(&daemon.address);
        assert_eq!(first.reply.memory_budget_bytes, 48 << 20);
        let kept = first.upload(&pattern(LEN));
        assert!(first.fetch(kept, PART) == pattern(LEN)[..PART], "{tensors}");
        let mut second = Client::connect(&daemon.address);
        let small = second.upload(b"small");
        assert_eq!(second.fetch(small, 5), b"small");
        let large = second.upload(&pattern(LEN));
        second.ask(large, PART, 1);
        let fault = second.next();
        assert_eq!(fault.header.kind, Kind::Fault);
        assert_eq!(fault.fault().code, Code::OutOfMemory, "{tensors}");
        assert_eq!(second.next().header.kind, Kind::FetchFault);
        assert!(first.fetch(kept, PART) == pattern(LEN)[..PART]);
        // What is given back others have.
        drop(first);
        daemon.wait_metric("genie_sessions", 1.0, SOON);
        let large = second.upload(&pattern(LEN));
        assert!(
            second.fetch(large, PART) == pattern(LEN)[..PART],
            "{tensors}"
        );
        drop(second);
        daemon.wait_metric("genie_memory_charged_bytes", 0.0, SOON);
    }
}

#[test]
fn a_session_that_finds_none_does_not_begin() {
    let daemon = Daemon::start(&["--node-memory", "20MiB"]);
    let mut two: Vec<_> = (0..2).map(|_| Client::connect(&daemon.address)).collect();
    for client in &mut two {
        let kept = client.upload(b"kept");
        assert_eq!(client.fetch(kept, 4), b"kept");
    }
    let mut third = Client::connect(&daemon.address);
    third.upload(b"none");
    assert_eq!(third.lost().code, Code::OutOfMemory);
    drop(two);
    daemon.wait_metric("genie_sessions", 0.0, SOON);
    let mut again = Client::connect(&daemon.address);
    let kept = again.upload(b"kept");
    assert_eq!(again.fetch(kept, 4), b"kept");
}

#[test]
fn the_daemon_is_the_last_to_be_ended() {
    let daemon = Daemon::start(&[]);
    let score = std::fs::read_to_string(format!("/proc/{}/oom_score_adj", daemon.pid())).unwrap();
    let own = std::fs::read_to_string("/proc/self/oom_score_adj").unwrap();
    let [score, own] = [score, own].map(|text| text.trim().parse::<i32>().unwrap());
    assert!(score == -500 || score == own, "{score}");
}
