//! The tests against a node.

use std::collections::VecDeque;
use std::time::Instant;

use anyhow::Result;
use genie_client::engine::Asked;

use super::peer::Peer;
use crate::meter::{Meter, Of, Timed};
use crate::options::{Client, How, Test};
use crate::pattern;
use crate::report::Measurement;
use crate::tcp;

/// Runs the test at one size. Nothing for what was ended before it began.
pub fn one(peer: &Peer, options: &Client, size: u64) -> Result<Vec<Measurement>> {
    let how = &options.how;
    let batch = how.batch(options.test, size);
    let mut of = Of {
        test: options.test.name(),
        size_bytes: size,
        batch,
        ways: 1,
        ..Of::default()
    };
    let mut results = Vec::new();
    match options.test {
        Test::Lat => {
            of.ways = 2;
            let mut echo = Echo::new(peer, size)?;
            results.extend(run(peer, how, 1, of, &mut echo)?);
        }
        Test::Rate => {
            // A barrier after each half of a batch.
            let each = u64::from(batch).div_ceil(2);
            let mut puts = Puts::new(peer, size, 1, each)?;
            results.extend(run(peer, how, 2, of, &mut puts)?);
        }
        Test::Bw => {
            let depth = batch as usize;
            of.test = "bw_put";
            let mut puts = Puts::new(peer, size, depth, 1)?;
            results.extend(run(peer, how, depth, of, &mut puts)?);
            of.test = "bw_get";
            let mut gets = Gets::new(peer, size)?;
            results.extend(run(peer, how, depth, of, &mut gets)?);
        }
    }
    Ok(results)
}

/// What is asked of a node again and again.
trait Exchange {
    /// Sends what one exchange is; gives the question that ends it.
    fn ask<'p>(&mut self, peer: &'p Peer) -> Result<Asked<'p>>;

    /// Takes the answer to the oldest question.
    fn answer(&mut self, question: Asked<'_>) -> Result<()>;

    /// Messages or transfers in one exchange.
    fn each(&self) -> u64 {
        1
    }

    /// Bytes of the last answer that differ. Makes ready for the next.
    fn compare(&mut self) -> u64 {
        0
    }

    /// Bytes at the node that differ, when all is over.
    fn compare_there(&mut self, _peer: &Peer) -> Result<u64> {
        Ok(0)
    }
}

/// Measures an exchange, with up to `depth` of them under way.
fn run(
    peer: &Peer,
    how: &How,
    depth: usize,
    of: Of<'_>,
    exchange: &mut impl Exchange,
) -> Result<Option<Measurement>> {
    let sent_again = tcp::retransmissions(peer.descriptor());
    let mut under_way: VecDeque<(Instant, Asked<'_>)> = VecDeque::new();
    let mut meter = Meter::new()?;
    let mut timed = Timed::new(&mut meter, how.times());
    loop {
        let goes_on = timed.goes_on(|| Ok(()))?;
        if goes_on && under_way.len() < depth {
            let began = Instant::now();
            under_way.push_back((began, exchange.ask(peer)?));
        } else if let Some((began, question)) = under_way.pop_front() {
            exchange.answer(question)?;
            timed.meter.many(exchange.each(), began.elapsed());
            if how.verify {
                timed.apart(|meter| meter.verify_errors += exchange.compare());
            }
        } else {
            break;
        }
    }
    meter.stop();
    if how.verify {
        meter.verify_errors += exchange.compare_there(peer)?;
    }
    let now = tcp::retransmissions(peer.descriptor());
    Ok(meter.finish(&Of {
        retransmissions: now.saturating_sub(sent_again),
        ..of
    }))
}

/// There and back.
struct Echo {
    storage: u64,
    turn: u64,
    sent: Vec<u8>,
    received: Vec<u8>,
}

impl Echo {
    fn new(peer: &Peer, size: u64) -> Result<Self> {
        let mut sent = vec![0; usize::try_from(size)?];
        pattern::fill(&mut sent, 0);
        Ok(Self {
            storage: peer.alloc(size)?,
            turn: 0,
            received: vec![0; sent.len()],
            sent,
        })
    }
}

impl Exchange for Echo {
    fn ask<'p>(&mut self, peer: &'p Peer) -> Result<Asked<'p>> {
        peer.put(self.storage, &self.sent)?;
        peer.ask(self.storage, std::mem::take(&mut self.received))
    }

    fn answer(&mut self, question: Asked<'_>) -> Result<()> {
        self.received = question.wait()?;
        Ok(())
    }

    fn compare(&mut self) -> u64 {
        let differences = pattern::differences_between(&self.sent, &self.received);
        self.turn += 1;
        pattern::fill(&mut self.sent, self.turn);
        differences
    }
}

/// Storages that are overwritten in turn, `each` times before a barrier.
struct Puts {
    /// The one that was written last at the back.
    storages: VecDeque<u64>,
    bytes: Vec<u8>,
    each: u64,
    written: usize,
}

impl Puts {
    fn new(peer: &Peer, size: u64, storages: usize, each: u64) -> Result<Self> {
        let mut bytes = vec![0; usize::try_from(size)?];
        pattern::fill(&mut bytes, size);
        let storages: Result<_> = (0..storages).map(|_| peer.alloc(size)).collect();
        Ok(Self {
            storages: storages?,
            bytes,
            each,
            written: 0,
        })
    }
}

impl Exchange for Puts {
    fn ask<'p>(&mut self, peer: &'p Peer) -> Result<Asked<'p>> {
        for _ in 0..self.each {
            if let Some(&storage) = self.storages.front() {
                peer.put(storage, &self.bytes)?;
                self.storages.rotate_left(1);
                self.written += 1;
            }
        }
        peer.barrier()
    }

    fn answer(&mut self, question: Asked<'_>) -> Result<()> {
        question.wait()?;
        Ok(())
    }

    fn each(&self) -> u64 {
        self.each
    }

    fn compare_there(&mut self, peer: &Peer) -> Result<u64> {
        let mut received = vec![0; self.bytes.len()];
        let mut found = 0;
        for &storage in self.storages.iter().rev().take(self.written) {
            received = peer.ask(storage, received)?.wait()?;
            found += pattern::differences_between(&self.bytes, &received);
            received.fill(0);
        }
        Ok(found)
    }
}

/// One storage that is read again and again.
struct Gets {
    storage: u64,
    bytes: Vec<u8>,
    /// What came last.
    received: Vec<u8>,
    /// Memory for what is asked next.
    spare: Vec<Vec<u8>>,
}

impl Gets {
    fn new(peer: &Peer, size: u64) -> Result<Self> {
        let mut bytes = vec![0; usize::try_from(size)?];
        pattern::fill(&mut bytes, size + 1);
        let storage = peer.alloc(size)?;
        peer.put(storage, &bytes)?;
        Ok(Self {
            storage,
            received: Vec::new(),
            spare: Vec::new(),
            bytes,
        })
    }
}

impl Exchange for Gets {
    fn ask<'p>(&mut self, peer: &'p Peer) -> Result<Asked<'p>> {
        let spare = self.spare.pop();
        peer.ask(
            self.storage,
            spare.unwrap_or_else(|| vec![0; self.bytes.len()]),
        )
    }

    fn answer(&mut self, question: Asked<'_>) -> Result<()> {
        let last = std::mem::replace(&mut self.received, question.wait()?);
        if !last.is_empty() {
            self.spare.push(last);
        }
        Ok(())
    }

    fn compare(&mut self) -> u64 {
        let differences = pattern::differences_between(&self.bytes, &self.received);
        self.received.fill(0);
        differences
    }
}
