//! Segments that are valid on the wire and make no sense otherwise: any operator with any arguments.
//! Analysis answers each, never panics, and takes no more time than their size allows.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends where it can't go on"
)]

#[path = "../session/tests/simulation/rng.rs"]
mod rng;

use std::collections::HashSet;
use std::time::{Duration, Instant};

use genie_analysis::{Facts, Graph, annotate, findings};
use genie_controlplane::placing::{Question, place};
use genie_planner::Device;
use genie_session::limits::LOGS_MAX;
use genie_session::places::Set;
use genie_session::record::{self, Kind};
use genie_session::segment::Ref;
use genie_session::skeleton::{DIMS_MAX, flag, out, tag};
use genie_session::varint::put_u64;
use proptest::prelude::*;
use rng::Rng;

/// Names that analysis knows, and some that it doesn't.
const NAMES: [&str; 40] = [
    "aten::cat",
    "aten::mm",
    "aten::addmm",
    "aten::bmm",
    "aten::baddbmm",
    "aten::linear",
    "aten::matmul",
    "aten::mv",
    "aten::dot",
    "aten::addmv",
    "aten::addbmm",
    "aten::convolution",
    "aten::conv1d",
    "aten::conv2d",
    "aten::convolution_backward",
    "aten::_scaled_dot_product_fused_attention_overrideable",
    "aten::_scaled_dot_product_fused_attention_overrideable_backward",
    "aten::embedding",
    "aten::_embedding_bag",
    "aten::embedding_bag",
    "aten::_softmax",
    "aten::softmax.int",
    "aten::native_layer_norm",
    "aten::argmax",
    "aten::sort",
    "aten::topk",
    "aten::_foreach_add_.List",
    "aten::_fused_adamw_",
    "aten::addcdiv_",
    "aten::lerp_.Scalar",
    "aten::zeros",
    "aten::fetch",
    "aten::relu_",
    "a::b.c",
    "aten::_backward",
    "genie::alloc",
    "aten::copy_",
    "cat",
    "::",
    "aten::.",
];
/// The last so many are no names of operators.
const NOT_NAMES: usize = 3;

/// From one number a whole segment.
impl Rng {
    /// Mostly small, sometimes at the ends.
    fn number(&mut self, wild: bool) -> i64 {
        match self.below(if wild { 12 } else { 6 }) {
            6 => i64::MAX,
            7 => i64::MIN,
            8 => -1,
            9 => 1 << 40,
            0 => 0,
            _ => self.below(9) as i64,
        }
    }

    fn ndim(&mut self, wild: bool) -> u8 {
        match self.below(20) {
            0 if wild => DIMS_MAX,
            _ => self.below(6) as u8,
        }
    }
}

/// Writes a segment; every structure fits its numbers and every name exists.
struct Segment {
    bytes: Vec<u8>,
    random: Rng,
    /// Also with sizes that no tensor can have: such a graph is refused.
    wild: bool,
    slots: u32,
    locals: u32,
}

impl Segment {
    fn of(seed: u64) -> Vec<u8> {
        let mut segment = Self {
            bytes: Vec::new(),
            random: Rng::new(seed),
            wild: seed.is_multiple_of(3),
            slots: 0,
            locals: 0,
        };
        for (op, name) in NAMES.iter().enumerate() {
            record::put_define_op(&mut segment.bytes, op as u32, name);
        }
        for _ in 0..=segment.random.below(24) {
            segment.record();
        }
        segment.bytes
    }

    fn item(&mut self, nested: bool, skeleton: &mut Vec<u8>, tensors: &mut usize) -> Vec<i64> {
        let wild = self.wild;
        let random = &mut self.random;
        let mut tag = random.below(22) as u8;
        if random.one_in(2) {
            tag = tag::TENSOR;
        }
        // These have a place of their own.
        if [tag::SEED, tag::DEFAULT_DTYPE].contains(&tag) || (nested && tag == tag::LIST) {
            tag = tag::NONE;
        }
        skeleton.push(tag);
        let count = random.below(4) as u8;
        match tag {
            tag::TENSOR => {
                let flags = random.below(16) as u8;
                let ndim = random.ndim(wild);
                skeleton.extend([flags, random.below(64) as u8, ndim]);
                *tensors += 1;
                return (0..=2 * ndim).map(|_| random.number(wild)).collect();
            }
            tag::SCALAR_TENSOR => {
                let dtype = random.below(12) as u8;
                skeleton.extend([flag::WRAPPED, dtype]);
            }
            tag::ENUM | tag::DEVICE => skeleton.push(random.below(256) as u8),
            tag::STRING | tag::BOOL_LIST => {
                skeleton.extend([count, 0]);
                // What would be tags, were they not text.
                skeleton.extend((0..count).map(|_| random.below(22) as u8));
            }
            tag::INT => return vec![random.number(wild)],
            tag::INT_LIST => {
                skeleton.extend([count, 0]);
                return (0..count).map(|_| random.number(wild)).collect();
            }
            tag::DOUBLE_LIST => skeleton.extend([count, 0]),
            tag::LIST => {
                skeleton.extend([count, 0]);
                return (0..count)
                    .flat_map(|_| self.item(true, skeleton, tensors))
                    .collect();
            }
            _ => {}
        }
        Vec::new()
    }

    fn record(&mut self) {
        let wild = self.wild;
        let (mut skeleton, mut params, mut tensors) = (Vec::new(), Vec::new(), 0);
        if self.random.one_in(3) {
            // The byte behind it is any, also one that would be a tag.
            skeleton.extend([tag::DEFAULT_DTYPE, self.random.below(22) as u8]);
        }
        for _ in 0..self.random.below(5) {
            params.extend(self.item(false, &mut skeleton, &mut tensors));
        }
        if self.random.one_in(4) {
            skeleton.push(tag::SEED);
        }
        let sync = self.random.one_in(6);
        let (mut tail, mut tail_numbers, mut fresh) = (Vec::new(), Vec::new(), 0);
        if sync {
            fresh = self.random.below(4) as u32;
            put_u64(&mut tail, u64::from(fresh));
        } else {
            for _ in 0..self.random.below(3) {
                match self.random.below(4) {
                    0 if tensors > 0 => {
                        tail.extend([out::ALIAS, self.random.below(tensors as u64) as u8]);
                    }
                    1 => tail.push(out::NONE),
                    _ => {
                        let ndim = self.random.ndim(wild);
                        tail.extend([out::FRESH, self.random.below(64) as u8, ndim]);
                        tail_numbers.extend((0..2 * ndim).map(|_| self.random.number(wild)));
                        fresh += 1;
                    }
                }
            }
        }
        let mut structure = Vec::new();
        put_u64(&mut structure, skeleton.len() as u64);
        structure.extend_from_slice(&skeleton);
        put_u64(&mut structure, tensors as u64);
        let mut numbers = Vec::new();
        for _ in 0..tensors {
            let reference = match self.random.below(3) {
                0 if self.locals > 0 => {
                    Ref::Local(self.random.below(u64::from(self.locals)) as u32)
                }
                1 if self.slots > 0 => Ref::Slot(self.random.below(u64::from(self.slots)) as u32),
                _ => {
                    self.slots += 1;
                    numbers.push(1 + self.random.below(1 << 50) as i64);
                    Ref::New
                }
            };
            put_u64(&mut structure, reference.code());
        }
        structure.extend_from_slice(&tail);
        numbers.extend(params);
        let data = genie_session::skeleton::measure(&skeleton, |_, _, _| {})
            .expect("it is of the grammar")
            .data;
        numbers.extend((0..data).map(|_| self.random.number(wild)));
        numbers.extend(tail_numbers);
        let frees: Vec<i64> = (0..self.random.below(3))
            .map(|_| self.random.number(wild))
            .collect();
        let kind = if sync { Kind::CallSync } else { Kind::Op };
        let names = if wild {
            NAMES.len()
        } else {
            NAMES.len() - NOT_NAMES
        };
        let op = self.random.below(names as u64) as u32;
        record::put_plain(
            &mut self.bytes,
            kind,
            op,
            &structure,
            &numbers,
            &frees,
            None,
        );
        self.locals += fresh;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn any_operator_with_any_arguments_is_analysed_or_refused(seed in any::<u64>()) {
        let bytes = Segment::of(seed);
        genie_session::plan::Template::decode(&bytes).expect("valid on the wire");
        if let Ok(graph) = Graph::read(&bytes) {
            let _ = findings(&graph, &Facts::of(&graph));
            let constants = HashSet::from_iter(graph.storages.iter().filter_map(|s| s.external));
            let _ = annotate(graph, &constants);
            // A result whose size is past all numbers is refused.
            let placed = place(&bytes, &question(3, &constants));
            if let Some(plan) = placed.ok().flatten() {
                assert!(plan.places.iter().all(|&device| device < 3));
            }
        }
    }
}

/// Some values on each of some devices.
fn question(devices: usize, values: &HashSet<u64>) -> Question {
    let device = Device {
        alive: true,
        limit_bytes: 1 << 40,
        ..Device::default()
    };
    let holding = |&value: &u64| {
        let at = Set::EMPTY.with(usize::try_from(value).unwrap_or(0) % devices);
        (value, (value.wrapping_mul(977) % (1 << 40), at))
    };
    Question {
        devices: vec![device; devices],
        holdings: values.iter().map(holding).collect(),
    }
}

#[test]
fn most_of_those_segments_are_graphs() {
    let read = (0..300).filter(|&seed| Graph::read(&Segment::of(seed)).is_ok());
    let read = read.count();
    assert!(read > 100, "only {read} of 300");
}

fn structure(skeleton: &[u8], refs: &[Ref], tail: &[u8]) -> Vec<u8> {
    let mut structure = Vec::new();
    put_u64(&mut structure, skeleton.len() as u64);
    structure.extend_from_slice(skeleton);
    put_u64(&mut structure, refs.len() as u64);
    for reference in refs {
        put_u64(&mut structure, reference.code());
    }
    structure.extend_from_slice(tail);
    structure
}

#[test]
fn a_default_dtype_is_read_with_its_byte() {
    // With the byte taken for a tag, this `cat` had one tensor for its two storages.
    for dtype in 0..22 {
        let mut bytes = Vec::new();
        record::put_define_op(&mut bytes, 1, "aten::cat");
        let tensor = [tag::TENSOR, 0, 6, 3];
        let skeleton = [&[tag::DEFAULT_DTYPE, dtype][..], &tensor, &tensor].concat();
        let structure = structure(&skeleton, &[Ref::New, Ref::New], &[out::FRESH, 6, 3]);
        let view = [0, 1, 4, 8, 32, 8, 1];
        let numbers = [&[5, 6][..], &view, &view, &[1, 8, 8, 64, 8, 1]].concat();
        record::put_plain(&mut bytes, Kind::Op, 1, &structure, &numbers, &[], None);
        let graph = Graph::read(&bytes).expect("it is a segment");
        let operator = &graph.operators[0];
        assert_eq!(operator.arguments.tensors.len(), 2, "dtype {dtype}");
        assert_eq!(operator.arguments.tensors[1].dims, [1, 4, 8]);
        annotate(graph, &HashSet::new()).expect("it is a graph");
    }
}

/// Segments made to cost as much as their bytes can. Each takes well under a second.
#[test]
fn work_is_bounded_by_the_size_of_a_segment() {
    let structure_of_nothing = structure(&[], &[], &[]);
    let mut definitions = Vec::new();
    for _ in 0..200_000 {
        record::put_define_op(&mut definitions, 7, "a");
    }
    for op in 0..2048 {
        record::put_define_op(&mut definitions, 1000 + op, "a::b");
        let structure = &structure_of_nothing;
        record::put_plain(
            &mut definitions,
            Kind::Op,
            1000 + op,
            structure,
            &[],
            &[],
            None,
        );
    }

    let mut reserving = Vec::new();
    record::put_define_op(&mut reserving, 1, "a::b");
    let mut tail = Vec::new();
    put_u64(&mut tail, record::RESERVED_MAX);
    let synchronous = structure(&[], &[], &tail);
    for _ in 0..2048 {
        record::put_plain(
            &mut reserving,
            Kind::CallSync,
            1,
            &synchronous,
            &[],
            &[],
            None,
        );
    }

    // Caches by the hundred, each written by every operator.
    let mut writing = Vec::new();
    record::put_define_op(&mut writing, 1, "aten::index_copy_");
    let tensors = 40;
    let skeleton = [tag::TENSOR, flag::WRITE, 6, 3].repeat(tensors);
    let view = [0, 1, 4, 8, 32, 8, 1];
    for at in 0..1000 {
        let refs: Vec<Ref> = (0..tensors)
            .map(|slot| {
                if at == 0 {
                    Ref::New
                } else {
                    Ref::Slot(slot as u32)
                }
            })
            .collect();
        let ids: Vec<i64> = if at == 0 {
            (1..=tensors as i64).collect()
        } else {
            Vec::new()
        };
        let structure = self::structure(&skeleton, &refs, &[out::ALIAS, 0]);
        let numbers = [ids, view.repeat(tensors)].concat();
        record::put_plain(&mut writing, Kind::Op, 1, &structure, &numbers, &[], None);
    }
    assert!(Graph::read(&writing).is_ok(), "it is a segment");

    for (what, bytes) in [
        ("definitions", definitions),
        ("reserved", reserving),
        ("writes", writing),
    ] {
        let started = Instant::now();
        if let Ok(graph) = Graph::read(&bytes) {
            assert!(graph.storages.len() <= 1 << 18, "{what}");
            let externals = HashSet::from_iter(graph.storages.iter().filter_map(|s| s.external));
            let _ = annotate(graph, &HashSet::new());
            let _ = place(&bytes, &question(LOGS_MAX, &externals));
        }
        let took = started.elapsed();
        assert!(took < Duration::from_secs(5), "{what} took {took:?}");
    }
}
