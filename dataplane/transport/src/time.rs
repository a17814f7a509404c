//! Time as the driver tells it; the crate has no clock.

use std::time::Duration;

/// Nanoseconds since a moment that the driver chose. It must not run backwards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(pub u64);

impl Time {
    /// Later than any other.
    pub(crate) const NEVER: Time = Time(u64::MAX);

    /// The moment `span` later.
    #[must_use]
    pub fn after(self, span: Duration) -> Time {
        Time(self.0.saturating_add(nanos(span)))
    }

    /// The span from `earlier` to here, zero if it lies ahead.
    #[must_use]
    pub fn since(self, earlier: Time) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// A span in nanoseconds, at most 584 years.
pub(crate) fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}
