//! What stands still, or never ends, is noticed; and what the daemon does at signals.

use std::time::{Duration, Instant};

use genie_session::fault::Code;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::client::{Client, Control, pattern, request};
use crate::fake;
use crate::process::{Daemon, Folder};
use crate::tls;

const SOON: Duration = Duration::from_secs(2);

fn works(client: &mut Client) {
    let kept = client.upload(&pattern(10_000));
    assert!(client.fetch(kept, 10_000) == pattern(10_000));
}

#[test]
fn an_operator_without_end_ends_its_session_and_no_other() {
    let daemon = Daemon::start(&["--operator-timeout-seconds", "1"]);
    let mut other = Client::connect(&daemon.address);
    works(&mut other);
    let mut endless = Client::connect(&daemon.address);
    // Many short ones are none without end.
    for _ in 0..20 {
        endless.call(1, fake::SLOW);
    }
    works(&mut endless);
    let started = Instant::now();
    endless.call(2, fake::ENDLESS);
    let fault = endless.lost();
    assert_eq!(fault.code, Code::ExecutorDied);
    let named = fault.message.contains("operator_timeout_seconds");
    assert!(named, "{}", fault.message);
    let took = started.elapsed();
    assert!((1.0..3.5).contains(&took.as_secs_f64()), "{took:?}");
    works(&mut other);
}

#[test]
fn a_zygote_that_was_stopped_goes_on() {
    let daemon = Daemon::start(&[]);
    let mut before = Client::connect(&daemon.address);
    works(&mut before);
    let tasks = std::fs::read_dir(format!("/proc/{}/task", daemon.pid())).unwrap();
    let zygotes: Vec<i32> = tasks
        .filter_map(|task| std::fs::read_to_string(task.unwrap().path().join("children")).ok())
        .flat_map(|text| {
            let pids = text.split_whitespace().map(str::to_owned);
            pids.collect::<Vec<_>>()
        })
        .filter_map(|pid| pid.parse().ok())
        .collect();
    assert_eq!(zygotes.len(), 1, "{zygotes:?}");
    kill(Pid::from_raw(zygotes[0]), Signal::SIGSTOP).unwrap();
    let started = Instant::now();
    let mut after = Client::connect(&daemon.address);
    works(&mut after);
    assert!(
        started.elapsed() < Duration::from_secs(5),
        "{:?}",
        started.elapsed()
    );
    works(&mut before);
}

#[test]
fn a_client_that_never_reads_its_answer_ends() {
    let daemon = Daemon::start(&["--lease-seconds", "1"]);
    let mut deaf = Client::connect(&daemon.address);
    let kept = deaf.upload(&pattern(8 << 20));
    for fetch in 0..8 {
        deaf.ask(kept, 8 << 20, fetch);
    }
    let started = Instant::now();
    while daemon.metric("genie_sessions") > 0.0 {
        assert!(
            started.elapsed() < Duration::from_secs(45),
            "it is waited for"
        );
        // It lives, and reads nothing.
        let ping = genie_session::frame::Header::new(genie_session::frame::Kind::Ping, 1, 0);
        let _ = std::io::Write::write_all(&mut deaf.stream, &ping.encode());
        std::thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn a_drain_does_not_wait_for_who_wants_nothing() {
    let mut daemon = Daemon::start(&["--drain-seconds", "60"]);
    let mut clients: Vec<_> = (0..3).map(|_| Client::connect(&daemon.address)).collect();
    clients.iter_mut().for_each(works);
    std::thread::sleep(Duration::from_secs(1));
    let started = Instant::now();
    daemon.signal(Signal::SIGTERM);
    for client in &mut clients {
        assert_eq!(client.lost().code, Code::Draining);
    }
    drop(clients);
    assert_eq!(daemon.wait(SOON).code(), Some(0));
    assert!(started.elapsed() < SOON, "{:?}", started.elapsed());
}

#[test]
fn a_drain_waits_for_who_works() {
    let mut daemon = Daemon::start(&["--drain-seconds", "60"]);
    let mut client = Client::connect(&daemon.address);
    for _ in 0..25 {
        client.call(1, fake::SLOW);
    }
    daemon.signal(Signal::SIGTERM);
    daemon.wait_line("draining");
    works(&mut client);
    assert_eq!(client.lost().code, Code::Draining);
    drop(client);
    assert_eq!(daemon.wait(SOON).code(), Some(0));
}

#[test]
fn sighup_reads_the_configuration_again() {
    let folder = Folder::new();
    let file = folder.file("node.toml", "sessions = 3\n");
    let daemon = Daemon::start(&["--config", &file]);
    let mut client = Client::connect(&daemon.address);
    client.call(1, fake::SLOW);
    folder.file(
        "node.toml",
        "sessions = 3\noperator_timeout_seconds = 1\nplans = 7\n",
    );
    daemon.signal(Signal::SIGHUP);
    assert!(
        daemon
            .wait_line("reloaded")
            .contains("operator_timeout_seconds")
    );
    assert!(daemon.wait_line("needs a restart").contains("plans"));
    works(&mut client);
    client.call(2, fake::ENDLESS);
    assert_eq!(client.lost().code, Code::ExecutorDied);
    folder.file("node.toml", "sessions = \"three\"\n");
    daemon.signal(Signal::SIGHUP);
    assert!(
        daemon
            .wait_line("nothing is reloaded")
            .contains("node.toml:1")
    );
    works(&mut Client::connect(&daemon.address));
}

#[test]
fn sighup_takes_new_certificates() {
    let folder = Folder::new();
    let alice = tls::certificates(&folder, "alice");
    let bob = tls::certificates(&folder, "bob");
    let daemon = tls::daemon(&folder, "alice", &[]);
    let mut client = Client::connect_with(&daemon.address, Some(&alice), request());
    works(&mut client);
    for name in ["ca.pem", "server.pem", "server.key"] {
        std::fs::copy(
            folder.path(&format!("bob/{name}")),
            folder.path(&format!("alice/{name}")),
        )
        .unwrap();
    }
    daemon.signal(Signal::SIGHUP);
    daemon.wait_line("reloaded: certificates");
    let mut bobs = Client::connect_with(&daemon.address, Some(&bob), request());
    works(&mut bobs);
    works(&mut client);
    // Alice's authority is gone.
    let opened = Control::connect(&daemon.address, Some(&alice));
    assert!(opened.is_err() || opened.is_ok_and(|mut control| control.open(request()).is_err()));
}
