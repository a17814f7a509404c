use super::*;
use crate::{Cost, Dtype, Layout, Modality, Node, Phase, Residency, Srg, validate};

/// y = relu_(x + w), twice fed.
fn graph() -> Srg {
    let mut srg = Srg::new();
    srg.add_node(Node::input(10, "x"))
        .add_node(Node::input(20, "w"))
        .add_node(Node::operator(30, "aten::add.Tensor").with_call([1], [7]))
        .add_node(Node::fused(40, ["aten::relu_", "aten::neg"]).with_call([2], [8]))
        .add_edge(Edge::tensor((10, 0), (30, 0), Dtype::Float, &[2, 3]).with_storage(4096, 5))
        .add_edge(Edge::tensor((20, 0), (30, 1), Dtype::Float, &[2, 3]).with_storage(8192, 1))
        .add_edge(Edge::tensor((30, 0), (40, 0), Dtype::Float, &[2, 3]).with_storage(4096, 6))
        .add_edge(Edge::tensor((10, 0), (40, 1), Dtype::Float, &[2, 3]));
    srg
}

fn of(srg: &Srg) -> Fingerprint {
    fingerprint(&validate(srg).expect("valid"))
}

/// The fingerprint after a change.
fn after(change: impl FnOnce(&mut Srg)) -> Fingerprint {
    let mut srg = graph();
    change(&mut srg);
    of(&srg)
}

fn operator(srg: &mut Srg) -> &mut crate::Operator {
    match &mut srg.nodes[2].kind {
        Some(Kind::Operator(operator)) => operator,
        _ => panic!("not an operator"),
    }
}

fn fused(srg: &mut Srg) -> &mut crate::FusedSubgraph {
    match &mut srg.nodes[3].kind {
        Some(Kind::Fused(fused)) => fused,
        _ => panic!("not fused"),
    }
}

#[test]
fn value_is_pinned() {
    // Stored plans are found by it: a change of the rule needs a new DOMAIN.
    assert_eq!(of(&graph()).to_string(), "6ab42aaa3f7746c491722701b8b7fa1b");
}

#[test]
fn structure_changes_it() {
    let before = of(&graph());
    let changes: [(&str, Fingerprint); 14] = [
        (
            "operator",
            after(|g| operator(g).name = "aten::sub.Tensor".into()),
        ),
        ("call", after(|g| operator(g).call = vec![9])),
        ("fused operators", after(|g| fused(g).operators.swap(0, 1))),
        ("fused call", after(|g| fused(g).call = vec![9])),
        (
            "kind",
            after(|g| g.nodes[2] = Node::fused(30, ["aten::add.Tensor"]).with_call([1], [])),
        ),
        ("node", after(|g| g.nodes.push(Node::input(50, "unused")))),
        ("dtype", after(|g| g.edges[0].dtype = Dtype::Half.into())),
        ("producer", after(|g| g.edges[3].producer = 20)),
        ("output", after(|g| g.edges[0].output_index = 1)),
        ("argument", after(|g| g.edges[3].input_index = 2)),
        ("edge", after(|g| drop(g.edges.pop()))),
        (
            "alias",
            after(|g| g.edges[1] = g.edges[1].clone().with_storage(4096, 5)),
        ),
        (
            "version",
            after(|g| g.edges[2] = g.edges[2].clone().with_storage(4096, 5)),
        ),
        (
            "known storage",
            after(|g| g.edges[3] = g.edges[3].clone().with_storage(1 << 20, 0)),
        ),
    ];
    for (index, (what, changed)) in changes.iter().enumerate() {
        assert_ne!(*changed, before, "{what}");
        for (other, same) in &changes[..index] {
            assert_ne!(changed, same, "{what} and {other}");
        }
    }
}

#[test]
fn numbers_and_annotations_do_not() {
    let changed = after(|g| {
        operator(g).parameters = vec![42];
        fused(g).parameters = vec![43];
        g.session_epoch = 9;
        g.annotations.insert("a".into(), "b".into());
        for node in &mut g.nodes {
            *node = node
                .clone()
                .with_phase(Phase::Decode)
                .with_residency(Residency::KvCache)
                .with_modality(Modality::Text)
                .with_semantic_role("role")
                .with_module_path("h.0")
                .with_cost(Cost::new(1, 2, 3))
                .with_can_fuse(true)
                .with_can_recompute(true)
                .with_colocation_group("group")
                .with_priority(4);
        }
        g.nodes[0].kind = Node::input(10, "other").kind;
        for edge in &mut g.edges {
            edge.dims = vec![5, 7, 1];
            edge.layout = Some(Layout::strided(vec![1, 5, 5], 3));
            edge.producer_rate = 1.0;
            edge.consumer_rate = 2.0;
            edge.criticality = 0.5;
        }
    });
    assert_eq!(changed, of(&graph()));
}

#[test]
fn ids_addresses_counters_and_edge_listing_do_not() {
    let changed = after(|g| {
        // Reverses the order of the ids too.
        for node in &mut g.nodes {
            node.id = 1000 - node.id;
        }
        for edge in &mut g.edges {
            edge.producer = 1000 - edge.producer;
            edge.consumer = 1000 - edge.consumer;
            if let Some(storage) = &mut edge.storage {
                storage.id ^= 1 << 30;
                storage.version *= 10;
            }
        }
        g.edges.reverse();
    });
    assert_eq!(changed, of(&graph()));
}

#[test]
fn listing_with_the_same_topological_order_does_not() {
    // The inputs behind the operator that reads them: the order puts them back.
    assert_eq!(after(|g| g.nodes.rotate_left(2)), of(&graph()));
}

#[test]
fn text_and_bytes_give_it_back() {
    let value = of(&graph());
    assert_eq!(Fingerprint::from_bytes(value.to_bytes()), value);
    assert_eq!(value.to_string().parse(), Ok(value));
    let small = Fingerprint::from_bytes([0; 16]);
    assert_eq!(small.to_string().parse(), Ok(small));
}

#[test]
fn other_text_is_no_fingerprint() {
    for text in [
        "",
        "0",
        "+0000000000000000000000000000000",
        "g0000000000000000000000000000000",
        "é",
    ] {
        assert!(text.parse::<Fingerprint>().is_err(), "{text}");
    }
}
