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
    pub const SLEEP: Self = Self {
        spin_max: Duration::ZERO,
    };
}

impl Default for WaitPolicy {
    /// 20 us where at least two cores can run at once, none where they can't: there, spinning
    /// only keeps the other side from working.
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            spin_max: if cores > 1 {
                Duration::from_micros(20)
            } else {
                Duration::ZERO
            },
        }
    }
}

/// Waits in vain after which a side sleeps at once.
const MISSES_MAX: u32 = 2;
/// Of the waits of a side that sleeps at once, one in so many spins to see whether it pays now.
const PROBE_EVERY: u32 = 64;
/// Spinning for longer than this goes on with yielding, in case the other side waits for this
/// very core.
const PAUSE_MAX: Duration = Duration::from_micros(2);

/// Spins where it tends to pay, and where it does not, only now and then to find out.
#[derive(Debug)]
pub(super) struct Spinner {
    max: Duration,
    misses: u32,
    skipped: u32,
}

impl Spinner {
    pub(super) fn new(policy: WaitPolicy) -> Self {
        Self {
            max: policy.spin_max,
            misses: 0,
            skipped: 0,
        }
    }

    /// Spins until `ready` or long enough. True if ready.
    pub(super) fn spin(&mut self, ready: impl Fn() -> bool) -> bool {
        if self.max.is_zero() {
            return false;
        }
        if self.misses >= MISSES_MAX && self.skipped < PROBE_EVERY {
            self.skipped += 1;
            return false;
        }
        self.skipped = 0;
        let started = Instant::now();
        loop {
            for _ in 0..16 {
                if ready() {
                    self.misses = 0;
                    return true;
                }
                std::hint::spin_loop();
            }
            let spent = started.elapsed();
            if spent >= self.max {
                self.misses = self.misses.saturating_add(1);
                return false;
            }
            if spent >= PAUSE_MAX {
                std::thread::yield_now();
            }
        }
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
    unsafe {
        libc::syscall(
            libc::SYS_futex,
            word.as_ptr(),
            libc::FUTEX_WAIT,
            value,
            spec,
        )
    };
}

/// Wakes whoever sleeps on `word`.
pub(super) fn futex_wake(word: &AtomicU32) {
    // SAFETY: `word` is a live, aligned 32-bit word.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, i32::MAX) };
}
