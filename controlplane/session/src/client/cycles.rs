//! Finds what a program repeats, from what its records are alone: neither from where its segments begin
//! nor from what it looks at. A loop that seldom looks is cut where its cycle begins, so that each turn
//! is a segment of the same structure.
//!
//! A *beat* is a record without the names of its storages. A period is tried where a few beats in a row
//! were there before, and holds once a whole turn equals the one before. Layers of one model repeat as
//! well as steps do: a turn of a cycle uses the same old storages (weights, state) as the one before,
//! a layer has its own.

use std::ops::Range;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::Draft;
use crate::limits::{CYCLE_RECORDS_MAX, CYCLE_RECORDS_MIN};
use crate::plan::RecordTemplate;
use crate::record::Kind;
use crate::segment::IdMap;

/// Beats that are remembered: two turns of the longest cycle.
const BEATS: usize = 2 * CYCLE_RECORDS_MAX;
/// Beats in a row by which an earlier place is found again.
const GRAM: usize = 4;
/// Places that were found by the same beats, and are tried one after the other.
const TRIES: usize = 8;
/// Beats that may be compared for each that is noted, on average and at once.
const COMPARED: usize = 16;
const COMPARED_MAX: usize = BEATS;
/// Storages of a record that are remembered.
const STORAGES: usize = 4;
const PLACES: usize = 4096;
/// Beginnings that are known at a time.
const STARTS_MAX: usize = 64;

/// Turns that a cycle repeats before it replaces shorter ones that have their plans.
const TURNS_TO_REPLACE: usize = 3;

const LOOK: u8 = 1;
const UPLOAD: u8 = 2;
const OPERATOR: u8 = 4;

#[derive(Clone, Copy, Debug, Default)]
struct Beat {
    key: u64,
    /// Of this and the beats before it.
    gram: u32,
    /// The id that the next storage would have had; ids and positions are compared by their low bits.
    next: u32,
    storages: [u32; STORAGES],
    /// How far back the same beats in a row end; 0: unknown.
    back: u32,
    named: u8,
    flags: u8,
}

/// A cycle that was found: the records of its last turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cycle {
    /// What is to be one segment each. Several where the program looks more than once in a turn.
    pub segments: Vec<Range<u64>>,
    /// Where its segments end by a cut, and not by a look.
    pub cut: Option<Cut>,
}

/// Where a cycle is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cut {
    /// How the next turn begins.
    pub start: Start,
    /// The id that the next storage had a turn before it began, if it ends with the last record.
    pub turn_base: u64,
}

/// How a cycle begins: by a beat, after another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Start {
    key: u64,
    before: u64,
}

impl Cycle {
    /// Records of a turn.
    pub(super) fn records(&self) -> u64 {
        self.segments
            .iter()
            .map(|range| range.end - range.start)
            .sum()
    }
}

/// See the module. Positions count records that are no cuts.
#[derive(Debug, Default)]
pub(super) struct Cycles {
    beats: Vec<Beat>,
    count: u64,
    /// Where beats in a row were last, by their hash.
    places: Vec<u32>,
    /// The period that is tried; 0 is none.
    period: usize,
    /// Beats in a row that equal those a period before.
    run: usize,
    /// The run at which it is judged.
    goal: usize,
    credit: usize,
    /// Of the last two cuts that the log made by itself, the last one first: one more than the position of the
    /// beat that came next. 0 is none.
    cuts: [u64; 2],
    /// The id of the last beat.
    next: u64,
    /// How the known cycles begin: the beat, and it with the one before.
    starts: IdMap<()>,
}

/// What a record is, without the names of its storages.
#[inline]
pub(super) fn key_of_draft(draft: &Draft<'_>) -> u64 {
    key(
        draft.kind,
        draft.op,
        draft.storages.len(),
        draft.skeleton,
        draft.tail,
    )
}

/// The same of a template's record.
pub(super) fn key_of_template(record: &RecordTemplate) -> u64 {
    let skeleton = record.structure.get(record.shape.skeleton.clone());
    let tail = record.structure.get(record.shape.tail..);
    key(
        record.kind,
        record.op,
        record.shape.refs.len(),
        skeleton.unwrap_or_default(),
        tail.unwrap_or_default(),
    )
}

#[inline]
fn key(kind: Kind, op: u32, storages: usize, skeleton: &[u8], tail: &[u8]) -> u64 {
    let what = (storages as u64) << 32 | u64::from(op) << 8 | kind as u64;
    let key = xxh3_64_with_seed(skeleton, what.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    if tail.is_empty() {
        key
    } else {
        xxh3_64_with_seed(tail, key)
    }
}

fn pair(before: u64, key: u64) -> u64 {
    before.rotate_left(23) ^ key.wrapping_mul(0xff51_afd7_ed55_8ccd)
}

impl Cycles {
    /// The position of the next beat.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// The next beat comes after a cut that the log made by itself.
    pub(super) fn note_cut(&mut self) {
        self.cuts = [self.count + 1, self.cuts[0]];
    }

    /// Takes the beat of a record; `next` is the id of the next storage before it.
    pub(super) fn note(&mut self, key: u64, kind: Kind, next: u64, storages: &[u64]) {
        let mut flags = 0;
        if kind.is_look() {
            flags |= LOOK;
        }
        if kind == Kind::Upload {
            flags |= UPLOAD;
        }
        if matches!(kind, Kind::Op | Kind::CallSync) {
            flags |= OPERATOR;
        }
        let mut beat = Beat {
            key,
            next: next as u32,
            named: storages.len().min(STORAGES) as u8,
            flags,
            ..Beat::default()
        };
        for (kept, &id) in beat.storages.iter_mut().zip(storages) {
            *kept = id as u32;
        }
        beat.gram = self.gram(key);
        self.next = next;
        if self.places.is_empty() {
            self.places = vec![u32::MAX; PLACES];
        }
        let place = beat.gram as usize % PLACES;
        let at = self.count as u32;
        let last = std::mem::replace(&mut self.places[place], at);
        let back = at.wrapping_sub(last);
        if last != u32::MAX && (back as usize) < BEATS && u64::from(back) <= self.count {
            beat.back = back;
        }
        let slot = self.count as usize % BEATS;
        if slot < self.beats.len() {
            self.beats[slot] = beat;
        } else {
            self.beats.push(beat);
        }
        self.count += 1;
        self.credit = (self.credit + COMPARED).min(COMPARED_MAX);
        if self.period > 0 && self.equals_before(0, self.period) {
            self.run += 1;
        } else {
            self.try_another();
        }
    }

    /// Hash of `key` and the beats before it.
    fn gram(&self, key: u64) -> u32 {
        let mut gram = key;
        for back in 0..(GRAM - 1).min(self.count as usize) {
            gram = pair(gram, self.key_back(back));
        }
        (gram >> 32) as u32
    }

    /// The beat that was noted `back` beats before the last.
    fn beat_back(&self, back: usize) -> &Beat {
        &self.beats[(self.count as usize - 1 - back) % BEATS]
    }

    /// What the next id was a turn before the last turn began, if it made as many as the last.
    fn base_before(&self, turn: usize) -> u64 {
        let (last, before) = (self.beat_back(0).next, self.beat_back(self.period).next);
        let made = u64::from(last.wrapping_sub(before)) * (turn / self.period) as u64;
        let since = last.wrapping_sub(self.beat_back(turn - 1).next);
        self.next.saturating_sub(u64::from(since) + made)
    }

    fn key_back(&self, back: usize) -> u64 {
        self.beat_back(back).key
    }

    /// Whether the beat `back` before the last is the one a period before it.
    fn equals_before(&self, back: usize, period: usize) -> bool {
        back + period < self.beats.len() && self.key_back(back) == self.key_back(back + period)
    }

    /// Tries the periods at which the last beats were before.
    fn try_another(&mut self) {
        self.period = 0;
        self.run = 0;
        let gram = self.beat_back(0).gram;
        let mut period = 0;
        for _ in 0..TRIES {
            let back = self.beat_back(period).back as usize;
            period += back;
            if back == 0 || period > CYCLE_RECORDS_MAX || period >= self.beats.len() {
                break;
            }
            if self.beat_back(period).gram != gram {
                continue;
            }
            let mut run = 0;
            while run < BEATS && self.credit > 0 && self.equals_before(run, period) {
                run += 1;
                self.credit -= 1;
            }
            if run > self.run {
                (self.period, self.run) = (period, run);
            }
        }
        self.goal = turn_of(self.period);
    }

    /// The cycle that the last beat completed a second turn of, if it did. `is_planned`: the beat was part
    /// of a plan, so only a cycle that was taken for several is news, and only if it is there to stay.
    pub(super) fn found(&mut self, is_planned: bool) -> Option<Cycle> {
        if self.period == 0 || self.run < self.goal {
            return None;
        }
        let turn = turn_of(self.period);
        if is_planned && (self.run < TURNS_TO_REPLACE * turn || self.cuts(turn) < 2) {
            return None;
        }
        // Judged again after twice as many turns, if it is found wanting now.
        self.goal *= 2;
        if self.having(OPERATOR, turn) == 0 || !self.uses_the_same(turn) {
            return None;
        }
        // It is judged once.
        self.goal = usize::MAX;
        if self.having(LOOK, turn) > 0 {
            return self.looked_at(turn);
        }
        let back = self.start(turn);
        let start = self.count - back as u64;
        self.learn_start(back, turn);
        Some(Cycle {
            segments: std::iter::once(start..start + turn as u64).collect(),
            cut: Some(Cut {
                start: self.start_at(back),
                turn_base: self.base_before(turn),
            }),
        })
    }

    /// How often the log cut the last turn by itself: 2 stands for more.
    fn cuts(&self, turn: usize) -> usize {
        let before = self.count.saturating_sub(turn as u64);
        self.cuts.iter().filter(|&&cut| cut > before).count()
    }

    /// Beats of the last turn that have `flag`.
    fn having(&self, flag: u8, turn: usize) -> usize {
        let has = |back: &usize| self.beat_back(*back).flags & flag != 0;
        (0..turn).filter(has).count()
    }

    /// Whether the last turn uses the old storages that the one before uses.
    fn uses_the_same(&self, turn: usize) -> bool {
        let (mut old, mut same) = (0, 0);
        for back in 0..turn {
            let (beat, before) = (self.beat_back(back), self.beat_back(back + self.period));
            let made_since = beat.next.wrapping_sub(before.next);
            let named = usize::from(beat.named.min(before.named));
            let storages = beat.storages.iter().zip(&before.storages).take(named);
            for (&id, &id_before) in storages {
                if beat.next.wrapping_sub(id) > made_since {
                    old += 1;
                    same += u32::from(id == id_before);
                }
            }
        }
        same * 2 >= old
    }

    /// A turn in which the program looks is cut there, and nowhere else.
    fn looked_at(&self, turn: usize) -> Option<Cycle> {
        if self.cuts(turn) == 0 {
            return None;
        }
        let mut segments = Vec::new();
        let mut end = None;
        for back in 0..self.beats.len().min(turn + CYCLE_RECORDS_MAX) {
            if self.beat_back(back).flags & LOOK == 0 {
                continue;
            }
            let after = self.count - back as u64;
            if let Some(end) = end.replace(after) {
                segments.push(after..end);
            }
            if back >= turn {
                break;
            }
        }
        Some(Cycle {
            segments,
            cut: None,
        })
    }

    /// How far back the turn that is to be a segment begins: where the program uploads, if it does, and
    /// where a beat is like no other.
    fn start(&self, turn: usize) -> usize {
        let mut keys = IdMap::<u32>::default();
        for back in 0..turn {
            let (key, before) = (self.key_back(back), self.key_back(back + 1));
            *keys.entry(key).or_default() += 1;
            *keys.entry(pair(before, key)).or_default() += 1;
        }
        let once = |hash: u64| keys.get(&hash) == Some(&1);
        let rank = |back: usize| {
            let (beat, before) = (self.beat_back(back - 1), self.beat_back(back));
            let begins_upload = beat.flags & UPLOAD != 0 && before.flags & UPLOAD == 0;
            let alone = once(beat.key);
            let in_a_pair = once(pair(before.key, beat.key));
            4 * u32::from(begins_upload && (alone || in_a_pair))
                + 2 * u32::from(alone)
                + u32::from(in_a_pair)
        };
        // In the order of the program from where it began to repeat; of the turn before, so that it is whole.
        let order = std::iter::once(turn).chain((turn + 1..2 * turn).rev());
        let seen = self.beats.len();
        let best = order
            .filter(|&back| back < seen)
            .map(|back| (back, rank(back)))
            .reduce(|best, other| if other.1 > best.1 { other } else { best });
        best.map_or(turn, |(back, _)| back)
    }

    fn start_at(&self, back: usize) -> Start {
        Start {
            key: self.key_back(back - 1),
            before: self.key_back(back),
        }
    }

    fn learn_start(&mut self, back: usize, turn: usize) {
        if self.starts.len() >= STARTS_MAX {
            self.starts.clear();
        }
        let Start { key, before } = self.start_at(back);
        let others = (0..turn).filter(|&back| self.key_back(back) == key);
        if others.count() == 1 {
            self.starts.insert(key, ());
        }
        self.starts.insert(pair(before, key), ());
    }

    /// Whether a known cycle begins with `draft`.
    pub(super) fn is_start(&self, draft: &Draft<'_>) -> bool {
        if self.starts.is_empty() || self.count == 0 {
            return false;
        }
        let key = key_of_draft(draft);
        let after = pair(self.key_back(0), key);
        self.starts.contains_key(&key) || self.starts.contains_key(&after)
    }

    /// Whether `start` is here, with `draft`.
    pub(super) fn is_at(&self, start: Start, draft: &Draft<'_>) -> bool {
        self.count > 0 && self.key_back(0) == start.before && key_of_draft(draft) == start.key
    }
}

/// Records of what is to be one segment: as many turns as make it worth a plan.
fn turn_of(period: usize) -> usize {
    if period == 0 {
        return usize::MAX;
    }
    period * CYCLE_RECORDS_MIN.div_ceil(period)
}
