//! Frames whose data lie in device memory: the CPU reads the head, a device checks the data.

use super::receive::asks;
use super::{Connection, Credit, Event, State, Touched};
use crate::block::{Block, Blocks, Grant, ResetBy};
use crate::checksum::CHECKSUM_BYTES;
use crate::drops::DropReason;
use crate::error::TransferError;
use crate::grants::{Ending, Verified};
use crate::header::Header;
use crate::payload::{DeviceData, PayloadRef, PayloadToken, Unverified};
use crate::pending::{Part, Waiting};
use crate::regions::Regions;
use crate::time::Time;

impl Connection {
    /// Takes a frame of a checksummed link whose data are in device memory: `head` is all that is
    /// before them. The data are ordered to their regions by [`Regions::place_remote`], and count
    /// as arrived when [`verified`](Self::verified) says that they fit: until then they are not
    /// acknowledged, and no grant ends with them. `None`: there is nothing to verify.
    ///
    /// Frames that the CPU can read may come by [`handle`](Self::handle) at the same time.
    ///
    /// # Errors
    /// [`DropReason`]; the driver forgets what it was ordered for this frame.
    pub fn handle_split(
        &mut self,
        head: &mut [u8],
        data: DeviceData,
        now: Time,
        regions: &mut impl Regions,
    ) -> Result<Option<Unverified>, DropReason> {
        self.touched = Touched::Yes;
        let result = self.accept_split(head, data, now, regions);
        match result {
            Ok(None) => self.counters.frames_received += 1,
            Ok(Some(_)) => {}
            Err(reason) => self.drops.count(reason),
        }
        result
    }

    fn accept_split(
        &mut self,
        head: &mut [u8],
        data: DeviceData,
        now: Time,
        regions: &mut impl Regions,
    ) -> Result<Option<Unverified>, DropReason> {
        let header = Header::parse(head)?;
        if header.sealed {
            return Err(DropReason::SealedSplit);
        }
        let (number, len) = (header.packet_number, usize::from(header.data_len));
        if len == 0 {
            return self.accept(head, now, regions).map(|()| None);
        }
        let parts = self.open_head(&header, head)?;
        let tag = parts.data_tag.first_chunk::<CHECKSUM_BYTES>();
        let crc = u32::from_be_bytes(*tag.ok_or(DropReason::Truncated)?);
        if len > data.len {
            return Err(DropReason::Truncated);
        }
        let blocks = Blocks::parse(parts.control, len).ok_or(DropReason::Malformed)?;
        self.take_news(blocks.clone(), number, now)?;
        self.check_room(blocks.clone())?;
        let Some(token) = self.pending.next_token() else {
            return Err(DropReason::UnverifiedFull);
        };
        let mut waiting = Waiting::new(number, asks(&blocks));
        let mut from = PayloadRef {
            token,
            handle: data.handle,
            offset: 0,
            len: 0,
        };
        for block in blocks.clone() {
            match block {
                Block::Data { grant, offset, len } => {
                    from.len = u64::from(len);
                    self.order(grant, offset, from, &mut waiting, regions);
                    from.offset += from.len;
                }
                Block::Close => {}
                _ => self.take_inline(block),
            }
        }
        let waits = waiting.parts().next().is_some();
        if waits {
            self.pending.insert(token, waiting);
        }
        // Only now, so that the end finds what waits.
        for block in blocks.filter(|block| *block == Block::Close) {
            self.take_inline(block);
        }
        if waits {
            return Ok(Some(Unverified { token, len, crc }));
        }
        if waiting.spoiled {
            return Err(DropReason::RegionFailed);
        }
        self.remember(number, waiting.asks, now);
        Ok(None)
    }

    /// Orders what is new of a piece to its region.
    fn order(
        &mut self,
        grant: Grant,
        offset: u64,
        piece: PayloadRef,
        waiting: &mut Waiting,
        regions: &mut impl Regions,
    ) {
        if !self.may_place(grant, offset, piece.len) {
            return;
        }
        let (mut at, end) = (offset, offset + piece.len);
        while let Some((low, high)) = self.grants.missing(grant, at, end) {
            if low > at {
                self.drops.count(DropReason::DuplicateBytes);
            }
            if waiting.is_full() || !self.grants.claim(grant, low, high) {
                self.drops.count(DropReason::UnverifiedFull);
                waiting.spoiled = true;
                return;
            }
            let from = PayloadRef {
                offset: piece.offset + (low - offset),
                len: high - low,
                ..piece
            };
            if regions.place_remote(grant.region, low, from).is_err() {
                waiting.spoiled = true;
                self.grants.spoil(grant);
                self.settle(grant, low, high, false);
                self.fail_grant(grant, TransferError::RegionGone);
                return;
            }
            let end = high;
            waiting.push(Part { grant, low, end });
            at = high;
        }
    }

    /// The driver has checked the data of a frame: `fits` says that their sum is as it should be,
    /// and that they are in their regions. Else they are not, and come again. `false`: the token is
    /// of no frame that waits.
    pub fn verified(&mut self, token: PayloadToken, fits: bool, now: Time) -> bool {
        let Some(waiting) = self.pending.take(token) else {
            return false;
        };
        self.touched = Touched::Yes;
        let mut placed = fits && !waiting.spoiled;
        for Part { grant, low, end } in waiting.parts() {
            placed &= self.settle(grant, low, end, fits);
        }
        if self.state != State::Open {
            self.end_late();
        } else if placed {
            self.counters.frames_received += 1;
            self.remember(waiting.number, waiting.asks, now);
        } else if !fits {
            self.drops.count(DropReason::BadDataTag);
            self.on_damaged(waiting.number);
        }
        true
    }

    /// `true` when the part is in an open grant.
    fn settle(&mut self, grant: Grant, low: u64, end: u64, fits: bool) -> bool {
        let verified = self.grants.verified(grant, low, end, fits);
        match verified {
            Verified::Placed | Verified::Whole => {
                self.counters.bytes_placed += end - low;
                if self.config.credit_when == Credit::WhenReleased {
                    self.held += end - low;
                }
                if verified == Verified::Whole {
                    self.push_event(Event::Received(grant));
                }
                true
            }
            Verified::Again | Verified::Ended => false,
            Verified::Last(error) => {
                self.push_event(Event::ReceiveFailed(grant, error));
                false
            }
        }
    }

    /// Ends a grant that is not whole; the program is told once nothing more is written.
    pub(super) fn end_grant(&mut self, grant: Grant, error: TransferError) -> bool {
        let ending = self.grants.end(grant, error);
        if ending == Ending::Now {
            self.push_event(Event::ReceiveFailed(grant, error));
        }
        ending != Ending::Before
    }

    /// Ends a grant that is not whole, and tells the sender.
    pub(super) fn fail_grant(&mut self, grant: Grant, error: TransferError) {
        if self.end_grant(grant, error) {
            self.grants.spoil(grant);
            self.push_reset(grant, ResetBy::Receiver);
        }
    }

    /// The end comes last: after what was being verified.
    pub(super) fn end_late(&mut self) {
        if self.pending.is_empty()
            && let Some(error) = self.ending.take()
        {
            self.push_event(Event::Ended(error));
        }
    }
}
