//! What arrives.

use super::{Connection, Credit, Event, State, Touched};
use crate::block::{Block, Blocks, Grant, ResetBy};
use crate::drops::DropReason;
use crate::error::{ConnectionError, TransferError};
use crate::header::{HEADER_BYTES, Header};
use crate::limits::{ACK_EVERY, DAMAGED_MAX, REFUSALS_MAX};
use crate::regions::Regions;
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
        self.touched = Touched::Yes;
        let result = self.accept(frame, now, regions);
        match result {
            Ok(()) => self.counters.frames_received += 1,
            Err(reason) => self.drops.count(reason),
        }
        result
    }

    pub(super) fn accept(
        &mut self,
        frame: &mut [u8],
        now: Time,
        regions: &mut impl Regions,
    ) -> Result<(), DropReason> {
        let header = Header::parse(frame)?;
        let parts = self.open_head(&header, frame)?;
        let data_len = usize::from(header.data_len);
        let data = parts.rest.get_mut(..data_len);
        let data = data.ok_or(DropReason::Truncated)?;
        let number = header.packet_number;
        if data_len > 0 {
            let opened = self
                .open
                .open_data(number, parts.fixed, data, parts.data_tag);
            if let Err(reason) = opened {
                self.on_damaged(number);
                return Err(reason);
            }
        }
        let blocks = Blocks::parse(parts.control, data_len).ok_or(DropReason::Malformed)?;
        self.take_news(blocks.clone(), number, now)?;
        self.check_room(blocks.clone())?;
        let mut data = &*data;
        for block in blocks.clone() {
            match block {
                Block::Data { grant, offset, len } => {
                    let Some((piece, rest)) = data.split_at_checked(usize::from(len)) else {
                        return Err(DropReason::Malformed);
                    };
                    data = rest;
                    self.place(grant, offset, piece, regions)?;
                }
                _ => self.take_inline(block),
            }
        }
        // Only now: an acknowledgement says that the bytes are in their regions.
        self.remember(number, asks(&blocks), now);
        Ok(())
    }

    /// Finds the parts of a frame, and opens all but its data.
    pub(super) fn open_head<'a>(
        &mut self,
        header: &Header,
        frame: &'a mut [u8],
    ) -> Result<Parts<'a>, DropReason> {
        self.check_header(header)?;
        let tag = self.open.tag_len();
        let control_len = usize::from(header.control_len);
        let data_tag_len = if header.data_len == 0 { 0 } else { tag };
        let split = |bytes: &'a mut [u8], at| {
            let halves = bytes.split_at_mut_checked(at);
            halves.ok_or(DropReason::Truncated)
        };
        let (head, rest) = split(frame, HEADER_BYTES + control_len + data_tag_len)?;
        let (head_tag, rest) = split(rest, tag)?;
        let number = header.packet_number;
        self.open.open_head(number, head, head_tag)?;
        if number < self.seen_floor {
            return Err(DropReason::TooOld);
        }
        if self.seen.contains(number) {
            return Err(DropReason::Replay);
        }
        let (fixed, body) = split(head, HEADER_BYTES)?;
        let (control, data_tag) = split(body, control_len)?;
        Ok(Parts {
            fixed,
            control,
            data_tag,
            rest,
        })
    }

    /// What is true of an authentic frame, whether there is room for the rest or not. An end that
    /// the peer declared must be known before what it acknowledges.
    pub(super) fn take_news(
        &mut self,
        blocks: Blocks<'_>,
        number: u64,
        now: Time,
    ) -> Result<(), DropReason> {
        self.open.reached(number);
        self.last_heard = now;
        for block in blocks {
            match block {
                Block::Reset { grant, by } => self.on_reset(grant, by),
                Block::Ack(ack) => self.on_ack(&ack, number, now)?,
                Block::Damaged { number } => self.on_damage_report(number),
                _ => {}
            }
        }
        Ok(())
    }

    /// Takes what lies in the control itself.
    pub(super) fn take_inline(&mut self, block: Block<'_>) {
        match block {
            Block::Message { sequence, bytes } => {
                if let Err(reason) = self.messages_in.take(sequence, bytes) {
                    self.drops.count(reason);
                }
            }
            Block::Close if self.state == State::Open => self.end(ConnectionError::PeerClosed),
            _ => {}
        }
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
    pub(super) fn check_room(&mut self, blocks: Blocks<'_>) -> Result<(), DropReason> {
        let mut new_bytes = 0;
        for block in blocks {
            match block {
                Block::Data { grant, offset, len } => {
                    let len = u64::from(len);
                    match self.grants.check(grant, offset, len) {
                        Ok(()) => new_bytes += len,
                        Err(reason @ (DropReason::HolesFull | DropReason::Revoked)) => {
                            return Err(reason);
                        }
                        Err(DropReason::DuplicateBytes) => {}
                        Err(_) => continue,
                    }
                    if self.waits(grant, offset, offset + len) {
                        return Err(DropReason::UnverifiedBytes);
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

    /// Some of these bytes are here and not yet verified.
    fn waits(&mut self, grant: Grant, low: u64, end: u64) -> bool {
        !self.pending.is_empty()
            && self.grants.is_unverified(grant)
            && self.grants.missing(grant, low, end) != Some((low, end))
            && self.pending.overlaps(grant, low, end)
    }

    /// The packet counts as arrived from here on.
    pub(super) fn remember(&mut self, number: u64, asks: bool, now: Time) {
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
        if !asks {
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

    /// Whether a piece has a place; if not, that is counted, and a confused peer told.
    pub(super) fn may_place(&mut self, grant: Grant, offset: u64, len: u64) -> bool {
        let Err(reason) = self.grants.check(grant, offset, len) else {
            return true;
        };
        self.drops.count(reason);
        let refused = matches!(
            reason,
            DropReason::UnknownGrant | DropReason::WrongRegion | DropReason::OutOfBounds
        );
        if refused && self.urgent.len() < REFUSALS_MAX {
            self.push_reset(grant, ResetBy::Receiver);
        }
        false
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
        if !self.may_place(grant, offset, piece.len() as u64) {
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
                if done {
                    let error = TransferError::RegionGone;
                    self.push_event(Event::ReceiveFailed(grant, error));
                    self.push_reset(grant, ResetBy::Receiver);
                } else {
                    self.fail_grant(grant, TransferError::RegionGone);
                }
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

    /// A good head with bad data: the sender repeats it at once, and finds out if the source is to
    /// blame.
    pub(super) fn on_damaged(&mut self, number: u64) {
        if self.damaged.len() < DAMAGED_MAX && !self.damaged.contains(&number) {
            self.damaged.push_back(number);
        }
    }

    fn on_reset(&mut self, grant: Grant, by: ResetBy) {
        match by {
            ResetBy::Sender => {
                self.end_grant(grant, TransferError::PeerCancelled);
            }
            ResetBy::Receiver => self.fail_transfers_of(grant, TransferError::PeerCancelled),
        }
    }
}

/// A frame whose head was opened.
pub(super) struct Parts<'a> {
    pub(super) fixed: &'a [u8],
    pub(super) control: &'a [u8],
    pub(super) data_tag: &'a [u8],
    pub(super) rest: &'a mut [u8],
}

/// The peer has to be told that it arrived.
pub(super) fn asks(blocks: &Blocks<'_>) -> bool {
    blocks.clone().any(|block| block.elicits_ack())
}
