//! What was recorded, whole: for whoever wants to know what a program means.

use genie_session::client::{Appended, Draft};
use genie_session::record::Kind;

/// Bytes of all records that are kept.
const BYTES_MAX: usize = 256 << 20;

/// A record as it went into a log.
#[derive(Clone, Debug)]
pub struct Written {
    /// Its place in [`super::Profile::captured`].
    pub captured: usize,
    /// Which device's log it is in.
    pub lane: usize,
    /// What it does.
    pub kind: Kind,
    /// Its operator.
    pub op: u32,
    /// Its arguments.
    pub skeleton: Box<[u8]>,
    /// Storages that it names, as the log does.
    pub storages: Box<[u64]>,
    /// Integers that decide shapes.
    pub params: Box<[i64]>,
    /// Numbers that don't.
    pub data: Box<[i64]>,
    /// Its results.
    pub tail: Box<[u8]>,
    /// Their sizes.
    pub tail_numbers: Box<[i64]>,
    /// How many storages it makes.
    pub fresh: u64,
    /// The first of them.
    pub first_fresh: u64,
    /// Autograd recorded it for a forward.
    pub is_backward: bool,
}

/// What a transcript has, in the order of the session.
#[derive(Clone, Debug)]
pub enum Event {
    /// A record.
    Record(Written),
    /// A storage died: its lane and its name there.
    Freed(usize, u64),
}

/// Records and deaths while somebody wants to know.
#[derive(Debug, Default)]
pub struct Transcript {
    /// In order.
    pub events: Vec<Event>,
    /// Records for which there was no room.
    pub dropped: u64,
    bytes: usize,
}

impl Transcript {
    /// A record was appended, which is `captured` in the profile.
    pub(super) fn record(
        &mut self,
        captured: usize,
        lane: usize,
        draft: &Draft<'_>,
        appended: &Appended,
        is_backward: bool,
    ) {
        let bytes = size_of::<Event>()
            + draft.skeleton.len()
            + draft.tail.len()
            + 8 * (draft.storages.len()
                + draft.params.len()
                + draft.data.len()
                + draft.tail_numbers.len());
        if self.bytes + bytes > BYTES_MAX {
            self.dropped += 1;
            return;
        }
        self.bytes += bytes;
        self.events.push(Event::Record(Written {
            captured,
            lane,
            kind: draft.kind,
            op: draft.op,
            skeleton: draft.skeleton.into(),
            storages: draft.storages.into(),
            params: draft.params.into(),
            data: draft.data.into(),
            tail: draft.tail.into(),
            tail_numbers: draft.tail_numbers.into(),
            fresh: draft.fresh,
            first_fresh: appended.first_fresh,
            is_backward,
        }));
    }

    /// A storage died.
    pub(super) fn freed(&mut self, lane: usize, id: u64) {
        if self.bytes + size_of::<Event>() <= BYTES_MAX {
            self.bytes += size_of::<Event>();
            self.events.push(Event::Freed(lane, id));
        }
    }
}
