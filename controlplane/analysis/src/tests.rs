//! Hand-made segments, and what is made of them.

use std::collections::{HashMap, HashSet};

use genie_session::record::{self, Kind};
use genie_session::skeleton::{flag, out, tag};
use genie_session::varint::put_u64;
use genie_srg::{Residency, node};

use super::*;

/// A storage of a tape.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Value {
    External(u64),
    Local(u32),
}
use Value::External as E;

const FLOAT: u8 = 6;

/// Writes segments as a client would.
#[derive(Default)]
struct Tape {
    bytes: Vec<u8>,
    operators: HashMap<String, u32>,
    slots: HashMap<u64, u32>,
    fresh: u32,
    frees: Vec<i64>,
}

impl Tape {
    /// Calls an operator; a tensor is written where the name ends in `_`.
    fn call(&mut self, name: &str, args: &[(Value, &[i64])], results: &[&[i64]]) -> Vec<Value> {
        let next = self.operators.len() as u32 + 1;
        let op = *self.operators.entry(name.to_owned()).or_insert_with(|| {
            record::put_define_op(&mut self.bytes, next, name);
            next
        });
        let in_place = name.ends_with('_');
        let (mut skeleton, mut refs, mut params) = (Vec::new(), Vec::new(), Vec::new());
        for (index, (value, dims)) in args.iter().enumerate() {
            let flags = if in_place && index == 0 {
                flag::WRITE
            } else {
                0
            };
            skeleton.extend([tag::TENSOR, flags, FLOAT, dims.len() as u8]);
            refs.push(*value);
            params.push(0);
            params.extend(*dims);
            params.extend(strides(dims));
        }
        let (mut tail, mut tail_numbers) = (Vec::new(), Vec::new());
        for dims in results {
            tail.extend([out::FRESH, FLOAT, dims.len() as u8]);
            tail_numbers.extend(*dims);
            tail_numbers.extend(strides(dims));
        }
        if in_place {
            tail.extend([out::ALIAS, 0]);
        }
        let numbers = [params, tail_numbers].concat();
        self.put(Kind::Op, op, &skeleton, &refs, &tail, &numbers);
        let first = self.fresh;
        self.fresh += results.len() as u32;
        (first..self.fresh).map(Value::Local).collect()
    }

    fn one(&mut self, name: &str, args: &[(Value, &[i64])], result: &[i64]) -> Value {
        self.call(name, args, &[result])[0]
    }

    fn fetch(&mut self, value: Value, dims: &[i64]) {
        let skeleton = [tag::TENSOR, 0, FLOAT, dims.len() as u8];
        let numbers = [&[0], dims, &strides(dims), &[1]].concat();
        self.put(Kind::Fetch, 0, &skeleton, &[value], &[], &numbers);
    }

    /// Before the next record.
    fn free(&mut self, value: Value) {
        if let Value::Local(index) = value {
            self.frees.push(i64::from(index));
        }
    }

    fn put(
        &mut self,
        kind: Kind,
        op: u32,
        skeleton: &[u8],
        refs: &[Value],
        tail: &[u8],
        numbers: &[i64],
    ) {
        let mut structure = Vec::new();
        put_u64(&mut structure, skeleton.len() as u64);
        structure.extend_from_slice(skeleton);
        put_u64(&mut structure, refs.len() as u64);
        let mut ids = Vec::new();
        for value in refs {
            let code = match *value {
                Value::Local(index) => genie_session::segment::Ref::Local(index),
                Value::External(id) => match self.slots.get(&id) {
                    Some(&slot) => genie_session::segment::Ref::Slot(slot),
                    None => {
                        self.slots.insert(id, self.slots.len() as u32);
                        ids.push(id as i64);
                        genie_session::segment::Ref::New
                    }
                },
            };
            put_u64(&mut structure, code.code());
        }
        structure.extend_from_slice(tail);
        ids.extend_from_slice(numbers);
        let frees = std::mem::take(&mut self.frees);
        record::put_plain(&mut self.bytes, kind, op, &structure, &ids, &frees, None);
    }

    fn graph(&self) -> Graph {
        Graph::read(&self.bytes).unwrap()
    }

    fn findings(&self) -> Findings {
        let graph = self.graph();
        findings(&graph, &Facts::of(&graph))
    }

    fn annotated(&self) -> ValidSrg {
        annotate(self.graph(), &HashSet::new()).unwrap()
    }
}

fn strides(dims: &[i64]) -> Vec<i64> {
    let mut strides = vec![1; dims.len()];
    for at in (1..dims.len()).rev() {
        strides[at - 1] = strides[at] * dims[at];
    }
    strides
}

const SDPA: &str = "aten::_scaled_dot_product_fused_attention_overrideable";

/// One step of a small language model: `tokens` new ones after `past`.
fn language_model(tokens: i64, past: i64, shift: u64) -> Tape {
    let mut tape = Tape::default();
    let [table, weight, cache] = [1, 2, 3].map(|id| E(id + shift));
    let hidden = tape.one(
        "aten::embedding",
        &[(table, &[1000, 64]), (E(4 + shift), &[tokens])],
        &[tokens, 64],
    );
    let key = tape.one(
        "aten::mm",
        &[(hidden, &[tokens, 64]), (weight, &[64, 64])],
        &[tokens, 64],
    );
    let new: &[i64] = &[1, 4, tokens, 16];
    let (keys, length) = if past > 0 {
        let grown: &[i64] = &[1, 4, past + tokens, 16];
        let grown = tape.one(
            "aten::cat",
            &[(cache, &[1, 4, past, 16]), (key, new)],
            grown,
        );
        (grown, past + tokens)
    } else {
        (key, tokens)
    };
    let all: &[i64] = &[1, 4, length, 16];
    let attended = tape.one(SDPA, &[(key, new), (keys, all), (keys, all)], new);
    let logits = tape.one(
        "aten::mm",
        &[(attended, &[tokens, 64]), (table, &[64, 1000])],
        &[tokens, 1000],
    );
    let next = tape.one("aten::argmax", &[(logits, &[tokens, 1000])], &[tokens]);
    tape.fetch(next, &[tokens]);
    tape
}

fn residency_of(srg: &ValidSrg, name: &str) -> Vec<Residency> {
    let named = |node: &&genie_srg::Node| match &node.kind {
        Some(node::Kind::Operator(operator)) => operator.name == name,
        _ => false,
    };
    srg.nodes()
        .iter()
        .filter(named)
        .map(genie_srg::Node::residency)
        .collect()
}

#[test]
fn a_decode_step_is_known_by_its_cache_and_one_token() {
    let srg = language_model(1, 9, 0).annotated();
    let analysis = language_model(1, 9, 0).findings();
    assert_eq!(analysis.workload_name(), "llm");
    assert!(analysis.confidence >= 0.9 && analysis.warnings.is_empty());
    assert_eq!(analysis.phases[0].0, Phase::Decode);
    assert!(
        analysis
            .phases
            .iter()
            .any(|&(phase, _)| phase == Phase::Sampling)
    );
    assert_eq!(residency_of(&srg, "aten::cat"), [Residency::KvCache]);
    assert_eq!(residency_of(&srg, "aten::argmax"), [Residency::Output]);
    let inputs = srg
        .nodes()
        .iter()
        .filter(|n| matches!(n.kind, Some(node::Kind::Input(_))));
    let inputs = inputs.map(genie_srg::Node::residency).collect::<Vec<_>>();
    assert_eq!(
        inputs,
        [
            Residency::EmbeddingTable,
            Residency::Input,
            Residency::Weight,
            Residency::KvCache
        ]
    );
}

#[test]
fn a_first_pass_is_a_prefill() {
    let analysis = language_model(12, 0, 0).findings();
    assert_eq!(analysis.workload_name(), "llm");
    assert!(analysis.confidence >= CONFIDENCE_MIN);
}

#[test]
fn sizes_and_ids_do_not_matter_and_wiring_does() {
    let one = language_model(1, 9, 0).graph();
    let later = language_model(1, 10, 100).graph();
    assert_eq!(one.fingerprint, later.fingerprint);
    assert_ne!(one.fingerprint, language_model(3, 0, 0).graph().fingerprint);

    let twice = |swap: bool| {
        let mut tape = Tape::default();
        let a = tape.one("aten::relu", &[(E(1), &[2])], &[2]);
        let b = tape.one("aten::relu", &[(E(2), &[2])], &[2]);
        let (first, second) = if swap { (b, a) } else { (a, b) };
        tape.call(
            "aten::sub.Tensor",
            &[(first, &[2]), (second, &[2])],
            &[&[2]],
        );
        tape.graph().fingerprint
    };
    assert_ne!(twice(false), twice(true));
}

#[test]
fn a_training_step_goes_forward_backward_and_optimises() {
    let mut tape = Tape::default();
    let dims: &[i64] = &[8, 8];
    let mut x = E(1);
    for layer in 0..4 {
        x = tape.one("aten::mm", &[(x, dims), (E(10 + layer), dims)], dims);
        x = tape.one("aten::gelu", &[(x, dims)], dims);
    }
    for layer in 0..4 {
        x = tape.one("aten::gelu_backward", &[(x, dims), (E(1), dims)], dims);
        let gradient = tape.one("aten::mm", &[(x, dims), (E(10 + layer), dims)], dims);
        tape.call(
            "aten::lerp_",
            &[(E(20 + layer), dims), (gradient, dims)],
            &[],
        );
    }
    for layer in 0..4 {
        tape.call(
            "aten::addcdiv_",
            &[(E(10 + layer), dims), (E(20 + layer), dims)],
            &[],
        );
    }
    let analysis = tape.findings();
    assert_eq!(analysis.workload_name(), "training");
    assert!(analysis.confidence > 0.9);
    let phases: HashSet<_> = analysis.phases.iter().map(|&(phase, _)| phase).collect();
    assert!(
        phases.is_superset(&HashSet::from([
            Phase::Forward,
            Phase::Backward,
            Phase::Optimizer
        ])),
        "{phases:?}"
    );
}

#[test]
fn what_is_not_known_gets_a_warning_that_promises_nothing() {
    let mut tape = Tape::default();
    let a = tape.one("aten::relu", &[(E(1), &[4])], &[4]);
    tape.free(a);
    let findings = tape.findings();
    assert_eq!(findings.workload_name(), "other");
    let [warning] = findings.warnings.as_slice() else {
        panic!("{:?}", findings.warnings);
    };
    assert!(warning.contains("runs as it was captured"), "{warning}");
    for promise in ["slower", "keeps everything", "overlaps"] {
        assert!(!warning.contains(promise), "{warning}");
    }
}

#[test]
fn what_is_remembered_of_a_structure_is_the_same_whatever_the_sizes() {
    let step = language_model(1, 9, 0);
    let (chunk, longer) = (language_model(4, 30, 50), language_model(20, 30, 100));
    assert_eq!(step.graph().fingerprint, longer.graph().fingerprint);
    let remembered = Facts::of(&step.graph());
    assert_eq!(remembered, Facts::of(&longer.graph()));
    // The same structure is a token that is decoded, a guess that is checked, or a prompt that goes on.
    let phase_of = |tape: &Tape| findings(&tape.graph(), &remembered).phases[0].0;
    assert_eq!(phase_of(&step), Phase::Decode);
    assert_eq!(phase_of(&chunk), Phase::Decode);
    assert_eq!(phase_of(&longer), Phase::Prefill);
}

/// A language model of so many layers, which decodes a token.
fn layers(count: u64) -> Tape {
    let mut tape = Tape::default();
    let row: &[i64] = &[1, 64];
    let mut x = tape.one(
        "aten::embedding",
        &[(E(1), &[1000, 64]), (E(2), &[1, 1])],
        row,
    );
    for layer in 0..count {
        let weight = |at: u64| E(10 + 20 * layer + at);
        let square: &[i64] = &[64, 64];
        let [q, k, v] =
            [0, 1, 2].map(|at| tape.one("aten::mm", &[(x, row), (weight(at), square)], row));
        let (new, old, all): (&[i64], &[i64], &[i64]) =
            (&[1, 4, 1, 16], &[1, 4, 9, 16], &[1, 4, 10, 16]);
        let k = tape.one("aten::cat", &[(weight(3), old), (k, new)], all);
        let v = tape.one("aten::cat", &[(weight(4), old), (v, new)], all);
        let seen = tape.one(SDPA, &[(q, new), (k, all), (v, all)], new);
        let out = tape.one("aten::mm", &[(seen, row), (weight(5), square)], row);
        let sum = tape.one("aten::add.Tensor", &[(x, row), (out, row)], row);
        let up = tape.one(
            "aten::mm",
            &[(sum, row), (weight(6), &[64, 256])],
            &[1, 256],
        );
        let on = tape.one("aten::gelu", &[(up, &[1, 256])], &[1, 256]);
        let down = tape.one("aten::mm", &[(on, &[1, 256]), (weight(7), &[256, 64])], row);
        x = tape.one("aten::add.Tensor", &[(sum, row), (down, row)], row);
    }
    let logits = tape.one("aten::mm", &[(x, row), (E(3), &[64, 1000])], &[1, 1000]);
    tape.fetch(logits, &[1, 1000]);
    tape
}

#[test]
fn every_layer_is_understood_alike() {
    let graph = layers(80).graph();
    let reading = Reading::of(&graph, &Facts::of(&graph));
    assert_eq!(reading.attentions.len(), 80);
    let of_layer = |layer: usize| &reading.roles[1 + 12 * layer..][..12];
    use roles::Role;
    let expected = [
        Role::Query,
        Role::Key,
        Role::Value,
        Role::CacheUpdate,
        Role::CacheUpdate,
        Role::Context,
        Role::AttentionOutput,
        Role::Residual,
        Role::Up,
        Role::Activation,
        Role::Down,
        Role::Residual,
    ];
    for layer in 0..80 {
        assert_eq!(of_layer(layer), expected, "{layer}");
    }
    assert_eq!(reading.roles[1 + 12 * 80], Role::Logits);
    let is_decode = |phase: &&Phase| **phase == Phase::Decode;
    assert_eq!(reading.phases.iter().filter(is_decode).count(), 12 * 80 + 1);
}

/// What analysis takes grows as its graph does: ten times as many operators take ten times as long, give or take
/// what a noisy machine does.
#[test]
fn understanding_is_linear() {
    let took = |count: u64| {
        let graph = layers(count).graph();
        let least = (0..5).map(|_| {
            let begun = std::time::Instant::now();
            let reading = Reading::of(&graph, &Facts::of(&graph));
            assert!(!reading.roles.is_empty());
            begun.elapsed()
        });
        least.min().unwrap()
    };
    let (small, large) = (took(16), took(160));
    assert!(
        large < small * 25,
        "{small:?} for 194 operators, {large:?} for 1,922"
    );
}

#[test]
fn a_history_is_bounded_and_weights_stay_in_it() {
    let mut history = History::default();
    let mut weights = Tape::default();
    weights.one("aten::relu", &[(E(1), &[4])], &[4]);
    history.observe(&weights.graph());
    history.observe(&weights.graph());
    let each = 1000;
    for round in 0..2 * residency::STORAGES_MAX as u64 / each {
        let mut tape = Tape::default();
        for n in 0..each {
            tape.one("aten::relu", &[(E(2 + round * each + n), &[4])], &[4]);
        }
        history.observe(&tape.graph());
        assert!(history.len() <= residency::STORAGES_MAX);
    }
    assert_eq!(history.observe(&weights.graph()), HashSet::from([1]));
}

#[test]
fn overwriting_makes_a_version() {
    let mut tape = Tape::default();
    tape.one("aten::neg", &[(E(1), &[4])], &[4]);
    tape.call("aten::relu_", &[(E(1), &[4])], &[]);
    tape.one("aten::neg", &[(E(1), &[4])], &[4]);
    let graph = tape.graph();
    let versions: Vec<_> = graph
        .srg
        .edges
        .iter()
        .map(|edge| edge.storage.unwrap().version)
        .collect();
    assert_eq!(versions, [0, 0, 1]);
}

#[test]
fn a_storage_that_segments_only_read_becomes_a_weight() {
    let mut history = History::default();
    let mut tape = Tape::default();
    tape.one("aten::add.Tensor", &[(E(7), &[4]), (E(8), &[4])], &[4]);
    assert!(history.observe(&tape.graph()).is_empty());
    assert_eq!(history.observe(&tape.graph()), HashSet::from([7, 8]));
    let mut writes = Tape::default();
    writes.call("aten::relu_", &[(E(8), &[4])], &[]);
    history.observe(&writes.graph());
    assert_eq!(history.observe(&tape.graph()), HashSet::from([7]));
}

#[test]
fn products_cost_two_flops_a_step_and_the_rest_one_an_element() {
    let mut tape = Tape::default();
    let x = tape.one("aten::mm", &[(E(1), &[3, 5]), (E(2), &[5, 7])], &[3, 7]);
    tape.one("aten::relu", &[(x, &[3, 7])], &[3, 7]);
    let image: &[i64] = &[1, 3, 8, 8];
    tape.one(
        "aten::convolution",
        &[(E(3), image), (E(4), &[6, 3, 3, 3])],
        &[1, 6, 8, 8],
    );
    let q: &[i64] = &[1, 2, 4, 8];
    let k: &[i64] = &[1, 2, 16, 8];
    tape.one(SDPA, &[(E(5), q), (E(6), k), (E(6), k)], q);
    let graph = tape.graph();
    let costs: Vec<_> = graph.operators.iter().map(cost::of).collect();
    let flops: Vec<_> = costs.iter().map(|cost| cost.flops).collect();
    assert_eq!(
        flops,
        [2 * 3 * 5 * 7, 21, 2 * 6 * 64 * 27, 4 * 2 * 4 * 16 * 8]
    );
    assert_eq!(
        (costs[0].bytes_read, costs[0].bytes_written),
        (4 * (15 + 35), 4 * 21)
    );
}

#[test]
fn bytes_that_are_no_segment_are_refused() {
    let whole = language_model(1, 9, 0).bytes;
    for end in 1..whole.len() {
        // Some prefixes are whole records.
        let _ = Graph::read(&whole[..end]).map(|graph| annotate(graph, &HashSet::new()));
    }
    for at in 0..whole.len() {
        let mut broken = whole.clone();
        broken[at] ^= 0x55;
        let _ = Graph::read(&broken).map(|graph| annotate(graph, &HashSet::new()));
    }
    assert!(matches!(
        Graph::read(&[0xff; 64]),
        Err(AnalysisError::Wire(_))
    ));
    let mut tape = Tape::default();
    tape.call("no namespace", &[], &[]);
    assert!(matches!(
        Graph::read(&tape.bytes),
        Err(AnalysisError::Graph(_))
    ));
}
