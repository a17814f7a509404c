//! The command line: status, health, metrics, configuration, refusals.

use std::net::TcpListener;

use genie_control_api::ErrorCode;

use crate::client::{Control, request};
use crate::process::{Daemon, Folder, run, said};

#[test]
fn a_ready_node_says_so_everywhere() {
    let daemon = Daemon::start(&["--device", "host:1"]);
    let status = daemon.status(&[]);
    let text = String::from_utf8(status.stdout).unwrap();
    assert_eq!(status.status.code(), Some(0), "{text}");
    let reason = "dpdk_port is not set";
    for part in ["ready", "host:1", "2.11.0+fake", reason, "0 of 64"] {
        assert!(text.contains(part), "{part} in {text}");
    }
    let json = daemon.status(&["--json"]);
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json["ready"], true);
    assert_eq!(json["devices"][0]["kind"], "host");
    assert_eq!(
        daemon.get("/healthz"),
        ("HTTP/1.1 200 OK".into(), "ready\n".into())
    );
    assert_eq!(daemon.metric("genie_ready"), 1.0);
    assert!(daemon.metric("process_resident_memory_bytes") > 1e6);
    assert!(daemon.get("/other").0.contains("404"));
}

#[test]
fn a_node_without_libtorch_is_a_gateway() {
    let daemon = Daemon::gateway(&[]);
    let status = daemon.status(&[]);
    assert_eq!(status.status.code(), Some(1));
    assert!(
        String::from_utf8(status.stdout)
            .unwrap()
            .contains("GENIE_LIBTORCH")
    );
    assert!(daemon.get("/healthz").0.contains("503"));
    let refused = Control::connect(&daemon.address, None)
        .unwrap()
        .open(request())
        .unwrap_err();
    assert_eq!(ErrorCode::of(&refused), Some(ErrorCode::NoExecutor));
    assert!(refused.message().contains("GENIE_LIBTORCH"), "{refused}");
}

#[test]
fn a_node_that_is_not_there_is_unreachable() {
    let free = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .to_string();
    let status = run(&["status", &free]);
    assert_eq!(status.status.code(), Some(2));
    let said = said(&status);
    assert!(said.contains(&free) && said.contains("refused"), "{said}");
}

#[test]
fn off_loopback_it_wants_tls_or_insecure() {
    let refused = run(&["--listen", "0.0.0.0:0"]);
    assert_eq!(refused.status.code(), Some(2));
    let text = said(&refused);
    for way_out in ["--insecure", "certs init", "tls_certificate"] {
        assert!(text.contains(way_out), "{text}");
    }
    let daemon = Daemon::gateway(&["--listen", "0.0.0.0:0", "--insecure"]);
    assert!(daemon.get("/healthz").0.contains("503"));
}

#[test]
fn a_busy_port_is_said_clearly() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let refused = run(&["--listen", &address]);
    assert_eq!(refused.status.code(), Some(2));
    let text = said(&refused);
    assert!(text.contains(&address) && text.contains("taken"), "{text}");
}

#[test]
fn a_bad_configuration_is_refused_with_its_line() {
    let folder = Folder::new();
    let file = folder.file("node.toml", "sessions = 3\n\nsesions = 4\n");
    for args in [vec!["config", "check", &file], vec!["--config", &file]] {
        let refused = run(&args);
        assert_eq!(refused.status.code(), Some(2));
        let text = said(&refused);
        assert!(
            text.contains(&format!("{file}:3:")) && text.contains("sesions"),
            "{text}"
        );
        assert!(text.contains("lease_seconds"), "{text}");
    }
    let good = folder.file("good.toml", "sessions = 3");
    assert_eq!(run(&["config", "check", &good]).status.code(), Some(0));
    let none = run(&["config", "check", &folder.path("none.toml")]);
    assert_eq!(none.status.code(), Some(2));
    let bad_flag = run(&["--memory", "8GB"]);
    assert_eq!(bad_flag.status.code(), Some(2));
    assert!(said(&bad_flag).contains("GiB"));
}

#[test]
fn flags_override_variables_and_those_the_file() {
    let folder = Folder::new();
    let file = folder.file(
        "node.toml",
        "sessions = 3\nmemory = \"3GiB\"\nlease_seconds = 3\n",
    );
    let daemon = Daemon::gateway_with(
        &["--sessions", "5"],
        &[
            ("GENIE_CONFIG", &file),
            ("GENIE_SESSIONS", "4"),
            ("GENIE_MEMORY", "4GiB"),
        ],
    );
    let status = daemon.status(&["--json"]);
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!(status["sessions_max"], 5);
    assert_eq!(status["memory_budget_bytes"], 4_u64 << 30);
}
