//! A clock that all processes of a machine read alike.

use nix::time::{ClockId, clock_gettime};

/// Nanoseconds since some moment before the machine's start (`CLOCK_MONOTONIC`, which is Python's
/// `time.perf_counter_ns` too).
#[must_use]
pub fn now_ns() -> u64 {
    // It fails for clocks that a machine lacks; each has this one.
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC);
    now.map_or(0, |now| {
        now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64
    })
}
