//! Compaction: moving what nothing pins towards the pool's start.

use std::collections::HashSet;

use super::{Pool, PoolError};
use crate::device::{CopyOrder, CopyPiece, Queue};
use genie_shm::space::{BLOCK_BYTES, Space, Unit};

/// Holes that are looked at for each unit, the lowest first.
const HOLES_MAX: usize = 64;

/// A place that has another address now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Move {
    /// Where it was.
    pub from: u64,
    /// Where it is.
    pub to: u64,
    /// Bytes that were moved, at least as many as were asked for.
    pub len: u64,
}

/// What a compaction did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compaction {
    /// Each place that moved, in the order in which they moved. Later ones may lie where earlier
    /// ones were.
    pub moves: Vec<Move>,
    /// Bytes that were copied.
    pub bytes: u64,
    /// The longest run of free blocks before, in bytes.
    pub largest_before: u64,
    /// And after.
    pub largest_after: u64,
}

/// A unit and where it goes.
#[derive(Clone, Copy, Debug)]
struct Step {
    unit: Unit,
    to: u64,
}

impl Pool {
    /// Moves what nothing pins towards the start, as far as that makes a longer free run, copying
    /// at most `bytes_max` bytes as one submission to the queue, and waits for it. Only when nothing
    /// else uses the pool's memory.
    ///
    /// # Errors
    /// The device failed: the books are as before, and the memory is to be given up.
    pub fn compact(
        &mut self,
        queue: &mut dyn Queue,
        bytes_max: u64,
    ) -> Result<Compaction, PoolError> {
        let pinned = self.pins.keys().map(|place| place / BLOCK_BYTES).collect();
        let steps = plan(&self.space, &pinned, bytes_max / BLOCK_BYTES);
        let mut done = Compaction {
            largest_before: self.space.longest_free_bytes(),
            ..Compaction::default()
        };
        let pieces: Vec<CopyPiece> = steps.iter().flat_map(|&step| pieces(step)).collect();
        if !pieces.is_empty() {
            let event = queue.copy(&self.memory, &self.memory, &pieces, CopyOrder::InOrder)?;
            queue.wait(event)?;
            self.counters.compactions += 1;
        }
        for Step { unit, to } in steps {
            let distance = (unit.start - to) * BLOCK_BYTES;
            let places = self.space.places_of(unit);
            done.moves.extend(places.map(|(from, len)| Move {
                from,
                to: from - distance,
                len,
            }));
            done.bytes += unit.blocks * BLOCK_BYTES;
            self.space.relocate(unit, to);
        }
        self.counters.moved_bytes += done.bytes;
        done.largest_after = self.space.longest_free_bytes();
        Ok(done)
    }
}

/// Where each unit goes, the lowest first: into the lowest hole that holds it, or down to the end of
/// the one before it. Ends with the step that makes the longest free run.
fn plan(space: &Space, pinned: &HashSet<u64>, blocks_max: u64) -> Vec<Step> {
    let mut free = space.free_ranges().clone();
    let mut left = blocks_max;
    let mut steps = Vec::new();
    // A step may split a hole that was the longest, so only as many are taken as are of use.
    let (mut longest, mut useful) = (free.longest(), 0);
    for unit in space.units() {
        if unit.blocks > left || pinned.contains(&unit.start) {
            continue;
        }
        let hole = free.first_fit(unit.blocks, unit.start, HOLES_MAX);
        let Some((to, _)) = hole.or_else(|| free.ending_at(unit.start)) else {
            continue;
        };
        free.insert(unit.start, unit.blocks);
        free.remove(to, unit.blocks);
        left -= unit.blocks;
        steps.push(Step { unit, to });
        if free.longest() > longest {
            (longest, useful) = (free.longest(), steps.len());
        }
    }
    steps.truncate(useful);
    steps
}

/// A copy downwards in pieces that don't overlap themselves.
fn pieces(Step { unit, to }: Step) -> impl Iterator<Item = CopyPiece> {
    let stride = (unit.start - to).min(unit.blocks).max(1);
    (0..unit.blocks)
        .step_by(stride as usize)
        .map(move |at| CopyPiece {
            from: (unit.start + at) * BLOCK_BYTES,
            to: (to + at) * BLOCK_BYTES,
            len: stride.min(unit.blocks - at) * BLOCK_BYTES,
        })
}
