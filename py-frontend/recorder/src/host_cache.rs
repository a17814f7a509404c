//! Memory for large results on the client, kept for the next one: new pages cost as much to touch
//! as a result costs to receive.

use std::ptr::NonNull;

use parking_lot::Mutex;

/// Results at least this large use the cache.
pub const BLOCK_MIN: usize = 1 << 20;
/// Bytes kept at most.
pub const BYTES_MAX: usize = 128 << 20;
/// Blocks kept at most.
pub const BLOCKS_MAX: usize = 32;
const HUGE_PAGE: usize = 2 << 20;
const PAGE: usize = 4 << 10;

/// Mapped memory, given back to the system when dropped.
#[derive(Debug)]
pub struct Block {
    start: NonNull<u8>,
    capacity: usize,
}

// SAFETY: plain memory that the block owns.
unsafe impl Send for Block {}

impl Block {
    /// Maps at least `bytes` bytes; `None` if the system has none.
    fn map(bytes: usize) -> Option<Self> {
        let unit = if bytes >= 2 * HUGE_PAGE {
            HUGE_PAGE
        } else {
            PAGE
        };
        let capacity = bytes.max(1).checked_next_multiple_of(unit)?;
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory in use.
        let raw = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                capacity,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if raw == libc::MAP_FAILED {
            return None;
        }
        if unit == HUGE_PAGE {
            // SAFETY: the range was just mapped; the call is only advice.
            unsafe { libc::madvise(raw, capacity, libc::MADV_HUGEPAGE) };
        }
        NonNull::new(raw.cast()).map(|start| Self { start, capacity })
    }

    /// Gives the memory up: its start and capacity.
    #[must_use]
    pub fn into_raw(self) -> (NonNull<u8>, usize) {
        let block = std::mem::ManuallyDrop::new(self);
        (block.start, block.capacity)
    }

    /// Takes back what [`Block::into_raw`] gave up.
    ///
    /// # Safety
    /// Both come from one `into_raw`, and nothing uses the memory any more.
    #[must_use]
    pub unsafe fn from_raw(start: NonNull<u8>, capacity: usize) -> Self {
        Self { start, capacity }
    }

    /// First byte.
    #[must_use]
    pub fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// Bytes.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.capacity
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: mapped by `map` with this capacity, and owned by this value alone.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.capacity) };
    }
}

/// Blocks that nobody uses, the oldest first.
#[derive(Debug, Default)]
pub struct HostCache {
    blocks: Vec<Block>,
    bytes: usize,
}

impl HostCache {
    /// An empty cache.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            blocks: Vec::new(),
            bytes: 0,
        }
    }

    /// A block of at least `bytes`, and if kept, not of much more.
    pub fn take(&mut self, bytes: usize) -> Option<Block> {
        let fits = |block: &Block| {
            block.capacity >= bytes && block.capacity - bytes <= bytes / 8 + HUGE_PAGE
        };
        if let Some(at) = self.blocks.iter().rposition(fits) {
            let block = self.blocks.remove(at);
            self.bytes -= block.capacity;
            return Some(block);
        }
        Block::map(bytes)
    }

    /// Keeps `block` for later, within the bounds.
    pub fn give(&mut self, block: Block) {
        self.bytes += block.capacity;
        self.blocks.push(block);
        while self.bytes > BYTES_MAX || self.blocks.len() > BLOCKS_MAX {
            self.bytes -= self.blocks.remove(0).capacity;
        }
    }

    /// Gives everything back to the system.
    pub fn trim(&mut self) {
        self.blocks.clear();
        self.bytes = 0;
    }

    /// Bytes kept.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

/// The cache of this process.
pub static CACHE: Mutex<HostCache> = Mutex::new(HostCache::new());

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_comes_back_and_holds_what_is_written() {
        let mut cache = HostCache::new();
        let block = cache.take(5 << 20).expect("memory");
        assert!(block.capacity() >= 5 << 20);
        let start = block.start();
        // SAFETY: inside the block.
        unsafe {
            start.as_ptr().add((5 << 20) - 1).write(7);
        }
        cache.give(block);
        let again = cache.take(5 << 20).expect("memory");
        assert_eq!(again.start(), start, "a kept block is used again");
        assert_eq!(cache.bytes(), 0);
    }

    #[test]
    fn a_block_of_another_size_is_not_wasted_on_a_small_one() {
        let mut cache = HostCache::new();
        let large = cache.take(64 << 20).expect("memory");
        let start = large.start();
        cache.give(large);
        let small = cache.take(2 << 20).expect("memory");
        assert_ne!(small.start(), start);
    }

    #[test]
    fn stays_within_its_bounds_and_empties() {
        let mut cache = HostCache::new();
        let blocks: Vec<_> = (0..2 * BLOCKS_MAX)
            .map(|_| cache.take(8 << 20).expect("memory"))
            .collect();
        for block in blocks {
            cache.give(block);
            assert!(cache.bytes() <= BYTES_MAX);
        }
        assert!(cache.bytes() > 0);
        cache.trim();
        assert_eq!(cache.bytes(), 0);
    }
}
