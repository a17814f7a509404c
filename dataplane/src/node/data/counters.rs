//! What a session has done and holds.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that is replaced.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// Replaces it; gives what it was.
    pub fn set(&self, value: u64) -> u64 {
        self.0.swap(value, Ordering::Relaxed)
    }

    /// Adds to it.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// What it is.
    #[must_use]
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What a session has done and holds.
#[derive(Debug, Default)]
#[allow(missing_docs, reason = "as in the status message")]
pub struct Counters {
    pub records: Gauge,
    pub memory_bytes: Gauge,
    pub tensors: Gauge,
    pub plans: Gauge,
    pub plan_hits: Gauge,
    pub bytes_received: Gauge,
    pub bytes_sent: Gauge,
}
