//! The results of a synchronous operator, on the wire.

use crate::WireError;
use crate::machine::Metas;
use crate::skeleton;
use crate::varint::{Reader, put_i64};

/// The payload of a Metas frame: `u16 length, result skeleton, its params (varints), u16 length,
/// value skeleton, its data (varints)`.
#[must_use]
pub fn encode_metas(metas: &Metas) -> Vec<u8> {
    let mut out = Vec::new();
    for (skeleton, numbers) in [
        (&metas.out_skeleton, &metas.out_params),
        (&metas.value_skeleton, &metas.value_data),
    ] {
        out.extend_from_slice(&(skeleton.len() as u16).to_le_bytes());
        out.extend_from_slice(skeleton);
        for &number in numbers {
            put_i64(&mut out, number);
        }
    }
    out
}

/// Parses a Metas payload.
///
/// # Errors
/// Anything that is not of the layout above.
pub fn decode_metas(payload: &[u8]) -> Result<Metas, WireError> {
    let mut reader = Reader::new(payload);
    let len = reader.u16()?;
    let out_skeleton = reader.bytes(usize::from(len))?.to_vec();
    let counts = skeleton::measure_out(&out_skeleton, |_, _| {}, |_| {})?;
    let mut out_params = Vec::with_capacity(counts.params);
    for _ in 0..counts.params {
        out_params.push(reader.var_i64()?);
    }
    let len = reader.u16()?;
    let value_skeleton = reader.bytes(usize::from(len))?.to_vec();
    let counts = skeleton::measure(&value_skeleton, |_, _, _| {})?;
    if counts.storages > 0 || counts.params > 0 {
        return Err(WireError::Malformed("a value that is not a scalar"));
    }
    let mut value_data = Vec::with_capacity(counts.data);
    for _ in 0..counts.data {
        value_data.push(reader.var_i64()?);
    }
    Ok(Metas {
        out_skeleton,
        out_params,
        value_skeleton,
        value_data,
    })
}
