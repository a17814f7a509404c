//! Finding the size of frame that the path carries (RFC 8899, DPLPMTUD).

use std::time::Duration;

use crate::time::Time;

/// A size is too large after this many lost probes.
const TRIES: u8 = 3;
/// The search ends when so few bytes are left to win.
const STEP_MIN: usize = 128;
/// After a black hole the search begins again.
const RETRY: Duration = Duration::from_secs(5);
/// Silent probe timeouts in a row that make a large frame suspect.
const BLACK_HOLE: u32 = 3;

/// Where the search stands.
#[derive(Debug)]
pub(crate) struct PathMtu {
    /// Passes for sure, as the configuration says.
    base: usize,
    confirmed: usize,
    /// The least size that is known or taken not to pass.
    ceiling: usize,
    max: usize,
    candidate: usize,
    tries: u8,
    in_flight: bool,
    /// Silence: small frames only, until one of either size is acknowledged.
    suspect: bool,
    retry_at: Option<Time>,
}

impl PathMtu {
    pub(crate) fn new(start: usize, max: usize) -> Self {
        // The largest is tried first: a link that is configured for jumbo frames mostly has them.
        let (ceiling, candidate) = (max + 1, max);
        Self {
            base: start,
            confirmed: start,
            ceiling,
            max,
            candidate,
            tries: 0,
            in_flight: false,
            suspect: false,
            retry_at: None,
        }
    }

    /// Bytes of a frame that passes.
    pub(crate) fn confirmed(&self) -> usize {
        if self.suspect {
            self.base
        } else {
            self.confirmed
        }
    }

    /// The size to try now, if any.
    pub(crate) fn to_probe(&self) -> Option<usize> {
        (!self.in_flight && self.candidate > self.confirmed).then_some(self.candidate)
    }

    pub(crate) fn on_probe_sent(&mut self) {
        self.in_flight = true;
    }

    pub(crate) fn on_probe_acked(&mut self, size: usize) {
        self.in_flight = false;
        self.confirmed = self.confirmed.max(size);
        self.choose();
    }

    pub(crate) fn on_probe_lost(&mut self) {
        self.in_flight = false;
        self.tries += 1;
        if self.tries >= TRIES {
            self.ceiling = self.candidate;
            self.choose();
        }
    }

    /// The peer was silent for `timeouts` probe timeouts: perhaps large frames no longer pass.
    /// Perhaps it was only away; what it acknowledges first will tell.
    pub(crate) fn on_silence(&mut self, timeouts: u32) {
        self.suspect |= timeouts >= BLACK_HOLE && self.confirmed > self.base;
    }

    /// Frames were acknowledged, the largest of `size`.
    pub(crate) fn on_acked(&mut self, now: Time, size: usize) {
        if self.suspect && size <= self.base {
            // The search begins again, with what passed last.
            self.candidate = self.confirmed;
            self.confirmed = self.base;
            self.ceiling = self.max + 1;
            self.tries = 0;
            self.retry_at = Some(now.after(RETRY));
        }
        self.suspect = false;
    }

    pub(crate) fn on_time(&mut self, now: Time) {
        if self.retry_at.is_some_and(|at| at <= now) {
            self.retry_at = None;
            self.ceiling = self.max + 1;
            self.candidate = self.max;
            self.tries = 0;
        }
    }

    fn choose(&mut self) {
        self.tries = 0;
        let between = self.ceiling.saturating_sub(self.confirmed);
        self.candidate = if between > STEP_MIN {
            self.confirmed + between / 2
        } else {
            0
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::MTU_MIN;

    fn search(real: usize) -> (usize, u32) {
        let mut mtu = PathMtu::new(MTU_MIN, 9000);
        let mut probes = 0;
        while let Some(size) = mtu.to_probe() {
            mtu.on_probe_sent();
            assert_eq!(mtu.to_probe(), None, "one probe at a time");
            probes += 1;
            if size <= real {
                mtu.on_probe_acked(size)
            } else {
                mtu.on_probe_lost()
            }
        }
        (mtu.confirmed(), probes)
    }

    #[test]
    fn the_search_ends_just_below_what_passes() {
        assert_eq!(search(9000), (9000, 1));
        for real in [1232, 1500, 4096, 8400] {
            let (found, probes) = search(real);
            assert!(
                found <= real && found + STEP_MIN > real,
                "{found} of {real}"
            );
            assert!(probes < 30, "{probes}");
        }
    }

    #[test]
    fn a_peer_that_was_away_is_no_black_hole() {
        let mut mtu = PathMtu::new(MTU_MIN, 9000);
        mtu.on_probe_sent();
        mtu.on_probe_acked(9000);
        mtu.on_silence(5);
        mtu.on_acked(Time(0), 8000);
        assert_eq!((mtu.confirmed(), mtu.to_probe()), (9000, None));
    }

    #[test]
    fn a_black_hole_falls_back_and_is_tried_again_later() {
        let mut mtu = PathMtu::new(MTU_MIN, 9000);
        mtu.on_probe_sent();
        mtu.on_probe_acked(9000);
        mtu.on_silence(2);
        assert_eq!(mtu.confirmed(), 9000);
        mtu.on_silence(3);
        assert_eq!((mtu.confirmed(), mtu.to_probe()), (MTU_MIN, None));
        mtu.on_acked(Time(0), MTU_MIN);
        while mtu.to_probe().is_some() {
            mtu.on_probe_sent();
            mtu.on_probe_lost();
        }
        assert_eq!(mtu.confirmed(), MTU_MIN);
        mtu.on_time(Time(0).after(RETRY));
        assert_eq!(mtu.to_probe(), Some(9000));
    }
}
