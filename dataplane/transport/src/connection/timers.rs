//! What happens by itself as time passes.

use std::time::Duration;

use super::{Connection, State, Touched};
use crate::content::Content;
use crate::error::{ConnectionError, TransferError};
use crate::limits::{
    FRAME_DATA_MAX, KEEPALIVE, PEER_TIMEOUT, PROBE_INTERVAL_MAX, SOURCE_CHANGES_MAX,
};
use crate::outbox::TransferId;
use crate::sent::Packet;
use crate::time::Time;

/// After so many silent probe timeouts the window starts over.
const SILENCE: u32 = 3;

impl Connection {
    /// When to call `poll_transmit` again though nothing arrives; `None` when it ended.
    #[must_use]
    pub fn timeout(&self) -> Option<Time> {
        if self.state == State::Closing {
            return Some(Time::default());
        }
        self.alive().ok()?;
        if self.credit_news() || !self.damaged.is_empty() {
            return Some(Time::default());
        }
        let times = [
            self.ack_at,
            self.wake,
            self.loss_time().or_else(|| self.probe_time()),
            self.persist_time(),
            Some(self.keepalive_time()),
            Some(self.death_time().0),
        ];
        times.into_iter().flatten().min()
    }

    /// Ends the connection if its peer was silent for too long; true if it did.
    pub(crate) fn look_after_peer(&mut self, now: Time) -> bool {
        let (death, error) = self.death_time();
        let dies = self.state == State::Open && death <= now;
        if dies {
            self.touched = Touched::Yes;
            self.end(error);
        }
        dies
    }

    /// Does what is due.
    pub(super) fn expire(&mut self, now: Time) {
        if self.look_after_peer(now) {
            return;
        }
        self.mtu.on_time(now);
        self.detect_losses(now);
        if self.loss_time().is_none() && self.probe_time().is_some_and(|at| at <= now) {
            self.on_probe_timeout(now);
        }
        if self.persist_time().is_some_and(|at| at <= now) {
            self.persists += 1;
            self.probe_base = now;
            self.ping = true;
        }
        if self.keepalive_time() <= now {
            self.ping = true;
        }
    }

    /// Gives up the packets that RFC 9002, 6.1, takes for lost.
    pub(super) fn detect_losses(&mut self, now: Time) {
        let delay = self.rtt.loss_delay(self.reordering.eighths);
        while let Some(packet) = self.sent.next_lost(now, delay, self.reordering) {
            self.counters.frames_lost += 1;
            if !packet.tries_mtu {
                self.control.on_loss(now, u64::from(packet.bytes));
            }
            self.send_again(&packet);
        }
    }

    fn send_again(&mut self, packet: &Packet) {
        if packet.tries_mtu {
            self.mtu.on_probe_lost();
        }
        for content in packet.contents.iter() {
            match content {
                Content::Data { .. } => self.repeats.push_back(content),
                Content::Message { .. } | Content::Reset { .. } => self.urgent.push_back(content),
            }
        }
    }

    /// The peer got a packet whose data are not those that were summed. Where they were not copied,
    /// their source may be changing under us: a piece to which that happens again and again fails
    /// its transfer.
    pub(super) fn on_damage_report(&mut self, number: u64) {
        let Some(mut packet) = self.sent.take_damaged(number) else {
            return;
        };
        self.counters.frames_damaged += 1;
        let mut changing = None;
        if packet.by_reference {
            packet.contents.for_each_mut(|content| {
                if let Content::Data {
                    slot,
                    serial,
                    damaged,
                    ..
                } = content
                {
                    *damaged += 1;
                    if *damaged >= SOURCE_CHANGES_MAX {
                        let (slot, serial) = (*slot, *serial);
                        changing = Some(TransferId { slot, serial });
                    }
                }
            });
        }
        self.send_again(&packet);
        if let Some(id) = changing {
            self.fail_transfer(id, TransferError::SourceChanged);
        }
    }

    /// A probe (RFC 9002, 6.2.4) is the oldest packet once more, under a new number: whatever it
    /// is, its acknowledgement tells which of the others are lost.
    fn on_probe_timeout(&mut self, now: Time) {
        self.counters.probe_timeouts += 1;
        self.probe_timeouts += 1;
        self.probe_base = now;
        self.probes = 1;
        if let Some(packet) = self.sent.take_oldest() {
            self.send_again(&packet);
        }
        self.mtu.on_silence(self.probe_timeouts);
        if self.probe_timeouts == SILENCE {
            self.control.on_silence();
        }
    }

    fn loss_time(&self) -> Option<Time> {
        let delay = self.rtt.loss_delay(self.reordering.eighths);
        self.sent.loss_time(delay)
    }

    fn probe_time(&self) -> Option<Time> {
        let interval = self.probe_interval(self.probe_timeouts);
        (self.sent.packets() > 0).then(|| self.probe_base.after(interval))
    }

    fn probe_interval(&self, doublings: u32) -> Duration {
        let timeout = self.rtt.probe_timeout(self.config.ack_delay);
        timeout
            .saturating_mul(1 << doublings.min(16))
            .min(PROBE_INTERVAL_MAX)
    }

    /// With nothing in flight nobody would tell that credit came, if that news was lost.
    fn persist_time(&self) -> Option<Time> {
        let data = self.outbox.has_active() || !self.repeats.is_empty();
        let no_credit = data && self.peer_credit < FRAME_DATA_MAX as u64;
        let no_room = self.messages_out.waiting() && self.messages_out.to_send().is_none();
        let stuck = (no_credit || no_room) && self.sent.packets() == 0;
        stuck.then(|| self.probe_base.after(self.probe_interval(self.persists)))
    }

    fn keepalive_time(&self) -> Time {
        self.last_heard.max(self.last_asked).after(KEEPALIVE)
    }

    fn death_time(&self) -> (Time, ConnectionError) {
        let silent = self.last_heard.after(PEER_TIMEOUT);
        match self.waiting_since.map(|since| since.after(PEER_TIMEOUT)) {
            Some(stalled) if stalled < silent => (stalled, ConnectionError::PeerStalled),
            _ => (silent, ConnectionError::PeerSilent),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Config, Event};
    use super::*;
    use crate::block::RegionId;
    use crate::header::{ConnectionId, Epoch, Role};
    use crate::protect::Protection;
    use crate::regions::{RegionGone, Regions, SourceId};

    struct Nowhere;

    impl Regions for Nowhere {
        fn read(&mut self, _: SourceId, _: u64, _: &mut [u8]) -> Result<(), RegionGone> {
            Ok(())
        }
        fn write(&mut self, _: RegionId, _: u64, _: &[u8]) -> Result<(), RegionGone> {
            Ok(())
        }
    }

    /// Nothing but time passes: no frame arrives, and the program says nothing more.
    #[test]
    fn time_alone_repeats_a_frame_and_ends_a_connection() {
        let (id, epoch) = (ConnectionId(1), Epoch(1));
        let config = Config::new(id, epoch, Role::Initiator, Protection::Checksummed);
        let mut connection = Connection::new(config, Time(0)).unwrap();
        connection.send_message(b"is anybody there?").unwrap();
        let (mut now, mut frame) = (Time(1), [0; 9000]);
        let mut ended = None;
        while ended.is_none() && now < Time(3_000_000_000) {
            while connection
                .poll_transmit(now, &mut Nowhere, &mut frame)
                .is_some()
            {}
            ended = connection.poll_event();
            now = now.after(Duration::from_millis(10));
        }
        let expected = Event::Ended(ConnectionError::PeerSilent);
        assert_eq!(ended, Some(expected));
        assert!(connection.counters().probe_timeouts >= 3);
    }
}
