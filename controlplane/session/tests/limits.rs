//! Each bound is kept: what is at it passes, what is one above is refused.

use genie_session::WireError;
use genie_session::fault::{Code, Fault};
use genie_session::frame::{HEADER_BYTES, Header, Kind as FrameKind};
use genie_session::limits;
use genie_session::plan::Template;
use genie_session::record::{self, Kind, Shape};
use genie_session::skeleton::{self, out, tag};
use genie_session::transfer::Transfer;
use genie_session::varint::{Reader, put_u64};

/// `at(limit)` passes, `at(limit + 1)` doesn't.
fn bound<T, E: std::fmt::Debug>(name: &str, limit: usize, at: impl Fn(usize) -> Result<T, E>) {
    assert!(at(limit).is_ok(), "{name}: {limit} is refused");
    assert!(at(limit + 1).is_err(), "{name}: {} passes", limit + 1);
}

fn item(bytes: &[u8]) -> Result<(), WireError> {
    record::next_item(&mut Reader::new(bytes)).map(drop)
}

fn plain(structure: usize, numbers: usize, frees: usize, blob: usize) -> Result<(), WireError> {
    let mut bytes = Vec::new();
    let (structure, numbers) = (vec![0; structure], vec![0; numbers]);
    let (frees, blob) = (vec![0; frees], vec![0; blob]);
    let blob = (!blob.is_empty()).then_some(blob.as_slice());
    record::put_plain(&mut bytes, Kind::Op, 1, &structure, &numbers, &frees, blob);
    item(&bytes)
}

fn structure(skeleton: &[u8], tail: &[u8]) -> Vec<u8> {
    let mut structure = Vec::new();
    put_u64(&mut structure, skeleton.len() as u64);
    structure.extend_from_slice(skeleton);
    put_u64(&mut structure, 0);
    structure.extend_from_slice(tail);
    structure
}

#[test]
fn transfers() {
    // Counted from zero.
    bound("LOGS_MAX", limits::LOGS_MAX - 1, |n| {
        let ends = Transfer::new(n, 0, 0).and(Transfer::new(0, n, 0));
        ends.ok_or("no such log")
    });
}

#[test]
fn records() {
    bound("STRUCTURE_MAX", limits::STRUCTURE_MAX, |n| {
        plain(n, 0, 0, 0)
    });
    bound("NUMBERS_MAX", limits::NUMBERS_MAX, |n| plain(0, n, 0, 0));
    bound("FREES_MAX", limits::FREES_MAX, |n| plain(0, 0, n, 0));
    bound("INLINE_MAX", limits::INLINE_MAX, |n| plain(0, 0, 0, n));
    bound("NAME_MAX", limits::NAME_MAX, |n| {
        let mut bytes = Vec::new();
        record::put_define_op(&mut bytes, 1, &"n".repeat(n));
        item(&bytes)
    });
    bound("PAYLOAD_MAX in a chunk", limits::PAYLOAD_MAX, |n| {
        let mut bytes = Vec::new();
        record::put_chunk(&mut bytes, 1, 0, 1, &vec![0; n]);
        item(&bytes)
    });
    bound("RESERVED_MAX", limits::RESERVED_MAX as usize, |n| {
        let mut tail = Vec::new();
        put_u64(&mut tail, n as u64);
        Shape::parse(Kind::CallSync, &structure(&[], &tail)).map(drop)
    });
}

#[test]
fn skeletons() {
    bound("ITEMS_MAX", limits::ITEMS_MAX, |n| {
        skeleton::measure(&vec![tag::NONE; n], |_, _, _| {}).map(drop)
    });
    bound("ITEMS_MAX of results", limits::ITEMS_MAX, |n| {
        skeleton::measure_out(&vec![out::NONE; n], |_, _| {}, |_| {}).map(drop)
    });
    bound("DIMS_MAX", usize::from(limits::DIMS_MAX), |n| {
        skeleton::measure(&[tag::TENSOR, 0, 6, n as u8], |_, _, _| {}).map(drop)
    });
    bound("DIMS_MAX of results", usize::from(limits::DIMS_MAX), |n| {
        skeleton::measure_out(&[out::FRESH, 6, n as u8], |_, _| {}, |_| {}).map(drop)
    });
}

#[test]
fn frames_and_faults() {
    bound("PAYLOAD_MAX", limits::PAYLOAD_MAX, |n| {
        let mut bytes = Header::new(FrameKind::Records, 0, 0).encode();
        let len = bytes.len();
        assert_eq!(len, HEADER_BYTES);
        // Where the length is: the only field that a longer payload changes.
        let one = Header::new(FrameKind::Records, 0, 0)
            .with_payload(1)
            .encode();
        let at = (0..len).find(|&i| one[i] != bytes[i]).expect("a length");
        bytes[at..at + 4].copy_from_slice(&(n as u32).to_le_bytes());
        Header::decode(&bytes).map(drop)
    });
    bound("MESSAGE_MAX", limits::MESSAGE_MAX, |n| {
        let mut bytes = vec![Code::Operator as u8, 0];
        put_u64(&mut bytes, n as u64);
        bytes.extend(vec![b'm'; n]);
        Fault::decode(&bytes).map(drop)
    });
}

#[test]
fn templates() {
    let record = |numbers: usize| {
        let list = (numbers as u16).to_le_bytes();
        let skeleton = [tag::INT_LIST, list[0], list[1]];
        let mut bytes = Vec::new();
        let structure = structure(&skeleton, &[]);
        let numbers = vec![0; numbers];
        record::put_plain(&mut bytes, Kind::Op, 1, &structure, &numbers, &[], None);
        bytes
    };
    // The last record of a segment is the one that ends it.
    bound(
        "SEGMENT_RECORDS_MAX",
        limits::SEGMENT_RECORDS_MAX + 1,
        |n| Template::decode(&record(0).repeat(n)).map(drop),
    );
    // Definitions fill it up to the byte.
    let filled = |n: usize| {
        let mut bytes = Vec::new();
        while n - bytes.len() > 300 {
            record::put_define_op(&mut bytes, 1, &"n".repeat(200));
        }
        let rest = n - bytes.len();
        let head = if rest - 3 < 128 { 3 } else { 4 };
        record::put_define_op(&mut bytes, 1, &"n".repeat(rest - head));
        assert_eq!(bytes.len(), n);
        bytes
    };
    bound("TEMPLATE_MAX", limits::TEMPLATE_MAX, |n| {
        Template::decode(&filled(n)).map(drop)
    });
    bound("CAPTURED_MAX", limits::CAPTURED_MAX, |n| {
        Template::captured(&filled(n)).map(drop)
    });
    // What is analysed can be installed.
    const { assert!(limits::TEMPLATE_MAX <= limits::PAYLOAD_MAX) };
    // A number takes a byte at least, so the bytes keep this one.
    const { assert!(limits::TEMPLATE_NUMBERS_MAX >= limits::TEMPLATE_MAX) };
}

#[test]
fn every_limit_is_walked() {
    let source = include_str!("../src/limits.rs");
    let walked = include_str!("limits.rs");
    let elsewhere = [
        // With a client and a node: tests/simulation and tests/hostile.rs.
        "NODE_PLANS_MAX",
        "CYCLE_RECORDS_MAX",
        "CYCLE_RECORDS_MIN",
        "PLANS_MAX",
        "PLANS_PENDING_MAX",
        "PLAN_AGAIN_AFTER",
        "VALUES_MAX",
    ];
    for line in source.lines() {
        let Some(name) = line.strip_prefix("pub const ") else {
            continue;
        };
        let name = name.split(':').next().unwrap_or_default();
        let walks = walked.contains(&format!("limits::{name}"));
        assert!(
            walks || elsewhere.contains(&name),
            "{name} is walked by no test"
        );
    }
}
