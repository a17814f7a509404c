//! Sound inputs for each parser, from which the corpus was made.

use genie_channel::Offer;
use genie_gpudev::message::{FromZygote, Tensors, ToZygote};
use genie_gpudev::sandbox::{Part, Sandbox};
use genie_gpudev::{DeviceKind, Exit, Limits};
use genie_session::fault::{Code, Fault};
use genie_session::frame::{Header, Kind as FrameKind, encode_hello};
use genie_session::machine::Metas;
use genie_session::node::encode_metas;
use genie_session::plan::{ChunkWriter, Predictor, Template};
use genie_session::record::{self, Kind};
use genie_session::skeleton::{out, tag};
use genie_session::varint::put_u64;
use genie_srg::{Dtype, Edge, Layout, Node, Srg, ValidSrg};

type Input = (&'static str, &'static str, Vec<u8>);

/// Every input: target, name, bytes.
pub fn all() -> Vec<Input> {
    [session(), graphs(), dataplane()].concat()
}

/// Every argument tag once.
fn every_argument() -> Vec<u8> {
    let mut skeleton = vec![tag::DEFAULT_DTYPE, 15, tag::NONE, tag::TENSOR, 1, 6, 2];
    skeleton.extend([
        tag::SCALAR_TENSOR,
        2,
        9,
        tag::INT,
        tag::ENUM,
        6,
        tag::DOUBLE,
    ]);
    skeleton.extend([tag::TRUE, tag::FALSE, tag::SCALAR_INT, tag::SCALAR_DOUBLE]);
    skeleton.extend([tag::SCALAR_TRUE, tag::SCALAR_FALSE, tag::SCALAR_COMPLEX]);
    skeleton.extend([tag::STRING, 2, 0, b'h', b'i', tag::INT_LIST, 2, 0]);
    skeleton.extend([tag::DOUBLE_LIST, 1, 0, tag::BOOL_LIST, 2, 0, 0, 1]);
    skeleton.extend([
        tag::LIST,
        2,
        0,
        tag::NONE,
        tag::TENSOR,
        0,
        6,
        1,
        tag::DEVICE,
        0,
    ]);
    skeleton.extend([tag::GENERATOR, tag::SEED]);
    skeleton
}

fn structure(skeleton: &[u8], refs: &[u64], tail: &[u8]) -> Vec<u8> {
    let mut structure = Vec::new();
    put_u64(&mut structure, skeleton.len() as u64);
    structure.extend_from_slice(skeleton);
    put_u64(&mut structure, refs.len() as u64);
    refs.iter().for_each(|&code| put_u64(&mut structure, code));
    structure.extend_from_slice(tail);
    structure
}

/// A segment with a record of each kind.
fn segment() -> Vec<u8> {
    let mut bytes = Vec::new();
    record::put_define_op(&mut bytes, 1, "aten::cat");
    let tensor = [tag::TENSOR, 0, 6, 1];
    let two = [tensor, tensor].concat();
    let mut put = |kind, skeleton: &[u8], refs: &[u64], tail: &[u8], numbers: &[i64], blob| {
        let structure = structure(skeleton, refs, tail);
        record::put_plain(&mut bytes, kind, 1, &structure, numbers, &[-1], blob);
    };
    let view = [0, 4, 1];
    let numbers = [&[1, 2][..], &view, &view, &[8, 1]].concat();
    put(Kind::Op, &two, &[0, 0], &[out::FRESH, 6, 1], &numbers, None);
    put(Kind::Alloc, &[], &[], &[], &[64], None);
    put(Kind::Upload, &[], &[3], &[0], &[4], Some(&[1, 2, 3, 4][..]));
    put(Kind::Resize, &[], &[3], &[], &[128], None);
    put(Kind::CallSync, &tensor, &[2], &[2], &view, None);
    put(Kind::Barrier, &[], &[], &[], &[9], None);
    put(Kind::Fetch, &tensor, &[1], &[], &[0, 4, 1, 7], None);
    bytes
}

fn chunk() -> Vec<u8> {
    let bytes = segment();
    let template = Template::decode(&bytes).expect("it is a template");
    let mut predictor = Predictor::new(&template.numbers);
    let mut writer = ChunkWriter::default();
    for (at, record) in template.records.iter().enumerate() {
        let mut numbers = template.numbers[record.numbers()].to_vec();
        if let Some(first) = numbers.first_mut() {
            *first += at as i64;
        }
        let blob = record.has_blob.then_some(&[5, 6, 7, 8][..]);
        writer.push(record, &mut predictor, &numbers, &[-2], blob);
    }
    let mut item = Vec::new();
    writer.finish(&mut item, 1, 0);
    let mut reader = genie_session::varint::Reader::new(&item);
    let Ok(record::Item::Chunk { body, .. }) = record::next_item(&mut reader) else {
        panic!("it is a chunk");
    };
    let mut whole = (bytes.len() as u16).to_le_bytes().to_vec();
    whole.extend_from_slice(&bytes);
    whole.extend_from_slice(body);
    whole
}

fn session() -> Vec<Input> {
    let mut records = segment();
    record::put_chunk(&mut records, 1, 0, 3, &[0]);
    record::put_drop_plan(&mut records, 1);
    let metas = Metas {
        out_skeleton: vec![out::LIST, 2, 0, out::FRESH, 6, 1, out::NONE],
        out_params: vec![4, 1],
        value_skeleton: vec![tag::SCALAR_INT, tag::SCALAR_COMPLEX, tag::SCALAR_TRUE],
        value_data: vec![1, 2, 3],
    };
    let header = Header::new(FrameKind::Records, 3, 4).with_payload(5);
    let results = vec![out::LIST, 1, 0, out::FRESH, 6, 2, out::ALIAS, 0, out::NONE];
    vec![
        ("records", "every_kind", records),
        ("template", "every_kind", segment()),
        ("chunk", "every_kind", chunk()),
        ("skeleton", "arguments", every_argument()),
        ("skeleton", "results", results),
        ("metas", "list_and_values", encode_metas(&metas)),
        ("frame", "records", header.encode().to_vec()),
        ("frame", "hello", encode_hello(&[7; 32]).to_vec()),
        (
            "fault",
            "out_of_memory",
            Fault::new(Code::OutOfMemory, 7, "no memory").encode(),
        ),
    ]
}

fn graphs() -> Vec<Input> {
    let mut graph = Srg::new();
    graph.add_node(Node::input(0, "x"));
    graph.add_node(Node::operator(1, "aten::relu").with_call(every_argument(), vec![1, 2]));
    graph.add_node(Node::operator(2, "aten::add.Tensor"));
    for (to, input) in [(1, 0), (2, 0), (2, 1)] {
        let edge = Edge::tensor(
            (to - 1, 0),
            (to, input),
            Dtype::from_scalar_type(6).unwrap(),
            &[2],
        )
        .with_layout(Layout::strided(vec![1], 0))
        .with_storage(9, u64::from(input));
        graph.add_edge(edge);
    }
    let graph = ValidSrg::try_from(graph).expect("it is a graph");
    let json = genie_srg::encode_json(&graph).expect("it has JSON");
    vec![
        ("srg", "three_nodes", genie_srg::encode_protobuf(&graph)),
        ("srg_json", "three_nodes", json.into_bytes()),
    ]
}

fn dataplane() -> Vec<Input> {
    let offer = Offer {
        connection: 7,
        epoch: 1,
        secret: [3; 32],
        sealed: true,
        peer: "10.0.0.1:7420".parse().expect("an address"),
        mtu_max: 9000,
    };
    let offer = offer.encode();
    let request = |kind: u8, body: &[u8]| {
        let mut bytes = vec![255];
        bytes.extend(b"GENIEGW1");
        bytes.extend([kind, 2]);
        bytes.extend((body.len() as u16).to_le_bytes());
        bytes.extend(body);
        bytes
    };
    let fork = ToZygote::Fork {
        session: 1,
        device: DeviceKind::Host(0),
        tensors: Tensors::Pools,
        limits: Limits::default(),
    };
    let mut sandbox = Sandbox::default();
    sandbox.set(Part::Files, true, "none");
    let hello = FromZygote::Hello {
        pid: 1,
        torch_version: "2.11.0".to_owned(),
        schema_hash: 2,
        sandbox,
    };
    let exited = FromZygote::Exited {
        session: 1,
        pid: 2,
        exit: Exit::Signal(9),
    };
    let example = include_str!("../../../dataplane/genie-dataplane.example.toml");
    vec![
        ("attach", "relay", request(1, &[])),
        ("attach", "attach", request(2, &offer)),
        ("attach", "info", request(3, &[])),
        ("attach", "offer", offer.to_vec()),
        ("channel", "stream", [&[1][..], b"some bytes"].concat()),
        ("channel", "words", [&[2][..], &[9; 16]].concat()),
        ("channel", "failed", [&[4][..], &[9; 12], b"why"].concat()),
        ("zygote", "fork", fork.encode()),
        ("zygote", "hello", hello.encode()),
        ("zygote", "exited", exited.encode()),
        ("netstack", "arp_ping_tcp", frames()),
        ("config", "example", example.as_bytes().to_vec()),
        ("address", "host", b"node.example.org:7400".to_vec()),
        ("address", "six", b"[::1]:7400".to_vec()),
        (
            "address",
            "gateway",
            b"gateway:///run/genie/gateway.sock".to_vec(),
        ),
    ]
}

/// An ARP question, a ping and a TCP handshake's first segment, each with its length before it.
fn frames() -> Vec<u8> {
    let (mac, peer) = ([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
    let mut arp = [&[0xff; 6][..], &peer, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1]].concat();
    arp.extend([&peer[..], &[10, 0, 0, 2], &[0; 6], &[10, 0, 0, 1]].concat());
    let ip = |protocol: u8, body: &[u8]| {
        let mut head = vec![0x45, 0];
        head.extend((20 + body.len() as u16).to_be_bytes());
        head.extend([0, 0, 0x40, 0, 64, protocol, 0, 0, 10, 0, 0, 2, 10, 0, 0, 1]);
        let sum = checksum(&head);
        head[10..12].copy_from_slice(&sum.to_be_bytes());
        [&mac[..], &peer, &[8, 0], &head, body].concat()
    };
    let mut ping = vec![8, 0, 0, 0, 0, 1, 0, 1, b'h', b'i'];
    let sum = checksum(&ping);
    ping[2..4].copy_from_slice(&sum.to_be_bytes());
    let mut tcp = [5555_u16.to_be_bytes(), 7777_u16.to_be_bytes()].concat();
    tcp.extend([
        0, 0, 0, 1, 0, 0, 0, 0, 0x60, 2, 4, 0, 0, 0, 0, 0, 2, 4, 5, 0xb4,
    ]);
    let pseudo = [
        &[10, 0, 0, 2, 10, 0, 0, 1, 0, 6][..],
        &24_u16.to_be_bytes(),
        &tcp,
    ]
    .concat();
    let sum = checksum(&pseudo);
    tcp[16..18].copy_from_slice(&sum.to_be_bytes());
    let mut all = Vec::new();
    for frame in [arp, ip(1, &ping), ip(6, &tcp)] {
        all.extend((frame.len() as u16).to_le_bytes());
        all.extend(frame);
    }
    all
}

fn checksum(bytes: &[u8]) -> u16 {
    let mut sum = 0_u32;
    for pair in bytes.chunks(2) {
        let low = pair.get(1).copied().unwrap_or(0);
        sum += u32::from(u16::from_be_bytes([pair[0], low]));
    }
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
