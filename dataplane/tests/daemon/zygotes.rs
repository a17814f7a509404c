//! The processes that executors are started from: when they come, and when they are replaced.

use std::time::Duration;

use genie_session::fault::Code;

use crate::client::{Client, pattern};
use crate::fake;
use crate::process::Daemon;

const PATIENCE: Duration = Duration::from_secs(10);

fn crash(daemon: &Daemon) {
    let mut client = Client::connect(&daemon.address);
    client.upload(b"doomed");
    client.call(1, fake::CRASH);
    assert_eq!(client.lost().code, Code::ExecutorDied);
}

#[test]
fn five_crashes_in_a_minute_replace_it_and_its_other_sessions_go_on() {
    let daemon = Daemon::start(&[]);
    let mut other = Client::connect(&daemon.address);
    let kept = other.upload(&pattern(100_000));
    for _ in 0..4 {
        crash(&daemon);
    }
    assert_eq!(daemon.metric("genie_zygotes_replaced_total"), 0.0);
    assert_eq!(daemon.metric("genie_zygotes"), 1.0);
    crash(&daemon);
    daemon.wait_metric("genie_zygotes_replaced_total", 1.0, PATIENCE);
    daemon.wait_line("it is replaced");
    // The old one stays for the session that it has, beside the one that comes.
    daemon.wait_metric("genie_zygotes", 2.0, PATIENCE);
    let mut next = Client::connect(&daemon.address);
    let storage = next.upload(b"anew");
    assert_eq!(next.fetch(storage, 4), b"anew");
    assert!(other.fetch(kept, 100_000) == pattern(100_000));
    drop(other);
    daemon.wait_metric("genie_zygotes", 1.0, PATIENCE);
}
