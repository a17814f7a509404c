//! The tests against a node.

use std::collections::VecDeque;
use std::time::Instant;

use anyhow::Result;

use super::peer::Peer;
use crate::interrupt;
use crate::meter::{Meter, Of};
use crate::options::{Client, How, Test};
use crate::pattern;
use crate::report::Measurement;
use crate::tcp;

/// Runs the test at one size. Nothing for what was ended before it began.
pub fn one(peer: &mut Peer, options: &Client, size: u64) -> Result<Vec<Measurement>> {
    let how = &options.how;
    let batch = how.batch(options.test, size);
    let mut results = Vec::new();
    match options.test {
        Test::Lat => results.extend(latency(peer, how, size)?),
        Test::Rate => results.extend(rate(peer, how, size, batch)?),
        Test::Bw => {
            results.extend(put(peer, how, size, batch)?);
            results.extend(get(peer, how, size, batch)?);
        }
    }
    Ok(results)
}

/// A test's beginning, and its end as a result.
struct Timed<'a> {
    meter: Meter,
    how: &'a How,
    warm: Instant,
    sent_again: u64,
}

impl<'a> Timed<'a> {
    fn new(peer: &Peer, how: &'a How) -> Result<Self> {
        Ok(Self {
            meter: Meter::new()?,
            how,
            warm: Instant::now() + how.warmup,
            sent_again: tcp::retransmissions(peer.descriptor()),
        })
    }

    fn goes_on(&mut self) -> bool {
        if self.meter.counted().is_zero() {
            if Instant::now() < self.warm {
                return !interrupt::asked();
            }
            self.meter.start();
        }
        self.meter.goes_on(self.how.time)
    }

    fn finish(self, peer: &Peer, test: &str, size_bytes: u64, batch: u32) -> Option<Measurement> {
        let sent_again = tcp::retransmissions(peer.descriptor());
        self.meter.finish(&Of {
            test,
            size_bytes,
            batch,
            ways: if test == "lat" { 2 } else { 1 },
            cpu_there: None,
            retransmissions: sent_again.saturating_sub(self.sent_again),
        })
    }
}

fn latency(peer: &mut Peer, how: &How, size: u64) -> Result<Option<Measurement>> {
    let mut sent = vec![0; usize::try_from(size)?];
    let mut received = sent.clone();
    let storage = peer.alloc(size)?;
    let mut timed = Timed::new(peer, how)?;
    pattern::fill(&mut sent, 0);
    for turn in 1.. {
        if !timed.goes_on() {
            break;
        }
        let began = Instant::now();
        peer.put(storage, &sent)?;
        let question = peer.ask(storage, size)?;
        peer.answer(question, &mut received)?;
        timed.meter.done(began);
        if how.verify {
            let counts = !timed.meter.counted().is_zero();
            timed.meter.stop();
            timed.meter.verify_errors += pattern::differences_between(&sent, &received);
            pattern::fill(&mut sent, turn);
            if counts {
                timed.meter.start();
            }
        }
    }
    Ok(timed.finish(peer, "lat", size, 1))
}

/// Overwrites of one storage, a barrier after each half of a batch.
fn rate(peer: &mut Peer, how: &How, size: u64, batch: u32) -> Result<Option<Measurement>> {
    let mut bytes = vec![0; usize::try_from(size)?];
    pattern::fill(&mut bytes, size);
    let storage = peer.alloc(size)?;
    let half = u64::from(batch).div_ceil(2);
    let mut under_way: VecDeque<(Instant, u64)> = VecDeque::new();
    let mut timed = Timed::new(peer, how)?;
    loop {
        let goes_on = timed.goes_on();
        if goes_on && under_way.len() < 2 {
            let began = Instant::now();
            for _ in 0..half {
                peer.put(storage, &bytes)?;
            }
            under_way.push_back((began, peer.barrier()?));
        } else if let Some((began, question)) = under_way.pop_front() {
            peer.answer(question, &mut [])?;
            timed.meter.many(half, began.elapsed());
        } else {
            break;
        }
    }
    timed.meter.stop();
    if how.verify {
        timed.meter.verify_errors += compare(peer, storage, &bytes)?;
    }
    Ok(timed.finish(peer, "rate", size, batch))
}

fn put(peer: &mut Peer, how: &How, size: u64, batch: u32) -> Result<Option<Measurement>> {
    let mut bytes = vec![0; usize::try_from(size)?];
    pattern::fill(&mut bytes, size);
    let mut storages = VecDeque::new();
    for _ in 0..batch {
        storages.push_back(peer.alloc(size)?);
    }
    let mut under_way: VecDeque<(Instant, u64)> = VecDeque::new();
    let mut timed = Timed::new(peer, how)?;
    loop {
        let goes_on = timed.goes_on();
        if goes_on && under_way.len() < batch as usize {
            let began = Instant::now();
            if let Some(storage) = storages.pop_front() {
                peer.put(storage, &bytes)?;
                storages.push_back(storage);
            }
            under_way.push_back((began, peer.barrier()?));
        } else if let Some((began, question)) = under_way.pop_front() {
            peer.answer(question, &mut [])?;
            timed.meter.done(began);
        } else {
            break;
        }
    }
    timed.meter.stop();
    // Those that were never written hold what an interrupted run left out.
    if how.verify && !interrupt::asked() {
        for storage in storages.into_iter().rev().take(timed.written(batch)) {
            timed.meter.verify_errors += compare(peer, storage, &bytes)?;
        }
    }
    Ok(timed.finish(peer, "bw_put", size, batch))
}

impl Timed<'_> {
    /// Storages that were written at least once, of `batch`.
    fn written(&self, batch: u32) -> usize {
        usize::try_from(self.meter.count()).map_or(usize::MAX, |count| count.min(batch as usize))
    }
}

fn get(peer: &mut Peer, how: &How, size: u64, batch: u32) -> Result<Option<Measurement>> {
    let mut bytes = vec![0; usize::try_from(size)?];
    pattern::fill(&mut bytes, size + 1);
    let storage = peer.alloc(size)?;
    peer.put(storage, &bytes)?;
    let mut received = vec![0; bytes.len()];
    let mut under_way: VecDeque<(Instant, u64)> = VecDeque::new();
    let mut timed = Timed::new(peer, how)?;
    loop {
        let goes_on = timed.goes_on();
        if goes_on && under_way.len() < batch as usize {
            let began = Instant::now();
            under_way.push_back((began, peer.ask(storage, size)?));
        } else if let Some((began, question)) = under_way.pop_front() {
            peer.answer(question, &mut received)?;
            timed.meter.done(began);
            if how.verify {
                let counts = !timed.meter.counted().is_zero();
                timed.meter.stop();
                timed.meter.verify_errors += pattern::differences_between(&bytes, &received);
                received.fill(0);
                if counts {
                    timed.meter.start();
                }
            }
        } else {
            break;
        }
    }
    Ok(timed.finish(peer, "bw_get", size, batch))
}

/// Reads a storage back and compares it.
fn compare(peer: &mut Peer, storage: u64, bytes: &[u8]) -> Result<u64> {
    let mut received = vec![0; bytes.len()];
    let question = peer.ask(storage, bytes.len() as u64)?;
    peer.answer(question, &mut received)?;
    Ok(pattern::differences_between(bytes, &received))
}
