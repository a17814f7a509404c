//! Random valid graphs with every annotation.

use std::collections::{BTreeMap, HashSet};

use genie_srg::{
    Cost, Dtype, Edge, Layout, Lineage, Modality, Node, Phase, Residency, SourceLocation, Srg,
    StorageRef,
};
use proptest::{collection::vec, option, prelude::*, sample::Index, strategy::Union};

const NODES_MAX: usize = 24;
const EDGES_MAX: usize = 60;

/// Any valid graph of up to `NODES_MAX` nodes: ids at random, listed in any order, edges along a hidden
/// topological order.
pub fn graph() -> impl Strategy<Value = Srg> {
    let nodes = vec(node(), 0..NODES_MAX);
    let edges = vec((edge(), any::<Index>(), any::<Index>()), 0..EDGES_MAX);
    (nodes, edges, any::<u64>(), annotations())
        .prop_map(|(nodes, edges, session_epoch, annotations)| {
            let mut srg = Srg {
                session_epoch,
                annotations,
                ..Srg::new()
            };
            srg.nodes = with_unique_ids(nodes);
            srg.edges = wire(&srg.nodes, edges);
            bind_lineage(&mut srg.nodes);
            srg
        })
        .prop_perturb(|mut srg, mut random| {
            for listed in (1..srg.nodes.len()).rev() {
                srg.nodes.swap(listed, random.random_range(0..=listed));
            }
            srg
        })
}

fn with_unique_ids(nodes: Vec<Node>) -> Vec<Node> {
    let mut seen = HashSet::new();
    nodes
        .into_iter()
        .filter(|node| seen.insert(node.id))
        .collect()
}

/// Each edge from an earlier node to a later one that takes inputs; of two for one input the first stays.
fn wire(nodes: &[Node], edges: Vec<(Edge, Index, Index)>) -> Vec<Edge> {
    let mut fed = HashSet::new();
    let mut wired = Vec::new();
    for (mut edge, producer, consumer) in edges {
        if nodes.len() < 2 {
            break;
        }
        let consumer = 1 + consumer.index(nodes.len() - 1);
        if matches!(nodes[consumer].kind, Some(genie_srg::node::Kind::Input(_))) {
            continue;
        }
        edge.producer = nodes[producer.index(consumer)].id;
        edge.consumer = nodes[consumer].id;
        if fed.insert((edge.consumer, edge.input_index)) {
            wired.push(edge);
        }
    }
    wired
}

/// A forward node has to be one of the graph's: the generated number chooses it.
fn bind_lineage(nodes: &mut [Node]) {
    let ids: Vec<u64> = nodes.iter().map(|node| node.id).collect();
    for lineage in nodes.iter_mut().filter_map(|node| node.lineage.as_mut()) {
        lineage.forward_node = lineage
            .forward_node
            .map(|number| ids[number as usize % ids.len()]);
    }
}

fn node() -> impl Strategy<Value = Node> {
    let kind = prop_oneof![
        (operator_name(), call()).prop_map(|(name, (call, parameters))| {
            Node::operator(0, name).with_call(call, parameters)
        }),
        (vec(operator_name(), 1..4), call())
            .prop_map(
                |(names, (call, parameters))| Node::fused(0, names).with_call(call, parameters)
            ),
        text().prop_map(|name| Node::input(0, name)),
    ];
    let words = (text(), text(), text(), annotations());
    let enums = (known::<Phase>(), known::<Residency>(), known::<Modality>());
    let rest = (
        option::of(lineage()),
        option::of(cost()),
        any::<(bool, bool, i32)>(),
    );
    (id(), kind, enums, words, rest).prop_map(
        |(id, node, enums, (role, path, group, annotations), (lineage, cost, flags))| Node {
            id,
            lineage,
            cost,
            ..node
                .with_phase(enums.0)
                .with_residency(enums.1)
                .with_modality(enums.2)
                .with_semantic_role(role)
                .with_module_path(path)
                .with_colocation_group(group)
                .with_annotations(annotations)
                .with_can_fuse(flags.0)
                .with_can_recompute(flags.1)
                .with_priority(flags.2)
        },
    )
}

fn edge() -> impl Strategy<Value = Edge> {
    let storage = option::of((prop_oneof![0_u64..4, any::<u64>()], 0_u64..3));
    (
        tensor(),
        0_u32..4,
        0_u32..6,
        known::<Dtype>(),
        storage,
        (rate(), rate(), 0.0..=1.0),
    )
        .prop_map(
            |((dims, layout), output, input, dtype, storage, (producer, consumer, criticality))| {
                Edge {
                    storage: storage.map(|(id, version)| StorageRef { id, version }),
                    ..Edge::tensor((0, output), (0, input), dtype, &dims)
                        .with_layout(layout)
                        .with_rates(producer, consumer)
                        .with_criticality(criticality)
                }
            },
        )
}

fn tensor() -> impl Strategy<Value = (Vec<i64>, Layout)> {
    let strided = vec((0_i64..9, 0_i64..99), 0..6).prop_flat_map(|dims| {
        let (dims, strides): (Vec<i64>, Vec<i64>) = dims.into_iter().unzip();
        (Just(dims), Just(strides), 0_i64..1 << 40)
    });
    prop_oneof![
        vec(0_i64..1 << 9, 0..5).prop_map(|dims| {
            let layout = Layout::contiguous(&dims);
            (dims, layout)
        }),
        strided.prop_map(|(dims, strides, offset)| (dims, Layout::strided(strides, offset))),
        (1_i64..9, 1_i64..9, 1_i64..9, 1_i64..9).prop_map(|(n, c, h, w)| {
            let strides = vec![h * w * c, 1, w * c, c];
            (
                vec![n, c, h, w],
                Layout {
                    channels_last: true,
                    ..Layout::strided(strides, 0)
                },
            )
        }),
    ]
}

fn lineage() -> impl Strategy<Value = Lineage> {
    let source = (text(), any::<u32>(), text()).prop_map(|(file, line, function)| SourceLocation {
        file,
        line,
        function,
    });
    (any::<[Option<u64>; 3]>(), option::of(source)).prop_map(|(numbers, source)| Lineage {
        forward_node: numbers[0],
        forward_session_sequence: numbers[1],
        session_sequence: numbers[2],
        source,
    })
}

fn cost() -> impl Strategy<Value = Cost> {
    // Totals of all nodes have to stay below 2^64.
    let part = 0..u64::MAX / (2 * NODES_MAX as u64);
    (part.clone(), part.clone(), part, rate()).prop_map(
        |(flops, bytes_read, bytes_written, intensity)| Cost {
            flops,
            bytes_read,
            bytes_written,
            intensity,
        },
    )
}

/// Every finite number from 0.
fn rate() -> impl Strategy<Value = f64> {
    use prop::num::f64::{NORMAL, POSITIVE, SUBNORMAL, ZERO};
    (POSITIVE | NORMAL | SUBNORMAL | ZERO).prop_map(f64::abs)
}

/// Every value of an enum but unspecified.
fn known<E: TryFrom<i32> + std::fmt::Debug + Clone + 'static>() -> impl Strategy<Value = E> {
    let values = (1..64).filter_map(|value| E::try_from(value).ok());
    Union::new(values.map(Just))
}

fn id() -> impl Strategy<Value = u64> {
    prop_oneof![0_u64..99, any::<u64>()]
}

fn call() -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
    (vec(any::<u8>(), 0..20), vec(any::<u8>(), 0..20))
}

fn operator_name() -> impl Strategy<Value = String> {
    "[a-z_]{1,8}::[a-z_]{1,12}(\\.[A-Za-z_]{1,8})?"
}

fn annotations() -> impl Strategy<Value = BTreeMap<String, String>> {
    prop::collection::btree_map(text(), text(), 0..3)
}

/// Any characters, quotes, zeros and all planes among them.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z._0-9]{0,12}",
        vec(any::<char>(), 0..8).prop_map(String::from_iter)
    ]
}
