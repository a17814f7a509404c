//! Frames that a link does not take: how long they wait, and when they are lost.

use std::time::Duration;

use crate::clock::Clock;

/// How long frames wait for a driver that takes none: more than a peer's thread is away for on a
/// crowded machine.
const LOST: Duration = Duration::from_millis(100);
/// How long a loop does not sleep for a driver's ring that is full.
const FULL: Duration = Duration::from_millis(1);

/// Whether a link takes what it is offered.
#[derive(Debug)]
pub struct Jam {
    clock: Clock,
    /// Since when it takes nothing.
    since: Option<Duration>,
    /// It took nothing of what was given up before.
    is_down: bool,
}

impl Jam {
    /// It does, as far as is known.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Self {
            clock,
            since: None,
            is_down: false,
        }
    }

    /// It took a frame, or more.
    pub fn took(&mut self) {
        (self.since, self.is_down) = (None, false);
    }

    /// It took none of the frames that wait. True when they are lost, as on any link: it may be
    /// down.
    pub fn refused(&mut self) -> bool {
        let now = self.clock.elapsed();
        if now.saturating_sub(*self.since.get_or_insert(now)) < LOST {
            return false;
        }
        (self.since, self.is_down) = (None, true);
        true
    }

    /// While frames wait: whether the loop should not sleep for that. A full ring has room again at
    /// once; a link that is down is not worth a core.
    #[must_use]
    pub fn is_brief(&self) -> bool {
        let waited = |since| self.clock.elapsed().saturating_sub(since);
        !self.is_down && self.since.is_none_or(|since| waited(since) <= FULL)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_ring_is_waited_for_and_a_link_that_is_down_is_not() {
        let clock = Clock::simulated();
        let mut jam = Jam::new(clock.clone());
        assert!(!jam.refused() && jam.is_brief());
        clock.pass(FULL);
        assert!(!jam.refused() && jam.is_brief());
        clock.pass(Duration::from_micros(1));
        assert!(!jam.refused() && !jam.is_brief());
        // Room again, in time.
        jam.took();
        assert!(!jam.refused() && jam.is_brief());
        clock.pass(LOST - Duration::from_nanos(1));
        assert!(!jam.refused());
        clock.pass(Duration::from_nanos(1));
        assert!(jam.refused(), "they are lost");
        // The next ones are not worth a core from the start.
        assert!(!jam.refused() && !jam.is_brief());
        jam.took();
        assert!(!jam.refused() && jam.is_brief());
    }
}
