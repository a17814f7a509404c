//! How full a pool is.

use super::Pool;
use genie_shm::space::BLOCK_BYTES;

/// What a pool counts as it goes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counters {
    pub(super) allocations: u64,
    pub(super) frees: u64,
    pub(super) failures: u64,
    pub(super) compactions: u64,
    pub(super) moved_bytes: u64,
}

/// How full a pool is, and what was done with it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PoolStats {
    /// Its size in bytes.
    pub capacity_bytes: u64,
    /// The size that it may grow to, in bytes.
    pub capacity_max_bytes: u64,
    /// Taken, in bytes, rounded up to what nobody else can use.
    pub in_use_bytes: u64,
    /// The most that whole blocks ever took, in bytes.
    pub high_water_bytes: u64,
    /// In free blocks, in bytes.
    pub free_bytes: u64,
    /// The longest run of free blocks, in bytes.
    pub largest_free_bytes: u64,
    /// The part of the free bytes that is not in the longest run: 0 in one piece, towards 1 in many.
    pub fragmentation: f64,
    /// Places that are taken.
    pub places: u64,
    /// Of them, pinned.
    pub pinned_places: u64,
    /// Places ever given.
    pub allocations: u64,
    /// Places ever given back.
    pub frees: u64,
    /// Requests for which there was no room.
    pub failures: u64,
    /// Compactions that moved something.
    pub compactions: u64,
    /// Bytes that they moved.
    pub moved_bytes: u64,
}

pub(super) fn of(pool: &Pool) -> PoolStats {
    let Pool {
        space, counters, ..
    } = pool;
    let free = space.free_ranges().total() * BLOCK_BYTES;
    let largest = space.longest_free_bytes();
    PoolStats {
        capacity_bytes: space.blocks() * BLOCK_BYTES,
        capacity_max_bytes: pool.memory.bytes_max(),
        in_use_bytes: space.taken_bytes(),
        high_water_bytes: space.peak_bytes(),
        free_bytes: free,
        largest_free_bytes: largest,
        fragmentation: if free == 0 {
            0.0
        } else {
            1.0 - largest as f64 / free as f64
        },
        places: space.places(),
        pinned_places: pool.pins.len() as u64,
        allocations: counters.allocations,
        frees: counters.frees,
        failures: counters.failures,
        compactions: counters.compactions,
        moved_bytes: counters.moved_bytes,
    }
}
