//! `server` and `client` as two processes, each with a DPDK port of its own: memif, which is what a
//! machine without a second NIC has. Not run here: two NICs.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends where it can't go on"
)]

mod common;

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use common::{Ran, Running, Server, TempFile, alone, command, is_missing, quick, run};

const GREETING: &str = "GENIE-PERF 1\r\n\r\n";
const BUSY: &str = "the server is busy with another client";

/// A server with a port, and the arguments that give a client the other one.
struct Pair {
    server: Server,
    port: String,
    _socket: TempFile,
}

impl Pair {
    /// `None`, and said why, without DPDK.
    fn start() -> Option<Self> {
        if is_missing("memif") {
            return None;
        }
        let socket = TempFile::new("memif.sock");
        let port = |role: &str| format!("memif:{},{role}", socket.name());
        let mut server = Server::with(&["--dpdk-port", &port("server")]);
        let line = server.process.line();
        assert!(line.contains("at 198.18.0.2/24, MTU 9000"), "{line}");
        Some(Self {
            server,
            port: port("client"),
            _socket: socket,
        })
    }

    fn arguments<'a>(&'a self, test: &'a str, more: &[&'a str]) -> Vec<&'a str> {
        let client = ["client", &self.server.address, test];
        [&client[..], &["--dpdk-port", &self.port], more].concat()
    }

    fn client(&self, test: &str, more: &[&str]) -> Ran {
        quick(&self.arguments(test, more))
    }

    /// A client that measures for a minute, and is served by now.
    fn busy_client(&self) -> Running {
        let more = ["--transport", "dpdk", "--time", "60"];
        let client = Running::start(&mut command(&self.arguments("bw", &more)));
        for _ in 0..20 {
            let ran = quick(&["client", &self.server.address, "lat"]);
            if ran.code == Some(2) {
                refused(&ran, BUSY);
                return client;
            }
        }
        panic!("the client is never served");
    }
}

fn refused(ran: &Ran, part: &str) {
    assert_eq!(ran.code, Some(2), "{}", ran.errors);
    assert!(ran.errors.contains(part), "{part:?}: {}", ran.errors);
}

#[test]
fn two_processes_measure_over_their_ports() {
    let _alone = alone();
    let Some(pair) = Pair::start() else { return };
    for (test, sizes) in [
        ("bw", "1,8192,200001"),
        ("lat", "64,200001"),
        ("rate", "64,1022"),
    ] {
        for seal in ["off", "on"] {
            let how = ["--transport", "dpdk", "--seal", seal, "--size", sizes];
            let ran = pair.client(test, &[&how[..], &["--verify"]].concat());
            assert_eq!(ran.code, Some(0), "{test}: {}", ran.errors);
            let json = ran.json();
            assert_eq!(json["transport"], "dpdk", "{json}");
            let sealed = if seal == "on" {
                "aes-128-gcm"
            } else {
                "crc32c"
            };
            assert_eq!(json["seal"], sealed);
            assert!(json["mtu_bytes"].as_u64() > Some(8192), "{json}");
            assert!(json["path"].as_str().unwrap().contains("memif"), "{json}");
            assert!(!json["warnings"].to_string().contains("TCP"), "{json}");
            let results = json["results"].as_array().unwrap();
            assert_eq!(results.len(), sizes.split(',').count());
            for result in results {
                assert_eq!(result["verify_errors"], 0, "{result}");
                assert!(result["cpu_seconds"]["there"].is_number(), "{result}");
            }
        }
        let flip = [
            "--transport",
            "dpdk",
            "--size",
            "64",
            "--verify",
            "--flip-byte",
        ];
        let ran = pair.client(test, &flip);
        assert_eq!(ran.code, Some(1), "{test}: {}", ran.errors);
        assert_eq!(ran.json()["results"][0]["verify_errors"], 1);
    }
}

#[test]
fn auto_takes_the_ports_and_says_why_where_it_can_not() {
    let _alone = alone();
    let Some(pair) = Pair::start() else { return };
    assert_eq!(pair.client("lat", &[]).json()["transport"], "dpdk");
    let json = pair.client("lat", &["--transport", "tcp"]).json();
    assert_eq!(json["transport"], "tcp");
    assert!(!json["warnings"].to_string().contains("TCP"), "{json}");
    let nobody = TempFile::new("nobody.sock");
    let nobody = format!("memif:{},client", nobody.name());
    for (arguments, why) in [
        (vec![], "this end was given no DPDK port"),
        (
            vec!["--dpdk-port", &pair.port, "--dpdk-address", "10.1.1.1/24"],
            "198.18.0.2 on the link, which is not in this end's network 10.1.1.1/24",
        ),
        (
            vec!["--dpdk-port", &pair.port, "--dpdk-address", "198.18.0.2/24"],
            "both ends have the address 198.18.0.2",
        ),
        // It is waited for as long as a NIC's link may take.
        (vec!["--dpdk-port", &nobody], "is down"),
    ] {
        let client = ["client", &pair.server.address, "lat", "--verify"];
        let ran = quick(&[&client[..], &arguments].concat());
        assert_eq!(ran.code, Some(0), "{why}: {}", ran.errors);
        let json = ran.json();
        assert_eq!(json["transport"], "tcp", "{why}");
        let warnings = json["warnings"].to_string();
        assert!(warnings.contains("TCP, not DPDK: "), "{warnings}");
        assert!(warnings.contains(why), "{why}: {warnings}");
    }
}

#[test]
fn a_server_without_a_port_is_measured_by_tcp_or_not_at_all() {
    let server = Server::start();
    let client = ["client", &server.address, "lat", "--transport"];
    let port = ["--dpdk-port", "memif:/nowhere/at/all.sock,client"];
    let ran = quick(&[&client[..], &["dpdk"], &port].concat());
    refused(&ran, "genie-perf server --dpdk-port gives it one");
    let ran = quick(&[&client[..], &["dpdk"]].concat());
    refused(&ran, "--dpdk-port names it");
    // The port here is not even opened.
    let json = quick(&[&client[..], &["auto"], &port].concat()).json();
    assert_eq!(json["transport"], "tcp");
    let warnings = json["warnings"].to_string();
    assert!(
        warnings.contains("TCP, not DPDK: the server has no DPDK port"),
        "{warnings}"
    );
}

#[test]
fn a_port_is_named_as_the_daemon_names_it() {
    for command in [&["server"][..], &["client", "127.0.0.1:1", "lat"]] {
        let ran = run(&[command, &["--dpdk-port", "eth0"]].concat());
        refused(&ran, "\"eth0\" names no port");
        let ran = run(&[command, &["--dpdk-address", "10.0.0.1"]].concat());
        refused(&ran, "IP/BITS");
        let ran = run(&[command, &["--help"]].concat());
        assert_eq!(ran.code, Some(0));
        for example in ["pci:0000:03:00.0", "memif:/tmp/perf.sock", "one at a time"] {
            assert!(ran.out.contains(example), "{example}: {}", ran.out);
        }
    }
}

#[test]
fn a_port_that_is_not_there_ends_a_server_with_its_name() {
    let _alone = alone();
    let ran = run(&["server", "--dpdk-port", "af_packet:no-such-port"]);
    assert_eq!(ran.code, Some(2), "{}", ran.errors);
    let said = ["the port af_packet:no-such-port does not open", "no DPDK"];
    assert!(
        said.iter().any(|part| ran.errors.contains(part)),
        "{}",
        ran.errors
    );
}

#[test]
fn who_comes_while_another_is_served_is_told_so() {
    let _alone = alone();
    let Some(pair) = Pair::start() else {
        return;
    };
    let mut first = pair.busy_client();
    for arguments in [&["--transport", "tcp"][..], &["--transport", "dpdk"]] {
        refused(&pair.client("lat", arguments), BUSY);
    }
    let over = first.process.try_wait().unwrap();
    assert!(over.is_none(), "the first one was disturbed: {over:?}");
}

#[test]
fn a_client_that_is_killed_ends_only_its_own_test() {
    let _alone = alone();
    let Some(pair) = Pair::start() else {
        return;
    };
    for _ in 0..2 {
        let mut client = pair.busy_client();
        assert!(client.process.try_wait().unwrap().is_none(), "it measures");
        drop(client);
        let ran = pair.client("bw", &["--transport", "dpdk", "--verify", "--size", "100K"]);
        assert_eq!(ran.code, Some(0), "{}", ran.errors);
        let json = ran.json();
        assert_eq!(json["transport"], "dpdk");
        assert_eq!(json["results"][0]["verify_errors"], 0);
    }
}

/// Says `lines` to a server, and gives what it says until it hangs up, or says `last`.
fn conversation(address: &str, lines: &[&str], last: &str) -> String {
    let guest = TcpStream::connect(address).unwrap();
    let limit = Some(Duration::from_secs(20));
    guest.set_read_timeout(limit).unwrap();
    let mut writer = guest.try_clone().unwrap();
    writeln!(writer, "{GREETING}{}", lines.join("\n")).unwrap();
    let mut all = String::new();
    for line in BufReader::new(guest).lines() {
        let Ok(line) = line else { break };
        all += &line;
        if all.contains(last) {
            break;
        }
    }
    all
}

#[test]
fn guests_that_do_not_come_to_the_link_are_left_behind() {
    let _alone = alone();
    let Some(pair) = Pair::start() else { return };
    let open = r#"{"Open":{"link":{"Dpdk":null},"seal":null,"memory":"host","device":"host:0"}}"#;
    let begin = concat!(
        r#"{"Begin":{"kind":"Transfers","size":64,"batch":1,"slots":1,"#,
        r#""verify":false,"flip_byte":false}}"#
    );
    for (lines, last) in [
        // Each is an offer, and too many are too many.
        (vec![open; 9], "none of 8 data paths came about"),
        (vec![open, begin], "before there was a data path"),
        (vec![open, "\"Meet\"", "\"Meet\""], "is open already"),
        // It goes away with the offer, and with the server's half open.
        (vec![open], "\"offer\""),
        (vec![open, "\"Meet\""], "\"Ready\""),
    ] {
        let all = conversation(&pair.server.address, &lines, last);
        assert!(all.contains(last), "{last}: {all}");
    }
    let ran = pair.client("bw", &["--transport", "dpdk", "--verify"]);
    assert_eq!(ran.code, Some(0), "{}", ran.errors);
}

#[test]
fn where_no_frame_passes_the_server_still_offers_tcp() {
    let _alone = alone();
    let Some(pair) = Pair::start() else { return };
    let mut guest = TcpStream::connect(&pair.server.address).unwrap();
    let limit = Some(Duration::from_secs(20));
    guest.set_read_timeout(limit).unwrap();
    let mut lines = BufReader::new(guest.try_clone().unwrap()).lines();
    let open = |link: &str| {
        format!(r#"{{"Open":{{"link":{link},"seal":null,"memory":"host","device":"host:0"}}}}"#)
    };
    writeln!(guest, "{GREETING}{}\n\"Meet\"", open(r#"{"Dpdk":null}"#)).unwrap();
    let ready = lines.find(|line| line.as_ref().unwrap().contains("Ready"));
    assert!(ready.is_some());
    // More than the transport waits for a first sign of life.
    std::thread::sleep(Duration::from_secs(3));
    writeln!(guest, "{}", open("\"Tcp\"")).unwrap();
    let answer = lines.next().unwrap().unwrap();
    assert!(answer.contains("\"token\""), "{answer}");
}

#[test]
fn an_offer_that_is_none_is_refused() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = server.local_addr().unwrap().to_string();
    let zeros = "00".repeat(53);
    let offers = ["", "xy", "00", &zeros];
    let said: Vec<String> = offers
        .iter()
        .map(|offer| format!(r#"{{"Opened":{{"Dpdk":{{"offer":"{offer}"}}}}}}"#))
        .collect();
    let count = said.len();
    let hostile = std::thread::spawn(move || {
        for answer in said {
            let (guest, _) = server.accept().unwrap();
            let mut lines = BufReader::new(guest.try_clone().unwrap()).lines();
            write!(&guest, "{GREETING}").unwrap();
            // Two of the greeting, then what it asks for.
            let asked = lines.nth(2).unwrap().unwrap();
            assert!(asked.contains("Dpdk"), "{asked}");
            writeln!(&guest, "{answer}").unwrap();
        }
    });
    for _ in 0..count {
        let client = ["client", &address, "lat", "--transport", "dpdk"];
        let port = ["--dpdk-port", "memif:/nowhere/at/all.sock,client"];
        refused(&quick(&[&client[..], &port].concat()), "offer");
    }
    hostile.join().unwrap();
}
