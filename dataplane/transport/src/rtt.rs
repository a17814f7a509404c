//! The round-trip time, as RFC 9002, section 5, estimates it.

use std::time::Duration;

use crate::time::Time;

/// Before the first sample.
const INITIAL: Duration = Duration::from_millis(1);
/// The least that a timer adds for jitter. RFC 9002 says 1 ms for kernels; a poll loop's clock is
/// finer.
const GRANULARITY: Duration = Duration::from_micros(50);

/// The least time is that of the last one to two of these: a path may become longer.
const MIN_MEMORY: Duration = Duration::from_millis(500);

/// Smoothed round-trip time and its variation.
#[derive(Clone, Copy, Debug)]
pub struct Rtt {
    smoothed: Duration,
    variation: Duration,
    /// Of this memory, and of the one before.
    least: [Duration; 2],
    since: Time,
    latest: Duration,
    /// The last sample without what the peer held it back for.
    path: Duration,
    sampled: bool,
}

impl Default for Rtt {
    fn default() -> Self {
        let variation = INITIAL / 2;
        Self {
            smoothed: INITIAL,
            variation,
            least: [INITIAL; 2],
            since: Time(0),
            latest: INITIAL,
            path: INITIAL,
            sampled: false,
        }
    }
}

impl Rtt {
    /// The smoothed time.
    #[must_use]
    pub fn smoothed(&self) -> Duration {
        self.smoothed
    }

    /// The mean deviation.
    #[must_use]
    pub fn variation(&self) -> Duration {
        self.variation
    }

    /// The least that was seen lately.
    #[must_use]
    pub fn min(&self) -> Duration {
        self.least[0].min(self.least[1])
    }

    /// The last sample.
    #[must_use]
    pub fn latest(&self) -> Duration {
        self.latest
    }

    /// The last sample, less the time for which the peer says it held it back.
    #[must_use]
    pub fn path(&self) -> Duration {
        self.path
    }

    /// Takes a sample at `now`, of which the peer says that it held it back for `held`.
    pub(crate) fn sample(&mut self, now: Time, rtt: Duration, held: Duration) {
        self.latest = rtt;
        if !self.sampled {
            let (smoothed, variation) = (rtt, rtt / 2);
            *self = Self {
                smoothed,
                variation,
                least: [rtt; 2],
                since: now,
                latest: rtt,
                path: rtt,
                sampled: true,
            };
            return;
        }
        if now.since(self.since) >= MIN_MEMORY {
            self.least = [rtt, self.least[0]];
            self.since = now;
        }
        self.least[0] = self.least[0].min(rtt);
        // The peer's word must not push the estimate below what the path takes.
        let adjusted = if rtt >= self.min() + held {
            rtt - held
        } else {
            rtt
        };
        self.path = adjusted;
        let deviation = self.smoothed.abs_diff(adjusted);
        self.variation = (self.variation * 3 + deviation) / 4;
        self.smoothed = (self.smoothed * 7 + adjusted) / 8;
    }

    /// The probe timeout without backoff (RFC 9002, 6.2.1).
    pub(crate) fn probe_timeout(&self, ack_delay: Duration) -> Duration {
        self.smoothed + (self.variation * 4).max(GRANULARITY) + ack_delay
    }

    /// After this long without an acknowledgement, while later packets were acknowledged, a packet
    /// is lost (RFC 9002, 6.1.2), widened by `reordering` eighths that the path was seen to need.
    pub(crate) fn loss_delay(&self, reordering: u32) -> Duration {
        let base = self.smoothed.max(self.latest);
        (base + base / 8 * reordering).max(GRANULARITY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const US: fn(u64) -> Duration = Duration::from_micros;

    #[test]
    fn the_first_sample_sets_and_later_ones_smooth() {
        let mut rtt = Rtt::default();
        rtt.sample(Time(0), US(100), US(0));
        assert_eq!((rtt.smoothed(), rtt.variation()), (US(100), US(50)));
        rtt.sample(Time(0), US(180), US(0));
        assert_eq!(
            (rtt.smoothed(), rtt.variation()),
            (US(110), Duration::from_nanos(57_500))
        );
        assert_eq!((rtt.min(), rtt.latest()), (US(100), US(180)));
    }

    #[test]
    fn the_least_is_forgotten_in_time() {
        let mut rtt = Rtt::default();
        rtt.sample(Time(0), US(100), US(0));
        for ms in 1..2 * MIN_MEMORY.as_millis() as u64 {
            rtt.sample(Time(ms * 1_000_000), US(900), US(0));
            assert_eq!(rtt.min(), US(100));
        }
        rtt.sample(Time(0).after(2 * MIN_MEMORY), US(900), US(0));
        assert_eq!(rtt.min(), US(900));
    }

    #[test]
    fn a_peer_that_lies_about_its_delay_gets_no_estimate_below_the_path() {
        let mut rtt = Rtt::default();
        for _ in 0..100 {
            rtt.sample(Time(0), US(100), US(1_000_000));
        }
        assert_eq!(rtt.smoothed(), US(100));
    }
}
