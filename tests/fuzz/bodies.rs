//! What is done with bytes that come from others, a function for each parser: all bytes are answered or
//! refused, nothing panics, nothing takes longer or more memory than its size allows. Shared by the
//! fuzzers here and by the test `foreign_bytes`, which needs no fuzzer.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use genie_analysis::{Facts, Graph, annotate, findings};
use genie_channel::attach::Asking;
use genie_channel::{FromApp, Offer, ToApp};
use genie_client::address::Address;
use genie_dataplane::config::Settings;
use genie_gpudev::message::{FromZygote, ToZygote};
use genie_netstack::{Host, HostConfig};
use genie_session::fault::Fault;
use genie_session::frame::{self, HEADER_BYTES, HELLO_BYTES, Header};
use genie_session::node::{decode_metas, encode_metas};
use genie_session::plan::{ChunkReader, Predictor, Template};
use genie_session::record::{self, Item, Shape};
use genie_session::skeleton;
use genie_session::varint::Reader;

/// What a target does with bytes.
pub type Body = fn(&[u8]);

/// Every parser, by the name of its corpus.
pub const TARGETS: [(&str, Body); 15] = [
    ("records", records),
    ("template", template),
    ("chunk", chunk),
    ("skeleton", skeletons),
    ("metas", metas),
    ("frame", frames),
    ("fault", faults),
    ("srg", srg),
    ("srg_json", srg_json),
    ("attach", attach),
    ("channel", channel),
    ("zygote", zygote),
    ("netstack", netstack),
    ("config", config),
    ("address", address),
];

/// Runs the parser of this name.
#[allow(dead_code, reason = "the fuzzers' entry")]
pub fn run(name: &str, bytes: &[u8]) {
    for (target, body) in TARGETS {
        if target == name {
            body(bytes);
        }
    }
}

fn records(bytes: &[u8]) {
    let mut reader = Reader::new(bytes);
    while !reader.is_empty() {
        match record::next_item(&mut reader) {
            Ok(Item::Plain(plain)) => {
                let mut numbers = Vec::new();
                plain.numbers.unpack(&mut numbers);
                assert_eq!(numbers.len(), plain.numbers.count);
                if let Ok(shape) = Shape::parse(plain.kind, plain.structure) {
                    assert!(shape.refs.len() <= skeleton::ITEMS_MAX);
                }
            }
            Ok(Item::Chunk { body, .. }) => drop(ChunkReader::new(body)),
            Ok(Item::DefineOp { name, .. }) => assert!(name.len() <= record::NAME_MAX),
            Ok(Item::DropPlan { .. }) => {}
            Err(_) => return,
        }
    }
}

fn template(bytes: &[u8]) {
    let Ok(template) = Template::decode(bytes) else {
        return;
    };
    let again = Template::decode(&template.encode());
    let records = again.map(|again| again.records.len());
    assert_eq!(records, Ok(template.records.len()));
    if let Ok(graph) = Graph::of(&template) {
        let _ = findings(&graph, &Facts::of(&graph));
        let ids: HashSet<u64> = graph.storages.iter().filter_map(|s| s.external).collect();
        let _ = annotate(graph, &ids);
    }
}

/// A template (its length first), and a chunk of the plan that it is.
fn chunk(bytes: &[u8]) {
    let mut reader = Reader::new(bytes);
    let Ok(template) = reader.u16().and_then(|len| reader.bytes(usize::from(len))) else {
        return;
    };
    let (Ok(template), Ok(mut chunk)) =
        (Template::decode(template), ChunkReader::new(reader.rest()))
    else {
        return;
    };
    let mut predictor = Predictor::new(&template.numbers);
    for record in &template.records {
        let (mut numbers, mut frees) = (Vec::new(), Vec::new());
        if chunk
            .next(record, &mut predictor, &mut numbers, &mut frees)
            .is_err()
        {
            return;
        }
        assert_eq!(numbers.len(), record.numbers().len());
    }
}

fn skeletons(bytes: &[u8]) {
    let mut tensors = 0;
    if let Ok(counts) = skeleton::measure(bytes, |_, _, _| tensors += 1) {
        assert_eq!(counts.storages, tensors);
        assert!(skeleton::arguments(bytes).all(|item| item.is_ok()));
    }
    let _ = skeleton::measure_out(bytes, |_, _| {}, |_| {});
}

fn metas(bytes: &[u8]) {
    if let Ok(metas) = decode_metas(bytes) {
        let again = decode_metas(&encode_metas(&metas));
        assert_eq!(again.as_ref(), Ok(&metas));
    }
}

fn frames(bytes: &[u8]) {
    if let Some(header) = bytes.first_chunk::<HEADER_BYTES>()
        && let Ok(header) = Header::decode(header)
    {
        assert_eq!(Header::decode(&header.encode()), Ok(header));
    }
    if let Some(hello) = bytes.first_chunk::<HELLO_BYTES>() {
        let _ = frame::decode_hello(hello);
    }
}

fn faults(bytes: &[u8]) {
    if let Ok(fault) = Fault::decode(bytes) {
        assert_eq!(Fault::decode(&fault.encode()), Ok(fault));
    }
}

fn srg(bytes: &[u8]) {
    if let Ok(graph) = genie_srg::decode_protobuf(bytes) {
        let _ = genie_srg::fingerprint(&graph);
        let again = genie_srg::decode_protobuf(&genie_srg::encode_protobuf(&graph));
        assert_eq!(again.ok().as_ref(), Some(&graph));
    }
}

fn srg_json(bytes: &[u8]) {
    if let Ok(graph) = genie_srg::decode_json(bytes) {
        let _ = genie_srg::fingerprint(&graph);
        let _ = genie_srg::encode_json(&graph);
    }
}

/// A request to a gateway, piece by piece: the first byte says how large pieces are.
fn attach(bytes: &[u8]) {
    let Some((&size, mut rest)) = bytes.split_first() else {
        return;
    };
    let mut asking = Asking::new();
    while !rest.is_empty() {
        let room = asking.room();
        assert!(!room.is_empty());
        let count = room.len().min(rest.len()).min(usize::from(size).max(1));
        room[..count].copy_from_slice(&rest[..count]);
        rest = &rest[count..];
        if !matches!(asking.filled(count), Ok(None)) {
            break;
        }
    }
    let _ = Offer::decode(bytes);
}

fn channel(bytes: &[u8]) {
    let _ = FromApp::decode(bytes);
    let _ = ToApp::decode(bytes);
}

fn zygote(bytes: &[u8]) {
    if let Ok(message) = ToZygote::decode(bytes) {
        assert_eq!(ToZygote::decode(&message.encode()), Ok(message));
    }
    let _ = FromZygote::decode(bytes);
}

/// Frames to a host that listens, each with its length before it.
fn netstack(bytes: &[u8]) {
    let mac = [2, 0, 0, 0, 0, 1];
    let config = HostConfig::new(mac, [10, 0, 0, 1].into(), 24, 7);
    let Ok(mut host) = Host::new(config, Arc::new(|| {})) else {
        return;
    };
    let _ = host.listen(7777, 4);
    let (mut reader, mut now) = (Reader::new(bytes), Duration::from_secs(5));
    let mut out = [0; 2000];
    let mut taken = 0;
    while let Ok(frame) = reader.u16().and_then(|len| reader.bytes(usize::from(len))) {
        now += Duration::from_millis(1);
        host.handle(frame, now);
        while host.poll_transmit(now, &mut out).is_some() {
            taken += 1;
            assert!(taken < 10_000, "sends without end");
        }
        while host.accept().is_some() {}
    }
}

fn config(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    if let Ok(settings) = Settings::parse(text, Path::new("node.toml")) {
        let _ = settings.into_config();
    }
}

fn address(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(address) = Address::parse(text)
    {
        let _ = (address.server_name(), address.is_gateway());
    }
}
