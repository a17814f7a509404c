//! The things in a packet that must arrive.

use crate::block::{Grant, ResetBy};
use crate::limits::CONTENTS_MAX;

/// A thing that must arrive. It is in one packet, or in the queue of repeats, never in both: so it
/// is acknowledged once, and lengths can be added up without a map of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    Data {
        slot: u16,
        serial: u32,
        offset: u64,
        len: u32,
        /// How often it came damaged though it was sent as it was summed.
        damaged: u8,
    },
    Message {
        sequence: u64,
    },
    Reset {
        grant: Grant,
        by: ResetBy,
    },
}

/// Up to [`CONTENTS_MAX`] things, without allocation.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Contents {
    list: [Option<Content>; CONTENTS_MAX],
    count: usize,
}

impl Contents {
    pub(crate) fn push(&mut self, content: Content) {
        if let Some(place) = self.list.get_mut(self.count) {
            *place = Some(content);
            self.count += 1;
        }
    }

    pub(crate) fn is_full(&self) -> bool {
        self.count == CONTENTS_MAX
    }

    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = Content> {
        self.list.iter().flatten().copied()
    }

    pub(crate) fn for_each_mut(&mut self, change: impl FnMut(&mut Content)) {
        self.list.iter_mut().flatten().for_each(change);
    }

    pub(crate) fn data_bytes(&self) -> u64 {
        self.iter()
            .map(|content| {
                if let Content::Data { len, .. } = content {
                    len.into()
                } else {
                    0
                }
            })
            .sum()
    }
}
