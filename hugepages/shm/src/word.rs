//! One number that one process sets and another reads, and one that tells how far that other is.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::mapping::{Mapping, MemoryError};

/// Bytes of the memory that it has for itself.
const PAGE_BYTES: u64 = 4096;

/// Where the reader counts: in a cache line of its own.
const COUNT_AT: u64 = 64;

/// A number in memory of its own, and a count of its reader's. Who only reads one believes what the
/// other side wrote, which may be anything.
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
        mapping.address(COUNT_AT, size_of::<u64>() as u64)?;
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
        self.atomic(0)
            .map_or(0, |word| word.load(Ordering::Acquire))
    }

    /// Changes it.
    pub fn set(&self, value: u64) {
        if let Some(word) = self.atomic(0) {
            word.store(value, Ordering::Release);
        }
    }

    /// The reader, which has one thread that counts, is one step further.
    pub fn count(&self) {
        if let Some(word) = self.atomic(COUNT_AT) {
            let count = word.load(Ordering::Relaxed);
            word.store(count.wrapping_add(1), Ordering::Relaxed);
        }
    }

    /// How far the reader is.
    #[must_use]
    pub fn counted(&self) -> u64 {
        self.atomic(COUNT_AT)
            .map_or(0, |word| word.load(Ordering::Relaxed))
    }

    fn atomic(&self, at: u64) -> Option<&AtomicU64> {
        let address = self.0.address(at, size_of::<u64>() as u64).ok()?;
        // SAFETY: eight aligned bytes of a mapping, which begins at a page; it lives as long as
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
        assert_eq!(ours.counted(), 0);
        theirs.count();
        theirs.count();
        assert_eq!((ours.counted(), ours.get()), (2, u64::MAX));
    }
}
