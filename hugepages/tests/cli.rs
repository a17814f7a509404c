//! The binary on a fake `/sys` and `/proc`: what it says, writes, and exits with.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends where it can't go on"
)]

use std::process::{Command, Output};

use genie_hugepages::Root;

#[path = "../src/testing.rs"]
mod testing;

use testing::Fake;

const NODE_0: &str = "sys/devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages";

fn machine() -> Fake {
    let fake = Fake::new();
    fake.pool(None, 2048, 16, 8);
    fake.pool(Some(0), 2048, 16, 8);
    fake.pool(None, 1_048_576, 1, 1);
    fake.pool(Some(0), 1_048_576, 1, 1);
    fake.file(
        "proc/mounts",
        "none /dev/hugepages hugetlbfs rw,pagesize=2M 0 0\n",
    );
    fake.file(
        "proc/meminfo",
        "MemTotal: 16777216 kB\nMemAvailable: 8388608 kB\nHugepagesize: 2048 kB\n",
    );
    fake
}

fn genie_hugepages(fake: &Fake, arguments: &[&str]) -> (Option<i32>, String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = Command::new(env!("CARGO_BIN_EXE_genie-hugepages"))
        .arg("--root")
        .arg(fake.folder())
        .args(arguments)
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code(), text(stdout), text(stderr))
}

#[test]
fn status_is_a_table() {
    let (code, text, _) = genie_hugepages(&machine(), &["status"]);
    assert_eq!(code, Some(0));
    let rows: Vec<Vec<&str>> = text
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(rows[1], ["0", "2MiB", "16", "8", "504", "missing"]);
    assert_eq!(rows[2], ["0", "1GiB", "1", "1", "enough"]);
    assert!(
        text.contains("mount: /dev/hugepages (pages of 2MiB)"),
        "{text}"
    );
    assert!(
        text.contains("A 1GiB pool fits on pages of 1GiB."),
        "{text}"
    );
}

#[test]
fn status_is_json_of_a_fixed_shape() {
    let (code, text, _) = genie_hugepages(&machine(), &["status", "--json"]);
    assert_eq!(code, Some(0));
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    let expected = serde_json::json!({
        "schema_version": 1,
        "default_page_bytes": 2 << 20,
        "pools": [
            {
                "node": 0, "page_bytes": 2 << 20, "total_pages": 16, "free_pages": 8,
                "surplus_pages": 0, "missing_pages_for_1gib": 504,
            },
            {
                "node": 0, "page_bytes": 1 << 30, "total_pages": 1, "free_pages": 1,
                "surplus_pages": 0, "missing_pages_for_1gib": 0,
            },
        ],
        "mounts": [{ "path": "/dev/hugepages", "page_bytes": 2 << 20, "read_only": false }],
    });
    assert_eq!(json, expected);
}

#[test]
fn reserve_adds_what_is_missing_and_keeps_it() {
    let fake = machine();
    let (code, text, error) = genie_hugepages(&fake, &["reserve", "1GiB"]);
    assert_eq!(
        (code, fake.text(NODE_0)),
        (Some(0), "520".into()),
        "{text}{error}"
    );
    assert!(
        text.contains("asked for 504 x 2MiB more, got 504"),
        "{text}"
    );
    assert!(
        text.contains("boot parameters: hugepagesz=2M hugepages=520\n"),
        "{text}"
    );
    assert!(
        text.contains("80-genie-hugepages.conf: vm.nr_hugepages = 520\n"),
        "{text}"
    );
}

#[test]
fn a_dry_run_changes_nothing() {
    let fake = machine();
    let arguments = ["reserve", "1G", "--node", "0", "--dry-run"];
    let (code, text, _) = genie_hugepages(&fake, &arguments);
    assert_eq!((code, fake.text(NODE_0)), (Some(0), "16".into()));
    assert!(
        text.contains("would ask node 0 for 504 x 2MiB more"),
        "{text}"
    );
    assert!(text.contains("hugepagesz=2M hugepages=0:520\n"), "{text}");
}

#[test]
fn too_much_is_status_1_and_says_why() {
    // 8 GiB could be had, less 1 GiB that stays: 7 pages, and one is free.
    let fake = machine();
    let arguments = ["reserve", "100G", "--page", "1GiB"];
    let (code, text, _) = genie_hugepages(&fake, &arguments);
    assert_eq!(code, Some(1));
    assert!(
        text.contains("only 8 of 100 pages (1GiB) are free"),
        "{text}"
    );
    assert!(text.contains("92 pages were not asked for"), "{text}");
}

#[test]
fn what_cannot_be_tried_is_status_2_with_one_line() {
    let fake = machine();
    for (arguments, says) in [
        (vec!["reserve", "1024"], "name a unit"),
        (vec!["reserve", "1G", "--page", "3M"], "power of two"),
        (vec!["reserve", "1G", "--page", "512M"], "it has 2MiB, 1GiB"),
        (vec!["reserve", "1G", "--node", "5"], "there is no node 5"),
        (vec!["reserve", "1G", "--node", "-1"], "-1"),
        (vec!["reserve"], "<SIZE>"),
        (vec!["frobnicate"], "frobnicate"),
    ] {
        let (code, _, error) = genie_hugepages(&fake, &arguments);
        assert_eq!(code, Some(2), "{arguments:?}: {error}");
        assert!(error.contains(says), "{arguments:?}: {error}");
    }
    fake.file(NODE_0, "many");
    let (code, _, error) = genie_hugepages(&fake, &["status"]);
    assert_eq!((code, error.lines().count()), (Some(2), 1), "{error}");
}
