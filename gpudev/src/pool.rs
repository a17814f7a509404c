//! Pools: device memory, or host memory that a device knows, cut in blocks of 64 KiB.
//!
//! A place is a run of blocks, or a piece of one that small tensors share; the numbers are bytes
//! from the pool's start. The memory is allocated, and registered, when the pool is made or grows,
//! never when a tensor is. A pool has one owner, who locks it if several threads need it.
//!
//! Compaction moves what nothing pins. Who names a place from outside (a transfer, an alias, a
//! captured graph) pins it for that long; everybody else learns of new places by
//! [`Compaction::moves`]. It runs between sequences, when no kernel is using the pool.

mod bench;
mod compact;
mod error;
mod stats;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

pub use bench::{PoolBench, Quantiles, bench};
pub use compact::{Compaction, Move};
pub use error::PoolError;
pub use stats::PoolStats;

use crate::device::{Device, DeviceError, DeviceKind, Memory, Residence};
use genie_shm::space::{BLOCK_BYTES, Space};

/// The smallest pool.
pub const POOL_BYTES_MIN: u64 = 4 << 20;
/// The largest pool.
pub const POOL_BYTES_MAX: u64 = 2 << 30;

/// What a pool is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolConfig {
    /// Its size in bytes: 4 MiB to 2 GiB. Rounded up to the device's pages.
    pub bytes: u64,
    /// The size up to which it may grow, in bytes.
    pub bytes_max: u64,
    /// Memory of the device, or of the host and registered with the device.
    pub residence: Residence,
}

impl PoolConfig {
    /// A pool on the device that can't grow.
    #[must_use]
    pub fn new(bytes: u64) -> Self {
        Self {
            bytes,
            bytes_max: bytes,
            residence: Residence::Device,
        }
    }
}

/// A pool of blocks.
#[derive(Debug)]
pub struct Pool {
    memory: Memory,
    space: Space,
    page_bytes: u64,
    /// How often each place is pinned, if it is.
    pins: HashMap<u64, u32>,
    counters: stats::Counters,
}

impl Pool {
    /// A pool of memory of this device.
    ///
    /// # Errors
    /// A size out of bounds; no memory left.
    pub fn new(device: &dyn Device, config: PoolConfig) -> Result<Self, PoolError> {
        let PoolConfig {
            bytes,
            bytes_max,
            residence,
        } = config;
        let page_bytes = device.info().page_bytes.max(BLOCK_BYTES);
        let (bytes, bytes_max) = (round(bytes, page_bytes), round(bytes_max, page_bytes));
        for bytes in [bytes, bytes_max] {
            if !(POOL_BYTES_MIN..=POOL_BYTES_MAX).contains(&bytes) {
                return Err(PoolError::Size(bytes));
            }
        }
        if bytes > bytes_max {
            return Err(PoolError::BeyondReserve { bytes, bytes_max });
        }
        let memory = match residence {
            Residence::Device => device.reserve(bytes, bytes_max)?,
            Residence::Host => device.reserve_host(bytes, bytes_max)?,
        };
        Ok(Self {
            page_bytes,
            ..Self::over(memory)
        })
    }

    /// A pool for one tensor that is larger than any other pool: of `bytes` bytes on this device.
    ///
    /// # Errors
    /// No memory left.
    pub fn dedicated(device: &dyn Device, bytes: u64) -> Result<Self, PoolError> {
        let page_bytes = device.info().page_bytes.max(BLOCK_BYTES);
        let bytes = round(bytes, page_bytes);
        Ok(Self::over(device.reserve(bytes, bytes)?))
    }

    /// The books of memory that is there already, and nobody else's: another process may have made
    /// it, and then it can't be resized here. What is no whole block at its end is not used.
    #[must_use]
    pub fn over(memory: Memory) -> Self {
        Self {
            space: Space::resident(memory.bytes() / BLOCK_BYTES),
            memory,
            page_bytes: BLOCK_BYTES,
            pins: HashMap::new(),
            counters: stats::Counters::default(),
        }
    }

    /// The memory that places are in.
    #[must_use]
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Whose memory it is.
    #[must_use]
    pub fn device(&self) -> DeviceKind {
        self.memory.device()
    }

    /// A place of `len` bytes, aligned to 64, uninitialised.
    ///
    /// # Errors
    /// No such room, with what there is and what to do.
    pub fn allocate(&mut self, len: u64) -> Result<u64, PoolError> {
        match self.space.allocate(len) {
            Some((place, _)) => {
                self.counters.allocations += 1;
                Ok(place)
            }
            None => {
                self.counters.failures += 1;
                Err(self.exhausted(len))
            }
        }
    }

    fn exhausted(&self, asked: u64) -> PoolError {
        PoolError::Exhausted {
            device: self.device(),
            asked,
            free: self.space.free_ranges().total() * BLOCK_BYTES,
            largest: self.space.longest_free_bytes(),
            room: self.memory.bytes_max() - self.space.blocks() * BLOCK_BYTES,
        }
    }

    /// Gives a place back.
    ///
    /// # Errors
    /// Nothing is allocated there, or it is pinned; nothing was changed.
    pub fn free(&mut self, place: u64) -> Result<(), PoolError> {
        if let Some(&pins) = self.pins.get(&place) {
            return Err(PoolError::Pinned { place, pins });
        }
        self.space
            .free(place, |_, _| {})
            .map_err(|_| PoolError::NoPlace(place))?;
        self.counters.frees += 1;
        Ok(())
    }

    /// Keeps a place where it is, and allocated, until it is unpinned as often.
    ///
    /// # Errors
    /// Nothing is allocated there.
    pub fn pin(&mut self, place: u64) -> Result<(), PoolError> {
        if self.space.unit_of(place).is_none() {
            return Err(PoolError::NoPlace(place));
        }
        let pins = self.pins.entry(place).or_default();
        *pins = pins.saturating_add(1);
        Ok(())
    }

    /// Takes one pin away.
    ///
    /// # Errors
    /// It is not pinned.
    pub fn unpin(&mut self, place: u64) -> Result<(), PoolError> {
        let pins = self.pins.get_mut(&place);
        let pins = pins.ok_or(PoolError::NotPinned(place))?;
        *pins -= 1;
        if *pins == 0 {
            self.pins.remove(&place);
        }
        Ok(())
    }

    /// Grows or shrinks the pool at its end to at least `bytes`, in whole pages of the device.
    ///
    /// # Errors
    /// A size out of bounds; no memory left; a place in the part that is to go (compact first).
    pub fn resize(&mut self, bytes: u64) -> Result<(), PoolError> {
        let bytes_max = self.memory.bytes_max();
        let bytes = round(bytes, self.page_bytes);
        if bytes > bytes_max {
            return Err(PoolError::BeyondReserve { bytes, bytes_max });
        }
        if bytes < POOL_BYTES_MIN {
            return Err(PoolError::Size(bytes));
        }
        let (blocks, had) = (bytes / BLOCK_BYTES, self.space.blocks());
        if blocks >= had {
            self.memory.resize(bytes)?;
            self.space.extend(blocks - had);
        } else if self.space.cut(blocks) {
            if let Err(error) = self.memory.resize(bytes) {
                // The blocks are still there.
                self.space.extend(had - blocks);
                return Err(error.into());
            }
        } else {
            return Err(PoolError::TailTaken {
                bytes,
                taken_end: self.space.taken_end() * BLOCK_BYTES,
            });
        }
        Ok(())
    }

    /// Whether nothing is taken.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.space.places() == 0
    }

    /// The longest run of free blocks, in bytes.
    #[must_use]
    pub fn largest(&self) -> u64 {
        self.space.longest_free_bytes()
    }

    /// How full it is, and what was done with it.
    #[must_use]
    pub fn stats(&self) -> PoolStats {
        stats::of(self)
    }
}

fn round(bytes: u64, page_bytes: u64) -> u64 {
    bytes
        .checked_next_multiple_of(page_bytes)
        .unwrap_or(u64::MAX)
}

impl From<DeviceError> for PoolError {
    fn from(error: DeviceError) -> Self {
        PoolError::Device(error)
    }
}
