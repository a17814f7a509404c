//! Before a loop sleeps, and after.

use std::time::Duration;

use super::Engine;
use crate::wire::Wire;

impl<W: Wire> Engine<W> {
    /// Takes what has arrived, and no more. True if something had.
    pub fn listen_once(&mut self) -> bool {
        let now = self.clock.now();
        let received = self.receive(now);
        self.counters.count_turn(received, 0);
        received > 0
    }

    /// How long nothing can be done unless something arrives. `None`: for ever.
    #[must_use]
    pub fn timeout(&self) -> Option<Duration> {
        // What is due waits for the link. Peers are looked after in any turn.
        if self.wire.takes_nothing() {
            return None;
        }
        let elapsed = self.clock.elapsed();
        let transport = self
            .endpoint
            .timeout()
            .map(|time| Duration::from_nanos(time.0));
        let next = [transport, self.host.timeout(elapsed)]
            .into_iter()
            .flatten()
            .min();
        next.map(|at| at.saturating_sub(elapsed))
    }

    /// Whether something waits for room on the link or with a peer, of which nobody rings.
    #[must_use]
    pub fn is_blocked(&self) -> bool {
        let mut slots = self.slots.iter().flatten();
        self.wire.takes_nothing() || slots.any(|slot| slot.bridge.is_some() && !slot.listens())
    }

    /// Tells every program that the loop goes to sleep. False if one has spoken meanwhile that would
    /// be heard.
    pub fn arm(&mut self) -> bool {
        for at in 0..self.slots.len() {
            if let Some(slot) = &mut self.slots[at]
                && slot.listens()
                && let Some(bridge) = &mut slot.bridge
                && !bridge.half().arm()
            {
                self.disarm();
                return false;
            }
        }
        true
    }

    /// Tells every program that the loop is awake.
    pub fn disarm(&mut self) {
        for at in 0..self.slots.len() {
            if let Some(bridge) = self.bridge(at) {
                bridge.half().disarm();
            }
        }
    }
}
