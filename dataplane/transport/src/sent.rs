//! What was sent and is not yet known to have arrived.

use std::time::Duration;

use crate::content::Contents;
use crate::limits::{IN_FLIGHT_MAX, IN_FLIGHT_RESERVE};
use crate::time::Time;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Unused,
    InFlight,
    Done,
    Lost,
}

/// A packet that asks for an acknowledgement.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Packet {
    pub(crate) sent: Time,
    pub(crate) bytes: u32,
    /// Tries a size: its loss is no congestion.
    pub(crate) tries_mtu: bool,
    /// Its data were not copied: they may have changed since they were summed.
    pub(crate) by_reference: bool,
    pub(crate) contents: Contents,
    number: u64,
    state: State,
}

impl Packet {
    pub(crate) fn new(sent: Time, bytes: u32, contents: Contents) -> Self {
        Self {
            sent,
            bytes,
            tries_mtu: false,
            by_reference: false,
            contents,
            number: 0,
            state: State::InFlight,
        }
    }
}

/// The ring of packets, indexed by packet number.
#[derive(Debug)]
pub(crate) struct Sent {
    ring: Box<[Packet]>,
    /// The next packet number.
    next: u64,
    /// No packet below is in flight.
    oldest: u64,
    /// Lost packets from here on may still turn out to have arrived.
    doubtful: u64,
    largest_acked: Option<u64>,
    bytes: u64,
    data_bytes: u64,
    packets: usize,
}

/// Lost packets that arrived all the same widen the tolerance of reordering up to this, in packets
/// and eighths of a round trip.
const REORDERING_PACKETS: (u64, u64) = (3, 48);
const REORDERING_EIGHTHS: (u32, u32) = (1, 16);

/// How much reordering the path was seen to do (RFC 8985, 3.2, adapts likewise).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reordering {
    packets: u64,
    pub(crate) eighths: u32,
}

impl Default for Reordering {
    fn default() -> Self {
        Self {
            packets: REORDERING_PACKETS.0,
            eighths: REORDERING_EIGHTHS.0,
        }
    }
}

impl Reordering {
    pub(crate) fn widen(&mut self) {
        self.packets = (self.packets * 2).min(REORDERING_PACKETS.1);
        self.eighths = (self.eighths * 2).min(REORDERING_EIGHTHS.1);
    }
}

impl Sent {
    pub(crate) fn new() -> Self {
        Self {
            ring: vec![Packet::default(); IN_FLIGHT_MAX].into_boxed_slice(),
            next: 0,
            oldest: 0,
            doubtful: 0,
            largest_acked: None,
            bytes: 0,
            data_bytes: 0,
            packets: 0,
        }
    }

    pub(crate) fn next_number(&self) -> u64 {
        self.next
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn data_bytes(&self) -> u64 {
        self.data_bytes
    }

    pub(crate) fn packets(&self) -> usize {
        self.packets
    }

    /// There is a slot for another packet; the last ones are for probes.
    pub(crate) fn has_room(&self, probe: bool) -> bool {
        let reserve = if probe { 0 } else { IN_FLIGHT_RESERVE };
        self.next - self.oldest < (IN_FLIGHT_MAX - reserve) as u64
    }

    /// Uses up a number; `packet` is remembered if it asks for an acknowledgement.
    pub(crate) fn push(&mut self, packet: Option<Packet>) {
        let number = self.next;
        self.next += 1;
        if self.packets == 0 && packet.is_none() {
            self.oldest = self.next;
        }
        if let Some(packet) = packet {
            self.bytes += u64::from(packet.bytes);
            self.data_bytes += packet.contents.data_bytes();
            self.packets += 1;
            *self.slot(number) = Packet {
                number,
                state: State::InFlight,
                ..packet
            };
        }
    }

    /// Takes `low..=high` as arrived. Calls `acked` for each packet that was in flight, and counts
    /// those that had been given up.
    pub(crate) fn ack(&mut self, low: u64, high: u64, mut acked: impl FnMut(u64, &Packet)) -> u32 {
        let mut given_up = 0;
        for number in
            low.max(self.doubtful.min(self.oldest))..=high.min(self.next.saturating_sub(1))
        {
            let slot = self.slot(number);
            if slot.number != number {
                continue;
            }
            match slot.state {
                State::InFlight => {
                    let packet = *slot;
                    self.settle(number, State::Done);
                    acked(number, &packet);
                }
                State::Lost => {
                    slot.state = State::Done;
                    given_up += 1;
                }
                State::Unused | State::Done => {}
            }
        }
        self.largest_acked = self.largest_acked.max(Some(high));
        self.advance();
        given_up
    }

    /// The next packet that is lost at `now`: it leaves the flight.
    pub(crate) fn next_lost(
        &mut self,
        now: Time,
        delay: Duration,
        reordering: Reordering,
    ) -> Option<Packet> {
        let largest = self.largest_acked?;
        for number in self.oldest..largest {
            let slot = *self.slot(number);
            if slot.number != number || slot.state != State::InFlight {
                continue;
            }
            let overtaken = number + reordering.packets <= largest;
            if overtaken || slot.sent.after(delay) <= now {
                self.settle(number, State::Lost);
                self.advance();
                return Some(slot);
            }
            // Later ones were sent later, so they are not lost either.
            break;
        }
        None
    }

    /// The peer got this packet damaged: it leaves the flight.
    pub(crate) fn take_damaged(&mut self, number: u64) -> Option<Packet> {
        if !(self.oldest..self.next).contains(&number) {
            return None;
        }
        let packet = *self.slot(number);
        if packet.number != number || packet.state != State::InFlight {
            return None;
        }
        self.settle(number, State::Lost);
        self.advance();
        Some(packet)
    }

    /// When the next packet counts as lost by time.
    pub(crate) fn loss_time(&self, delay: Duration) -> Option<Time> {
        let largest = self.largest_acked?;
        if self.oldest >= largest {
            return None;
        }
        let number = self.oldest;
        let slot = self.peek(number);
        (slot.number == number && slot.state == State::InFlight).then(|| slot.sent.after(delay))
    }

    /// Gives up the oldest packet, to send what it held once more.
    pub(crate) fn take_oldest(&mut self) -> Option<Packet> {
        if self.packets == 0 {
            return None;
        }
        self.advance();
        let number = self.oldest;
        let packet = *self.slot(number);
        // Not `Lost`: a probe is a guess, and its being wrong says nothing about reordering.
        self.settle(number, State::Done);
        self.advance();
        Some(packet)
    }

    /// Forgets lost packets from before `horizon`: they will not arrive any more.
    pub(crate) fn forget_before(&mut self, horizon: Time) {
        while self.doubtful < self.oldest {
            let number = self.doubtful;
            let slot = self.slot(number);
            if slot.number == number && slot.state == State::Lost && slot.sent > horizon {
                break;
            }
            self.doubtful += 1;
        }
        // A number's slot is used again after one turn of the ring.
        self.doubtful = self
            .doubtful
            .max(self.next.saturating_sub(IN_FLIGHT_MAX as u64));
    }

    fn settle(&mut self, number: u64, state: State) {
        let slot = self.slot(number);
        slot.state = state;
        let (bytes, data) = (u64::from(slot.bytes), slot.contents.data_bytes());
        self.bytes -= bytes;
        self.data_bytes -= data;
        self.packets -= 1;
    }

    fn advance(&mut self) {
        while self.oldest < self.next {
            let number = self.oldest;
            let slot = self.slot(number);
            if slot.number == number && slot.state == State::InFlight {
                break;
            }
            self.oldest += 1;
        }
    }

    fn peek(&self, number: u64) -> &Packet {
        &self.ring[(number as usize) & (IN_FLIGHT_MAX - 1)]
    }

    fn slot(&mut self, number: u64) -> &mut Packet {
        // The mask keeps the index below the ring's length, which is a power of two.
        &mut self.ring[(number as usize) & (IN_FLIGHT_MAX - 1)]
    }
}

const _: () = assert!(IN_FLIGHT_MAX.is_power_of_two());

#[cfg(test)]
mod tests {
    use super::*;

    const DELAY: Duration = Duration::from_nanos(100);

    fn flight(count: u64) -> Sent {
        let mut sent = Sent::new();
        for number in 0..count {
            let packet = Packet::new(Time(number), 10, Contents::default());
            sent.push(Some(packet));
        }
        sent
    }

    #[test]
    fn each_packet_is_acknowledged_once() {
        let mut sent = flight(10);
        let mut seen = Vec::new();
        sent.ack(2, 5, |number, _| seen.push(number));
        sent.ack(0, 6, |number, _| seen.push(number));
        assert_eq!(seen, [2, 3, 4, 5, 0, 1, 6]);
        assert_eq!((sent.bytes(), sent.packets()), (30, 3));
    }

    #[test]
    fn three_later_packets_or_time_make_a_loss_and_a_late_one_is_noticed() {
        let mut sent = flight(10);
        sent.ack(4, 4, |_, _| {});
        let order = Reordering::default();
        let lost: Vec<_> = std::iter::from_fn(|| sent.next_lost(Time(20), DELAY, order)).collect();
        assert_eq!(lost.len(), 2, "0 and 1; 2 and 3 wait for time");
        assert_eq!(sent.loss_time(DELAY), Some(Time(102)));
        assert!(sent.next_lost(Time(102), DELAY, order).is_some());
        assert_eq!(sent.ack(0, 0, |_, _| panic!("was given up")), 1);
    }

    #[test]
    fn a_damaged_packet_leaves_the_flight_once() {
        let mut sent = flight(3);
        assert!(sent.take_damaged(1).is_some());
        assert!(sent.take_damaged(1).is_none() && sent.take_damaged(3).is_none());
        assert_eq!(sent.packets(), 2);
        assert!(sent.take_damaged(0).is_some());
        let mut rest = Vec::new();
        sent.ack(0, 2, |number, _| rest.push(number));
        assert_eq!(rest, [2]);
    }

    #[test]
    fn a_full_ring_keeps_room_for_probes() {
        let mut sent = flight((IN_FLIGHT_MAX - IN_FLIGHT_RESERVE) as u64);
        assert!(!sent.has_room(false));
        assert!(sent.has_room(true));
        assert!(sent.take_oldest().is_some());
        assert!(sent.has_room(false));
    }
}
