//! Frames whose data wait for their verification.

use crate::block::Grant;
use crate::header::Epoch;
use crate::limits::{PARTS_MAX, UNVERIFIED_MAX};
use crate::payload::PayloadToken;

/// Bytes of a grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) grant: Grant,
    pub(crate) low: u64,
    pub(crate) end: u64,
}

/// A frame.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Waiting {
    /// Its packet number.
    pub(crate) number: u64,
    /// It has to be acknowledged.
    pub(crate) asks: bool,
    /// A part of it was not taken: it is not to be acknowledged.
    pub(crate) spoiled: bool,
    parts: [Option<Part>; PARTS_MAX],
    count: usize,
}

impl Waiting {
    pub(crate) fn new(number: u64, asks: bool) -> Self {
        Self {
            number,
            asks,
            ..Self::default()
        }
    }

    pub(crate) fn is_full(&self) -> bool {
        self.count == PARTS_MAX
    }

    pub(crate) fn push(&mut self, part: Part) {
        if let Some(place) = self.parts.get_mut(self.count) {
            *place = Some(part);
            self.count += 1;
        }
    }

    pub(crate) fn parts(&self) -> impl Iterator<Item = Part> {
        self.parts.iter().take(self.count).flatten().copied()
    }

    fn bytes(&self) -> u64 {
        self.parts().map(|part| part.end - part.low).sum()
    }
}

/// All of them, in a bounded table.
#[derive(Debug)]
pub(crate) struct Pending {
    epoch: Epoch,
    slots: Box<[(u32, Option<Waiting>)]>,
    free: Vec<u16>,
    bytes: u64,
}

const _: () = assert!(UNVERIFIED_MAX <= 1 << 16, "slots are 16 bits wide");

impl Pending {
    pub(crate) fn new(epoch: Epoch) -> Self {
        Self {
            epoch,
            slots: vec![(0, None); UNVERIFIED_MAX].into_boxed_slice(),
            free: (0..UNVERIFIED_MAX as u16).rev().collect(),
            bytes: 0,
        }
    }

    /// Bytes that are not verified.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.free.len() == UNVERIFIED_MAX
    }

    /// The name of the next; `None` when there are too many.
    pub(crate) fn next_token(&self) -> Option<PayloadToken> {
        let slot = *self.free.last()?;
        let (serial, _) = self.slots.get(usize::from(slot))?;
        Some(PayloadToken {
            epoch: self.epoch,
            serial: serial.wrapping_add(1),
            slot,
        })
    }

    /// Remembers one under the name that `next_token` gave.
    pub(crate) fn insert(&mut self, token: PayloadToken, waiting: Waiting) {
        if self.free.pop() == Some(token.slot)
            && let Some(slot) = self.slots.get_mut(usize::from(token.slot))
        {
            self.bytes += waiting.bytes();
            *slot = (token.serial, Some(waiting));
        }
    }

    pub(crate) fn take(&mut self, token: PayloadToken) -> Option<Waiting> {
        let (serial, waiting) = self.slots.get_mut(usize::from(token.slot))?;
        if *serial != token.serial || self.epoch != token.epoch {
            return None;
        }
        let taken = waiting.take()?;
        self.bytes -= taken.bytes();
        self.free.push(token.slot);
        Some(taken)
    }

    /// Whether any of `low..end` waits. Looks at all, so ask only where bytes come twice.
    pub(crate) fn overlaps(&self, grant: Grant, low: u64, end: u64) -> bool {
        let waiting = self
            .slots
            .iter()
            .filter_map(|(_, waiting)| waiting.as_ref());
        waiting
            .flat_map(Waiting::parts)
            .any(|part| part.grant == grant && part.low < end && low < part.end)
    }
}
