//! Building graphs. Nothing here refuses anything: `validate` does, once, for every graph.

use std::collections::BTreeMap;

use crate::{
    Cost, Dtype, Edge, FusedSubgraph, Input, Layout, LayoutKind, Lineage, Modality, Node, Operator,
    Phase, Residency, SCHEMA_VERSION, Srg, StorageRef, node,
};

impl Srg {
    /// An empty graph of the current version.
    pub fn new() -> Self {
        Self {
            schema_version: Some(SCHEMA_VERSION),
            ..Self::default()
        }
    }

    /// Appends a node. The order of appending is the capture order.
    pub fn add_node(&mut self, node: Node) -> &mut Self {
        self.nodes.push(node);
        self
    }

    /// Appends an edge. The order means nothing.
    pub fn add_edge(&mut self, edge: Edge) -> &mut Self {
        self.edges.push(edge);
        self
    }
}

impl Node {
    /// An operator such as `aten::add.Tensor`.
    pub fn operator(id: u64, name: impl Into<String>) -> Self {
        Self::of_kind(
            id,
            node::Kind::Operator(Operator {
                name: name.into(),
                ..Operator::default()
            }),
        )
    }

    /// Operators that are launched as one, in their order.
    pub fn fused<N: Into<String>>(id: u64, operators: impl IntoIterator<Item = N>) -> Self {
        let operators = operators.into_iter().map(Into::into).collect();
        Self::of_kind(
            id,
            node::Kind::Fused(FusedSubgraph {
                operators,
                ..FusedSubgraph::default()
            }),
        )
    }

    /// A value from outside the segment.
    pub fn input(id: u64, name: impl Into<String>) -> Self {
        Self::of_kind(id, node::Kind::Input(Input { name: name.into() }))
    }

    /// Phase, residency and modality start as unknown, which is valid, not as unspecified.
    fn of_kind(id: u64, kind: node::Kind) -> Self {
        Self {
            id,
            kind: Some(kind),
            phase: Phase::Unknown.into(),
            residency: Residency::Unknown.into(),
            modality: Modality::Unknown.into(),
            ..Self::default()
        }
    }

    /// The argument skeleton (part of the fingerprint) and the numbers for it (not part of it). An
    /// input node has neither and stays as it is.
    #[must_use]
    pub fn with_call(mut self, call: impl Into<Vec<u8>>, parameters: impl Into<Vec<u8>>) -> Self {
        match &mut self.kind {
            Some(node::Kind::Operator(operator)) => {
                operator.call = call.into();
                operator.parameters = parameters.into();
            }
            Some(node::Kind::Fused(fused)) => {
                fused.call = call.into();
                fused.parameters = parameters.into();
            }
            Some(node::Kind::Input(_)) | None => {}
        }
        self
    }

    /// What the program is doing at this node.
    #[must_use]
    pub fn with_phase(mut self, phase: Phase) -> Self {
        self.phase = phase.into();
        self
    }

    /// How long the node's outputs live, and as what.
    #[must_use]
    pub fn with_residency(mut self, residency: Residency) -> Self {
        self.residency = residency.into();
        self
    }

    /// What kind of data it works on.
    #[must_use]
    pub fn with_modality(mut self, modality: Modality) -> Self {
        self.modality = modality.into();
        self
    }

    /// What it is for, such as `attention.q_proj`.
    #[must_use]
    pub fn with_semantic_role(mut self, role: impl Into<String>) -> Self {
        self.semantic_role = role.into();
        self
    }

    /// The module it was called in, such as `transformer.h.0.attn`.
    #[must_use]
    pub fn with_module_path(mut self, path: impl Into<String>) -> Self {
        self.module_path = path.into();
        self
    }

    /// Where it comes from.
    #[must_use]
    pub fn with_lineage(mut self, lineage: Lineage) -> Self {
        self.lineage = Some(lineage);
        self
    }

    /// What it costs to run.
    #[must_use]
    pub fn with_cost(mut self, cost: Cost) -> Self {
        self.cost = Some(cost);
        self
    }

    /// Whether it may be launched together with its neighbours.
    #[must_use]
    pub fn with_can_fuse(mut self, can_fuse: bool) -> Self {
        self.can_fuse = can_fuse;
        self
    }

    /// Whether running it again gives the same outputs.
    #[must_use]
    pub fn with_can_recompute(mut self, can_recompute: bool) -> Self {
        self.can_recompute = can_recompute;
        self
    }

    /// Nodes with the same group belong on one machine; empty is no wish.
    #[must_use]
    pub fn with_colocation_group(mut self, group: impl Into<String>) -> Self {
        self.colocation_group = group.into();
        self
    }

    /// Higher goes first among nodes that are ready; 0 is normal.
    #[must_use]
    pub fn with_priority(mut self, priority: i32) -> Self {
        self.priority = priority;
        self
    }

    /// Free text for tools; nothing plans with it.
    #[must_use]
    pub fn with_annotations(mut self, annotations: BTreeMap<String, String>) -> Self {
        self.annotations = annotations;
        self
    }
}

impl Cost {
    /// A cost whose intensity is FLOPs per byte moved, 0 where nothing moves.
    pub fn new(flops: u64, bytes_read: u64, bytes_written: u64) -> Self {
        // Rounding to 53 bits is harmless in a ratio.
        let moved = bytes_read as f64 + bytes_written as f64;
        let intensity = if moved > 0.0 {
            flops as f64 / moved
        } else {
            0.0
        };
        Self {
            flops,
            bytes_read,
            bytes_written,
            intensity,
        }
    }
}

impl Edge {
    /// A contiguous tensor from (producer, output) to (consumer, input), `dims` outermost first.
    pub fn tensor(from: (u64, u32), to: (u64, u32), dtype: Dtype, dims: &[i64]) -> Self {
        Self {
            producer: from.0,
            output_index: from.1,
            consumer: to.0,
            input_index: to.1,
            dims: dims.to_vec(),
            dtype: dtype.into(),
            layout: Some(Layout::contiguous(dims)),
            ..Self::default()
        }
    }

    /// Another layout than the contiguous one.
    #[must_use]
    pub fn with_layout(mut self, layout: Layout) -> Self {
        self.layout = Some(layout);
        self
    }

    /// The value's storage and which version of it this edge reads.
    #[must_use]
    pub fn with_storage(mut self, id: u64, version: u64) -> Self {
        self.storage = Some(StorageRef { id, version });
        self
    }

    /// Bytes per second in and out; 0 where not known.
    #[must_use]
    pub fn with_rates(mut self, producer: f64, consumer: f64) -> Self {
        self.producer_rate = producer;
        self.consumer_rate = consumer;
        self
    }

    /// From 0 to 1: how much of a delay of this edge the segment's end feels.
    #[must_use]
    pub fn with_criticality(mut self, criticality: f64) -> Self {
        self.criticality = criticality;
        self
    }
}

impl Layout {
    /// Row-major without gaps, from the start of its storage.
    pub fn contiguous(dims: &[i64]) -> Self {
        Self {
            contiguous: true,
            ..Self::strided(row_major_strides(dims), 0)
        }
    }

    /// Any strides, in elements, with neither flag set.
    pub fn strided(strides: Vec<i64>, storage_offset: i64) -> Self {
        Self {
            kind: LayoutKind::Strided.into(),
            strides,
            storage_offset,
            ..Self::default()
        }
    }
}

/// The strides that PyTorch gives a fresh tensor; a size of 0 counts as 1. Shapes that are too large
/// saturate, and validation refuses them.
fn row_major_strides(dims: &[i64]) -> Vec<i64> {
    let mut strides = vec![1; dims.len()];
    let mut next = 1_i64;
    for (stride, &size) in strides.iter_mut().zip(dims).rev() {
        *stride = next;
        next = next.saturating_mul(size.max(1));
    }
    strides
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::validate;

    #[test]
    fn strides_are_those_of_a_fresh_tensor() {
        assert_eq!(row_major_strides(&[]), Vec::<i64>::new());
        assert_eq!(row_major_strides(&[2, 3, 4]), [12, 4, 1]);
        assert_eq!(row_major_strides(&[2, 0, 4]), [4, 4, 1]);
        assert_eq!(
            row_major_strides(&[i64::MAX, i64::MAX, 2]),
            [i64::MAX, 2, 1]
        );
    }

    #[test]
    fn intensity_is_flops_per_byte() {
        assert_eq!(Cost::new(12, 2, 4).intensity, 2.0);
        assert_eq!(Cost::new(12, 0, 0).intensity, 0.0);
    }

    #[test]
    fn what_the_builder_makes_by_default_is_valid() {
        let mut srg = Srg::new();
        srg.add_node(Node::input(1, "x"))
            .add_node(Node::operator(2, "aten::relu"))
            .add_node(Node::fused(3, ["aten::relu", "aten::neg"]).with_call([1], [2]))
            .add_edge(Edge::tensor((1, 0), (2, 0), Dtype::Float, &[]))
            .add_edge(Edge::tensor((2, 0), (3, 0), Dtype::Float, &[3, 0, 2]));
        let valid = validate(&srg).expect("valid");
        let Some(node::Kind::Fused(fused)) = &valid.nodes()[2].kind else {
            panic!("not fused")
        };
        assert_eq!(
            (fused.call.as_slice(), fused.parameters.as_slice()),
            ([1].as_slice(), [2].as_slice())
        );
    }
}
