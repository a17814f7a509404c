//! For any valid graph, and for any bytes.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends where it can't go on"
)]

mod generate;

use genie_srg::{
    Fingerprint, Srg, SrgError, ValidSrg, decode_json, decode_protobuf, encode_json,
    encode_protobuf, fingerprint, validate,
};
use proptest::{collection::vec, prelude::*, sample::Index};
use prost::Message;

fn valid(srg: &Srg) -> ValidSrg {
    validate(srg).expect("the generator makes valid graphs")
}

fn print_of(srg: &Srg) -> Fingerprint {
    fingerprint(&valid(srg))
}

/// What may come out of decoding: a graph that is valid when asked again, or a refusal with a message.
fn check_outcome(outcome: Result<ValidSrg, SrgError>) {
    match outcome {
        Ok(srg) => assert_eq!(print_of(srg.as_srg()), fingerprint(&srg)),
        Err(refusal) => assert!(!refusal.to_string().is_empty()),
    }
}

/// Overwrites, inserts, removes, cuts or repeats a stretch.
fn mutate(bytes: &mut Vec<u8>, changes: &[(u8, Index, u8, u8)]) {
    for (kind, place, value, length) in changes {
        let at = place.index(bytes.len() + 1);
        let end = (at + usize::from(*length)).min(bytes.len());
        match kind % 5 {
            0 => bytes[at..end]
                .iter_mut()
                .take(1)
                .for_each(|byte| *byte = *value),
            1 => bytes.insert(at, *value),
            2 => drop(bytes.drain(at..end)),
            3 => bytes.truncate(at),
            _ => {
                let stretch = bytes[at..end].to_vec();
                bytes.splice(at..at, stretch);
            }
        }
    }
}

proptest! {
    #[test]
    fn any_valid_graph_survives_protobuf(srg in generate::graph()) {
        let before = valid(&srg);
        let after = decode_protobuf(&encode_protobuf(&before))?;
        prop_assert_eq!(fingerprint(&after), fingerprint(&before));
        prop_assert_eq!(after.into_srg(), srg);
    }

    #[test]
    fn any_valid_graph_survives_json(srg in generate::graph()) {
        let before = valid(&srg);
        let after = decode_json(encode_json(&before)?.as_bytes())?;
        prop_assert_eq!(fingerprint(&after), fingerprint(&before));
        prop_assert_eq!(after.into_srg(), srg);
    }

    #[test]
    fn one_graph_has_one_encoding(srg in generate::graph()) {
        let bytes = encode_protobuf(&valid(&srg));
        prop_assert_eq!(encode_protobuf(&decode_protobuf(&bytes)?), bytes);
    }

    #[test]
    fn producers_come_first(srg in generate::graph()) {
        let srg = valid(&srg);
        let order: Vec<u64> = srg.topological_order().map(|node| node.id).collect();
        prop_assert_eq!(order.len(), srg.nodes().len());
        for (position, &id) in order.iter().enumerate() {
            prop_assert_eq!(srg.position(id), Some(position));
            for edge in srg.inputs(id) {
                prop_assert!(srg.position(edge.producer) < Some(position));
            }
        }
    }

    #[test]
    fn renumbering_and_relisting_keep_the_fingerprint(
        srg in generate::graph(), factor in any::<u64>(), offset in any::<u64>(),
    ) {
        let before = print_of(&srg);
        // An odd factor is a bijection on 64 bits.
        let new_id = |id: u64| id.wrapping_mul(factor | 1).wrapping_add(offset);
        let mut other = srg.clone();
        other.nodes = valid(&srg).topological_order().cloned().collect();
        for node in &mut other.nodes {
            node.id = new_id(node.id);
            node.lineage = None;
        }
        for edge in &mut other.edges {
            edge.producer = new_id(edge.producer);
            edge.consumer = new_id(edge.consumer);
            if let Some(storage) = &mut edge.storage {
                storage.id = new_id(storage.id);
                storage.version += offset >> 1;
            }
        }
        other.edges.reverse();
        prop_assert_eq!(print_of(&other), before);
    }

    #[test]
    fn a_back_edge_is_a_cycle_that_names_a_member(srg in generate::graph(), chosen in any::<Index>()) {
        let forward: Vec<_> = srg.edges.iter().filter(|edge| takes_inputs(&srg, edge.producer)).collect();
        if forward.is_empty() {
            return Ok(());
        }
        let mut back = forward[chosen.index(forward.len())].clone();
        std::mem::swap(&mut back.producer, &mut back.consumer);
        back.input_index = 1000;
        let mut srg = srg;
        srg.edges.push(back);
        let Err(SrgError::Cycle { node }) = validate(&srg) else { return Err(TestCaseError::fail("accepted")) };
        prop_assert!(reaches(&srg, node, node));
    }

    #[test]
    fn random_bytes_panic_nowhere(bytes in vec(any::<u8>(), 0..400)) {
        check_outcome(decode_protobuf(&bytes));
        check_outcome(decode_json(&bytes));
    }

    #[test]
    fn mutated_protobuf_panics_nowhere(
        srg in generate::graph(),
        changes in vec((any::<u8>(), any::<Index>(), any::<u8>(), 1_u8..40), 1..6),
    ) {
        let mut bytes = encode_protobuf(&valid(&srg));
        mutate(&mut bytes, &changes);
        check_outcome(decode_protobuf(&bytes));
        // Past the decoder too: what prost takes, the rules have to bear.
        if let Ok(raw) = Srg::decode(bytes.as_slice()) {
            check_outcome(validate(&raw));
        }
    }

    #[test]
    fn mutated_json_panics_nowhere(
        srg in generate::graph(),
        changes in vec((any::<u8>(), any::<Index>(), any::<u8>(), 1_u8..40), 1..4),
    ) {
        let mut text = encode_json(&valid(&srg))?.into_bytes();
        mutate(&mut text, &changes);
        check_outcome(decode_json(&text));
    }

    #[test]
    fn wild_numbers_panic_nowhere(
        srg in generate::graph(),
        dims in vec(any::<i64>(), 0..5), strides in vec(any::<i64>(), 0..5), offset in any::<i64>(),
        ends in any::<[u64; 2]>(), indices in any::<[u32; 2]>(), enums in any::<[i32; 2]>(), rates in any::<[f64; 3]>(),
    ) {
        let mut srg = srg;
        for edge in srg.edges.iter_mut().take(1) {
            edge.dims.clone_from(&dims);
            edge.dtype = enums[0];
            [edge.output_index, edge.input_index] = indices;
            [edge.producer_rate, edge.consumer_rate, edge.criticality] = rates;
            if let Some(layout) = &mut edge.layout {
                layout.strides.clone_from(&strides);
                layout.storage_offset = offset;
            }
            check_outcome(decode_and_back(&[&dims, &strides], offset));
            [edge.producer, edge.consumer] = ends;
        }
        for node in srg.nodes.iter_mut().take(1) {
            node.phase = enums[1];
        }
        check_outcome(validate(&srg));
    }
}

/// A graph whose only doubtful part is one tensor, so that no other rule refuses it first.
fn decode_and_back(dims_and_strides: &[&[i64]; 2], offset: i64) -> Result<ValidSrg, SrgError> {
    use genie_srg::{Dtype, Edge, Layout, Node};
    let [dims, strides] = dims_and_strides;
    let dims: Vec<i64> = dims.iter().map(|size| size & i64::MAX).collect();
    let strides = dims
        .iter()
        .zip(strides.iter().cycle())
        .map(|(_, stride)| stride & i64::MAX)
        .collect();
    let layout = Layout {
        contiguous: offset % 2 == 0,
        ..Layout::strided(strides, offset & i64::MAX)
    };
    let mut srg = Srg::new();
    srg.add_node(Node::input(1, "x"))
        .add_node(Node::operator(2, "aten::relu"))
        .add_edge(Edge::tensor((1, 0), (2, 0), Dtype::ComplexDouble, &dims).with_layout(layout));
    validate(&srg)
}

fn takes_inputs(srg: &Srg, id: u64) -> bool {
    let kind = srg
        .nodes
        .iter()
        .find(|node| node.id == id)
        .and_then(|node| node.kind.as_ref());
    !matches!(kind, Some(genie_srg::node::Kind::Input(_)))
}

fn reaches(srg: &Srg, from: u64, to: u64) -> bool {
    let mut seen = std::collections::HashSet::new();
    let mut left = vec![from];
    while let Some(node) = left.pop() {
        for edge in srg.edges.iter().filter(|edge| edge.producer == node) {
            if edge.consumer == to {
                return true;
            }
            if seen.insert(edge.consumer) {
                left.push(edge.consumer);
            }
        }
    }
    false
}
