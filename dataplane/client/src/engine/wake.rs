//! Puts the housekeeper to sleep and wakes it: a system call only when it sleeps.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::link::Link;

/// An event that one thread sleeps on.
pub struct Wake {
    event: OwnedFd,
    asleep: AtomicBool,
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
            asleep: AtomicBool::new(false),
        })
    }

    /// Wakes the sleeper, if it sleeps.
    pub fn wake_if_idle(&self) {
        if self.asleep.load(Ordering::SeqCst) {
            let one = 1_u64.to_ne_bytes();
            // SAFETY: eight valid bytes. A full counter means that it is awake already.
            unsafe { libc::write(self.event.as_raw_fd(), one.as_ptr().cast(), one.len()) };
        }
    }

    /// Sleeps until woken, until `link` has something to read, or for `timeout`; not at all if
    /// `dirty`.
    pub fn sleep(&self, link: &Link, dirty: &AtomicBool, timeout: Duration) {
        self.asleep.store(true, Ordering::SeqCst);
        if !dirty.load(Ordering::SeqCst) && link.arm() {
            let mut polled = [link.descriptor(), self.event.as_raw_fd()].map(|fd| libc::pollfd {
                fd,
                events: libc::POLLIN,
                revents: 0,
            });
            let millis = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
            // SAFETY: two valid pollfds whose descriptors outlive the call.
            unsafe { libc::poll(polled.as_mut_ptr(), 2, millis) };
        }
        self.asleep.store(false, Ordering::SeqCst);
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
