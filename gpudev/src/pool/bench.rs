//! How long a pool takes to give a place.

use std::hint::black_box;
use std::time::Instant;

use super::{Pool, PoolConfig, PoolError, PoolStats};
use crate::device::Device;

/// Nanoseconds, the clock's own cost included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quantiles {
    /// Half took less.
    pub p50_ns: u64,
    /// 99 of 100 took less.
    pub p99_ns: u64,
    /// 999 of 1000 took less.
    pub p999_ns: u64,
    /// The longest.
    pub max_ns: u64,
}

/// What [`bench`] found.
#[derive(Clone, Debug, PartialEq)]
pub struct PoolBench {
    /// Allocations, while the pool is two thirds full of places of all sizes.
    pub allocate: Quantiles,
    /// Frees, in an order of their own.
    pub free: Quantiles,
    /// What reading the clock costs, which is in both.
    pub clock: Quantiles,
    /// Allocations that found no room; they are not in the times.
    pub failures: u64,
    /// The pool at the end.
    pub stats: PoolStats,
}

/// Measures `count` allocations and frees on a pool of `bytes`: sizes from 64 bytes to 4 MiB, small
/// ones more often, in random order from a fixed seed.
///
/// # Errors
/// As [`Pool::new`].
pub fn bench(device: &dyn Device, bytes: u64, count: usize) -> Result<PoolBench, PoolError> {
    let mut pool = Pool::new(device, PoolConfig::new(bytes))?;
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = move || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    let mut live: Vec<u64> = Vec::with_capacity(count);
    let lists = || Vec::with_capacity(count);
    let (mut allocate, mut free, mut clock): (Vec<u64>, Vec<u64>, Vec<u64>) =
        (lists(), lists(), lists());
    let full = bytes / 3 * 2;
    let mut taken = 0;
    for _ in 0..count {
        let (started, none) = (Instant::now(), Instant::now());
        clock.push((none - started).as_nanos() as u64);
        while taken > full && !live.is_empty() {
            let place = live.swap_remove((next() % live.len() as u64) as usize);
            let started = Instant::now();
            let freed = black_box(pool.free(place));
            free.push(started.elapsed().as_nanos() as u64);
            freed?;
            taken = pool.stats().in_use_bytes;
        }
        let len = (64 << (next() % 17)) + next() % 64;
        let started = Instant::now();
        let place = black_box(pool.allocate(len));
        let elapsed = started.elapsed().as_nanos() as u64;
        if let Ok(place) = place {
            allocate.push(elapsed);
            live.push(place);
        } else if !live.is_empty() {
            let place = live.swap_remove((next() % live.len() as u64) as usize);
            pool.free(place)?;
        }
        taken = pool.stats().in_use_bytes;
    }
    let stats = pool.stats();
    Ok(PoolBench {
        allocate: quantiles(allocate),
        free: quantiles(free),
        clock: quantiles(clock),
        failures: stats.failures,
        stats,
    })
}

fn quantiles(mut times: Vec<u64>) -> Quantiles {
    times.sort_unstable();
    let at = |thousandths: usize| {
        let last = times.len().saturating_sub(1);
        times.get(last * thousandths / 1000).copied().unwrap_or(0)
    };
    Quantiles {
        p50_ns: at(500),
        p99_ns: at(990),
        p999_ns: at(999),
        max_ns: at(1000),
    }
}
