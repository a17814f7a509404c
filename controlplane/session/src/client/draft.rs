//! A record before it is named.

use super::AppendError;
use crate::record::Kind;
use crate::segment::{Namer, Ref};
use crate::varint::put_u64;

/// A record before it is named: storages by their ids.
#[derive(Clone, Copy, Debug)]
pub struct Draft<'a> {
    /// What it does.
    pub kind: Kind,
    /// Operator number, or 0.
    pub op: u32,
    /// Argument skeleton.
    pub skeleton: &'a [u8],
    /// Ids of its storages.
    pub storages: &'a [u64],
    /// Shape-deciding integers.
    pub params: &'a [i64],
    /// Other numbers.
    pub data: &'a [i64],
    /// Tail of the structure: see [`crate::record`].
    pub tail: &'a [u8],
    /// Numbers of the tail.
    pub tail_numbers: &'a [i64],
    /// Ids that it takes.
    pub fresh: u64,
    /// Bytes inside the record, at most [`crate::record::INLINE_MAX`].
    pub blob: Option<&'a [u8]>,
}

impl<'a> Draft<'a> {
    /// An upload of `bytes` (one number) to `storage`. Its bytes are inside the record; see
    /// [`super::ClientLog::append_bulk`] for others.
    #[must_use]
    pub fn upload(storage: &'a u64, bytes: &'a [i64; 1]) -> Self {
        Self {
            storages: std::slice::from_ref(storage),
            tail: &[0],
            tail_numbers: bytes,
            ..Self::new(Kind::Upload)
        }
    }

    /// A new storage of `bytes` uninitialised bytes (one number).
    #[must_use]
    pub fn alloc(bytes: &'a [i64; 1]) -> Self {
        Self {
            tail_numbers: bytes,
            fresh: 1,
            ..Self::new(Kind::Alloc)
        }
    }

    /// Its structure and numbers ([`crate::record`]), with its storages by the names that the segment has
    /// for them. Those that it names first stand at the front of the numbers.
    #[inline]
    pub(crate) fn normal_form(
        &self,
        namer: &mut Namer,
        structure: &mut Vec<u8>,
        numbers: &mut Vec<i64>,
    ) -> Result<(), AppendError> {
        structure.clear();
        numbers.clear();
        put_u64(structure, self.skeleton.len() as u64);
        structure.extend_from_slice(self.skeleton);
        put_u64(structure, self.storages.len() as u64);
        for &id in self.storages {
            let reference = namer.name(id).ok_or(AppendError::UnknownStorage(id))?;
            if reference == Ref::New {
                numbers.push(id as i64);
            }
            put_u64(structure, reference.code());
        }
        structure.extend_from_slice(self.tail);
        numbers.extend_from_slice(self.params);
        numbers.extend_from_slice(self.data);
        numbers.extend_from_slice(self.tail_numbers);
        Ok(())
    }

    /// A record of `kind` with nothing in it.
    #[must_use]
    pub fn new(kind: Kind) -> Self {
        Self {
            kind,
            op: 0,
            skeleton: &[],
            storages: &[],
            params: &[],
            data: &[],
            tail: &[],
            tail_numbers: &[],
            fresh: 0,
            blob: None,
        }
    }
}
