//! `pool`: what one allocation, and one free, of a device's pool takes. Each call is timed by
//! itself, and the time includes what the clock takes.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use genie_gpudev::device;
use genie_gpudev::pool::POOL_BYTES_MAX;
use genie_gpudev::pool::PoolError;
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
/// Calls of one kind before those of the other.
const ROUND: u32 = 64;
/// Looks at the clock to see what one takes.
const LOOKS: usize = 10_001;

/// Measures.
pub fn run(options: &options::Pool) -> Result<Report> {
    let mut run = Run::begin(&Setting {
        pinned: 1,
        ends: 1,
        polls: false,
    });
    run.warn(clock());
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
        times: Vec::with_capacity(ROUND as usize),
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
    /// Of the calls of a round.
    times: Vec<Duration>,
    random: u64,
    taking: Meter,
    freeing: Meter,
}

impl Books<'_> {
    fn turn(&mut self) -> Result<()> {
        let Self {
            pool, places, size, ..
        } = self;
        round(&mut self.taking, &mut self.times, || {
            pool.allocate(*size).map(|place| places.push(place))
        })?;
        for at in (1..self.places.len()).rev() {
            self.random = self
                .random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            self.places
                .swap(at, (self.random >> 33) as usize % (at + 1));
        }
        let Self { pool, places, .. } = self;
        round(&mut self.freeing, &mut self.times, || {
            places.pop().map_or(Ok(()), |place| pool.free(place))
        })
    }
}

/// Times `ROUND` calls, each by itself.
fn round(
    meter: &mut Meter,
    times: &mut Vec<Duration>,
    mut call: impl FnMut() -> Result<(), PoolError>,
) -> Result<()> {
    meter.start();
    for _ in 0..ROUND {
        let began = Instant::now();
        let done = call();
        times.push(began.elapsed());
        done?;
    }
    meter.stop();
    // The books of the meter are no part of what is measured.
    meter.add(times.drain(..));
    Ok(())
}

/// What the clock adds to each call, for a reader.
fn clock() -> String {
    let mut looks: Vec<Duration> = (0..LOOKS).map(|_| Instant::now().elapsed()).collect();
    looks.sort_unstable();
    match looks[LOOKS / 2].as_nanos() {
        0 => {
            let step = looks.iter().find(|look| !look.is_zero());
            let step = step.map_or(0, Duration::as_nanos);
            format!("the clock here goes in steps of {step} ns: a call that is shorter shows as 0")
        }
        nanos => format!(
            "each call is timed by itself: {nanos} ns of its time are the clock's, which was asked \
             before and after"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_call_is_not_hidden_among_fast_ones() {
        let slow = Duration::from_millis(5);
        let (mut meter, mut times, mut calls) = (Meter::new().unwrap(), Vec::new(), 0);
        let call = || {
            calls += 1;
            if calls == 7 {
                std::thread::sleep(slow);
            }
            Ok(())
        };
        round(&mut meter, &mut times, call).unwrap();
        let result = meter.finish(&Of::default()).unwrap();
        assert_eq!(result.transfers, u64::from(ROUND));
        let slow = slow.as_secs_f64() * 1e6;
        assert!(result.latency_us.max >= slow && result.latency_us.p50 < slow);
        assert!(result.seconds * 1e6 >= slow);
    }
}
