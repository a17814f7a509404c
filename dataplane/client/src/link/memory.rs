//! The memory that a client shares with its gateway: where bulk lies while it is under way.
//!
//! Each bulk is copied once, into or out of it. What leaves takes at most half of it, so that there
//! always is room for what comes, and neither direction waits for the other.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use genie_channel::BULK_PART_MAX;
use genie_gpudev::{Arena, Mapping};
use parking_lot::{Condvar, Mutex};

/// Free memory that keeps its pages: taking new ones costs as much as the copy.
const WARM_BYTES: u64 = 64 << 20;
/// Parts that there must be room for.
const PARTS_MIN: u64 = 4;

pub(super) struct Memory {
    mapping: Arc<Mapping>,
    /// Held for the books only, never while bytes are copied.
    books: Mutex<Books>,
    freed: Condvar,
    leaving_max: u64,
}

struct Books {
    arena: Arena,
    /// Bytes at each place that was sent and not yet given back.
    leaving: HashMap<u64, u64>,
    leaving_bytes: u64,
}

impl Memory {
    pub(super) fn new(mapping: Arc<Mapping>) -> io::Result<Self> {
        let capacity = mapping.capacity();
        if capacity < PARTS_MIN * BULK_PART_MAX {
            let text = format!(
                "the gateway shares only {capacity} bytes for bulk, {} are needed: raise its limit",
                PARTS_MIN * BULK_PART_MAX
            );
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        Ok(Self {
            books: Mutex::new(Books {
                arena: Arena::over(Arc::clone(&mapping), WARM_BYTES),
                leaving: HashMap::new(),
                leaving_bytes: 0,
            }),
            freed: Condvar::new(),
            leaving_max: capacity / 2,
            mapping,
        })
    }

    /// The bytes.
    pub(super) fn bytes(&self) -> &Mapping {
        &self.mapping
    }

    /// A place for a part that leaves, if there is room now.
    pub(super) fn for_leaving(&self, len: u64) -> Option<u64> {
        self.books.lock().for_leaving(len, self.leaving_max)
    }

    /// The same; waits at most `timeout` for another thread to hear that there is.
    pub(super) fn wait_for_leaving(&self, len: u64, timeout: Duration) -> Option<u64> {
        let mut books = self.books.lock();
        let found = books.for_leaving(len, self.leaving_max);
        if found.is_some() || self.freed.wait_for(&mut books, timeout).timed_out() {
            return found;
        }
        books.for_leaving(len, self.leaving_max)
    }

    /// A place for a part that comes, if there is room now.
    pub(super) fn for_coming(&self, len: u64) -> Option<u64> {
        self.books.lock().arena.allocate(len)
    }

    /// What came was taken.
    pub(super) fn taken(&self, place: u64) {
        // Allocated by `for_coming` and freed once.
        let _ = self.books.lock().arena.free(place);
    }

    /// What left is with the gateway no more. False if nothing had left there.
    pub(super) fn left(&self, place: u64) -> bool {
        let mut books = self.books.lock();
        let Some(len) = books.leaving.remove(&place) else {
            return false;
        };
        books.leaving_bytes -= len;
        let _ = books.arena.free(place);
        self.freed.notify_all();
        true
    }

    /// Gives the pages of free memory back to the system.
    pub(super) fn trim(&self) {
        let mut books = self.books.lock();
        if books.arena.stats().warm > 0 {
            books.arena.trim(0);
        }
    }
}

impl Books {
    fn for_leaving(&mut self, len: u64, max: u64) -> Option<u64> {
        if self.leaving_bytes + len > max {
            return None;
        }
        let place = self.arena.allocate(len)?;
        self.leaving.insert(place, len);
        self.leaving_bytes += len;
        Some(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_leaves_keeps_room_for_what_comes() {
        let mapping = Arc::new(Mapping::create(PARTS_MIN * BULK_PART_MAX).unwrap());
        let memory = Memory::new(mapping).unwrap();
        let first = memory.for_leaving(BULK_PART_MAX).unwrap();
        let second = memory.for_leaving(BULK_PART_MAX).unwrap();
        assert_eq!(memory.for_leaving(1), None);
        let coming = memory.for_coming(BULK_PART_MAX).unwrap();
        assert!(!memory.left(coming), "it never left");
        assert!(memory.left(first));
        assert!(!memory.left(first), "only once");
        assert!(memory.for_leaving(BULK_PART_MAX).is_some());
        assert!(memory.left(second));
        memory.taken(coming);
    }

    #[test]
    fn too_little_memory_is_refused() {
        let mapping = Arc::new(Mapping::create(1 << 20).unwrap());
        let error = Memory::new(mapping).err().unwrap();
        assert!(error.to_string().contains("raise its limit"), "{error}");
    }
}
