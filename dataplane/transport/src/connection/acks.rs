//! What the peer acknowledges.

use std::time::Duration;

use super::{Connection, Event};
use crate::ack::Ack;
use crate::content::Content;
use crate::drops::DropReason;
use crate::outbox::TransferId;
use crate::time::Time;

impl Connection {
    pub(super) fn on_ack(
        &mut self,
        ack: &Ack<'_>,
        number: u64,
        now: Time,
    ) -> Result<(), DropReason> {
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

        let (mut newest, mut bytes, mut given_up, mut largest_frame) = (None, 0, 0, 0);
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
                largest_frame = largest_frame.max(packet.bytes);
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
                .sample(now, now.since(sent_at), held.min(self.config.ack_delay * 2));
        }
        self.probe_timeouts = 0;
        self.mtu.on_acked(now, largest_frame as usize);
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
