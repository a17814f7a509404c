//! Frames to be sent whose data lie elsewhere than their head.

use crate::connection::PeerId;
use crate::header::ConnectionId;
use crate::limits::CONTENTS_MAX;
use crate::regions::{SourceId, Span};

/// A frame to be sent, without a copy of its data: the first `head_len` bytes of the buffer, then
/// the bytes of each span of [`data`](Self::data), in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SplitTransmit {
    /// On which connection.
    pub connection: ConnectionId,
    /// To whom.
    pub peer: PeerId,
    /// Bytes in the buffer.
    pub head_len: usize,
    pub(crate) spans: Spans,
}

impl SplitTransmit {
    /// Where the data lie; empty where they were copied behind the head, or there are none.
    #[must_use]
    pub fn data(&self) -> &[Span] {
        self.spans.list.get(..self.spans.count).unwrap_or(&[])
    }

    /// Bytes of the frame.
    #[must_use]
    pub fn frame_len(&self) -> usize {
        // A frame is shorter than 64 KiB.
        self.head_len + self.spans.bytes() as usize
    }
}

/// Up to [`CONTENTS_MAX`] spans, without allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Spans {
    list: [Span; CONTENTS_MAX],
    count: usize,
}

impl Default for Spans {
    fn default() -> Self {
        let (source, offset, len) = (SourceId(0), 0, 0);
        let nothing = Span {
            source,
            offset,
            len,
        };
        Self {
            list: [nothing; CONTENTS_MAX],
            count: 0,
        }
    }
}

impl Spans {
    pub(crate) fn push(&mut self, span: Span) {
        if let Some(place) = self.list.get_mut(self.count) {
            *place = span;
            self.count += 1;
        }
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.list.iter().map(|span| span.len).sum()
    }
}
