//! How long a writer got nowhere.

use std::time::{Duration, Instant};

use super::TICK;

/// Time without progress, as seen at the ticks of a writer that waits. Ticks that follow each other
/// closely had no progress between them, unless bulk left.
#[derive(Debug)]
pub struct Stall {
    last: Instant,
    moved: u64,
    stalled: Duration,
}

impl Stall {
    /// Begins at `now`, when `moved` bulks had left ([`super::Link::moved`]).
    #[must_use]
    pub fn new(now: Instant, moved: u64) -> Self {
        Self {
            last: now,
            moved,
            stalled: Duration::ZERO,
        }
    }

    /// At a tick: since when nothing moved.
    pub fn tick(&mut self, now: Instant, moved: u64) -> Duration {
        let since = now.saturating_duration_since(self.last);
        self.stalled = if since < TICK * 3 / 2 && moved == self.moved {
            self.stalled + since
        } else {
            Duration::ZERO
        };
        (self.last, self.moved) = (now, moved);
        self.stalled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_time_without_progress_counts() {
        let start = Instant::now();
        let at = |ticks: u32| start + TICK * 11 / 10 * ticks;
        let mut stall = Stall::new(start, 7);
        assert_eq!(stall.tick(at(1), 7), TICK * 11 / 10);
        assert_eq!(stall.tick(at(2), 7), TICK * 22 / 10);
        assert_eq!(stall.tick(at(3), 8), Duration::ZERO, "bulk left");
        assert_eq!(stall.tick(at(4), 8), TICK * 11 / 10);
        assert_eq!(stall.tick(at(6), 8), Duration::ZERO, "bytes left between");
        for slow in 7..100 {
            let moved = u64::from(slow);
            assert_eq!(
                stall.tick(at(slow), moved),
                Duration::ZERO,
                "one part a tick"
            );
        }
    }
}
