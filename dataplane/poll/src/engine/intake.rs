//! What arrives: sorted, and handed to the transport or to the host's own stack.

use std::time::Duration;

use genie_direct::ReceptionError;
use genie_netstack::Host;
use genie_transport::{ConnectionId, Endpoint, Header, Time};

use super::Engine;
use super::slots::Slot;
use crate::counters::Counters;
use crate::memory::Memory;
use crate::packet::{self, Place, Received};
use crate::wire::{BURST, Packet, Wire};

/// Bursts that one turn receives at most: more would keep acknowledgements waiting.
const BURSTS_A_TURN: usize = 2;

impl<W: Wire> Engine<W> {
    /// Takes what has arrived; says how many frames.
    pub(super) fn receive(&mut self, now: Time) -> usize {
        let Self {
            wire,
            me,
            host,
            endpoint,
            memory,
            slots,
            counters,
            direct,
            ..
        } = self;
        let mut intake = Intake {
            me: *me,
            now,
            // One look at the clock a turn: it costs as much as a frame of the host's.
            elapsed: Duration::from_nanos(now.0),
            host,
            endpoint,
            memory,
            slots,
            counters,
        };
        let mut received = 0;
        for _ in 0..BURSTS_A_TURN {
            let count = if direct.is_some() {
                wire.receive_kept(|packet| intake.packet(packet))
            } else {
                wire.receive(|frame| intake.frame(frame))
            };
            received += count;
            if count < BURST {
                break;
            }
        }
        if direct.is_some() {
            intake.settle();
        }
        received
    }
}

/// The slot of a connection.
fn slot_of<'a, P>(
    endpoint: &mut Endpoint,
    slots: &'a mut [Option<Slot<P>>],
    id: ConnectionId,
) -> Option<&'a mut Slot<P>> {
    let peer = endpoint.connection(id)?.config().peer;
    slots.get_mut(usize::try_from(peer.0).ok()?)?.as_mut()
}

/// All that a received frame may concern.
struct Intake<'a, P> {
    me: Place,
    now: Time,
    elapsed: Duration,
    host: &'a mut Host,
    endpoint: &'a mut Endpoint,
    memory: &'a mut Memory,
    slots: &'a mut [Option<Slot<P>>],
    counters: &'a Counters,
}

impl<P: Packet> Intake<'_, P> {
    /// A frame whose bytes the CPU places.
    fn frame(&mut self, frame: &mut [u8]) {
        if let Some((from, range)) = self.sort(frame) {
            self.transport(from, &mut frame[range]);
        }
    }

    /// A packet in a device's memory: what is to be placed is left to the device, the rest is as of
    /// any frame.
    fn packet(&mut self, mut packet: P) {
        let Some((from, range)) = self.sort(packet.bytes()) else {
            return;
        };
        let frame = &mut packet.bytes()[range];
        let (now, counters) = (self.now, self.counters);
        if let Ok(header) = Header::parse(frame)
            && header.data_len > 0
            && !header.sealed
            && let Some(slot) = slot_of(self.endpoint, self.slots, header.connection)
            && let Some(gather) = &mut slot.gather
        {
            match gather.order(frame, &header, self.endpoint, now, self.memory) {
                Ok(ordered) => {
                    if let Some(ordered) = ordered
                        && let Err(error) =
                            gather.push(ordered, packet, self.endpoint, now, self.memory)
                    {
                        tracing::debug!("a frame was not taken by the device: {error}");
                        counters.refused_by_device();
                    }
                    slot.learn(from);
                }
                Err(ReceptionError::Dropped(reason)) => counters.dropped(reason),
                Err(_) => counters.refused_by_device(),
            }
            return;
        }
        self.transport(from, frame);
    }

    /// Sorts a frame; gives where it comes from and where its bytes are if it is the transport's.
    fn sort(&mut self, frame: &mut [u8]) -> Option<(Place, std::ops::Range<usize>)> {
        match packet::sort(frame, self.me.address) {
            Received::Transport(from, range) => return Some((from, range)),
            Received::Host => self.host.handle(frame, self.elapsed),
            Received::Damaged => self.counters.damaged(),
        }
        None
    }

    fn transport(&mut self, from: Place, frame: &mut [u8]) {
        match self.endpoint.handle(frame, self.now, self.memory) {
            Ok(id) => {
                if let Some(slot) = slot_of(self.endpoint, self.slots, id) {
                    slot.learn(from);
                }
            }
            Err(reason) => self.counters.dropped(reason),
        }
    }

    /// Hands what was collected to the devices, and takes back what they have done.
    fn settle(&mut self) {
        for slot in self.slots.iter_mut().flatten() {
            let Some(gather) = &mut slot.gather else {
                continue;
            };
            let error = match gather.settle(self.endpoint, self.now) {
                Ok((placed, corrupt)) => {
                    self.counters.gathered(placed, corrupt);
                    continue;
                }
                Err(error) => error,
            };
            // What it has may never come back: the connection can't go on.
            slot.gather = None;
            tracing::error!("connection {:x}: the device failed: {error}", slot.id.0);
            if let Some(bridge) = &mut slot.bridge {
                bridge.end(genie_channel::ended::LOST, error.to_string());
            }
            if let Some(connection) = self.endpoint.connection(slot.id) {
                connection.close();
            }
        }
    }
}
