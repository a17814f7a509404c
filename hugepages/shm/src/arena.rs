//! A session's memory that the daemon and its executor share, with an allocator that one of them
//! owns. The other gets places (byte offsets) and checks them against its own mapping.

use std::sync::Arc;

use crate::mapping::{Mapping, MemoryError};
use crate::space::{BLOCK_BYTES, PlaceError, Space};

/// Free memory that keeps its pages, because taking new ones is slow.
pub const WARM_BYTES: u64 = 256 << 20;
/// Places at least this large have their pages taken at once.
const POPULATE_BYTES: u64 = 256 << 10;

/// How full an arena is. All in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ArenaStats {
    /// Its size.
    pub capacity: u64,
    /// Taken, rounded up to what can't be used by others.
    pub taken: u64,
    /// The most that was ever taken.
    pub peak: u64,
    /// Free, with pages.
    pub warm: u64,
    /// The largest place that could be given.
    pub largest: u64,
    /// How many places are taken.
    pub places: u64,
}

/// Shared memory and the books of who has which place.
#[derive(Debug)]
pub struct Arena {
    memory: Arc<Mapping>,
    space: Space,
}

impl Arena {
    /// An arena of at least `capacity` bytes. Pages are taken when they are used.
    ///
    /// # Errors
    /// As [`Mapping::create`].
    pub fn create(capacity: u64) -> Result<Self, MemoryError> {
        let capacity = capacity
            .checked_next_multiple_of(BLOCK_BYTES)
            .ok_or(MemoryError::Size(capacity))?;
        Ok(Self::over(Arc::new(Mapping::create(capacity)?), WARM_BYTES))
    }

    /// An arena over existing memory, which nobody else allocates from. At most `warm_bytes` of
    /// free memory keep their pages.
    #[must_use]
    pub fn over(memory: Arc<Mapping>, warm_bytes: u64) -> Self {
        let space = Space::new(memory.capacity() / BLOCK_BYTES, warm_bytes / BLOCK_BYTES);
        Self { memory, space }
    }

    /// The memory.
    #[must_use]
    pub fn memory(&self) -> &Arc<Mapping> {
        &self.memory
    }

    /// A place of `len` bytes, aligned to 64, or `None` if none is left. O(log n), and the time that
    /// its pages take.
    pub fn allocate(&mut self, len: u64) -> Option<u64> {
        let (place, cold) = self.allocate_cold(len)?;
        if cold {
            self.memory.populate(place, len);
        }
        Some(place)
    }

    /// The same, without its pages: whoever must not stand still for a second populates a part at a
    /// time ([`Mapping::populate`]), if the place is cold.
    pub fn allocate_cold(&mut self, len: u64) -> Option<(u64, bool)> {
        let (place, warm) = self.space.allocate(len)?;
        Some((place, !warm && len >= POPULATE_BYTES))
    }

    /// Gives a place back.
    ///
    /// # Errors
    /// Nothing is allocated there; nothing was changed.
    pub fn free(&mut self, place: u64) -> Result<(), PlaceError> {
        let memory = &self.memory;
        // Pages that can't be discarded are only kept.
        self.space
            .free(place, |offset, len| drop(memory.discard(offset, len)))
    }

    /// Gives the pages of all free memory back to the system, but for `keep_bytes`.
    pub fn trim(&mut self, keep_bytes: u64) {
        let memory = &self.memory;
        self.space
            .cool(keep_bytes / BLOCK_BYTES, &mut |offset, len| {
                drop(memory.discard(offset, len))
            });
    }

    /// Taken, rounded up to what can't be used by others.
    #[must_use]
    pub fn taken_bytes(&self) -> u64 {
        self.space.taken_bytes()
    }

    /// How full it is.
    #[must_use]
    pub fn stats(&self) -> ArenaStats {
        ArenaStats {
            capacity: self.memory.capacity(),
            taken: self.space.taken_bytes(),
            peak: self.space.peak_bytes(),
            warm: self.space.warm_bytes(),
            largest: self.space.longest_free_bytes(),
            places: self.space.places(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_hold_bytes_until_they_are_freed() {
        let mut arena = Arena::create(1 << 20).unwrap();
        let small = arena.allocate(100).unwrap();
        let large = arena.allocate(300 << 10).unwrap();
        arena.memory().write(small, &[7; 100]).unwrap();
        arena.memory().write(large, &vec![9; 300 << 10]).unwrap();
        let mut byte = [0];
        arena.memory().read(small + 99, &mut byte).unwrap();
        assert_eq!(byte, [7]);
        assert_eq!(arena.stats().places, 2);
        arena.free(small).unwrap();
        assert_eq!(arena.free(small), Err(PlaceError(small)));
        arena.free(large).unwrap();
        assert_eq!(arena.stats().taken, 0);
        arena.trim(0);
        assert_eq!(arena.stats().warm, 0);
        let again = arena.allocate(300 << 10).unwrap();
        arena.memory().read(again, &mut byte).unwrap();
        assert_eq!(byte, [0]);
    }

    #[test]
    fn a_full_arena_says_so() {
        let mut arena = Arena::create(128 << 10).unwrap();
        assert!(arena.allocate(u64::MAX).is_none());
        assert!(arena.allocate(200 << 10).is_none());
        let place = arena.allocate(128 << 10).unwrap();
        assert!(arena.allocate(1).is_none());
        arena.free(place).unwrap();
        assert!(arena.allocate(1).is_some());
    }
}
