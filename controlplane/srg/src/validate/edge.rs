//! The rules for one edge and the tensor on it.

use std::collections::HashMap;

use super::At;
use crate::{Dtype, Edge, Layout, LayoutKind, Srg, SrgError, limits, node::Kind};

/// Gives the producer's and the consumer's place in the listing of nodes.
pub(super) fn check(
    at: At<'_>,
    edge: &Edge,
    srg: &Srg,
    by_id: &HashMap<u64, usize>,
) -> Result<(usize, usize), SrgError> {
    let find = |end, node| {
        by_id
            .get(&node)
            .copied()
            .ok_or_else(|| SrgError::DanglingEdge {
                at: at.to_string(),
                end,
                node,
            })
    };
    let producer = find("producer", edge.producer)?;
    let consumer = find("consumer", edge.consumer)?;
    if matches!(srg.nodes[consumer].kind, Some(Kind::Input(_))) {
        return Err(SrgError::EdgeIntoInput { at: at.to_string() });
    }
    check_index(at, "output_index", edge.output_index)?;
    check_index(at, "input_index", edge.input_index)?;
    at.finite("producer_rate", edge.producer_rate)?;
    at.finite("consumer_rate", edge.consumer_rate)?;
    at.fraction("criticality", edge.criticality)?;
    Ok((producer, consumer))
}

fn check_index(at: At<'_>, field: &'static str, index: u32) -> Result<(), SrgError> {
    if index >= limits::MAX_PORTS {
        return Err(SrgError::IndexTooLarge {
            at: at.to_string(),
            field,
            index,
            limit: limits::MAX_PORTS,
        });
    }
    Ok(())
}

/// Checks shape, dtype and layout. Gives the bytes of the tensor's elements, each counted once.
pub(super) fn tensor_bytes(at: At<'_>, edge: &Edge) -> Result<u64, SrgError> {
    at.at_most("dimensions", edge.dims.len(), limits::MAX_DIMS)?;
    for (dim, &size) in edge.dims.iter().enumerate() {
        if size < 0 {
            return Err(SrgError::NegativeDim {
                at: at.to_string(),
                dim,
                size,
            });
        }
    }
    let overflow = |what| SrgError::SizeOverflow {
        at: at.to_string(),
        what,
    };
    let dtype = at.known::<Dtype>("dtype", edge.dtype)?;
    let element = dtype
        .size_bytes()
        .and_then(|bytes| i64::try_from(bytes).ok());
    let element = element.ok_or_else(|| at.missing("dtype"))?;
    // A size of 0 counts as 1: whether the rest fits must not hang on where the 0 stands.
    let bytes = edge
        .dims
        .iter()
        .try_fold(element, |bytes, &size| bytes.checked_mul(size.max(1)));
    let bytes = bytes.and_then(|bytes| u64::try_from(bytes).ok());
    let bytes = bytes.ok_or_else(|| overflow("the tensor's size in bytes"))?;
    let empty = edge.dims.contains(&0);

    let layout = edge.layout.as_ref().ok_or_else(|| at.missing("layout"))?;
    check_layout(at, &edge.dims, layout)?;
    span_bytes(&edge.dims, layout, element)
        .ok_or_else(|| overflow("the end of the tensor in its storage"))?;
    Ok(if empty { 0 } else { bytes })
}

fn check_layout(at: At<'_>, dims: &[i64], layout: &Layout) -> Result<(), SrgError> {
    at.known::<LayoutKind>("layout kind", layout.kind)?;
    if layout.strides.len() != dims.len() {
        let (dims, strides) = (dims.len(), layout.strides.len());
        return Err(SrgError::StrideCount {
            at: at.to_string(),
            dims,
            strides,
        });
    }
    for &stride in &layout.strides {
        at.not_negative("stride", stride)?;
    }
    at.not_negative("storage offset", layout.storage_offset)?;
    let contradiction = |flag| {
        Err(SrgError::LayoutContradiction {
            at: at.to_string(),
            flag,
        })
    };
    if layout.contiguous && !is_dense(dims, &layout.strides, (0..dims.len()).rev()) {
        return contradiction("contiguous");
    }
    // The dimensions from the innermost one in memory outwards: channels, then space, then the batch.
    let channels_last = match dims.len() {
        4 => is_dense(dims, &layout.strides, [1, 3, 2, 0]),
        5 => is_dense(dims, &layout.strides, [1, 4, 3, 2, 0]),
        _ => false,
    };
    if layout.channels_last && !channels_last {
        return contradiction("channels_last");
    }
    Ok(())
}

/// Whether the tensor has no gaps when its dimensions lie in memory in this order, innermost first. As
/// in PyTorch, the stride of a dimension of size 1 says nothing, and of an empty tensor no stride does.
fn is_dense(
    dims: &[i64],
    strides: &[i64],
    innermost_first: impl IntoIterator<Item = usize>,
) -> bool {
    if dims.contains(&0) {
        return true;
    }
    let mut expected = 1_i64;
    for dim in innermost_first {
        if dims[dim] != 1 {
            if strides[dim] != expected {
                return false;
            }
            expected = expected.saturating_mul(dims[dim]);
        }
    }
    true
}

/// From the start of the storage to behind the last element; `None` if that is more than 63 bits.
fn span_bytes(dims: &[i64], layout: &Layout, element: i64) -> Option<i64> {
    let mut end = layout.storage_offset;
    if !dims.contains(&0) {
        for (&size, &stride) in dims.iter().zip(&layout.strides) {
            end = end.checked_add((size - 1).checked_mul(stride)?)?;
        }
        end = end.checked_add(1)?;
    }
    end.checked_mul(element)
}
