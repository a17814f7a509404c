//! Argument and result skeletons: everything of an operator call but its numbers.
//!
//! A call is split so that a repeated structure can be recognised and only numbers travel:
//! - the **skeleton**: a tag per argument (below), with dtypes, ranks, booleans and strings;
//! - **storages**: one per tensor argument, in order;
//! - **params**: integers that decide shapes (offset, sizes, strides, int arguments), in order;
//! - **data**: numbers that do not (floats, scalars, seeds), in order; floats as IEEE 754 bits.
//!
//! [`grammar`] is the one definition of all tags and what lies behind each; [`walk`] reads skeletons
//! by it, item by item, for whoever asks; [`cpp`] writes it out for C++.

pub use crate::limits::{DIMS_MAX, ITEMS_MAX};
pub mod cpp;
pub mod grammar;
pub mod walk;

pub use grammar::{Argument, ResultItem, flag, out, tag};
pub use walk::{arguments, results};

use crate::WireError;

/// How many of each stream a skeleton consumes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Storages: tensor arguments.
    pub storages: usize,
    /// Shape-deciding integers.
    pub params: usize,
    /// Other numbers.
    pub data: usize,
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, more: Self) {
        self.storages += more.storages;
        self.params += more.params;
        self.data += more.data;
    }
}

/// How much an output skeleton creates and consumes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OutCounts {
    /// Storages created.
    pub fresh: usize,
    /// Sizes and strides.
    pub params: usize,
}

/// Checks an argument skeleton and counts what it consumes. `on_tensor` sees, for each tensor in
/// order, its flags, dtype and rank.
///
/// # Errors
/// Any byte that is not of the grammar.
pub fn measure(
    skeleton: &[u8],
    mut on_tensor: impl FnMut(u8, u8, u8),
) -> Result<Counts, WireError> {
    let mut counts = Counts::default();
    for item in arguments(skeleton) {
        let item = item?;
        if let Argument::Tensor { flags, dtype, ndim } = item {
            on_tensor(flags, dtype, ndim);
        }
        counts += item.counts();
    }
    Ok(counts)
}

/// Checks a result skeleton and counts what it creates. `on_fresh` sees dtype and rank of each
/// fresh tensor; `on_alias` the argument it repeats.
///
/// # Errors
/// Any byte that is not of the grammar.
pub fn measure_out(
    skeleton: &[u8],
    mut on_fresh: impl FnMut(u8, u8),
    mut on_alias: impl FnMut(u8),
) -> Result<OutCounts, WireError> {
    let mut counts = Counts::default();
    for item in results(skeleton) {
        let item = item?;
        match item {
            ResultItem::Fresh { dtype, ndim } => on_fresh(dtype, ndim),
            ResultItem::Alias { argument } => on_alias(argument),
            ResultItem::None | ResultItem::List { .. } => {}
        }
        counts += item.counts();
    }
    Ok(OutCounts {
        fresh: counts.storages,
        params: counts.params,
    })
}

/// Bytes of each storage that a result skeleton creates; `params` are all its sizes and strides.
///
/// # Errors
/// Any byte that is not of the grammar, an element type that Genie does not carry, or numbers that are
/// not the skeleton's.
pub fn fresh_bytes(skeleton: &[u8], params: &[i64]) -> Result<Vec<u64>, WireError> {
    let numbers = WireError::Malformed("the numbers do not fit the results");
    let (mut bytes, mut rest) = (Vec::new(), params);
    for item in results(skeleton) {
        if let ResultItem::Fresh { dtype, ndim } = item? {
            let ndim = usize::from(ndim);
            let own = rest
                .split_at_checked(2 * ndim)
                .ok_or_else(|| numbers.clone())?;
            let (sizes, strides) = own.0.split_at(ndim);
            rest = own.1;
            let spans = span_bytes(dtype, 0, sizes, strides);
            bytes.push(spans.ok_or(WireError::Malformed("a result of no known size"))?);
        }
    }
    rest.is_empty().then_some(bytes).ok_or(numbers)
}

/// True for c10's complex scalar types.
#[must_use]
pub const fn is_complex(dtype: u8) -> bool {
    matches!(dtype, 8..=10)
}

/// Bytes of one element of a c10 `ScalarType`, or `None` where Genie carries no such type.
#[must_use]
pub fn element_bytes(dtype: u8) -> Option<u64> {
    Some(match dtype {
        0 | 1 | 11 | 23..=26 => 1,
        2 | 5 | 15 => 2,
        3 | 6 | 8 => 4,
        4 | 7 | 9 => 8,
        10 => 16,
        27..=29 => [2, 4, 8][usize::from(dtype) - 27],
        _ => return None,
    })
}

/// Bytes that a strided tensor spans from its offset 0, or `None` on overflow or a negative
/// number. Zero when any size is zero (`c10`'s `computeStorageNbytes`).
#[must_use]
pub fn span_bytes(dtype: u8, offset: i64, sizes: &[i64], strides: &[i64]) -> Option<u64> {
    let element = element_bytes(dtype)?;
    let mut last = u64::try_from(offset).ok()?;
    for (&size, &stride) in sizes.iter().zip(strides) {
        let (size, stride) = (u64::try_from(size).ok()?, u64::try_from(stride).ok()?);
        if size == 0 {
            return Some(0);
        }
        last = last.checked_add((size - 1).checked_mul(stride)?)?;
    }
    last.checked_add(1)?
        .checked_mul(element)
        .filter(|&bytes| bytes <= i64::MAX as u64)
}

#[cfg(test)]
mod tests;
