//! Which messages, resets and pieces of transfers go into a frame.

use super::Connection;
use super::plan::Plan;
use crate::block::{Block, DATA_BLOCK_BYTES};
use crate::content::Content;
use crate::header::HEADER_BYTES;
use crate::limits::{FRAME_DATA_MAX, PIECE_MIN};
use crate::outbox::{Piece, Transfer, TransferId};
use crate::wire::Writer;

impl Connection {
    pub(super) fn write_urgent(&mut self, plan: &mut Plan, to: &mut Writer<'_>) {
        while !plan.contents.is_full()
            && let Some(content) = self.urgent.pop_front()
        {
            let written = match content {
                Content::Reset { grant, by } => Block::Reset { grant, by }.encode(to),
                Content::Message { sequence } => match self.messages_out.get(sequence) {
                    Some(bytes) => Block::Message { sequence, bytes }.encode(to),
                    None => continue,
                },
                Content::Data { .. } => continue,
            };
            if !written {
                self.urgent.push_front(content);
                return;
            }
            plan.contents.push(content);
            plan.asks = true;
        }
    }

    pub(super) fn write_messages(&mut self, plan: &mut Plan, to: &mut Writer<'_>) {
        while !plan.contents.is_full()
            && let Some(sequence) = self.messages_out.to_send()
        {
            let Some(bytes) = self.messages_out.get(sequence) else {
                return;
            };
            if !(Block::Message { sequence, bytes }).encode(to) {
                return;
            }
            self.messages_out.on_sent(sequence);
            plan.contents.push(Content::Message { sequence });
            plan.asks = true;
        }
    }

    /// Repeats first, then new data by priority, as far as credit and the frame reach.
    pub(super) fn write_data(&mut self, plan: &mut Plan, to: &mut Writer<'_>) {
        while !plan.contents.is_full() {
            let room = self.data_room(plan, to);
            let Some((piece, transfer)) = self.next_piece(room, plan.data_len > 0) else {
                break;
            };
            let grant = transfer.grant;
            // A piece is no longer than a frame, whose length fits 16 bits.
            let len = piece.len as u16;
            let offset = transfer.offset + piece.offset;
            Block::Data { grant, offset, len }.encode(to);
            let content = Content::Data {
                slot: piece.id.slot,
                serial: piece.id.serial,
                offset: piece.offset,
                len: u32::from(len),
                damaged: piece.damaged,
            };
            if let Some(place) = plan.pieces.iter_mut().find(|place| place.is_none()) {
                *place = Some((piece, transfer));
            }
            plan.contents.push(content);
            plan.data_len += piece.len;
            plan.asks = true;
            if piece.damaged > 0 {
                break;
            }
        }
        if plan.data_len > 0 {
            self.pad_to_data(to);
        }
    }

    /// Fills the control up to where the peer wants the data to begin.
    fn pad_to_data(&self, to: &mut Writer<'_>) {
        let Some(at) = self.config.data_at else {
            return;
        };
        let mut missing = at.saturating_sub(HEADER_BYTES + 2 * self.seal.tag_len() + to.len());
        // The least padding is three bytes.
        while (1..3).contains(&missing) {
            Block::Ping.encode(to);
            missing -= 1;
        }
        if missing > 0 {
            // `data_at` is below the smallest frame.
            Block::Padding((missing - 3) as u16).encode(to);
        }
    }

    /// Bytes of data that one more piece may have.
    fn data_room(&self, plan: &Plan, to: &Writer<'_>) -> usize {
        let head = HEADER_BYTES + to.len() + DATA_BLOCK_BYTES + 2 * self.seal.tag_len();
        let size = HEADER_BYTES + to.len() + to.room() + self.seal.tag_len();
        let head = match self.config.data_at {
            Some(at) if head > at => return 0,
            Some(at) => at,
            None => head,
        };
        let frame = size.saturating_sub(head + plan.data_len);
        let unused = self.peer_credit.saturating_sub(self.sent.data_bytes());
        let credit = usize::try_from(unused)
            .unwrap_or(usize::MAX)
            .saturating_sub(plan.data_len);
        frame.min(FRAME_DATA_MAX - plan.data_len).min(credit)
    }

    /// The next piece for a frame with `room`. One that came damaged goes alone, so that only it is
    /// blamed if it does again.
    fn next_piece(&mut self, room: usize, shared: bool) -> Option<(Piece, Transfer)> {
        while let Some(content) = self.repeats.pop_front() {
            let Content::Data {
                slot,
                serial,
                offset,
                len,
                damaged,
            } = content
            else {
                continue;
            };
            let id = TransferId { slot, serial };
            let Some(transfer) = self.outbox.transfer(id) else {
                continue;
            };
            let wanted = len as usize;
            if room < wanted.min(PIECE_MIN) || (shared && damaged > 0) {
                self.repeats.push_front(content);
                return None;
            }
            // Smaller frames than when it was first sent: the rest goes into the next.
            let taken = wanted.min(room);
            if taken < wanted {
                let (offset, len) = (offset + taken as u64, (wanted - taken) as u32);
                self.repeats.push_front(Content::Data {
                    slot,
                    serial,
                    offset,
                    len,
                    damaged,
                });
            }
            self.counters.bytes_repeated += taken as u64;
            return Some((
                Piece {
                    id,
                    offset,
                    len: taken,
                    damaged,
                },
                transfer,
            ));
        }
        if room < PIECE_MIN {
            return None;
        }
        let piece = self.outbox.next_piece(room)?;
        Some((piece, self.outbox.transfer(piece.id)?))
    }
}
