//! One number that one process sets and another reads.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::mapping::{Mapping, MemoryError};

/// Bytes of the memory that it has for itself.
const PAGE_BYTES: u64 = 4096;

/// A number in memory of its own. Who only reads it believes what the other side wrote, which may be
/// anything.
#[derive(Debug)]
pub struct Word(Mapping);

impl Word {
    /// A new one, with this value.
    ///
    /// # Errors
    /// As [`Mapping::create`].
    pub fn create(value: u64) -> Result<Self, MemoryError> {
        let word = Self(Mapping::create(PAGE_BYTES)?);
        word.set(value);
        Ok(word)
    }

    /// A peer's.
    ///
    /// # Errors
    /// As [`Mapping::from_peer`]; no room for a number.
    pub fn from_peer(file: OwnedFd) -> Result<Self, MemoryError> {
        let mapping = Mapping::from_peer(file)?;
        mapping.address(0, size_of::<u64>() as u64)?;
        Ok(Self(mapping))
    }

    /// The file, for a peer.
    #[must_use]
    pub fn file(&self) -> BorrowedFd<'_> {
        self.0.file()
    }

    /// Its value.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.atomic().map_or(0, |word| word.load(Ordering::Acquire))
    }

    /// Changes it.
    pub fn set(&self, value: u64) {
        if let Some(word) = self.atomic() {
            word.store(value, Ordering::Release);
        }
    }

    fn atomic(&self) -> Option<&AtomicU64> {
        let address = self.0.address(0, size_of::<u64>() as u64).ok()?;
        // SAFETY: eight bytes at the start of a mapping, which begins at a page; it lives as long as
        // `self`, and both sides access it atomically only.
        Some(unsafe { address.cast::<AtomicU64>().as_ref() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_side_sets_the_other_reads() {
        let ours = Word::create(7).unwrap();
        let theirs = Word::from_peer(ours.file().try_clone_to_owned().unwrap()).unwrap();
        assert_eq!(theirs.get(), 7);
        ours.set(u64::MAX);
        assert_eq!(theirs.get(), u64::MAX);
    }
}
