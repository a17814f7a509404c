//! Bytes of a storage.

use genie_session::client::Draft;
use genie_session::record::Kind;
use genie_session::skeleton::{flag, tag};

/// A view of bytes, whatever they are.
const AS_BYTES: [u8; 4] = [tag::TENSOR, 0, 0, 1];

/// Bytes of a storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bytes {
    /// Whose.
    pub storage: u64,
    /// From here on.
    pub offset: u64,
    /// So many.
    pub len: u64,
}

impl Bytes {
    /// Those of a view of `len` bytes, if they lie together in the order of its elements.
    pub(super) fn of(draft: &Draft<'_>, len: usize) -> Option<Self> {
        let (&[storage], &[tag::TENSOR, flags, _, ndim]) = (draft.storages, draft.skeleton) else {
            return None;
        };
        let (offset, shape) = draft.params.split_first()?;
        let (sizes, strides) = shape.split_at_checked(usize::from(ndim))?;
        let mut elements = 1_i64;
        for (&size, &stride) in sizes.iter().zip(strides).rev() {
            if size != 1 && stride != elements {
                return None;
            }
            elements = elements.checked_mul(size)?;
        }
        let elements = u64::try_from(elements).ok().filter(|&count| count > 0)?;
        let item = len as u64 / elements;
        let is_plain =
            flags & (flag::NEGATIVE | flag::CONJUGATE) == 0 && item * elements == len as u64;
        is_plain.then_some(Self {
            storage,
            offset: u64::try_from(*offset).ok()?.checked_mul(item)?,
            len: len as u64,
        })
    }

    /// Where `other` is in them.
    pub(super) fn position_of(&self, other: &Self) -> Option<usize> {
        let from = other.offset.checked_sub(self.offset)?;
        let fits = self.storage == other.storage && from.checked_add(other.len)? <= self.len;
        fits.then_some(from as usize)
    }

    /// The numbers of the view that is all of them.
    pub(super) fn params(&self) -> [i64; 3] {
        [self.offset as i64, self.len as i64, 1]
    }

    /// Fetches them; `params` are their own.
    pub(super) fn fetch<'a>(&'a self, params: &'a [i64; 3]) -> Draft<'a> {
        Draft {
            skeleton: &AS_BYTES,
            storages: std::slice::from_ref(&self.storage),
            params,
            ..Draft::new(Kind::Fetch)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_elements_in_their_order_are_bytes() {
        let of = |flags, params: &[i64], ndim, len| {
            let skeleton = [tag::TENSOR, flags, 6, ndim];
            let draft = Draft {
                skeleton: &skeleton,
                storages: &[7],
                params,
                ..Draft::new(Kind::Fetch)
            };
            Bytes::of(&draft, len).map(|one| (one.offset, one.len))
        };
        assert_eq!(of(0, &[2, 3, 4, 4, 1], 2, 48), Some((8, 48)));
        assert_eq!(of(0, &[0], 0, 8), Some((0, 8)));
        assert_eq!(of(0, &[0, 1, 3, 99, 1], 2, 12), Some((0, 12)));
        assert_eq!(of(0, &[0, 3, 4, 1, 3], 2, 48), None, "transposed");
        assert_eq!(of(flag::CONJUGATE, &[0, 4, 1], 1, 32), None);
        assert_eq!(of(0, &[0, 4, 0], 1, 16), None, "expanded");
    }
}
