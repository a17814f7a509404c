//! `pool`: what one allocation, and one free, of a device's pool takes.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use genie_gpudev::device;
use genie_gpudev::pool::POOL_BYTES_MAX;
use genie_gpudev::{DeviceKind, Pool, PoolConfig};

use crate::interrupt;
use crate::machine::Setting;
use crate::meter::{Meter, Of};
use crate::options;
use crate::path::Facts;
use crate::report::{Measurement, Report};
use crate::run::{Run, What};

/// The pool, in bytes, if the places need no more.
const POOL_BYTES: u64 = 256 << 20;
const SIZES: [u64; 4] = [64, 4 << 10, 64 << 10, 1 << 20];
/// Calls between two looks at the clock: one call takes less than asking for the time.
const ROUND: u32 = 64;

/// Measures.
pub fn run(options: &options::Pool) -> Result<Report> {
    let run = Run::begin(&Setting {
        pinned: 1,
        ends: 1,
        polls: false,
    });
    let kind = options.device;
    let sizes = options
        .size
        .as_ref()
        .map_or(SIZES.to_vec(), |sizes| sizes.0.clone());
    let mut results = Vec::new();
    for size in sizes {
        if interrupt::asked() {
            break;
        }
        results.extend(one(options, kind, size)?);
    }
    let what = What {
        facts: Facts {
            transport: "none",
            path: "places in a pool of blocks of 64 KiB".to_owned(),
            mtu_bytes: 0,
            seal: "off",
        },
        memory: kind.to_string(),
        verified: false,
        pinned_cores: 0,
    };
    Ok(run.report(what, results))
}

/// Takes and frees places in random order, with a batch of them taken all the time, so that the
/// books are as in real use and not freshly swept.
fn one(options: &options::Pool, kind: DeviceKind, size: u64) -> Result<Vec<Measurement>> {
    let held = options.batch as usize;
    // Twice what is taken at a time, since the free places lie between the others.
    let wanted = size
        .checked_mul(2 * u64::from(options.batch + ROUND))
        .filter(|&bytes| bytes <= POOL_BYTES_MAX)
        .context("a pool has 2 GiB at most: take a smaller --batch, or smaller sizes")?;
    let device = device::open(kind)?;
    let mut pool = Pool::new(&*device, PoolConfig::new(wanted.max(POOL_BYTES)))?;
    let mut books = Books {
        pool: &mut pool,
        size,
        places: Vec::with_capacity(held + ROUND as usize),
        random: 0x2545_f491_4f6c_dd1d,
        taking: Meter::new()?,
        freeing: Meter::new()?,
    };
    while books.places.len() < held {
        books.places.push(books.pool.allocate(size)?);
    }
    books.turn()?;
    (books.taking, books.freeing) = (Meter::new()?, Meter::new()?);
    let began = Instant::now();
    while began.elapsed() < options.time && !interrupt::asked() {
        books.turn()?;
    }
    let of = |test| Of {
        test,
        size_bytes: size,
        batch: options.batch,
        // No bytes move.
        ways: 0,
        ..Of::default()
    };
    let Books {
        taking, freeing, ..
    } = books;
    let results = [
        taking.finish(&of("pool_allocate")),
        freeing.finish(&of("pool_free")),
    ];
    Ok(results.into_iter().flatten().collect())
}

struct Books<'a> {
    pool: &'a mut Pool,
    size: u64,
    places: Vec<u64>,
    random: u64,
    taking: Meter,
    freeing: Meter,
}

impl Books<'_> {
    fn turn(&mut self) -> Result<()> {
        self.taking.start();
        let began = Instant::now();
        for _ in 0..ROUND {
            self.places.push(self.pool.allocate(self.size)?);
        }
        self.taking.many(u64::from(ROUND), each(began));
        self.taking.stop();
        for at in (1..self.places.len()).rev() {
            self.random = self
                .random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            self.places
                .swap(at, (self.random >> 33) as usize % (at + 1));
        }
        let kept = self.places.len() - ROUND as usize;
        self.freeing.start();
        let began = Instant::now();
        for place in self.places.drain(kept..) {
            self.pool.free(place)?;
        }
        self.freeing.many(u64::from(ROUND), each(began));
        self.freeing.stop();
        Ok(())
    }
}

fn each(began: Instant) -> Duration {
    began.elapsed() / ROUND
}
