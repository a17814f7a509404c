//! What leaves.

use super::{Connection, Event, State, TransferError};
use crate::block::{Block, DATA_BLOCK_BYTES, ResetBy, encode_ack};
use crate::header::{HEADER_BYTES, Header};
use crate::limits::{CONTENTS_MAX, FRAME_DATA_MAX, PIECE_MIN};
use crate::outbox::{Piece, Transfer, TransferId};
use crate::protect::Part;
use crate::regions::Regions;
use crate::sent::{Content, Contents, Packet};
use crate::time::Time;
use crate::wire::Writer;

/// What goes into a frame.
#[derive(Default)]
struct Plan {
    control_len: usize,
    data_len: usize,
    acks: bool,
    asks: bool,
    tries_mtu: bool,
    contents: Contents,
    pieces: [Option<(Piece, Transfer)>; CONTENTS_MAX],
}

impl Connection {
    /// Writes the next frame to the front of `out` and returns its length; `None` when there is
    /// nothing to send at `now`. `out` should hold `mtu_max` bytes.
    pub fn poll_transmit(
        &mut self,
        now: Time,
        regions: &mut impl Regions,
        out: &mut [u8],
    ) -> Option<usize> {
        if self.state == State::Open {
            self.expire(now);
        }
        loop {
            let plan = match self.state {
                State::Ended(_) => return None,
                State::Closing => self.plan_close(out)?,
                State::Open => {
                    self.outbox.submit(regions);
                    self.plan(now, out)?
                }
            };
            match self.fill(&plan, regions, out) {
                Ok(len) => {
                    self.on_transmitted(&plan, len?, now);
                    return len;
                }
                Err(failed) => self.unplan(&plan, failed),
            }
        }
    }

    fn plan_close(&mut self, out: &mut [u8]) -> Option<Plan> {
        self.state = State::Ended(super::ConnectionError::Closed);
        let mut to = Writer::new(out.get_mut(HEADER_BYTES..)?);
        Block::Close.encode(&mut to);
        Some(Plan {
            control_len: to.len(),
            ..Plan::default()
        })
    }

    fn plan(&mut self, now: Time, out: &mut [u8]) -> Option<Plan> {
        let tag = self.seal.tag_len();
        let ack_due = self.ack_at.is_some_and(|at| at <= now) || self.credit_news();
        let may_send = self.may_send(now);
        if !ack_due && !may_send {
            return None;
        }
        if may_send && let Some(size) = self.mtu_to_try(out.len()) {
            return self.plan_mtu_probe(size, out);
        }
        let size = self.mtu.confirmed().min(out.len());
        let mut to = Writer::new(out.get_mut(HEADER_BYTES..size.checked_sub(tag)?)?);
        let mut plan = Plan::default();
        if ack_due || self.unacked > 0 {
            plan.acks = self.write_ack(now, &mut to);
        }
        if may_send {
            self.write_urgent(&mut plan, &mut to);
            self.write_messages(&mut plan, &mut to);
            self.write_data(&mut plan, &mut to);
            let idle_probe = self.probes > 0 && plan.contents.iter().next().is_none();
            if self.ping || idle_probe {
                plan.asks |= Block::Ping.encode(&mut to);
            }
        }
        plan.control_len = to.len();
        // An acknowledgement that can wait does not go alone.
        (plan.asks || (plan.acks && ack_due)).then_some(plan)
    }

    /// Whether window, pace and the ring have room for a frame; notes when the pace will.
    fn may_send(&mut self, now: Time) -> bool {
        self.wake = None;
        if self.probes > 0 || self.ping {
            return self.sent.has_room(true);
        }
        let window = self.sent.bytes() + self.mtu.confirmed() as u64 <= self.control.window();
        if !self.sent.has_room(false) || !window {
            return false;
        }
        let pace = self.control.pace(&self.rtt);
        self.pacer.fill(now, pace);
        let mut opens = if self.pacer.is_open() {
            None
        } else {
            Some(self.pacer.opens_at(pace))
        };
        if let Some(limit) = self.config.bandwidth_max {
            self.limiter.fill(now, limit);
            if !self.limiter.is_open() {
                opens = opens.max(Some(self.limiter.opens_at(limit)));
            }
        }
        let something = self.outbox.has_active()
            || !self.repeats.is_empty()
            || !self.urgent.is_empty()
            || self.messages_out.to_send().is_some();
        if something {
            self.wake = opens;
        }
        opens.is_none()
    }

    fn mtu_to_try(&self, room: usize) -> Option<usize> {
        // Not before the peer is known to be there, and not while it is silent.
        let known = self.peer_credit_from.is_some() && self.probe_timeouts == 0;
        self.mtu.to_probe().filter(|&size| known && size <= room)
    }

    fn plan_mtu_probe(&mut self, size: usize, out: &mut [u8]) -> Option<Plan> {
        let end = size.checked_sub(self.seal.tag_len())?;
        let mut to = Writer::new(out.get_mut(HEADER_BYTES..end)?);
        let padding = to.room().checked_sub(3)?;
        Block::Padding(u16::try_from(padding).ok()?).encode(&mut to);
        self.mtu.on_probe_sent();
        Some(Plan {
            control_len: to.len(),
            asks: true,
            tries_mtu: true,
            ..Plan::default()
        })
    }

    fn write_ack(&mut self, now: Time, to: &mut Writer<'_>) -> bool {
        let delay = now.since(self.largest_at).as_micros();
        let delay = u32::try_from(delay).unwrap_or(u32::MAX);
        encode_ack(
            to,
            delay,
            self.credit(),
            self.messages_in.limit(),
            self.seen.descending(),
        )
    }

    fn write_urgent(&mut self, plan: &mut Plan, to: &mut Writer<'_>) {
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

    fn write_messages(&mut self, plan: &mut Plan, to: &mut Writer<'_>) {
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
    fn write_data(&mut self, plan: &mut Plan, to: &mut Writer<'_>) {
        while !plan.contents.is_full() {
            let room = self.data_room(plan, to);
            let Some((piece, transfer)) = self.next_piece(room) else {
                return;
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
            };
            if let Some(place) = plan.pieces.iter_mut().find(|place| place.is_none()) {
                *place = Some((piece, transfer));
            }
            plan.contents.push(content);
            plan.data_len += piece.len;
            plan.asks = true;
        }
    }

    fn data_room(&self, plan: &Plan, to: &Writer<'_>) -> usize {
        let taken = plan.data_len + DATA_BLOCK_BYTES + self.seal.tag_len();
        let frame = to.room().saturating_sub(taken);
        let unused = self.peer_credit.saturating_sub(self.sent.data_bytes());
        let credit = usize::try_from(unused)
            .unwrap_or(usize::MAX)
            .saturating_sub(plan.data_len);
        frame.min(FRAME_DATA_MAX - plan.data_len).min(credit)
    }

    fn next_piece(&mut self, room: usize) -> Option<(Piece, Transfer)> {
        while let Some(content) = self.repeats.pop_front() {
            let Content::Data {
                slot,
                serial,
                offset,
                len,
            } = content
            else {
                continue;
            };
            let id = TransferId { slot, serial };
            let Some(transfer) = self.outbox.transfer(id) else {
                continue;
            };
            let wanted = len as usize;
            if room < wanted.min(PIECE_MIN) {
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
                });
            }
            self.counters.bytes_repeated += taken as u64;
            return Some((
                Piece {
                    id,
                    offset,
                    len: taken,
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

    /// Reads the sources, seals the frame and returns its length; or names the transfer whose
    /// source is gone.
    fn fill(
        &mut self,
        plan: &Plan,
        regions: &mut impl Regions,
        out: &mut [u8],
    ) -> Result<Option<usize>, TransferId> {
        let tag = self.seal.tag_len();
        let mut at = HEADER_BYTES + plan.control_len + tag;
        for (piece, transfer) in plan.pieces.iter().flatten() {
            let Some(into) = out.get_mut(at..at + piece.len) else {
                return Ok(None);
            };
            let offset = transfer.source_offset + piece.offset;
            regions
                .read(transfer.source, offset, into)
                .map_err(|_gone| piece.id)?;
            at += piece.len;
        }
        Ok(self.seal_frame(plan, out))
    }

    fn seal_frame(&mut self, plan: &Plan, out: &mut [u8]) -> Option<usize> {
        let (number, tag) = (self.sent.next_number(), self.seal.tag_len());
        let header = Header {
            connection: self.config.id,
            epoch: self.config.epoch,
            packet_number: number,
            sealed: self.seal.is_sealed(),
            sender: self.config.role,
            control_len: u16::try_from(plan.control_len).ok()?,
            data_len: u16::try_from(plan.data_len).ok()?,
        };
        let (head, rest) = out.split_first_chunk_mut::<HEADER_BYTES>()?;
        header.encode(head);
        let (control, rest) = rest.split_at_mut_checked(plan.control_len)?;
        let (control_tag, rest) = rest.split_at_mut_checked(tag)?;
        self.seal.reached(number);
        self.seal
            .seal(Part::Header, number, head, control, control_tag)?;
        let mut len = HEADER_BYTES + plan.control_len + tag;
        if plan.data_len > 0 {
            let (data, rest) = rest.split_at_mut_checked(plan.data_len)?;
            self.seal.seal(Part::Data, number, head, data, rest)?;
            len += plan.data_len + tag;
        }
        Some(len)
    }

    fn on_transmitted(&mut self, plan: &Plan, len: usize, now: Time) {
        self.counters.frames_sent += 1;
        self.counters.bytes_sent += len as u64;
        if plan.acks {
            (self.unacked, self.ack_at) = (0, None);
            self.advertised_credit = self.credit();
            self.advertised_messages = self.messages_in.limit();
        }
        if !plan.asks {
            self.sent.push(None);
            return;
        }
        // A frame is shorter than 64 KiB.
        let bytes = len as u32;
        self.sent
            .push(Some(Packet::new(now, bytes, plan.tries_mtu, plan.contents)));
        self.pacer.take(len as u64);
        self.limiter.take(len as u64);
        self.probes = self.probes.saturating_sub(1);
        self.ping &= plan.tries_mtu;
        self.last_asked = now;
        self.probe_base = now;
        self.waiting_since = self.waiting_since.or(Some(now));
    }

    /// The frame did not come about, as `failed` can't be read: that transfer ends, the rest of the
    /// frame is sent later.
    fn unplan(&mut self, plan: &Plan, failed: TransferId) {
        for content in plan.contents.iter().rev() {
            match content {
                Content::Data { .. } => self.repeats.push_front(content),
                Content::Message { .. } | Content::Reset { .. } => self.urgent.push_front(content),
            }
        }
        if let Some(transfer) = self.outbox.remove(failed) {
            self.push_event(Event::SendFailed(failed, TransferError::SourceGone));
            self.fail_transfers_of(transfer.grant, TransferError::SourceGone);
            self.push_reset(transfer.grant, ResetBy::Sender);
        }
    }
}
