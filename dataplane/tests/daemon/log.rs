//! Whoever reads the log, or doesn't: the node works on.

use std::io::Write as _;
use std::net::TcpStream;
use std::process::Stdio;
use std::time::Duration;

use crate::client::{Client, pattern};
use crate::process::Daemon;

const LOST: &str = "genie_log_lines_lost_total";

fn works(daemon: &Daemon) {
    for _ in 0..3 {
        let mut client = Client::connect(&daemon.address);
        let kept = client.upload(&pattern(10_000));
        assert!(client.fetch(kept, 10_000) == pattern(10_000));
    }
    assert_eq!(daemon.get("/healthz").0, "HTTP/1.1 200 OK");
    daemon.wait_metric("genie_sessions", 0.0, Duration::from_secs(3));
}

/// Strangers whose connections are rejected, each with a line.
fn strangers(daemon: &Daemon, count: usize) {
    for _ in 0..count {
        let mut socket = TcpStream::connect(&daemon.address).unwrap();
        // It may be closed before all is written.
        let _ = socket.write_all(b"\x00nonsense\r\n\r\n");
    }
}

#[test]
fn a_full_disk_under_the_log_fails_nothing() {
    let full = std::fs::OpenOptions::new()
        .write(true)
        .open("/dev/full")
        .unwrap();
    let daemon = Daemon::unheard(&["--log", "debug"], full.into());
    works(&daemon);
    strangers(&daemon, 50);
    works(&daemon);
    daemon.wait_metric_where(LOST, |lines| lines > 10.0, Duration::from_secs(5));
}

#[test]
fn a_pipe_that_closes_under_the_log_fails_nothing() {
    let (read, write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap();
    let mut daemon = Daemon::unheard(&["--log", "debug"], write.into());
    drop(read);
    works(&daemon);
    strangers(&daemon, 50);
    works(&daemon);
    daemon.wait_metric_where(LOST, |lines| lines > 10.0, Duration::from_secs(5));
    daemon.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(daemon.wait(Duration::from_secs(4)).code(), Some(0));
}

#[test]
fn a_pipe_that_nobody_reads_fails_nothing() {
    let (read, write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap();
    let mut daemon = Daemon::unheard(&["--log", "trace"], write.into());
    // More than a pipe takes; what the log has room for besides is a unit test's.
    strangers(&daemon, 1000);
    for _ in 0..20 {
        works(&daemon);
    }
    daemon.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(daemon.wait(Duration::from_secs(4)).code(), Some(0));
    drop(read);
}

#[test]
fn standard_error_that_is_closed_fails_nothing() {
    let daemon = Daemon::unheard(&[], Stdio::null());
    works(&daemon);
}

#[test]
fn what_strangers_cause_to_be_said_is_limited() {
    let daemon = Daemon::start(&[]);
    strangers(&daemon, 2000);
    std::thread::sleep(Duration::from_millis(1500));
    strangers(&daemon, 1);
    let lines = daemon.lines_until("left out");
    let closed = lines
        .iter()
        .filter(|line| line.contains(" closed: "))
        .count();
    assert!((50..500).contains(&closed), "{closed} lines");
}
