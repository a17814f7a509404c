//! What arrives.

use std::time::Duration;

use super::{Connection, ConnectionError, Credit, Event, State, TransferError};
use crate::block::{Ack, Block, Blocks, Grant, ResetBy};
use crate::drops::DropReason;
use crate::header::{HEADER_BYTES, Header};
use crate::limits::{ACK_EVERY, REFUSALS_MAX};
use crate::outbox::TransferId;
use crate::protect::Part;
use crate::regions::Regions;
use crate::sent::Content;
use crate::time::Time;

impl Connection {
    /// Takes a frame, and opens it in place. `Err` says why it was dropped; it was counted, and it
    /// changed nothing but, where it was authentic, what it acknowledged.
    ///
    /// # Errors
    /// [`DropReason`]
    pub fn handle(
        &mut self,
        frame: &mut [u8],
        now: Time,
        regions: &mut impl Regions,
    ) -> Result<(), DropReason> {
        let result = self.accept(frame, now, regions);
        match result {
            Ok(()) => self.counters.frames_received += 1,
            Err(reason) => self.drops.count(reason),
        }
        result
    }

    fn accept(
        &mut self,
        frame: &mut [u8],
        now: Time,
        regions: &mut impl Regions,
    ) -> Result<(), DropReason> {
        let header = Header::parse(frame)?;
        self.check_header(&header)?;
        let number = header.packet_number;
        let (control_len, data_len) = (
            usize::from(header.control_len),
            usize::from(header.data_len),
        );
        let tag = self.open.tag_len();

        let (head, rest) = frame
            .split_at_mut_checked(HEADER_BYTES)
            .ok_or(DropReason::Truncated)?;
        let (control, rest) = rest
            .split_at_mut_checked(control_len + tag)
            .ok_or(DropReason::Truncated)?;
        let protected_len = if data_len == 0 { 0 } else { data_len + tag };
        let data = rest.get_mut(..protected_len).ok_or(DropReason::Truncated)?;
        self.open.open(Part::Header, number, head, control)?;
        if number < self.seen_floor {
            return Err(DropReason::TooOld);
        }
        if self.seen.contains(number) {
            return Err(DropReason::Replay);
        }
        if data_len > 0 {
            self.open.open(Part::Data, number, head, data)?;
        }
        let control = control.get(..control_len).ok_or(DropReason::Truncated)?;
        let data = data.get(..data_len).ok_or(DropReason::Truncated)?;
        let blocks = Blocks::parse(control, data_len).ok_or(DropReason::Malformed)?;

        self.open.reached(number);
        self.last_heard = now;
        // Before anything else: an end that the peer declared must be known before what it
        // acknowledges, and neither depends on whether there is room for the rest.
        for block in blocks.clone() {
            match block {
                Block::Reset { grant, by } => self.on_reset(grant, by),
                Block::Ack(ack) => self.on_ack(&ack, number, now)?,
                _ => {}
            }
        }
        self.check_room(blocks.clone())?;
        let mut data = data;
        for block in blocks.clone() {
            match block {
                Block::Data { grant, offset, len } => {
                    let Some((piece, rest)) = data.split_at_checked(usize::from(len)) else {
                        return Err(DropReason::Malformed);
                    };
                    data = rest;
                    self.place(grant, offset, piece, regions)?;
                }
                Block::Message { sequence, bytes } => {
                    if let Err(reason) = self.messages_in.take(sequence, bytes) {
                        self.drops.count(reason);
                    }
                }
                Block::Close => {
                    self.end(ConnectionError::PeerClosed);
                    return Ok(());
                }
                Block::Ack(_) | Block::Reset { .. } | Block::Ping | Block::Padding(_) => {}
            }
        }
        // Only now: an acknowledgement says that the bytes are in their regions.
        self.remember(number, &blocks, now);
        Ok(())
    }

    fn check_header(&self, header: &Header) -> Result<(), DropReason> {
        if header.connection != self.config.id {
            return Err(DropReason::UnknownConnection);
        }
        if header.epoch < self.config.epoch {
            return Err(DropReason::StaleEpoch);
        }
        if header.epoch > self.config.epoch {
            return Err(DropReason::FutureEpoch);
        }
        if header.sender == self.config.role {
            return Err(DropReason::Reflected);
        }
        if header.sealed != self.open.is_sealed() {
            return Err(DropReason::WrongProtection);
        }
        if self.state != State::Open {
            return Err(DropReason::Closed);
        }
        Ok(())
    }

    /// Looks for what forbids to take the frame as a whole: it must then not be acknowledged, so
    /// that the sender repeats it.
    fn check_room(&mut self, blocks: Blocks<'_>) -> Result<(), DropReason> {
        let mut new_bytes = 0;
        for block in blocks {
            match block {
                Block::Data { grant, offset, len } => {
                    match self.grants.check(grant, offset, u64::from(len)) {
                        Ok(()) => new_bytes += u64::from(len),
                        Err(reason @ (DropReason::HolesFull | DropReason::Revoked)) => {
                            return Err(reason);
                        }
                        Err(_) => {}
                    }
                }
                Block::Message { sequence, .. } if sequence >= self.messages_in.limit() => {
                    return Err(DropReason::MessageOverrun);
                }
                _ => {}
            }
        }
        if new_bytes > self.credit() {
            Err(DropReason::CreditOverrun)
        } else {
            Ok(())
        }
    }

    /// The packet counts as arrived from here on.
    fn remember(&mut self, number: u64, blocks: &Blocks<'_>, now: Time) {
        let expected = self.seen.last().map_or(self.seen_floor, |(_, end)| end);
        if self.seen.insert(number, number.saturating_add(1)).is_err() {
            if let Some((_, end)) = self.seen.remove_lowest() {
                self.seen_floor = end;
            }
            // There is room now; a number below the new floor is remembered by the floor.
            if number >= self.seen_floor {
                let _now_fits = self.seen.insert(number, number.saturating_add(1));
            }
        }
        if number >= expected {
            self.largest_at = now;
        }
        if !blocks.clone().any(|block| block.elicits_ack()) {
            return;
        }
        self.unacked += 1;
        let at_once = self.unacked >= ACK_EVERY || number != expected;
        let due = if at_once {
            now
        } else {
            now.after(self.config.ack_delay)
        };
        self.ack_at = Some(self.ack_at.map_or(due, |at| at.min(due)));
    }

    /// Writes what is new of a piece. `Err` when the region failed: the frame is not acknowledged.
    fn place(
        &mut self,
        grant: Grant,
        offset: u64,
        piece: &[u8],
        regions: &mut impl Regions,
    ) -> Result<(), DropReason> {
        let end = offset.saturating_add(piece.len() as u64);
        if let Err(reason) = self.grants.check(grant, offset, piece.len() as u64) {
            self.drops.count(reason);
            let refused = matches!(
                reason,
                DropReason::UnknownGrant | DropReason::WrongRegion | DropReason::OutOfBounds
            );
            if refused && self.urgent.len() < REFUSALS_MAX {
                self.push_reset(grant, ResetBy::Receiver);
            }
            return Ok(());
        }
        let mut from = offset;
        while let Some((low, high)) = self.grants.missing(grant, from, end) {
            if low > from {
                self.drops.count(DropReason::DuplicateBytes);
            }
            let (first, last) = ((low - offset) as usize, (high - offset) as usize);
            let bytes = piece.get(first..last).ok_or(DropReason::Malformed)?;
            let done = self
                .grants
                .take(grant, low, high)
                .ok_or(DropReason::HolesFull)?;
            if regions.write(grant.region, low, bytes).is_err() {
                self.grants.spoil(grant);
                self.push_event(Event::ReceiveFailed(grant, TransferError::RegionGone));
                self.push_reset(grant, ResetBy::Receiver);
                return Err(DropReason::RegionFailed);
            }
            self.counters.bytes_placed += high - low;
            if self.config.credit_when == Credit::WhenReleased {
                self.held += high - low;
            }
            if done {
                self.push_event(Event::Received(grant));
                break;
            }
            from = high;
        }
        Ok(())
    }

    fn on_reset(&mut self, grant: Grant, by: ResetBy) {
        match by {
            ResetBy::Sender => {
                if self.grants.close(grant) {
                    self.push_event(Event::ReceiveFailed(grant, TransferError::PeerCancelled));
                }
            }
            ResetBy::Receiver => self.fail_transfers_of(grant, TransferError::PeerCancelled),
        }
    }

    fn on_ack(&mut self, ack: &Ack<'_>, number: u64, now: Time) -> Result<(), DropReason> {
        if ack.largest >= self.sent.next_number() {
            return Err(DropReason::AckOfUnsent);
        }
        if self.peer_credit_from.is_none_or(|from| number > from) {
            self.peer_credit_from = Some(number);
            if self.peer_credit == 0 && ack.credit > 0 {
                self.persists = 0;
            }
            self.peer_credit = ack.credit;
        }
        self.messages_out.raise_limit(ack.message_limit);

        let (mut newest, mut bytes, mut given_up) = (None, 0, 0);
        for (low, high) in ack.ranges() {
            let Self {
                sent,
                outbox,
                messages_out,
                mtu,
                events,
                send_events,
                ..
            } = self;
            given_up += sent.ack(low, high, |number, packet| {
                newest = newest.max(Some((number, packet.sent)));
                bytes += u64::from(packet.bytes);
                if packet.tries_mtu {
                    mtu.on_probe_acked(packet.bytes as usize);
                }
                for content in packet.contents.iter() {
                    match content {
                        Content::Data {
                            slot, serial, len, ..
                        } => {
                            let id = TransferId { slot, serial };
                            if outbox.on_acked(id, u64::from(len)) {
                                *send_events += 1;
                                events.push_back(Event::Sent(id));
                            }
                        }
                        Content::Message { sequence } => messages_out.on_acked(sequence),
                        Content::Reset { .. } => {}
                    }
                }
            });
        }
        if given_up > 0 {
            self.counters.frames_late += u64::from(given_up);
            self.reordering.widen();
        }
        let Some((newest, sent_at)) = newest else {
            return Ok(());
        };
        if newest == ack.largest {
            let held = Duration::from_micros(u64::from(ack.delay_us));
            self.rtt
                .sample(now.since(sent_at), held.min(self.config.ack_delay * 2));
        }
        self.probe_timeouts = 0;
        self.waiting_since = (self.sent.packets() > 0).then_some(now);
        self.detect_losses(now);
        let round_ended = newest >= self.round_end;
        if round_ended {
            self.round_end = self.sent.next_number();
        }
        self.control.on_ack(now, bytes, &self.rtt, round_ended);
        self.sent.forget_before(Time(
            now.0
                .saturating_sub(4 * crate::time::nanos(self.rtt.smoothed())),
        ));
        Ok(())
    }
}
