//! Which places of an arena are taken: runs of 64 KiB blocks, and pieces that share a block.
//! Pure bookkeeping; an arena or a pool owns the memory. It lives in the owner's own memory, so
//! that the other process can't damage it.

use std::collections::{BTreeSet, HashMap};

use crate::ranges::Ranges;

/// Granularity: a larger place takes whole blocks, smaller ones share a block.
pub const BLOCK_BYTES: u64 = 64 << 10;
/// Smallest piece, and the alignment of every place.
const PIECE_MIN: u64 = 64;
/// Largest piece that shares a block.
const PIECE_MAX: u64 = BLOCK_BYTES / 2;
const CLASSES: usize = (PIECE_MAX / PIECE_MIN).ilog2() as usize + 1;
const WORDS: usize = (BLOCK_BYTES / PIECE_MIN / 64) as usize;

/// A place that was never given out, or is free already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no memory is allocated at place {0}")]
pub struct PlaceError(pub u64);

/// A block cut in pieces of one size. A set bit is a piece that is taken.
#[derive(Debug)]
struct Shared {
    class: usize,
    taken: u64,
    bits: [u64; WORDS],
}

/// The books of one memory: which blocks and pieces are taken.
#[derive(Debug)]
pub struct Space {
    blocks: u64,
    free: Ranges,
    /// The part of `free` that holds pages, and how many of them may. All of it, and not counted,
    /// where memory always has its pages.
    warm: Ranges,
    warm_max: Option<u64>,
    runs: HashMap<u64, u64>,
    shared: HashMap<u64, Shared>,
    /// Blocks of each class with a piece left.
    open: [BTreeSet<u64>; CLASSES],
    places: u64,
    piece_bytes: u64,
    peak_blocks: u64,
}

impl Space {
    /// Memory that takes its pages when it is used; at most `warm_max` free blocks keep theirs.
    pub fn new(blocks: u64, warm_max: u64) -> Self {
        Self::with_warm(blocks, Some(warm_max))
    }

    /// Memory that always has its pages.
    pub fn resident(blocks: u64) -> Self {
        Self::with_warm(blocks, None)
    }

    fn with_warm(blocks: u64, warm_max: Option<u64>) -> Self {
        let mut free = Ranges::default();
        free.insert(0, blocks);
        Self {
            blocks,
            free,
            warm: Ranges::default(),
            warm_max,
            runs: HashMap::new(),
            shared: HashMap::new(),
            open: std::array::from_fn(|_| BTreeSet::new()),
            places: 0,
            piece_bytes: 0,
            peak_blocks: 0,
        }
    }

    /// Places that are taken.
    pub fn places(&self) -> u64 {
        self.places
    }

    /// Bytes that are taken, rounded up to pieces and blocks.
    pub fn taken_bytes(&self) -> u64 {
        (self.blocks - self.free.total() - self.shared.len() as u64) * BLOCK_BYTES
            + self.piece_bytes
    }

    /// Free bytes that hold pages.
    pub fn warm_bytes(&self) -> u64 {
        self.warm.total() * BLOCK_BYTES
    }

    /// The most bytes that were taken at a time, in whole blocks.
    pub fn peak_bytes(&self) -> u64 {
        self.peak_blocks * BLOCK_BYTES
    }

    /// The longest free run.
    pub fn longest_free_bytes(&self) -> u64 {
        self.free.longest() * BLOCK_BYTES
    }

    /// A place of `len` bytes, and whether its pages are likely to be there already.
    pub fn allocate(&mut self, len: u64) -> Option<(u64, bool)> {
        let found = if len <= PIECE_MAX {
            self.allocate_piece(len)
        } else {
            let blocks = len.div_ceil(BLOCK_BYTES);
            let (start, warm) = self.take_blocks(blocks)?;
            self.runs.insert(start, blocks);
            Some((start * BLOCK_BYTES, warm))
        };
        self.places += u64::from(found.is_some());
        found
    }

    fn allocate_piece(&mut self, len: u64) -> Option<(u64, bool)> {
        let class = class_of(len);
        let block = match self.open[class].first() {
            Some(&block) => block,
            None => {
                let (block, _) = self.take_blocks(1)?;
                self.shared.insert(
                    block,
                    Shared {
                        class,
                        taken: 0,
                        bits: [0; WORDS],
                    },
                );
                self.open[class].insert(block);
                block
            }
        };
        let size = PIECE_MIN << class;
        let count = BLOCK_BYTES / size;
        let shared = self.shared.get_mut(&block)?;
        let (word, bit) = shared
            .bits
            .iter()
            .enumerate()
            .find(|(_, bits)| **bits != u64::MAX)
            .map(|(word, bits)| (word, bits.trailing_ones()))?;
        shared.bits[word] |= 1 << bit;
        shared.taken += 1;
        if shared.taken == count {
            self.open[class].remove(&block);
        }
        self.piece_bytes += size;
        let index = word as u64 * 64 + u64::from(bit);
        Some((block * BLOCK_BYTES + index * size, true))
    }

    fn take_blocks(&mut self, blocks: u64) -> Option<(u64, bool)> {
        let (start, warm) = match self.warm.best_fit(blocks) {
            Some(start) => (start, true),
            None => (self.free.best_fit(blocks)?, self.warm_max.is_none()),
        };
        self.free.remove(start, blocks);
        if self.warm_max.is_some() {
            self.warm.remove(start, blocks);
        }
        self.peak_blocks = self.peak_blocks.max(self.blocks - self.free.total());
        Some((start, warm))
    }

    /// Frees the place at `offset`. `discard` is told runs of blocks whose pages are to go.
    pub fn free(
        &mut self,
        offset: u64,
        mut discard: impl FnMut(u64, u64),
    ) -> Result<(), PlaceError> {
        let block = offset / BLOCK_BYTES;
        if let Some(shared) = self.shared.get_mut(&block) {
            let size = PIECE_MIN << shared.class;
            let index = (offset % BLOCK_BYTES) / size;
            let (word, bit) = ((index / 64) as usize, 1_u64 << (index % 64));
            if !shared.has(offset) {
                return Err(PlaceError(offset));
            }
            shared.bits[word] &= !bit;
            shared.taken -= 1;
            let (class, empty) = (shared.class, shared.taken == 0);
            self.piece_bytes -= size;
            if empty {
                self.shared.remove(&block);
                self.open[class].remove(&block);
                self.give_blocks(block, 1, &mut discard);
            } else {
                self.open[class].insert(block);
            }
        } else {
            if !offset.is_multiple_of(BLOCK_BYTES) {
                return Err(PlaceError(offset));
            }
            let blocks = self.runs.remove(&block).ok_or(PlaceError(offset))?;
            self.give_blocks(block, blocks, &mut discard);
        }
        self.places -= 1;
        Ok(())
    }

    fn give_blocks(&mut self, start: u64, blocks: u64, discard: &mut impl FnMut(u64, u64)) {
        self.free.insert(start, blocks);
        if let Some(warm_max) = self.warm_max {
            self.warm.insert(start, blocks);
            self.cool(warm_max, discard);
        }
    }

    /// Lets the highest warm blocks go until at most `warm_max` are left.
    pub fn cool(&mut self, warm_max: u64, discard: &mut impl FnMut(u64, u64)) {
        while let Some((start, len)) = self.warm.last()
            && self.warm.total() > warm_max
        {
            let excess = (self.warm.total() - warm_max).min(len);
            let from = start + len - excess;
            self.warm.remove(from, excess);
            discard(from * BLOCK_BYTES, excess * BLOCK_BYTES);
        }
    }
}

/// What moves as a whole: a run, or a block that pieces share. In blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Unit {
    /// First block.
    pub start: u64,
    /// How many.
    pub blocks: u64,
}

/// What pools need beside arenas: growing, shrinking, moving.
impl Space {
    /// All blocks, free and taken.
    pub fn blocks(&self) -> u64 {
        self.blocks
    }

    /// The blocks that are free.
    pub fn free_ranges(&self) -> &Ranges {
        &self.free
    }

    /// Adds free blocks at the end.
    pub fn extend(&mut self, blocks: u64) {
        if blocks > 0 {
            self.free.insert(self.blocks, blocks);
            self.blocks += blocks;
        }
    }

    /// Takes away blocks at the end, down to `blocks`; false, and nothing done, if one is taken.
    pub fn cut(&mut self, blocks: u64) -> bool {
        let excess = self.blocks.saturating_sub(blocks);
        let last = self.free.last();
        let is_free =
            last.is_some_and(|(start, len)| start <= blocks && start + len == self.blocks);
        if excess > 0 && !is_free {
            return false;
        }
        self.free.remove(blocks, excess);
        self.blocks -= excess;
        true
    }

    /// The end of the highest block that is taken.
    pub fn taken_end(&self) -> u64 {
        match self.free.last() {
            Some((start, len)) if start + len == self.blocks => start,
            _ => self.blocks,
        }
    }

    /// The unit that a place lies in, if it is taken.
    pub fn unit_of(&self, place: u64) -> Option<Unit> {
        let start = place / BLOCK_BYTES;
        let blocks = match self.shared.get(&start) {
            Some(shared) => shared.has(place).then_some(1)?,
            None if place.is_multiple_of(BLOCK_BYTES) => *self.runs.get(&start)?,
            None => return None,
        };
        Some(Unit { start, blocks })
    }

    /// Every unit, the lowest first.
    pub fn units(&self) -> Vec<Unit> {
        let runs = self
            .runs
            .iter()
            .map(|(&start, &blocks)| Unit { start, blocks });
        let shared = self.shared.keys().map(|&start| Unit { start, blocks: 1 });
        let mut units: Vec<Unit> = runs.chain(shared).collect();
        units.sort_unstable();
        units
    }

    /// The places of a unit and their sizes in bytes.
    pub fn places_of(&self, unit: Unit) -> impl Iterator<Item = (u64, u64)> {
        let shared = self.shared.get(&unit.start);
        let pieces = shared
            .into_iter()
            .flat_map(move |shared| shared.places(unit.start));
        let run = shared
            .is_none()
            .then(|| (unit.start * BLOCK_BYTES, unit.blocks * BLOCK_BYTES));
        pieces.chain(run)
    }

    /// Notes that a unit's bytes were moved to blocks that are free, or its own.
    pub fn relocate(&mut self, unit: Unit, to: u64) {
        self.free.insert(unit.start, unit.blocks);
        self.free.remove(to, unit.blocks);
        if let Some(shared) = self.shared.remove(&unit.start) {
            let open = &mut self.open[shared.class];
            if open.remove(&unit.start) {
                open.insert(to);
            }
            self.shared.insert(to, shared);
        } else if let Some(blocks) = self.runs.remove(&unit.start) {
            self.runs.insert(to, blocks);
        }
    }
}

impl Shared {
    fn has(&self, place: u64) -> bool {
        let size = PIECE_MIN << self.class;
        let index = (place % BLOCK_BYTES) / size;
        place.is_multiple_of(size) && self.bits[(index / 64) as usize] >> (index % 64) & 1 == 1
    }

    /// The pieces that are taken, when the block has this number.
    fn places(&self, block: u64) -> impl Iterator<Item = (u64, u64)> {
        let size = PIECE_MIN << self.class;
        let places = (0..BLOCK_BYTES / size).map(move |index| block * BLOCK_BYTES + index * size);
        places
            .filter(|&place| self.has(place))
            .map(move |place| (place, size))
    }
}

fn class_of(len: u64) -> usize {
    let size = len.max(PIECE_MIN).next_power_of_two();
    (size / PIECE_MIN).ilog2() as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[derive(Clone, Debug)]
    enum Step {
        Allocate(u64),
        Free(usize),
        FreeWrong(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0_u64..2000).prop_map(Step::Allocate),
            (0_u64..400_000).prop_map(Step::Allocate),
            any::<usize>().prop_map(Step::Free),
            any::<usize>().prop_map(Step::Free),
            (0_u64..2_000_000).prop_map(Step::FreeWrong),
        ]
    }

    proptest! {
        #[test]
        fn places_never_overlap_and_nothing_is_lost(
            steps in prop::collection::vec(step(), 1..200),
        ) {
            let blocks = 24;
            let mut space = Space::new(blocks, 4);
            let mut live: BTreeMap<u64, u64> = BTreeMap::new();
            for step in steps {
                match step {
                    Step::Allocate(len) => {
                        let Some((place, _)) = space.allocate(len) else { continue };
                        let len = len.max(1);
                        prop_assert!(place + len <= blocks * BLOCK_BYTES);
                        prop_assert_eq!(place % PIECE_MIN, 0);
                        if let Some((before, before_len)) = live.range(..=place).next_back() {
                            prop_assert!(before + before_len <= place);
                        }
                        if let Some((after, _)) = live.range(place..).next() {
                            prop_assert!(place + len <= *after);
                        }
                        live.insert(place, len);
                    }
                    Step::Free(pick) => {
                        if live.is_empty() {
                            continue;
                        }
                        let place = *live.keys().nth(pick % live.len()).unwrap();
                        live.remove(&place);
                        space.free(place, |_, _| {}).unwrap();
                    }
                    Step::FreeWrong(place) => {
                        if !live.contains_key(&place) {
                            let refused = space.free(place, |_, _| {}).is_err();
                            prop_assert!(refused);
                        }
                    }
                }
                prop_assert_eq!(space.places(), live.len() as u64);
                prop_assert!(space.warm_bytes() <= 4 * BLOCK_BYTES);
                prop_assert!(space.taken_bytes() >= live.values().sum::<u64>());
            }
            for place in live.into_keys() {
                space.free(place, |_, _| {}).unwrap();
            }
            prop_assert_eq!(space.taken_bytes(), 0);
            prop_assert_eq!(space.longest_free_bytes(), blocks * BLOCK_BYTES);
        }
    }

    #[test]
    fn freed_memory_is_reused_warm_and_the_excess_is_discarded() {
        let mut space = Space::new(64, 8);
        let (big, warm) = space.allocate(20 * BLOCK_BYTES).unwrap();
        assert!(!warm);
        let mut gone = 0;
        space.free(big, |_, len| gone += len).unwrap();
        assert_eq!(gone, 12 * BLOCK_BYTES);
        let (_, warm) = space.allocate(8 * BLOCK_BYTES).unwrap();
        assert!(warm);
        assert!(space.allocate(100 * BLOCK_BYTES).is_none());
    }
}
