//! What may be under way, and when an acknowledgement is asked for.
//!
//! The rule by which no two bounds of the log can wait for each other: *whoever waits for room has
//! asked for it in what was sent before it waits*. The client alone knows its bounds (records, bytes
//! kept for a refusal, bytes of bulk), so it alone says where the node acknowledges: at a frame by
//! which a quarter of any bound went out unasked, and at whatever is sent before it waits. The node
//! acknowledges a frame that asks when the frame is done, whatever else it thinks, and waits for
//! nothing of the client's in between.

/// Bounds of what is sent and not acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Records.
    pub records: u64,
    /// Bytes of records that are kept until they are acknowledged.
    pub kept_bytes: u64,
    /// Bytes of bulk. A larger upload goes alone.
    pub bulk_bytes: u64,
}

impl Default for Window {
    fn default() -> Self {
        Self {
            records: 1 << 16,
            kept_bytes: 2 << 20,
            bulk_bytes: 256 << 20,
        }
    }
}

/// Everything that was sent so far, in the measures of a [`Window`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sent {
    pub(super) records: u64,
    pub(super) kept_bytes: u64,
    pub(super) bulk_bytes: u64,
}

/// Where an acknowledgement was asked for.
#[derive(Debug, Default)]
pub(super) struct Asked {
    window: Window,
    /// What was sent up to and with the last frame that asks.
    at: Sent,
    /// Somebody waits, and what was sent since may be all that can make room.
    wanted: bool,
}

impl Asked {
    pub(super) fn set_window(&mut self, window: Window) {
        self.window = window;
    }

    /// Whether `bulk` more bytes of an upload, and a record, may be appended while `under_way` is
    /// not acknowledged.
    pub(super) fn has_room(&self, under_way: Sent, bulk: u64) -> bool {
        let window = &self.window;
        let bulk_fits = bulk == 0
            || under_way.bulk_bytes == 0
            || under_way.bulk_bytes.saturating_add(bulk) <= window.bulk_bytes;
        under_way.records < window.records.max(1)
            && under_way.kept_bytes < window.kept_bytes.max(1)
            && bulk_fits
    }

    /// Somebody is about to wait: the next frame asks.
    pub(super) fn want(&mut self) {
        self.wanted = true;
    }

    /// Frames that asked may have been dropped on the other side: what is sent next asks again.
    pub(super) fn ask_again(&mut self) {
        self.at = Sent::default();
        self.wanted = true;
    }

    /// Somebody waits, and nothing that was sent asks for what came after `at`.
    pub(super) fn is_owed(&self, sent: Sent) -> bool {
        self.wanted && self.at != sent
    }

    /// A frame leaves by which `sent` is all that was sent: whether it asks.
    pub(super) fn asks(&mut self, sent: Sent) -> bool {
        let quarter = |now: u64, then: u64, bound: u64| now - then >= (bound / 4).max(1);
        let due = quarter(sent.records, self.at.records, self.window.records)
            || quarter(sent.kept_bytes, self.at.kept_bytes, self.window.kept_bytes)
            || quarter(sent.bulk_bytes, self.at.bulk_bytes, self.window.bulk_bytes);
        let asks = due || self.wanted;
        if asks {
            self.at = sent;
            self.wanted = false;
        }
        asks
    }
}
