//! The records of the segments that ended last and of the one under construction, so that any stretch of
//! them can be told as a segment of its own: with the names that its storages would have had.

use std::collections::VecDeque;
use std::ops::Range;

use super::{AppendError, Draft};
use crate::WireError;
use crate::limits::{CAPTURED_MAX, CYCLE_RECORDS_MAX};
use crate::record::{self, Item, Kind, Plain, Shape};
use crate::segment::{FIRST_ID, Namer, Resolver};
use crate::varint::Reader;

/// Records that are kept of segments that ended: two turns of the longest cycle.
const RECORDS: u64 = 2 * CYCLE_RECORDS_MAX as u64;

/// A segment, that ended or that is under construction.
#[derive(Clone, Copy, Debug)]
struct Segment {
    /// Where its records begin in the bytes.
    offset: usize,
    /// Position of its first record; cuts are not counted.
    first: u64,
    /// Its first id.
    base: u64,
}

/// See the module.
#[derive(Debug)]
pub(super) struct History {
    bytes: Vec<u8>,
    ended: VecDeque<Segment>,
    current: Segment,
}

impl Default for History {
    fn default() -> Self {
        Self {
            bytes: Vec::new(),
            ended: VecDeque::new(),
            current: Segment {
                offset: 0,
                first: 0,
                base: FIRST_ID,
            },
        }
    }
}

impl History {
    /// Takes a record of the segment under construction, as it is written out.
    pub(super) fn push(&mut self, item: &[u8]) {
        self.bytes.extend_from_slice(item);
    }

    /// The records of the segment under construction.
    pub(super) fn segment(&self) -> &[u8] {
        self.bytes.get(self.current.offset..).unwrap_or_default()
    }

    /// The segment ends. The next one's first record will have position `first`, and its first id is `base`.
    pub(super) fn end_segment(&mut self, first: u64, base: u64) {
        self.ended.push_back(self.current);
        self.current = Segment {
            offset: self.bytes.len(),
            first,
            base,
        };
        while self.ended.get(1).is_some_and(|second| {
            first - second.first >= RECORDS || self.bytes.len() - second.offset > CAPTURED_MAX
        }) {
            self.ended.pop_front();
        }
        // Moved at once for many.
        let gone = self.ended.front().map_or(0, |oldest| oldest.offset);
        if gone > self.bytes.len() / 2 {
            self.bytes.drain(..gone);
            self.current.offset -= gone;
            for segment in &mut self.ended {
                segment.offset -= gone;
            }
        }
    }

    /// The records of `range` as a segment that begins there, written out. With `cut` it ends by a cut,
    /// which frees what the record after it does, or, if that is yet to come, what the first one does: `cut`
    /// is what the first id was a turn before. None if not all of it is known.
    pub(super) fn tell(&self, range: &Range<u64>, cut: Option<u64>) -> Option<Vec<u8>> {
        let segments: Vec<Segment> = self.ended.iter().copied().chain([self.current]).collect();
        let begin = segments.partition_point(|segment| segment.first <= range.start);
        let mut telling = Telling::new(range.clone());
        for (index, segment) in segments.iter().enumerate().skip(begin.checked_sub(1)?) {
            if segment.first > range.end {
                break;
            }
            let end = segments.get(index + 1);
            let end = end.map_or(self.bytes.len(), |next| next.offset);
            let bytes = self.bytes.get(segment.offset..end)?;
            telling.segment(bytes, segment.first, segment.base).ok()?;
        }
        telling.finish(cut)
    }
}

/// Renames the storages of a stretch of records.
struct Telling {
    range: Range<u64>,
    namer: Option<Namer>,
    out: Vec<u8>,
    told: u64,
    /// Freed before the next record that is told, and before the first, by their ids.
    frees: Vec<i64>,
    first_frees: Vec<i64>,
    is_complete: bool,
}

impl Telling {
    fn new(range: Range<u64>) -> Self {
        Self {
            range,
            namer: None,
            out: Vec::new(),
            told: 0,
            frees: Vec::new(),
            first_frees: Vec::new(),
            is_complete: false,
        }
    }

    /// Takes those of a segment's records that are of the stretch.
    fn segment(&mut self, bytes: &[u8], first: u64, base: u64) -> Result<(), WireError> {
        let mut resolver = Resolver::starting_at(base);
        let mut reader = Reader::new(bytes);
        let mut position = first;
        while !reader.is_empty() && !self.is_complete {
            let Item::Plain(plain) = record::next_item(&mut reader)? else {
                continue;
            };
            let shape = Shape::parse(plain.kind, plain.structure)?;
            let fresh = resolver.next();
            let is_told = self.range.contains(&position);
            if is_told || position == self.range.end {
                self.take_frees(&plain, base);
            }
            if position == self.range.end {
                self.is_complete = true;
                return Ok(());
            }
            if plain.kind == Kind::Cut {
                // What it frees is freed by the record after it.
                continue;
            }
            let mut numbers = Vec::new();
            plain.numbers.unpack(&mut numbers);
            let mut ids = Vec::new();
            resolver.resolve(
                &shape.refs,
                numbers.get(..shape.externals).unwrap_or_default(),
                &mut ids,
            )?;
            resolver.take(shape.fresh);
            if is_told {
                // Every id was given: it was resolved.
                let told = self.record(&plain, &shape, &ids, &numbers, fresh);
                told.map_err(|_| WireError::Malformed("a storage that was never made"))?;
            }
            position += 1;
        }
        Ok(())
    }

    fn take_frees(&mut self, plain: &Plain<'_>, base: u64) {
        let from = self.frees.len();
        plain.frees.unpack(&mut self.frees);
        for id in self.frees.iter_mut().skip(from) {
            *id = id.wrapping_add(base as i64);
        }
    }

    fn record(
        &mut self,
        plain: &Plain<'_>,
        shape: &Shape,
        ids: &[u64],
        numbers: &[i64],
        fresh: u64,
    ) -> Result<(), AppendError> {
        if self.namer.is_none() {
            self.first_frees = std::mem::take(&mut self.frees);
        }
        let namer = self.namer.get_or_insert_with(|| Namer::starting_at(fresh));
        let draft = Draft {
            skeleton: plain
                .structure
                .get(shape.skeleton.clone())
                .unwrap_or_default(),
            storages: ids,
            params: numbers.get(shape.externals..).unwrap_or_default(),
            tail: plain.structure.get(shape.tail..).unwrap_or_default(),
            ..Draft::new(plain.kind)
        };
        let (mut structure, mut named) = (Vec::new(), Vec::new());
        draft.normal_form(namer, &mut structure, &mut named)?;
        let base = namer.base() as i64;
        for id in &mut self.frees {
            *id = id.wrapping_sub(base);
        }
        record::put_plain(
            &mut self.out,
            plain.kind,
            plain.op,
            &structure,
            &named,
            &self.frees,
            plain.blob,
        );
        self.frees.clear();
        namer.take(shape.fresh);
        self.told += 1;
        Ok(())
    }

    fn finish(mut self, cut: Option<u64>) -> Option<Vec<u8>> {
        if self.told != self.range.end - self.range.start {
            return None;
        }
        if let Some(turn_base) = cut {
            let base = self.namer.as_ref().map_or(0, Namer::base);
            let (mut frees, base) = if self.is_complete {
                (self.frees, base)
            } else {
                (self.first_frees, turn_base)
            };
            for id in &mut frees {
                *id = id.wrapping_sub(base as i64);
            }
            record::put_plain(&mut self.out, Kind::Cut, 0, &[0, 0], &[], &frees, None);
        }
        Some(self.out)
    }
}
