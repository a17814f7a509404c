//! What operators cost: a table for those that multiply matrices, elementwise for the rest.

use genie_srg::Cost;

use super::graph::{Graph, Operator};
use super::operators::{is_attention, is_pointwise};

/// FLOPs of one element of what is in no table.
const FLOPS_ELEMENT: u64 = 1;

/// Gives every operator its cost, and says which may be fused or computed again.
pub fn annotate(graph: &mut Graph) {
    for operator in &graph.operators {
        let node = &mut graph.srg.nodes[operator.node];
        node.cost = Some(of(operator));
        node.can_fuse = is_pointwise(&operator.name);
        node.can_recompute =
            !operator.is_in_place() && !operator.arguments.random && !operator.outputs.is_empty();
    }
}

/// The cost of an operator.
#[must_use]
pub fn of(operator: &Operator) -> Cost {
    // Sums stay far below what a graph may have in total.
    const MOST: u64 = 1 << 46;
    let tensors = &operator.arguments.tensors;
    let read = tensors
        .iter()
        .fold(0_u64, |sum, tensor| sum.saturating_add(tensor.bytes()));
    let overwritten = tensors
        .iter()
        .enumerate()
        .filter(|(index, _)| operator.writes(*index));
    let written = operator
        .results
        .iter()
        .chain(overwritten.map(|(_, tensor)| tensor))
        .fold(0_u64, |sum, tensor| sum.saturating_add(tensor.bytes()));
    Cost::new(flops(operator).min(MOST), read.min(MOST), written.min(MOST))
}

fn flops(operator: &Operator) -> u64 {
    let tensors = &operator.arguments.tensors;
    let out = operator.results.first().or(tensors.first());
    let out_elements = out.map_or(0, super::arguments::Tensor::elements);
    // The size that a product sums over.
    let inner = |index: usize| {
        tensors.get(index).map_or(0, |tensor| {
            u64::try_from(tensor.dim_from_end(0)).unwrap_or(0)
        })
    };
    let product = |inner: u64| out_elements.saturating_mul(inner).saturating_mul(2);
    match operator.name.as_str() {
        "mm" | "bmm" | "linear" | "matmul" | "mv" | "dot" => product(inner(0)),
        "addmm" | "baddbmm" | "addmv" | "addbmm" => product(inner(1)),
        "convolution" | "conv1d" | "conv2d" | "conv3d" => {
            // Weights are (out channels, in channels of a group, kernel...).
            let kernel = tensors.get(1).map_or(0, |weight| {
                let out_channels = weight.dims.first().copied().unwrap_or(1).max(1);
                weight.elements() / out_channels.unsigned_abs()
            });
            product(kernel)
        }
        "convolution_backward" => {
            let gradient = tensors
                .first()
                .map_or(0, super::arguments::Tensor::elements);
            let kernel = tensors.get(2).map_or(0, |weight| {
                let out_channels = weight.dims.first().copied().unwrap_or(1).max(1);
                weight.elements() / out_channels.unsigned_abs()
            });
            gradient.saturating_mul(kernel).saturating_mul(4)
        }
        name if is_attention(name) => {
            let backward = if name.contains("backward") { 5 } else { 2 };
            let (query, key) = match (tensors.first(), tensors.get(1)) {
                (Some(query), Some(key)) => (query, key),
                _ => return 0,
            };
            let keys = u64::try_from(key.dim_from_end(1)).unwrap_or(0);
            query
                .elements()
                .saturating_mul(keys)
                .saturating_mul(2 * backward)
        }
        _ => {
            let largest = tensors.iter().map(super::arguments::Tensor::elements).max();
            out_elements
                .max(largest.unwrap_or(0))
                .saturating_mul(FLOPS_ELEMENT)
        }
    }
}
