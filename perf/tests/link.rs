//! Both ends over a link: bytes arrive, a changed byte is found, Ctrl-C keeps what was measured.

mod common;

use std::process::Stdio;
use std::time::{Duration, Instant};

use common::{Ran, Server, TempFile, command, quick, run};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const SIZES: &str = "1,64,4095,65536,65537,3000001";

fn every_byte_arrives(arguments: &[&str]) {
    let mut all = arguments.to_vec();
    all.push("--verify");
    let ran = quick(&all);
    assert_eq!(ran.code, Some(0), "{arguments:?}: {}", ran.errors);
    let json = ran.json();
    assert_eq!(json["verified"], true);
    for result in json["results"].as_array().unwrap() {
        assert_eq!(result["verify_errors"], 0, "{result}");
    }
}

/// A changed byte is counted once, by one result, and the exit status says so.
fn one_byte_is_found(arguments: &[&str]) {
    let mut all = arguments.to_vec();
    all.extend(["--verify", "--flip-byte"]);
    let ran = quick(&all);
    assert_eq!(ran.code, Some(1), "{arguments:?}: {}", ran.errors);
    assert!(
        ran.errors.contains("bytes came back other than they went"),
        "{}",
        ran.errors
    );
    for result in ran.json()["results"].as_array().unwrap() {
        assert_eq!(result["verify_errors"], 1, "{result}");
    }
}

#[test]
fn transfers_over_tcp_arrive() {
    every_byte_arrives(&["local", "--link", "tcp", "bw", "--size", SIZES]);
}

#[test]
fn echoes_over_tcp_come_back() {
    every_byte_arrives(&["local", "--link", "tcp", "lat", "--size", SIZES]);
}

#[test]
fn messages_over_tcp_arrive() {
    for batch in ["1", "7", "1024"] {
        let size = "1,64,4095,16384";
        every_byte_arrives(&[
            "local", "--link", "tcp", "rate", "--size", size, "--batch", batch,
        ]);
    }
}

#[test]
fn a_changed_byte_is_found() {
    one_byte_is_found(&["local", "--link", "tcp", "bw", "--size", "64,64K,1M"]);
    one_byte_is_found(&["local", "--link", "tcp", "lat", "--size", "64,64K"]);
    one_byte_is_found(&["local", "--link", "tcp", "rate", "--size", "64"]);
}

#[test]
fn a_changed_byte_is_not_seen_by_those_who_do_not_look() {
    let ran = quick(&[
        "local",
        "--link",
        "tcp",
        "bw",
        "--size",
        "64K",
        "--flip-byte",
    ]);
    assert_eq!(ran.code, Some(0), "{}", ran.errors);
    assert_eq!(ran.json()["verified"], false);
}

#[test]
fn a_server_serves_one_after_the_other_and_outlives_bad_guests() {
    use std::io::Write as _;
    let server = Server::start();
    for garbage in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &[0xff; 100],
        b"GENIE-PERF 1\r\n\r\n{\"x\"}\n",
    ] {
        let mut guest = std::net::TcpStream::connect(&server.address).unwrap();
        guest.write_all(garbage).unwrap();
    }
    let open = br#"{"Open":{"link":"Tcp","seal":null,"memory":"host"}}"#;
    let greedy = [&b"GENIE-PERF 1\r\n\r\n"[..], open, b"\n"].concat();
    let mut guest = std::net::TcpStream::connect(&server.address).unwrap();
    guest.write_all(&greedy).unwrap();
    drop(guest);
    for test in ["bw", "lat", "rate"] {
        let ran = quick(&["client", &server.address, test, "--verify", "--size", "100"]);
        assert_eq!(ran.code, Some(0), "{}", ran.errors);
        assert_eq!(ran.json()["results"].as_array().unwrap().len(), 1);
    }
}

#[test]
fn a_plan_past_the_bounds_is_refused() {
    let ran = quick(&[
        "local", "--link", "tcp", "bw", "--size", "4G", "--batch", "1024",
    ]);
    assert_eq!(ran.code, Some(2));
    assert!(
        ran.errors.contains("take a smaller --batch"),
        "{}",
        ran.errors
    );
}

#[test]
fn pinning_is_reported_and_its_lack_is_a_warning() {
    let ran = quick(&["local", "--link", "tcp", "lat", "--cores", "0,0"]);
    assert_eq!(ran.code, Some(0), "{}", ran.errors);
    let json = ran.json();
    assert_eq!(json["pinned_cores"], 2);
    assert!(
        !json["warnings"]
            .to_string()
            .contains("not every end is pinned"),
        "{json}"
    );
    let json = quick(&["local", "--link", "tcp", "lat"]).json();
    assert_eq!(json["pinned_cores"], 0);
    assert!(
        json["warnings"]
            .to_string()
            .contains("not every end is pinned"),
        "{json}"
    );
    let ran = quick(&["local", "--link", "tcp", "lat", "--cores", "0,100000"]);
    assert_eq!(ran.code, Some(2));
}

#[test]
fn text_and_page_and_json_come_from_one_run() {
    let (json, html) = (TempFile::new("a.json"), TempFile::new("a.html"));
    let ran = run(&[
        "local",
        "--link",
        "tcp",
        "bw",
        "--size",
        "4K..16K",
        "--time",
        "0.05",
        "--warmup",
        "0",
        "--json",
        json.name(),
        "--html",
        html.name(),
    ]);
    assert_eq!(ran.code, Some(0), "{}", ran.errors);
    assert!(
        ran.out.contains("transport  tcp") && ran.out.contains("16 KiB"),
        "{}",
        ran.out
    );
    let report: serde_json::Value = serde_json::from_str(&json.text()).unwrap();
    common::schema::check(&report);
    assert_eq!(report["results"].as_array().unwrap().len(), 3);
    let page = html.text();
    for foreign in [
        "http:", "https:", "src=", "href=", "url(", "@import", "<script",
    ] {
        assert!(!page.contains(foreign), "{foreign}");
    }
    assert!(page.contains("<svg") && page.contains("16 KiB"));
}

#[test]
fn ctrl_c_ends_a_run_with_what_was_measured() {
    for test in ["bw", "lat", "rate"] {
        let process = command(&[
            "local", "--link", "tcp", test, "--size", "64", "--time", "600", "--json", "-",
        ])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
        std::thread::sleep(Duration::from_millis(800));
        let began = Instant::now();
        kill(Pid::from_raw(process.id().cast_signed()), Signal::SIGINT).unwrap();
        let ran = Ran::of(&process.wait_with_output().unwrap());
        assert!(began.elapsed() < Duration::from_secs(60), "it did not end");
        assert_eq!(ran.code, Some(0), "{test}: {}", ran.errors);
        let json = ran.json();
        assert_eq!(json["interrupted"], true);
        assert!(json["results"][0]["transfers"].as_u64() > Some(0), "{json}");
    }
}
