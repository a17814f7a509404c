//! The memory that a client shares with its gateway: where bulk lies while it is under way.
//!
//! Each bulk is copied once, into or out of it. What leaves takes at most half of it, so that there
//! always is room for what comes, and neither direction waits for the other.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use genie_channel::BULK_PART_MAX;
use genie_shm::{Arena, Mapping};
use parking_lot::{Condvar, Mutex};

/// Free memory that keeps its pages: taking new ones costs as much as the copy. Huge pages all stay.
const WARM_BYTES: u64 = 64 << 20;
/// Parts that there must be room for.
const PARTS_MIN: u64 = 4;

pub(super) struct Memory {
    /// Held for the books only, never while bytes are copied.
    books: Mutex<Books>,
    freed: Condvar,
    leaving_max: u64,
}

struct Books {
    /// `None` once the connection is over.
    arena: Option<Arena>,
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
        let warm_bytes = match mapping.is_huge() {
            true => capacity,
            false => WARM_BYTES,
        };
        Ok(Self {
            books: Mutex::new(Books {
                arena: Some(Arena::over(mapping, warm_bytes)),
                leaving: HashMap::new(),
                leaving_bytes: 0,
            }),
            freed: Condvar::new(),
            leaving_max: capacity / 2,
        })
    }

    /// Copies `bytes` to a place.
    pub(super) fn write(&self, place: u64, bytes: &[u8]) -> io::Result<()> {
        self.bytes()?.write(place, bytes).map_err(io::Error::other)
    }

    /// Copies what lies at a place.
    pub(super) fn read(&self, place: u64, into: &mut [u8]) -> io::Result<()> {
        self.bytes()?.read(place, into).map_err(io::Error::other)
    }

    /// The bytes, which stay as long as somebody copies.
    fn bytes(&self) -> io::Result<Arc<Mapping>> {
        match &self.books.lock().arena {
            Some(arena) => Ok(Arc::clone(arena.memory())),
            None => Err(io::ErrorKind::NotConnected.into()),
        }
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
        self.books.lock().arena.as_mut()?.allocate(len)
    }

    /// What came was taken.
    pub(super) fn taken(&self, place: u64) {
        self.books.lock().free(place);
    }

    /// What left is with the gateway no more. False if nothing had left there.
    pub(super) fn left(&self, place: u64) -> bool {
        let mut books = self.books.lock();
        let Some(len) = books.leaving.remove(&place) else {
            return false;
        };
        books.leaving_bytes -= len;
        books.free(place);
        self.freed.notify_all();
        true
    }

    /// Gives the pages of free memory back to the system, but for huge ones.
    pub(super) fn trim(&self) {
        if let Some(arena) = &mut self.books.lock().arena
            && !arena.memory().is_huge()
            && arena.stats().warm > 0
        {
            arena.trim(0);
        }
    }

    /// The connection is over: all of it goes, though the connection itself may be kept.
    pub(super) fn close(&self) {
        let arena = self.books.lock().arena.take();
        self.freed.notify_all();
        // Unmapping takes its time.
        drop(arena);
    }
}

impl Books {
    fn for_leaving(&mut self, len: u64, max: u64) -> Option<u64> {
        if self.leaving_bytes + len > max {
            return None;
        }
        let place = self.arena.as_mut()?.allocate(len)?;
        self.leaving.insert(place, len);
        self.leaving_bytes += len;
        Some(place)
    }

    fn free(&mut self, place: u64) {
        if let Some(arena) = &mut self.arena {
            // It was allocated before, and is freed once.
            let _ = arena.free(place);
        }
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
    fn it_goes_with_the_connection() {
        let mapping = Arc::new(Mapping::create(PARTS_MIN * BULK_PART_MAX).unwrap());
        let memory = Memory::new(Arc::clone(&mapping)).unwrap();
        let leaving = memory.for_leaving(100).unwrap();
        let coming = memory.for_coming(100).unwrap();
        memory.write(leaving, &[3; 100]).unwrap();
        memory.close();
        assert_eq!(Arc::strong_count(&mapping), 1);
        assert_eq!(memory.for_leaving(1), None);
        assert_eq!(memory.for_coming(1), None);
        let error = memory.read(coming, &mut [0; 100]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotConnected);
        memory.taken(coming);
        memory.trim();
        assert!(memory.left(leaving));
        memory.close();
    }

    #[test]
    fn too_little_memory_is_refused() {
        let mapping = Arc::new(Mapping::create(1 << 20).unwrap());
        let error = Memory::new(mapping).err().unwrap();
        assert!(error.to_string().contains("raise its limit"), "{error}");
    }
}
