//! What a loop does when there is nothing to do: spins, yields, naps.

use std::ops::RangeInclusive;
use std::os::fd::{AsRawFd as _, RawFd};
use std::time::Duration;

use genie_channel::Doorbell;

use crate::clock::Clock;

/// How long a loop looks again at once, where nothing says that something will come soon.
const SPIN: Duration = Duration::from_micros(20);
/// And where the last thing came as soon as this: questions and answers follow each other.
const SOON: Duration = Duration::from_micros(100);
/// Spinning longer than this goes on with giving the core to whoever waits for it.
const PAUSE: Duration = Duration::from_micros(2);
/// Giving the core away and getting it back later than this: more threads than cores have much to
/// do, and a thread that wakes from a nap gets a core sooner than one that gave it away.
const CROWDED: Duration = Duration::from_micros(100);
/// For how long a crowded machine is believed to stay so.
const CROWDED_FOR: Duration = Duration::from_millis(50);
/// The shortest nap.
const FIRST_NAP: Duration = Duration::from_micros(10);
/// The longest nap where something may arrive at any time, and the port has no interrupt: who waits
/// for it waits that long. Between these, as [`longest_nap`] has it.
const NAP: RangeInclusive<Duration> = Duration::from_micros(80)..=Duration::from_micros(250);
/// The share of a core that naps may cost, one in this many.
const NAPS_SHARE: u32 = 18;
/// Naps that are tried to learn what one costs.
const TRIED: u32 = 16;
/// The longest nap where the port has an interrupt.
pub const DEEP_NAP: Duration = Duration::from_millis(10);

/// How a loop waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Polling {
    /// Backs off to naps: under a tenth of a core when idle.
    #[default]
    Adaptive,
    /// Never sleeps: a core of its own.
    Busy,
}

/// The waiting of one loop.
pub struct Idle {
    polling: Polling,
    doorbell: Doorbell,
    clock: Clock,
    since: Option<Duration>,
    crowded_until: Option<Duration>,
    /// The last idle time was a short one.
    soon: bool,
    longest: Duration,
}

/// How long a nap may be where one costs this much of a core. Sleeping by a timer takes 2 us on bare
/// hardware and 10 to 20 on a virtual machine, whatever is done between two naps; so there an idle
/// loop stays below a tenth of a core, and out of the way of who computes, only by sleeping longer
/// than the 100 us that it should wake within.
#[must_use]
pub fn longest_nap(cost: Duration) -> Duration {
    (cost * NAPS_SHARE).clamp(*NAP.start(), *NAP.end())
}

/// What a nap costs the calling thread, by trying.
fn nap_cost() -> Duration {
    let limit = libc::timespec {
        tv_sec: 0,
        tv_nsec: i64::from(NAP.start().subsec_nanos()),
    };
    let before = thread_time();
    for _ in 0..TRIED {
        // SAFETY: no files, a valid time, no signal mask.
        unsafe { libc::ppoll(std::ptr::null_mut(), 0, &raw const limit, std::ptr::null()) };
    }
    thread_time().saturating_sub(before) / TRIED
}

/// The calling thread's time on a core.
fn thread_time() -> Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is a valid place to write to; the clock exists on every Linux.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or(0),
        u32::try_from(time.tv_nsec).unwrap_or(0),
    )
}

impl Idle {
    /// Woken by `doorbell`. Makes naps of the calling thread as short as they are meant, and tries
    /// some.
    #[must_use]
    pub fn new(polling: Polling, doorbell: Doorbell) -> Self {
        // SAFETY: sets a number of the calling thread.
        unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1_000, 0, 0, 0) };
        let longest = match polling {
            Polling::Adaptive => longest_nap(nap_cost()),
            Polling::Busy => *NAP.end(),
        };
        tracing::debug!("an idle loop sleeps for up to {longest:?} at a time");
        Self::with_clock(polling, doorbell, Clock::start(), longest)
    }

    /// By a clock of the caller's, with naps of at most `longest` where something is expected.
    #[must_use]
    pub fn with_clock(
        polling: Polling,
        doorbell: Doorbell,
        clock: Clock,
        longest: Duration,
    ) -> Self {
        Self {
            polling,
            doorbell,
            clock,
            since: None,
            crowded_until: None,
            soon: false,
            longest,
        }
    }

    /// How long to nap without an interrupt. An answer tends to come soon after a question, so the
    /// first naps are short: being late costs at most an eighth of what was waited already. Where
    /// nobody is `expected`, who comes can wait a little longer.
    #[must_use]
    pub fn nap_for(&self, expected: bool) -> Duration {
        let longest = if expected {
            self.longest
        } else {
            2 * self.longest
        };
        let idle = self
            .since
            .map_or(Duration::ZERO, |since| self.waited(since));
        (idle / 8).clamp(FIRST_NAP, longest)
    }

    fn waited(&self, since: Duration) -> Duration {
        self.clock.elapsed().saturating_sub(since)
    }

    /// There was something to do.
    pub fn busy(&mut self) {
        if let Some(since) = self.since.take() {
            self.soon = self.waited(since) < SOON;
        }
    }

    /// There was nothing. True when it is time to nap; otherwise the loop looks again.
    pub fn idle(&mut self) -> bool {
        if self.polling == Polling::Busy {
            std::hint::spin_loop();
            return false;
        }
        let now = self.clock.elapsed();
        let idle = now.saturating_sub(*self.since.get_or_insert(now));
        let crowded = self.crowded_until.is_some_and(|until| now < until);
        let spin = if self.soon { SOON } else { SPIN };
        if idle >= spin || crowded {
            return true;
        }
        if idle < PAUSE {
            std::hint::spin_loop();
            return false;
        }
        std::thread::yield_now();
        if self.waited(now) > CROWDED {
            self.crowded_until = Some(now + CROWDED_FOR);
        }
        false
    }

    /// Sleeps until the doorbell rings or `port` has something, at most for `limit`.
    pub fn nap(&mut self, port: Option<RawFd>, limit: Duration) {
        let entry = |fd: RawFd| libc::pollfd {
            fd,
            events: libc::POLLIN,
            revents: 0,
        };
        let doorbell = entry(self.doorbell.fd().as_raw_fd());
        let mut polled = [doorbell, port.map_or(doorbell, entry)];
        let limit = self.clock.pass(limit);
        let limit = libc::timespec {
            tv_sec: i64::try_from(limit.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(limit.subsec_nanos()),
        };
        let (first, count) = (polled.as_mut_ptr(), 1 + u64::from(port.is_some()));
        // SAFETY: as many valid entries as that, and a valid time, no signal mask. A file that was
        // closed meanwhile is an answer, not an error.
        let ready = unsafe { libc::ppoll(first, count, &raw const limit, std::ptr::null()) };
        if ready > 0 && polled[0].revents != 0 {
            self.doorbell.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn naps_grow_with_idleness_and_stay_within_their_bounds() {
        let (clock, longest) = (Clock::simulated(), Duration::from_micros(200));
        let doorbell = Doorbell::new().unwrap();
        let mut idle = Idle::with_clock(Polling::Adaptive, doorbell, clock.clone(), longest);
        assert_eq!(idle.nap_for(true), FIRST_NAP, "nothing was waited for yet");
        assert!(!idle.idle());
        clock.pass(4 * longest);
        assert!(idle.idle());
        assert_eq!(idle.nap_for(true), longest / 2);
        clock.pass(Duration::from_secs(1));
        assert_eq!(idle.nap_for(true), longest);
        assert_eq!(idle.nap_for(false), 2 * longest);
        idle.busy();
        assert_eq!(idle.nap_for(true), FIRST_NAP, "it starts over");
        let real = Idle::new(Polling::Adaptive, Doorbell::new().unwrap()).longest;
        assert!(NAP.contains(&real), "{real:?}");
    }

    #[test]
    fn a_loop_wakes_within_100_us_where_that_costs_less_than_a_tenth_of_a_core() {
        let us = Duration::from_micros;
        for (cost, nap) in [(0, 80), (2, 80), (5, 90), (10, 180), (14, 250), (90, 250)] {
            assert_eq!(longest_nap(us(cost)), us(nap));
        }
    }

    #[test]
    fn a_loop_that_is_busy_polling_never_naps() {
        let mut idle = Idle::new(Polling::Busy, Doorbell::new().unwrap());
        assert!((0..10_000).all(|_| !idle.idle()));
    }

    #[test]
    fn an_idle_loop_comes_to_nap_and_the_doorbell_ends_it() {
        let doorbell = Doorbell::new().unwrap();
        let mut idle = Idle::new(Polling::Adaptive, doorbell.clone());
        let limit = idle.clock.elapsed() + Duration::from_secs(10);
        while !idle.idle() {
            assert!(idle.clock.elapsed() < limit, "it never naps");
        }
        doorbell.ring();
        // Returns at once, or the test takes ten minutes and is ended.
        idle.nap(None, Duration::from_secs(600));
        let waker = std::thread::spawn(move || doorbell.ring());
        idle.nap(None, Duration::from_secs(600));
        waker.join().unwrap();
    }
}
