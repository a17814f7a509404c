//! What leaves.

use super::frame::Frame;
use super::plan::Plan;
use super::{Connection, State, Touched};
use crate::ack::encode_ack;
use crate::block::Block;
use crate::content::Content;
use crate::error::{ConnectionError, TransferError};
use crate::header::HEADER_BYTES;
use crate::outbox::TransferId;
use crate::regions::Regions;
use crate::sent::Packet;
use crate::split::SplitTransmit;
use crate::time::Time;
use crate::wire::Writer;

impl Connection {
    /// Writes the next frame to the front of `out` and returns its length; `None` when there is
    /// nothing to send at `now`. `out` should hold `mtu_max` bytes.
    pub fn poll_transmit(
        &mut self,
        now: Time,
        regions: &mut impl Regions,
        out: &mut [u8],
    ) -> Option<usize> {
        self.transmit(now, regions, out, false)
            .map(|frame| frame.len)
    }

    /// Like [`poll_transmit`](Self::poll_transmit), but writes only the head of a frame and names
    /// its data, where the link is checksummed, [`Regions::crc`] can sum them, and they are worth
    /// it; else they are copied behind the head. So `head` should hold `mtu_max` bytes all the
    /// same. The two ways may be mixed.
    ///
    /// The driver keeps the named memory until the frame has left: the transfer may end before that,
    /// when an earlier frame with the same bytes arrived, or it is cancelled.
    pub fn poll_transmit_split(
        &mut self,
        now: Time,
        regions: &mut impl Regions,
        head: &mut [u8],
    ) -> Option<SplitTransmit> {
        let frame = self.transmit(now, regions, head, true)?;
        Some(SplitTransmit {
            connection: self.config.id,
            peer: self.config.peer,
            head_len: frame.len,
            spans: frame.spans,
        })
    }

    fn transmit(
        &mut self,
        now: Time,
        regions: &mut impl Regions,
        out: &mut [u8],
        split: bool,
    ) -> Option<Frame> {
        if self.state == State::Open && self.touched != Touched::Sent(now) {
            self.expire(now);
        }
        self.touched = Touched::Sent(now);
        loop {
            // Filled in place: it is too large to be moved for each frame.
            let mut plan = Plan::default();
            match self.state {
                State::Ended(_) => return None,
                State::Closing => self.plan_close(out, &mut plan)?,
                State::Open => {
                    self.outbox.submit(regions);
                    self.plan(now, out, &mut plan)?;
                }
            }
            match self.fill(&plan, regions, out, split) {
                Ok(frame) => {
                    let frame = frame?;
                    self.on_transmitted(&plan, &frame, now);
                    return Some(frame);
                }
                Err(failed) => self.unplan(&plan, failed),
            }
        }
    }

    fn plan_close(&mut self, out: &mut [u8], plan: &mut Plan) -> Option<()> {
        self.state = State::Ended(ConnectionError::Closed);
        let mut to = Writer::new(out.get_mut(HEADER_BYTES..)?);
        Block::Close.encode(&mut to);
        plan.control_len = to.len();
        Some(())
    }

    /// `None` when there is nothing to send.
    fn plan(&mut self, now: Time, out: &mut [u8], plan: &mut Plan) -> Option<()> {
        let tag = self.seal.tag_len();
        let ack_due = self.ack_at.is_some_and(|at| at <= now)
            || self.credit_news()
            || !self.damaged.is_empty();
        let may_send = self.may_send(now);
        if !ack_due && !may_send {
            return None;
        }
        if may_send && let Some(size) = self.mtu_to_try(out.len()) {
            return self.plan_mtu_probe(size, out, plan);
        }
        let size = self.mtu.confirmed().min(out.len());
        let mut to = Writer::new(out.get_mut(HEADER_BYTES..size.checked_sub(tag)?)?);
        if ack_due || self.unacked > 0 {
            plan.acks = self.write_ack(now, &mut to);
        }
        let reports = self.write_damaged(&mut to);
        if may_send {
            self.write_urgent(plan, &mut to);
            self.write_messages(plan, &mut to);
            self.write_data(plan, &mut to);
            let idle_probe = self.probes > 0 && plan.contents.iter().next().is_none();
            if self.ping || idle_probe {
                plan.asks |= Block::Ping.encode(&mut to);
            }
        }
        plan.control_len = to.len();
        // An acknowledgement that can wait does not go alone.
        (plan.asks || reports || (plan.acks && ack_due)).then_some(())
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
        let mut opens = None;
        if self.pacer.is_before(now) || !self.pacer.is_open() {
            let pace = self.control.pace(&self.rtt);
            self.pacer.fill(now, pace);
            if !self.pacer.is_open() {
                opens = Some(self.pacer.opens_at(pace));
            }
        }
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

    fn plan_mtu_probe(&mut self, size: usize, out: &mut [u8], plan: &mut Plan) -> Option<()> {
        let end = size.checked_sub(self.seal.tag_len())?;
        let mut to = Writer::new(out.get_mut(HEADER_BYTES..end)?);
        let padding = to.room().checked_sub(3)?;
        Block::Padding(u16::try_from(padding).ok()?).encode(&mut to);
        self.mtu.on_probe_sent();
        plan.control_len = to.len();
        (plan.asks, plan.tries_mtu) = (true, true);
        Some(())
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

    fn write_damaged(&mut self, to: &mut Writer<'_>) -> bool {
        let mut written = false;
        while let Some(&number) = self.damaged.front()
            && (Block::Damaged { number }).encode(to)
        {
            self.damaged.pop_front();
            written = true;
        }
        written
    }

    fn on_transmitted(&mut self, plan: &Plan, frame: &Frame, now: Time) {
        let len = frame.len as u64 + frame.spans.bytes();
        self.counters.frames_sent += 1;
        self.counters.bytes_sent += len;
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
        let mut packet = Packet::new(now, len as u32, plan.contents);
        packet.tries_mtu = plan.tries_mtu;
        packet.by_reference = frame.spans.bytes() > 0;
        self.sent.push(Some(packet));
        self.pacer.take(len);
        self.limiter.take(len);
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
        self.fail_transfer(failed, TransferError::SourceGone);
    }
}
