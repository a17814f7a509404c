//! A token bucket: the pacer, and the limit on a connection's bandwidth.

use crate::time::Time;

/// Bytes that may leave at once: what a NIC takes in one burst of 32 frames is the most.
const BURST: u64 = 16 * 9000;
const NANOS: u128 = 1_000_000_000;

/// Lets bytes pass at a rate. It may go into debt by one packet.
#[derive(Debug)]
pub(crate) struct Bucket {
    tokens: i64,
    filled: Time,
}

impl Bucket {
    pub(crate) fn new(now: Time) -> Self {
        Self {
            tokens: BURST as i64,
            filled: now,
        }
    }

    /// Fills up for the time that passed, at `rate` bytes a second.
    pub(crate) fn fill(&mut self, now: Time, rate: u64) {
        let elapsed = u128::from(now.0.saturating_sub(self.filled.0));
        let earned = u128::from(rate) * elapsed / NANOS;
        if earned == 0 {
            return; // The fraction is kept by not moving the time.
        }
        self.filled = now;
        let earned = i64::try_from(earned).unwrap_or(i64::MAX);
        self.tokens = self.tokens.saturating_add(earned).min(BURST as i64);
    }

    /// It was last filled before `now`.
    pub(crate) fn is_before(&self, now: Time) -> bool {
        self.filled < now
    }

    pub(crate) fn is_open(&self) -> bool {
        self.tokens > 0
    }

    pub(crate) fn take(&mut self, bytes: u64) {
        self.tokens = self
            .tokens
            .saturating_sub(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// When it opens at `rate`.
    pub(crate) fn opens_at(&self, rate: u64) -> Time {
        let missing = u128::from(1_i64.saturating_sub(self.tokens).max(0).unsigned_abs());
        let wait = (missing * NANOS).div_ceil(u128::from(rate.max(1)));
        Time(
            self.filled
                .0
                .saturating_add(u64::try_from(wait).unwrap_or(u64::MAX)),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_keeps_its_rate_and_says_when_it_opens() {
        let rate = 1_000_000;
        let mut bucket = Bucket::new(Time(0));
        let (mut now, mut sent) = (Time(0), 0);
        while now < Time(1_000_000_000) {
            bucket.fill(now, rate);
            if bucket.is_open() {
                bucket.take(1500);
                sent += 1500;
            } else {
                let opens = bucket.opens_at(rate);
                assert!(opens > now, "time must pass");
                now = opens;
            }
        }
        assert!((rate..=rate + BURST + 3000).contains(&sent), "{sent}");
    }
}
