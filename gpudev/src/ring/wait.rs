//! How a side of a ring waits: spinning first, for as long as it tends to pay, then a futex.

use std::sync::atomic::AtomicU32;
use std::time::{Duration, Instant};

/// How long to spin before sleeping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaitPolicy {
    /// The longest spin. Zero: sleep at once.
    pub spin_max: Duration,
}

impl WaitPolicy {
    /// Never spins.
    pub const SLEEP: Self = Self { spin_max: Duration::ZERO };
}

impl Default for WaitPolicy {
    /// 20 us where at least two cores can run at once, none where they can't: there, spinning
    /// only keeps the other side from working.
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self { spin_max: if cores > 1 { Duration::from_micros(20) } else { Duration::ZERO } }
    }
}

/// Spins for a time that follows experience: the whole when frames come quickly, next to
/// nothing when they don't.
#[derive(Debug)]
pub(super) struct Spinner {
    max: Duration,
    budget: Duration,
}

impl Spinner {
    pub(super) fn new(policy: WaitPolicy) -> Self {
        Self { max: policy.spin_max, budget: policy.spin_max }
    }

    /// Spins until `ready` or the budget is gone. True if ready.
    pub(super) fn spin(&mut self, started: Instant, ready: impl Fn() -> bool) -> bool {
        if self.budget.is_zero() {
            return false;
        }
        loop {
            for _ in 0..16 {
                if ready() {
                    return true;
                }
                std::hint::spin_loop();
            }
            if started.elapsed() >= self.budget {
                return false;
            }
        }
    }

    /// Spinning was in vain, and a sleep followed; all of it took `waited`.
    pub(super) fn slept(&mut self, waited: Duration) {
        // A sleep that a slightly longer spin would have saved: a futex costs as much again.
        self.budget = if waited < self.max * 4 { self.max } else { self.budget / 2 };
    }
}

/// Sleeps while `word` is `value`, at most for `timeout`. Wakes for no reason at times.
pub(super) fn futex_wait(word: &AtomicU32, value: u32, timeout: Option<Duration>) {
    let spec = timeout.map(|timeout| libc::timespec {
        tv_sec: timeout.as_secs().min(1 << 30) as libc::time_t,
        tv_nsec: libc::c_long::from(timeout.subsec_nanos()),
    });
    let spec = spec.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: `word` is a live, aligned 32-bit word and `spec` null or a valid time; the futex
    // is not private because the other side is another process.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAIT, value, spec) };
}

/// Wakes whoever sleeps on `word`.
pub(super) fn futex_wake(word: &AtomicU32) {
    // SAFETY: `word` is a live, aligned 32-bit word.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, i32::MAX) };
}
