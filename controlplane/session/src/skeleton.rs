//! Argument and result skeletons: everything of an operator call but its numbers.
//!
//! A call is split so that a repeated structure can be recognised and only numbers travel:
//! - the **skeleton**: a tag per argument (below), with dtypes, ranks, booleans and strings;
//! - **storages**: one per tensor argument, in order;
//! - **params**: integers that decide shapes (offset, sizes, strides, int arguments), in order;
//! - **data**: numbers that do not (floats, scalars, seeds), in order; floats as IEEE 754 bits.

use crate::WireError;
use crate::varint::Reader;

/// Most items nested in one call, lists included.
pub const ITEMS_MAX: usize = 4096;
/// Most dimensions of a tensor (PyTorch's own limit is 64).
pub const DIMS_MAX: u8 = 64;

/// Tags of argument items. The layout after each tag is given; all little-endian.
pub mod tag {
    /// `None`, or an undefined tensor.
    pub const NONE: u8 = 0;
    /// `[flags u8][dtype u8][ndim u8]`; a storage; params: offset, sizes, strides (in elements).
    pub const TENSOR: u8 = 1;
    /// 0-dimensional CPU tensor or wrapped number: `[flags u8][dtype u8]`; data: value
    /// (integers and bools as i64, floats as f64 bits; complex takes two).
    pub const SCALAR_TENSOR: u8 = 2;
    /// Params: one.
    pub const INT: u8 = 3;
    /// A dtype, layout or memory format: `[value i8]`. Part of the structure.
    pub const ENUM: u8 = 4;
    /// Data: one, f64 bits.
    pub const DOUBLE: u8 = 5;
    /// Boolean `true`.
    pub const TRUE: u8 = 6;
    /// Boolean `false`.
    pub const FALSE: u8 = 7;
    /// Scalar holding an integer. Data: one.
    pub const SCALAR_INT: u8 = 8;
    /// Scalar holding a double. Data: one, f64 bits.
    pub const SCALAR_DOUBLE: u8 = 9;
    /// Scalar holding `true`.
    pub const SCALAR_TRUE: u8 = 10;
    /// Scalar holding `false`.
    pub const SCALAR_FALSE: u8 = 11;
    /// Scalar holding a complex double. Data: two, f64 bits (real, imaginary).
    pub const SCALAR_COMPLEX: u8 = 12;
    /// `[len u16][bytes]`, UTF-8.
    pub const STRING: u8 = 13;
    /// `[n u16]`. Params: n.
    pub const INT_LIST: u8 = 14;
    /// `[n u16]`. Data: n, f64 bits.
    pub const DOUBLE_LIST: u8 = 15;
    /// `[n u16][n bytes of 0 or 1]`.
    pub const BOOL_LIST: u8 = 16;
    /// `[n u16]`, then n items, none of them a list.
    pub const LIST: u8 = 17;
    /// `[index u8]`: a device of the session.
    pub const DEVICE: u8 = 18;
    /// A generator argument. Data: one, the seed drawn at capture.
    pub const GENERATOR: u8 = 19;
    /// After the last argument of a random operator without a generator. Data: one, the seed.
    pub const SEED: u8 = 20;
    /// Before the first argument, where it is not float32: PyTorch's default dtype at capture,
    /// `[dtype u8]`. It decides what operators make of integers and Python numbers.
    pub const DEFAULT_DTYPE: u8 = 21;
}

/// Flags of [`tag::TENSOR`] and [`tag::SCALAR_TENSOR`].
pub mod flag {
    /// The operator writes this argument (in place, or `out=`).
    pub const WRITE: u8 = 1;
    /// A Python number that was wrapped in a tensor: weak in type promotion.
    pub const WRAPPED: u8 = 2;
    /// The negative bit is set (`Tensor.is_neg()`).
    pub const NEGATIVE: u8 = 4;
    /// The conjugate bit is set (`Tensor.is_conj()`).
    pub const CONJUGATE: u8 = 8;
}

/// Tags of result items.
pub mod out {
    /// An undefined tensor.
    pub const NONE: u8 = 0;
    /// A tensor with a storage of its own: `[dtype u8][ndim u8]`; params: sizes, strides.
    pub const FRESH: u8 = 1;
    /// The n-th tensor argument itself: `[n u8]`.
    pub const ALIAS: u8 = 2;
    /// `[n u16]`, then n items, none of them a list.
    pub const LIST: u8 = 3;
}

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
/// Any byte that is not of the layout above.
pub fn measure(
    skeleton: &[u8],
    mut on_tensor: impl FnMut(u8, u8, u8),
) -> Result<Counts, WireError> {
    let mut reader = Reader::new(skeleton);
    let mut counts = Counts::default();
    let mut items = 0_usize;
    while !reader.is_empty() {
        let tag = reader.u8()?;
        if tag == tag::LIST {
            let n = reader.u16()?;
            for _ in 0..n {
                let inner = reader.u8()?;
                if inner == tag::LIST {
                    return Err(WireError::Malformed("a list inside a list"));
                }
                item(inner, &mut reader, &mut counts, &mut on_tensor)?;
            }
            items += usize::from(n);
        } else {
            item(tag, &mut reader, &mut counts, &mut on_tensor)?;
        }
        items += 1;
        if items > ITEMS_MAX {
            return Err(WireError::TooMany {
                what: "arguments",
                got: items as u64,
                max: ITEMS_MAX,
            });
        }
    }
    Ok(counts)
}

fn item(
    tag: u8,
    reader: &mut Reader<'_>,
    counts: &mut Counts,
    on_tensor: &mut impl FnMut(u8, u8, u8),
) -> Result<(), WireError> {
    match tag {
        tag::NONE | tag::TRUE | tag::FALSE | tag::SCALAR_TRUE | tag::SCALAR_FALSE => {}
        tag::TENSOR => {
            let (flags, dtype, ndim) = (reader.u8()?, reader.u8()?, reader.u8()?);
            if ndim > DIMS_MAX {
                return Err(WireError::Malformed("a tensor of more than 64 dimensions"));
            }
            on_tensor(flags, dtype, ndim);
            counts.storages += 1;
            counts.params += 1 + 2 * usize::from(ndim);
        }
        tag::SCALAR_TENSOR => {
            let (_flags, dtype) = (reader.u8()?, reader.u8()?);
            counts.data += if is_complex(dtype) { 2 } else { 1 };
        }
        tag::INT => counts.params += 1,
        tag::ENUM | tag::DEVICE | tag::DEFAULT_DTYPE => {
            reader.u8()?;
        }
        tag::DOUBLE | tag::SCALAR_INT | tag::SCALAR_DOUBLE | tag::GENERATOR | tag::SEED => {
            counts.data += 1;
        }
        tag::SCALAR_COMPLEX => counts.data += 2,
        tag::STRING | tag::BOOL_LIST => {
            let n = reader.u16()?;
            reader.bytes(usize::from(n))?;
        }
        tag::INT_LIST => counts.params += usize::from(reader.u16()?),
        tag::DOUBLE_LIST => counts.data += usize::from(reader.u16()?),
        _ => return Err(WireError::Malformed("an unknown argument tag")),
    }
    Ok(())
}

/// Checks a result skeleton and counts what it creates. `on_fresh` sees dtype and rank of each
/// fresh tensor; `on_alias` the argument it repeats.
///
/// # Errors
/// Any byte that is not of the layout above.
pub fn measure_out(
    skeleton: &[u8],
    mut on_fresh: impl FnMut(u8, u8),
    mut on_alias: impl FnMut(u8),
) -> Result<OutCounts, WireError> {
    let mut reader = Reader::new(skeleton);
    let mut counts = OutCounts::default();
    let mut pending = 0_u32;
    let mut items = 0_usize;
    while !reader.is_empty() {
        let tag = reader.u8()?;
        items += 1;
        if items > ITEMS_MAX {
            return Err(WireError::Malformed("too many results"));
        }
        match tag {
            out::NONE => {}
            out::FRESH => {
                let (dtype, ndim) = (reader.u8()?, reader.u8()?);
                if ndim > DIMS_MAX {
                    return Err(WireError::Malformed("a result of more than 64 dimensions"));
                }
                on_fresh(dtype, ndim);
                counts.fresh += 1;
                counts.params += 2 * usize::from(ndim);
            }
            out::ALIAS => on_alias(reader.u8()?),
            out::LIST if pending == 0 => {
                pending = u32::from(reader.u16()?);
                continue;
            }
            out::LIST => return Err(WireError::Malformed("a list inside a list")),
            _ => return Err(WireError::Malformed("an unknown result tag")),
        }
        pending = pending.saturating_sub(1);
    }
    if pending > 0 {
        return Err(WireError::Truncated);
    }
    Ok(counts)
}

/// True for c10's complex scalar types.
#[must_use]
pub fn is_complex(dtype: u8) -> bool {
    (8..=10).contains(&dtype)
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
