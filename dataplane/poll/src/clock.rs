//! The transport's time: nanoseconds since the loop began.

use std::time::{Duration, Instant};

use genie_transport::Time;

/// A clock that never runs backwards.
#[derive(Clone, Copy, Debug)]
pub struct Clock(Instant);

impl Clock {
    /// Starts at zero.
    #[must_use]
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// Since the start.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }

    /// Now.
    #[must_use]
    pub fn now(&self) -> Time {
        // 584 years fit.
        Time(self.0.elapsed().as_nanos() as u64)
    }
}
