//! Bad usage and unreachable ends: exit status 2, and a line that says what to do.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends where it can't go on"
)]

mod common;

use common::run;

fn refused(arguments: &[&str], part: &str) {
    let ran = run(arguments);
    assert_eq!(ran.code, Some(2), "{arguments:?}: {}", ran.errors);
    assert!(ran.out.is_empty(), "{arguments:?}: {}", ran.out);
    assert!(
        ran.errors.contains(part),
        "{arguments:?} lacks {part:?}: {}",
        ran.errors
    );
}

#[test]
fn bad_arguments_are_named() {
    refused(&[], "Usage");
    refused(&["client", "127.0.0.1:1"], "<TEST>");
    refused(&["local", "bw"], "--link");
    refused(&["local", "--link", "pigeon", "bw"], "memif");
    for (flag, value) in [
        ("--size", "0"),
        ("--size", "8..4"),
        ("--size", "1,x"),
        ("--batch", "0"),
        ("--batch", "1025"),
        ("--time", "a"),
        ("--time", "1e9"),
        ("--seal", "maybe"),
        ("--memory", "tape"),
        ("--cores", "first"),
    ] {
        refused(&["local", "--link", "tcp", "bw", flag, value], flag);
    }
    refused(
        &["local", "--link", "tcp", "bw", "--cores", "0"],
        "two cores",
    );
    refused(
        &["local", "--link", "tcp", "rate", "--size", "1M"],
        "measure bw",
    );
    refused(&["device", "--device", "tape:0"], "tape:0");
}

#[test]
fn what_a_path_can_not_do_is_said_before_it_is_tried() {
    refused(
        &["client", "127.0.0.1:1", "lat", "--transport", "shm"],
        "local --link shm",
    );
    refused(
        &[
            "client",
            "unix:///nowhere/at/all.sock",
            "lat",
            "--dpdk-port",
            "pci:0000:03:00.0",
        ],
        "is its gateway's",
    );
    let beyond = ["--memory", "device", "--device", "cuda:127"];
    refused(
        &[&["local", "--link", "tcp", "bw"], &beyond[..]].concat(),
        "cuda:127",
    );
    for link in ["shm", "tcp"] {
        let ran = run(&["local", "--link", link, "bw", "--seal", "on"]);
        assert_eq!(ran.code, Some(2), "{}", ran.errors);
        // Both ends have an interest in saying so.
        assert_eq!(
            ran.errors.matches("--seal off").count(),
            1,
            "{}",
            ran.errors
        );
    }
    let help = run(&["local", "--help"]).out;
    assert!(help.contains("is refused"), "{help}");
}

#[test]
fn nobody_there_is_a_clear_error() {
    refused(
        &["client", "127.0.0.1:1", "lat"],
        "no node answers at tcp://127.0.0.1:1",
    );
    refused(
        &["client", "no.such.host.invalid:1", "lat"],
        "no.such.host.invalid",
    );
    refused(&["client", "tcp://", "lat"], "is not an address");
    let ran = run(&["client", "unix:///nowhere/at/all.sock", "lat"]);
    assert_eq!(ran.code, Some(2));
    for cause in ["no gateway answers at /nowhere/at/all.sock", "os error 2"] {
        assert_eq!(ran.errors.matches(cause).count(), 1, "{}", ran.errors);
    }
}

#[test]
fn something_else_that_listens_is_not_waited_for() {
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = other.local_addr().unwrap().to_string();
    let server = std::thread::spawn(move || {
        // Two come: the greeting, and the attempt as a node.
        for _ in 0..2 {
            drop(other.accept());
        }
    });
    refused(&["client", &address, "lat"], "no node answers");
    server.join().unwrap();
}

#[test]
fn results_that_can_not_be_written_are_an_error() {
    let ran = common::quick(&[
        "local",
        "--link",
        "tcp",
        "lat",
        "--html",
        "/nowhere/at/all.html",
    ]);
    assert_eq!(ran.code, Some(2));
    assert!(
        ran.errors.contains("/nowhere/at/all.html"),
        "{}",
        ran.errors
    );
}

#[test]
fn help_tells_exit_statuses() {
    let ran = run(&["--help"]);
    assert_eq!(ran.code, Some(0));
    assert!(
        ran.out.contains("Exit status") && ran.out.contains("local"),
        "{}",
        ran.out
    );
}
