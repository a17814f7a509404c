//! A session's memory on a device: pools that are made as they are needed and given back when they
//! are empty.
//!
//! One process makes them and has their books ([`Pools`]); another maps them ([`AttachedPools`]), as
//! they are announced over a socket ([`handover`]). A place is a number in one space of addresses
//! that is never used twice: each pool begins where the one before it ended, so that a stale place
//! never is another's memory.

mod attached;
pub mod handover;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use attached::{AttachError, AttachedPools};

use crate::device::{Device, DeviceError, DeviceKind, Memory};
use crate::pool::{POOL_BYTES_MAX, POOL_BYTES_MIN, Pool, PoolConfig, PoolError};

/// A session's first pool has this size; each later one is as large as all before it together.
pub const POOL_BYTES_FIRST: u64 = 64 << 20;
/// Of the pools that are empty, the largest of at most this size is kept.
pub const POOL_BYTES_WARM: u64 = 256 << 20;
/// Pools of a session at a time.
pub const POOLS_MAX: usize = 1024;

/// A place that was allocated.
#[derive(Clone, Debug)]
pub struct Allocated {
    /// Where it is.
    pub place: u64,
    /// The pool was made for it, and nobody else knows it yet: where it begins, and its memory.
    pub made: Option<(u64, Memory)>,
}

/// How full a session's pools are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolsStats {
    /// How many pools there are.
    pub pools: u64,
    /// Their sizes, in bytes.
    pub capacity_bytes: u64,
    /// Taken in them, in bytes.
    pub in_use_bytes: u64,
    /// Places that are taken.
    pub places: u64,
}

impl std::iter::Sum for PoolsStats {
    fn sum<I: Iterator<Item = Self>>(stats: I) -> Self {
        stats.fold(Self::default(), |sum, one| Self {
            pools: sum.pools + one.pools,
            capacity_bytes: sum.capacity_bytes + one.capacity_bytes,
            in_use_bytes: sum.in_use_bytes + one.in_use_bytes,
            places: sum.places + one.places,
        })
    }
}

/// A session's pools, and who has which place.
pub struct Pools {
    device: Arc<dyn Device>,
    kind: DeviceKind,
    pools: BTreeMap<u64, Pool>,
    /// Where the next one begins.
    next: u64,
    capacity: u64,
    capacity_max: u64,
}

impl Pools {
    /// No pool yet, and at most `bytes_max` bytes of them. Places begin at `first`.
    #[must_use]
    pub fn new(device: Arc<dyn Device>, first: u64, bytes_max: u64) -> Self {
        Self {
            kind: device.info().kind,
            device,
            pools: BTreeMap::new(),
            next: first,
            capacity: 0,
            capacity_max: bytes_max,
        }
    }

    /// A place of `len` bytes, aligned to 64, uninitialised.
    ///
    /// # Errors
    /// The device, or the session's share of it, has no room.
    pub fn allocate(&mut self, len: u64) -> Result<Allocated, PoolError> {
        // The oldest first, so that the younger ones can become empty.
        for (base, pool) in &mut self.pools {
            if let Ok(place) = pool.allocate(len) {
                let (place, made) = (base + place, None);
                return Ok(Allocated { place, made });
            }
        }
        let mut pool = self.make(len)?;
        let (base, memory) = (self.next, pool.memory().clone());
        let place = base + pool.allocate(len)?;
        let bytes = memory.bytes();
        self.next = base.saturating_add(bytes);
        self.capacity += bytes;
        self.pools.insert(base, pool);
        let made = Some((base, memory));
        Ok(Allocated { place, made })
    }

    /// A pool that has room for `len` bytes.
    fn make(&self, len: u64) -> Result<Pool, PoolError> {
        let room = self.capacity_max.saturating_sub(self.capacity);
        if len > room || self.pools.len() >= POOLS_MAX {
            return Err(PoolError::Exhausted {
                device: self.kind,
                asked: len,
                free: self.free_bytes(),
                largest: self.pools.values().map(Pool::largest).max().unwrap_or(0),
                room,
            });
        }
        if len > POOL_BYTES_MAX {
            return Pool::dedicated(&*self.device, len);
        }
        let wanted = self.capacity.clamp(POOL_BYTES_FIRST, POOL_BYTES_MAX);
        let wanted = wanted.min(room).max(len).max(POOL_BYTES_MIN);
        match Pool::new(&*self.device, PoolConfig::new(wanted)) {
            // A fuller device may still have room for this one.
            Err(PoolError::Device(DeviceError::OutOfMemory { .. }))
                if wanted > len.max(POOL_BYTES_MIN) =>
            {
                Pool::new(&*self.device, PoolConfig::new(len.max(POOL_BYTES_MIN)))
            }
            made => made,
        }
    }

    /// Gives a place back. Where the pool went with it: where that began.
    ///
    /// # Errors
    /// Nothing is allocated there; nothing was changed.
    pub fn free(&mut self, place: u64) -> Result<Option<u64>, PoolError> {
        let (base, pool) = self.pool_of(place).ok_or(PoolError::NoPlace(place))?;
        pool.free(place - base).map_err(|error| match error {
            PoolError::NoPlace(_) => PoolError::NoPlace(place),
            other => other,
        })?;
        if !pool.is_empty() {
            return Ok(None);
        }
        let is_warm = |(&base, pool): (&u64, &Pool)| {
            let bytes = pool.memory().bytes();
            (pool.is_empty() && bytes <= POOL_BYTES_WARM).then_some((bytes, base))
        };
        let warm = self.pools.iter().filter_map(is_warm).max();
        // One goes at a time, and one empty pool is kept: this one, or the other stays.
        let goes = match warm {
            Some((_, warm)) if warm == base => self
                .pools
                .iter()
                .find(|&(&other, pool)| other != base && pool.is_empty())
                .map(|(&other, _)| other),
            _ => Some(base),
        };
        if let Some(gone) = goes.and_then(|goes| self.pools.remove(&goes)) {
            self.capacity -= gone.memory().bytes();
        }
        Ok(goes)
    }

    fn pool_of(&mut self, place: u64) -> Option<(u64, &mut Pool)> {
        let (&base, pool) = self.pools.range_mut(..=place).next_back()?;
        Some((base, pool))
    }

    /// The memory of `len` bytes at `place`, and where in it they are.
    ///
    /// # Errors
    /// They are not inside a pool.
    pub fn memory(&self, place: u64, len: u64) -> Result<(&Memory, u64), PoolError> {
        let (base, pool) = self
            .pools
            .range(..=place)
            .next_back()
            .ok_or(PoolError::NoPlace(place))?;
        let offset = place - base;
        let inside = pool.memory().at(offset, len);
        inside.map_err(|_| PoolError::NoPlace(place))?;
        Ok((pool.memory(), offset))
    }

    fn free_bytes(&self) -> u64 {
        let stats = self.stats();
        stats.capacity_bytes.saturating_sub(stats.in_use_bytes)
    }

    /// How full they are.
    #[must_use]
    pub fn stats(&self) -> PoolsStats {
        let mut stats = PoolsStats {
            pools: self.pools.len() as u64,
            capacity_bytes: self.capacity,
            ..PoolsStats::default()
        };
        for pool in self.pools.values().map(Pool::stats) {
            stats.in_use_bytes += pool.in_use_bytes;
            stats.places += pool.places;
        }
        stats
    }

    /// Whose memory it is.
    #[must_use]
    pub fn device(&self) -> DeviceKind {
        self.kind
    }
}

impl std::fmt::Debug for Pools {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pools")
            .field("device", &self.device())
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}
