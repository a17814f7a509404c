//! How often something may happen: a bucket of tokens. It knows no clock of its own.

use std::time::{Duration, Instant};

/// A rate, and what may happen at once.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Tokens that come back in a second.
    pub per_second: f64,
    /// Tokens at most.
    pub burst: f64,
}

/// Tokens that are left.
#[derive(Clone, Copy, Debug)]
pub struct Bucket {
    tokens: f64,
    at: Instant,
}

impl Bucket {
    /// A full one.
    #[must_use]
    pub fn new(pace: Pace, now: Instant) -> Self {
        Self {
            tokens: pace.burst,
            at: now,
        }
    }

    fn refill(&mut self, pace: Pace, now: Instant) {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.tokens = (self.tokens + passed * pace.per_second).min(pace.burst);
        self.at = now;
    }

    /// Takes a token if there is one.
    pub fn try_take(&mut self, pace: Pace, now: Instant) -> bool {
        self.refill(pace, now);
        let there = self.tokens >= 1.0;
        if there {
            self.tokens -= 1.0;
        }
        there
    }

    /// Takes a token, if need be one that has yet to come; gives how long it takes to. `None`: that
    /// would be longer than `most`, and nothing is taken.
    pub fn take(&mut self, pace: Pace, now: Instant, most: Duration) -> Option<Duration> {
        self.refill(pace, now);
        let owed = (1.0 - self.tokens).max(0.0);
        let wait = Duration::from_secs_f64(owed / pace.per_second);
        if wait > most {
            return None;
        }
        self.tokens -= 1.0;
        Some(wait)
    }

    /// Whether nothing was taken lately: forgetting it changes nothing.
    #[must_use]
    pub fn is_full(&self, pace: Pace, now: Instant) -> bool {
        let mut filled = *self;
        filled.refill(pace, now);
        filled.tokens >= pace.burst
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACE: Pace = Pace {
        per_second: 10.0,
        burst: 3.0,
    };

    #[test]
    fn a_burst_and_then_the_rate() {
        let start = Instant::now();
        let mut bucket = Bucket::new(PACE, start);
        assert!((0..3).all(|_| bucket.try_take(PACE, start)));
        assert!(!bucket.try_take(PACE, start));
        let later = start + Duration::from_millis(101);
        assert!(bucket.try_take(PACE, later) && !bucket.try_take(PACE, later));
        assert!(!bucket.is_full(PACE, later));
        assert!(bucket.is_full(PACE, later + Duration::from_secs(1)));
    }

    #[test]
    fn who_waits_waits_in_turn() {
        let start = Instant::now();
        let mut bucket = Bucket::new(PACE, start);
        let most = Duration::from_millis(250);
        let waits: Vec<_> = (0..6)
            .map_while(|_| bucket.take(PACE, start, most))
            .map(|wait| wait.as_millis())
            .collect();
        assert_eq!(waits, [0, 0, 0, 100, 200]);
    }
}
