//! The transport's time: nanoseconds since the loop began.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use genie_transport::Time;

/// A clock that never runs backwards. Clones are of the same one.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    Machine(Instant),
    /// Nanoseconds.
    Test(Arc<AtomicU64>),
}

impl Clock {
    /// The machine's. Starts at zero.
    #[must_use]
    pub fn start() -> Self {
        Self(Source::Machine(Instant::now()))
    }

    /// One that stands still until somebody says how much time passes. Starts at zero.
    #[must_use]
    pub fn simulated() -> Self {
        Self(Source::Test(Arc::default()))
    }

    /// Lets time pass on a simulated clock; what is still to be waited for on the machine's.
    pub fn pass(&self, time: Duration) -> Duration {
        match &self.0 {
            Source::Machine(_) => time,
            Source::Test(nanos) => {
                nanos.fetch_add(time.as_nanos() as u64, Ordering::Relaxed);
                Duration::ZERO
            }
        }
    }

    /// Since the start.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        match &self.0 {
            Source::Machine(start) => start.elapsed(),
            Source::Test(nanos) => Duration::from_nanos(nanos.load(Ordering::Relaxed)),
        }
    }

    /// Now.
    #[must_use]
    pub fn now(&self) -> Time {
        // 584 years fit.
        Time(self.elapsed().as_nanos() as u64)
    }
}
