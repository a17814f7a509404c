//! One test a rule. Each starts from a graph that is accepted and breaks one thing.

mod sizes;

use super::*;
use crate::{Dtype, Layout, Lineage, SchemaVersion};

fn graph() -> Srg {
    let mut srg = Srg::new();
    srg.add_node(Node::input(1, "x"))
        .add_node(Node::operator(2, "aten::relu"))
        .add_node(Node::fused(3, ["aten::relu", "aten::neg"]))
        .add_edge(Edge::tensor((1, 0), (2, 0), Dtype::Float, &[2, 3, 4, 5]))
        .add_edge(Edge::tensor((2, 0), (3, 0), Dtype::Float, &[2]));
    srg
}

/// The error after a change.
fn after(change: impl FnOnce(&mut Srg)) -> SrgError {
    let mut srg = graph();
    assert!(validate(&srg).is_ok());
    change(&mut srg);
    let error = validate(&srg).expect_err("accepted");
    assert_eq!(ValidSrg::try_from(srg), Err(error.clone()));
    error
}

fn layout(srg: &mut Srg) -> &mut Layout {
    srg.edges[0].layout.as_mut().expect("a layout")
}

#[test]
fn messages_name_the_place_and_what_to_do() {
    assert_eq!(
        after(|g| g.edges[1].producer = 9).to_string(),
        "edge 1 (9:0 -> 3:0): there is no node 9, which is its producer: add the node or leave the edge out"
    );
    assert_eq!(
        after(|g| g.nodes[1].kind = Node::operator(2, "relu").kind).to_string(),
        "node 2: \"relu\" is not an operator's name: write namespace::name.overload"
    );
}

#[test]
fn version() {
    let with = |major, minor| after(|g| g.schema_version = Some(SchemaVersion { major, minor }));
    assert_eq!(
        with(2, 0),
        SrgError::UnsupportedVersion { major: 2, minor: 0 }
    );
    assert_eq!(
        with(0, 0),
        SrgError::UnsupportedVersion { major: 0, minor: 0 }
    );
    assert_eq!(
        with(1, 2),
        SrgError::UnsupportedVersion { major: 1, minor: 2 }
    );
    assert!(matches!(
        after(|g| g.schema_version = None),
        SrgError::Missing {
            field: "schema_version",
            ..
        }
    ));
}

#[test]
fn duplicate_node() {
    assert_eq!(
        after(|g| g.nodes[2].id = 2),
        SrgError::DuplicateNode { id: 2 }
    );
}

#[test]
fn dangling_edges() {
    let producer = after(|g| g.edges[0].producer = 9);
    let consumer = after(|g| g.edges[0].consumer = 9);
    assert!(matches!(
        producer,
        SrgError::DanglingEdge {
            end: "producer",
            node: 9,
            ..
        }
    ));
    assert!(matches!(
        consumer,
        SrgError::DanglingEdge {
            end: "consumer",
            node: 9,
            ..
        }
    ));
}

#[test]
fn dangling_lineage() {
    let error = after(|g| {
        g.nodes[1].lineage = Some(Lineage {
            forward_node: Some(9),
            ..Lineage::default()
        })
    });
    assert_eq!(
        error,
        SrgError::DanglingLineage {
            at: "node 2".into(),
            forward: 9
        }
    );
}

#[test]
fn edge_into_input() {
    assert!(matches!(
        after(|g| g.edges[1].consumer = 1),
        SrgError::EdgeIntoInput { .. }
    ));
}

#[test]
fn input_fed_twice() {
    let error = after(|g| {
        let twice = g.edges[0].clone();
        g.edges.push(twice);
    });
    assert_eq!(
        error,
        SrgError::DuplicateInput {
            at: "edge 2 (1:0 -> 2:0)".into()
        }
    );
}

#[test]
fn cycle() {
    let back = Edge::tensor((3, 0), (2, 1), Dtype::Float, &[2]);
    assert!(matches!(
        after(|g| g.edges.push(back)),
        SrgError::Cycle { node: 2 | 3 }
    ));
}

#[test]
fn missing_parts() {
    assert!(matches!(
        after(|g| g.nodes[1].kind = None),
        SrgError::Missing { .. }
    ));
    assert!(matches!(
        after(|g| g.nodes[2].kind = Node::fused(3, [""; 0]).kind),
        SrgError::Missing { .. }
    ));
    assert!(matches!(
        after(|g| g.edges[0].layout = None),
        SrgError::Missing {
            field: "layout",
            ..
        }
    ));
}

#[test]
fn enum_values() {
    for value in [0, -1, 99] {
        let refused = |field, error| {
            let SrgError::UnknownEnumValue {
                field: named,
                value: shown,
                ..
            } = error
            else {
                panic!("{error}")
            };
            assert_eq!((named, shown), (field, value));
        };
        refused("phase", after(|g| g.nodes[1].phase = value));
        refused("residency", after(|g| g.nodes[1].residency = value));
        refused("modality", after(|g| g.nodes[1].modality = value));
        refused("dtype", after(|g| g.edges[0].dtype = value));
        refused("layout kind", after(|g| layout(g).kind = value));
    }
}

#[test]
fn operator_names() {
    for name in ["", "relu", "::relu", "aten::"] {
        let operator = after(|g| g.nodes[1].kind = Node::operator(2, name).kind);
        let fused = after(|g| g.nodes[2].kind = Node::fused(3, ["aten::relu", name]).kind);
        assert!(
            matches!(operator, SrgError::BadOperatorName { .. }),
            "{name}"
        );
        assert!(matches!(fused, SrgError::BadOperatorName { .. }), "{name}");
    }
}

#[test]
fn numbers_out_of_range() {
    for value in [f64::NAN, f64::INFINITY, -1.0] {
        let cost = crate::Cost {
            intensity: value,
            ..crate::Cost::default()
        };
        let refused = |named, error| {
            assert!(
                matches!(&error, SrgError::NumberOutOfRange { field, .. } if *field == named),
                "{error}"
            );
        };
        refused("intensity", after(|g| g.nodes[1].cost = Some(cost)));
        refused("producer_rate", after(|g| g.edges[0].producer_rate = value));
        refused("consumer_rate", after(|g| g.edges[0].consumer_rate = value));
        refused("criticality", after(|g| g.edges[0].criticality = value));
    }
    assert!(matches!(
        after(|g| g.edges[0].criticality = 1.1),
        SrgError::NumberOutOfRange { .. }
    ));
}

#[test]
fn indices() {
    let output = after(|g| g.edges[0].output_index = limits::MAX_PORTS);
    let input = after(|g| g.edges[0].input_index = limits::MAX_PORTS);
    assert!(matches!(
        output,
        SrgError::IndexTooLarge {
            field: "output_index",
            ..
        }
    ));
    assert!(matches!(
        input,
        SrgError::IndexTooLarge {
            field: "input_index",
            ..
        }
    ));
}

#[test]
fn accessors_find_nodes_and_inputs() {
    let valid = validate(&graph()).expect("valid");
    assert_eq!(valid.node(2).map(|node| node.id), Some(2));
    assert_eq!((valid.position(3), valid.position(9)), (Some(2), None));
    assert_eq!(
        valid
            .inputs(3)
            .map(|edge| edge.producer)
            .collect::<Vec<_>>(),
        [2]
    );
    assert_eq!(valid.inputs(9).count(), 0);
    assert_eq!(valid.clone().into_srg(), *valid.as_srg());
}
