//! Puts the housekeeper to sleep and wakes it: a system call only when it sleeps.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::Lane;

/// An event that one thread sleeps on.
pub struct Wake {
    event: OwnedFd,
    /// Sees to nothing but the link until it is woken; else it is at work, or looks again soon.
    is_asleep: AtomicBool,
}

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
            is_asleep: AtomicBool::new(false),
        })
    }

    /// Wakes the sleeper, if it sleeps.
    pub fn wake_if_idle(&self) {
        if self.is_asleep.load(Ordering::SeqCst) {
            self.wake();
        }
    }

    fn wake(&self) {
        let one = 1_u64.to_ne_bytes();
        // SAFETY: eight valid bytes. A full counter means that it is awake already.
        unsafe { libc::write(self.event.as_raw_fd(), one.as_ptr().cast(), one.len()) };
    }

    /// Sleeps until woken, until a link has something to read, or for `timeout`; not at all if a lane
    /// is dirty.
    pub fn sleep(&self, lanes: &[Lane], timeout: Duration) {
        self.is_asleep.store(true, Ordering::SeqCst);
        let living = || lanes.iter().filter(|lane| !lane.is_lost());
        if living().all(|lane| !lane.dirty.load(Ordering::SeqCst) && lane.link.arm()) {
            let links = living().map(|lane| lane.link.descriptor());
            poll(links.chain([self.event.as_raw_fd()]), timeout);
        }
        self.rise();
    }

    fn rise(&self) {
        self.is_asleep.store(false, Ordering::SeqCst);
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
