//! Puts the housekeeper to sleep and wakes it: a system call only when it sleeps.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use super::Lane;

/// An event that one thread sleeps on.
pub struct Wake {
    event: OwnedFd,
    state: AtomicU8,
}

/// At work, or looks again by itself within a millisecond.
const AWAKE: u8 = 0;
/// Looks again by itself, later.
const RESTING: u8 = 1;
/// Sees to nothing but the link until it is woken.
const ASLEEP: u8 = 2;

impl Wake {
    /// A new event.
    ///
    /// # Errors
    /// No descriptors left.
    pub fn new() -> io::Result<Self> {
        // SAFETY: takes no pointers.
        let raw = unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) };
        if raw < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a descriptor that was just made and belongs to nobody else.
        let event = unsafe { OwnedFd::from_raw_fd(raw) };
        Ok(Self {
            event,
            state: AtomicU8::new(AWAKE),
        })
    }

    /// Wakes the sleeper, if it sleeps.
    pub fn wake_if_idle(&self) {
        if self.state.load(Ordering::SeqCst) == ASLEEP {
            self.wake();
        }
    }

    /// Wakes the sleeper, if it sleeps or rests.
    pub fn wake_if_resting(&self) {
        if self.state.load(Ordering::SeqCst) != AWAKE {
            self.wake();
        }
    }

    fn wake(&self) {
        let one = 1_u64.to_ne_bytes();
        // SAFETY: eight valid bytes. A full counter means that it is awake already.
        unsafe { libc::write(self.event.as_raw_fd(), one.as_ptr().cast(), one.len()) };
    }

    /// Rests until woken, or for `timeout`; not at all if `is_wanted` by now.
    pub fn rest(&self, is_wanted: impl FnOnce() -> bool, timeout: Duration) {
        self.state.store(RESTING, Ordering::SeqCst);
        if !is_wanted() {
            poll([self.event.as_raw_fd()], timeout);
        }
        self.rise();
    }

    /// Sleeps until woken, until a link has something to read, or for `timeout`; not at all if a lane
    /// is dirty.
    pub fn sleep(&self, lanes: &[Lane], timeout: Duration) {
        self.state.store(ASLEEP, Ordering::SeqCst);
        let living = || lanes.iter().filter(|lane| !lane.is_lost());
        if living().all(|lane| !lane.dirty.load(Ordering::SeqCst) && lane.link.arm()) {
            let links = living().map(|lane| lane.link.descriptor());
            poll(links.chain([self.event.as_raw_fd()]), timeout);
        }
        self.rise();
    }

    fn rise(&self) {
        self.state.store(AWAKE, Ordering::SeqCst);
        let mut count = [0_u8; 8];
        // SAFETY: room for eight bytes; the descriptor does not block.
        unsafe {
            libc::read(
                self.event.as_raw_fd(),
                count.as_mut_ptr().cast(),
                count.len(),
            )
        };
    }
}

/// Until one of `descriptors`, which outlive the call, has something to read.
fn poll(descriptors: impl IntoIterator<Item = RawFd>, timeout: Duration) {
    let polled = |fd| libc::pollfd {
        fd,
        events: libc::POLLIN,
        revents: 0,
    };
    let mut polled: Vec<_> = descriptors.into_iter().map(polled).collect();
    let millis = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: as many valid pollfds as said; one that is not open is an answer and no fault.
    unsafe { libc::poll(polled.as_mut_ptr(), polled.len() as libc::nfds_t, millis) };
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn a_rest_ends_when_it_is_woken_and_does_not_begin_when_it_is_wanted() {
        let wake = Wake::new().unwrap();
        let began = Instant::now();
        wake.rest(|| true, LONG);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                // What comes before the rest is what `is_wanted` tells; this comes within.
                while wake.state.load(Ordering::SeqCst) != RESTING {
                    std::thread::yield_now();
                }
                wake.wake_if_idle();
                wake.wake_if_resting();
            });
            wake.rest(|| false, LONG);
        });
        assert!(began.elapsed() < LONG / 2);
        // An old wake is no new one.
        let again = Instant::now();
        wake.rest(|| false, Duration::from_millis(20));
        assert!(again.elapsed() >= Duration::from_millis(20));
    }
}
