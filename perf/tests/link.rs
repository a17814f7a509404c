//! Both ends over a link: bytes arrive, a changed byte is found, Ctrl-C keeps what was measured.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends where it can't go on"
)]

mod common;

use std::process::Stdio;
use std::time::{Duration, Instant};

use common::{Ran, Server, TempFile, alone, command, is_missing, quick, run};
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

/// Everything that a link is asked for.
fn every_test_passes(link: &str, sizes: &str, message_max: &str) {
    let _alone = alone();
    if is_missing(link) {
        return;
    }
    for (test, sizes) in [("bw", sizes), ("lat", sizes), ("rate", message_max)] {
        every_byte_arrives(&["local", "--link", link, test, "--size", sizes]);
        one_byte_is_found(&["local", "--link", link, test, "--size", "64"]);
    }
    one_byte_is_found(&["local", "--link", link, "bw", "--size", "200000"]);
    one_byte_is_found(&["local", "--link", link, "lat", "--size", "200000"]);
}

#[test]
fn memif_carries_every_byte() {
    every_test_passes("memif", "1,64,1022,1023,8192,200001", "1,1022");
}

#[test]
fn sealed_memif_carries_every_byte_and_says_so() {
    let _alone = alone();
    if is_missing("memif") {
        return;
    }
    let sealed = [
        "local", "--link", "memif", "bw", "--size", "100000", "--seal", "on", "--verify",
    ];
    let ran = quick(&sealed);
    assert_eq!(ran.code, Some(0), "{}", ran.errors);
    let json = ran.json();
    assert_eq!(
        (&json["seal"], &json["transport"]),
        (&"aes-128-gcm".into(), &"dpdk".into())
    );
    assert!(json["mtu_bytes"].as_u64() > Some(8192), "{json}");
    assert_eq!(json["results"][0]["verify_errors"], 0);
    let json = quick(&["local", "--link", "memif", "lat"]).json();
    assert_eq!(json["seal"], "crc32c");
}

#[test]
fn af_xdp_carries_every_byte_and_leaves_nothing() {
    every_test_passes("af-xdp", "1,64,1023,8192,200001", "1,1022");
    let left = std::fs::read_dir("/run/netns")
        .into_iter()
        .flatten()
        .flatten();
    let left: Vec<_> = left
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.starts_with("genie-perf-"))
        .collect();
    // Another test's may be alive in another process: those of the dead are what counts.
    for name in left {
        let id = name.split('-').nth(2).unwrap_or("0");
        assert!(
            std::path::Path::new("/proc").join(id).exists(),
            "{name} was left behind"
        );
    }
}

#[test]
fn shared_memory_carries_every_byte() {
    every_test_passes(
        "shm",
        "1,64,16384,16385,200001,20000000",
        "1,1023,1024,16384",
    );
}

#[test]
fn two_engines_carry_every_byte_from_program_to_program() {
    let _alone = alone();
    for seal in ["off", "on"] {
        for (test, sizes) in [("lat", "1,64,1023,1024,16384"), ("rate", "1,64,1023,16384")] {
            let of = |sizes| {
                [
                    "local", "--link", "engine", test, "--size", sizes, "--seal", seal,
                ]
            };
            every_byte_arrives(&of(sizes));
            one_byte_is_found(&of("64"));
        }
        let json = quick(&["local", "--link", "engine", "lat", "--seal", seal]).json();
        let named = if seal == "on" {
            "aes-128-gcm"
        } else {
            "crc32c"
        };
        assert_eq!(json["seal"], named);
        assert!(
            json["path"].as_str().unwrap().contains("second engine"),
            "{json}"
        );
    }
    // Nobody is to take one for the other.
    let json = quick(&["local", "--link", "shm", "lat"]).json();
    assert!(
        json["path"].as_str().unwrap().contains("no engine"),
        "{json}"
    );
    for arguments in [["bw", "64"], ["lat", "16385"]] {
        let [test, size] = arguments;
        let ran = quick(&["local", "--link", "engine", test, "--size", size]);
        assert_eq!(ran.code, Some(2));
        assert!(ran.errors.contains("is of messages"), "{}", ran.errors);
    }
}

#[test]
fn a_changed_byte_is_found() {
    one_byte_is_found(&["local", "--link", "tcp", "bw", "--size", "64,64K,1M"]);
    one_byte_is_found(&["local", "--link", "tcp", "lat", "--size", "64,64K"]);
    one_byte_is_found(&["local", "--link", "tcp", "rate", "--size", "64"]);
}

/// Every test with memory of a device at both ends.
fn bytes_pass_through_a_device(link: &str) {
    let device = ["--memory", "device", "--device", "host:0"];
    for (test, sizes) in [
        ("bw", "1,65536,3000001"),
        ("lat", "1,65536,3000001"),
        ("rate", "64"),
    ] {
        let of = |sizes| {
            [
                &["local", "--link", link, test, "--size", sizes],
                &device[..],
            ]
            .concat()
        };
        every_byte_arrives(&of(sizes));
        if test != "rate" {
            one_byte_is_found(&of("70000"));
        }
        let json = quick(&of(sizes)).json();
        assert_eq!(json["memory"], "host:0");
        assert!(json["path"].as_str().unwrap().contains("staged"), "{json}");
        // One byte there and back is a message, which the host has.
        let told = json["warnings"].to_string().contains("are the host's");
        assert_eq!(told, test != "bw", "{json}");
    }
}

#[test]
fn bytes_pass_through_a_device_at_both_ends_of_tcp() {
    bytes_pass_through_a_device("tcp");
}

#[test]
fn bytes_pass_through_a_device_at_both_ends_of_shared_memory() {
    let _alone = alone();
    bytes_pass_through_a_device("shm");
}

#[test]
fn bytes_pass_through_a_device_at_both_ends_of_memif() {
    let _alone = alone();
    if !is_missing("memif") {
        bytes_pass_through_a_device("memif");
    }
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
    use std::io::{Read as _, Write as _};
    let server = Server::start();
    for garbage in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &[0xff; 100],
        b"GENIE-PERF 1\r\n\r\n{\"x\"}\n",
    ] {
        let mut guest = std::net::TcpStream::connect(&server.address).unwrap();
        guest.write_all(garbage).unwrap();
    }
    let open = |link: &str| {
        format!(r#"{{"Open":{{"link":{link},"seal":null,"memory":"host","device":"host:0"}}}}"#)
    };
    let begin = r#"{"Begin":{"kind":"Transfers","size":1099511627776,"batch":1,"slots":1000,
        "verify":false,"flip_byte":false}}"#
        .replace('\n', " ");
    for (lines, answer) in [
        (vec![open(r#"{"Shm":"/tmp/x"}"#)], "not for strangers"),
        (vec![open(r#"{"Engine":"/tmp/x"}"#)], "not for strangers"),
        (
            vec![open(
                r#"{"Dpdk":{"port":"memif:/tmp/x,server","namespace":null}}"#,
            )],
            "not for strangers",
        ),
        // It has no port, says so, and goes on; but not for ever.
        (vec![open(r#"{"Dpdk":null}"#); 9], "none of 8 data paths"),
        (vec![begin.clone()], "before a data path"),
        // It goes away while the server waits for its data path.
        (vec![open("\"Tcp\"")], "Opened"),
    ] {
        let mut guest = std::net::TcpStream::connect(&server.address).unwrap();
        guest.write_all(b"GENIE-PERF 1\r\n\r\n").unwrap();
        for line in lines {
            guest.write_all(line.as_bytes()).unwrap();
            guest.write_all(b"\n").unwrap();
        }
        let limit = Some(Duration::from_secs(20));
        guest.set_read_timeout(limit).unwrap();
        let mut said = [0; 4096];
        let mut all = String::new();
        while !all.contains(answer) {
            let n = guest.read(&mut said).unwrap();
            if n == 0 {
                break;
            }
            all += &String::from_utf8_lossy(&said[..n]);
        }
        // A client that asks before its path is only cut off.
        assert!(
            all.contains(answer) || answer == "before a data path",
            "{answer}: {all}"
        );
    }
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
