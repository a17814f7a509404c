//! What a loop sleeps on, and how it is woken.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use genie_shm::Bell;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};

/// Events of other bells that are taken at once; the others keep the doorbell ringing.
const EVENTS_MAX: usize = 64;

/// One descriptor to sleep on, for any number of channels. Clones are the same doorbell.
///
/// A client in another process never gets this descriptor, since it could empty it, or make it
/// block, for all the others. It has an eventfd of its own that is only watched here (an epoll set,
/// edge-triggered: it is never read), so that a hostile client can disturb nobody's wake-ups but
/// its own.
#[derive(Clone, Debug)]
pub struct Doorbell(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    event: EventFd,
    set: Epoll,
}

impl Doorbell {
    /// A doorbell that nobody has rung.
    ///
    /// # Errors
    /// No descriptors left.
    pub fn new() -> io::Result<Self> {
        let event = new_event()?;
        let set = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        set.add(&event, EpollEvent::new(EpollFlags::EPOLLIN, 0))?;
        Ok(Self(Arc::new(Inner { event, set })))
    }

    /// Wakes the loop: [`Doorbell::fd`] is readable until it is cleared. One system call.
    pub fn ring(&self) {
        // A full counter has rung already.
        let _ = self.0.event.write(1);
    }

    /// What to wait on with poll(2), for reading.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.0.set.0.as_fd()
    }

    /// Takes all rings so far, after waking and before looking what there is.
    pub fn clear(&self) {
        let _ = self.0.event.read();
        let mut events = [EpollEvent::empty(); EVENTS_MAX];
        let _ = self.0.set.wait(&mut events, EpollTimeout::ZERO);
    }

    /// From now on `file` rings this doorbell, whenever something comes to it or its other end
    /// closes, until what is returned is dropped.
    pub(crate) fn watch<F: AsFd>(&self, file: F) -> io::Result<Watched<F>> {
        let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLET;
        self.0.set.add(&file, EpollEvent::new(flags, 1))?;
        Ok(Watched {
            doorbell: self.clone(),
            file,
        })
    }
}

impl Bell for Doorbell {
    fn ring(&self) {
        self.ring();
    }
}

/// A file that rings a doorbell.
#[derive(Debug)]
pub(crate) struct Watched<F: AsFd> {
    doorbell: Doorbell,
    file: F,
}

impl<F: AsFd> Watched<F> {
    pub(crate) fn file(&self) -> &F {
        &self.file
    }
}

impl<F: AsFd> Drop for Watched<F> {
    fn drop(&mut self) {
        // Another process may hold the file, and then closing it here would not end the watch.
        let _ = self.doorbell.0.set.delete(&self.file);
    }
}

pub(crate) fn new_event() -> io::Result<EventFd> {
    let flags = EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC;
    Ok(EventFd::from_value_and_flags(0, flags)?)
}

/// A client's way to ring its gateway: an eventfd of its own.
#[derive(Debug)]
pub(crate) struct EventBell(pub(crate) OwnedFd);

impl Bell for EventBell {
    fn ring(&self) {
        // The gateway made it not to block; a full counter has rung already.
        let _ = nix::unistd::write(&self.0, &1_u64.to_ne_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    fn rings(doorbell: &Doorbell) -> bool {
        let mut fds = [PollFd::new(doorbell.fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::ZERO).unwrap() > 0
    }

    #[test]
    fn it_rings_until_it_is_cleared() {
        let doorbell = Doorbell::new().unwrap();
        assert!(!rings(&doorbell));
        doorbell.clone().ring();
        doorbell.ring();
        assert!(rings(&doorbell));
        assert!(rings(&doorbell));
        doorbell.clear();
        assert!(!rings(&doorbell));
    }

    #[test]
    fn a_watched_event_rings_at_each_write_though_nobody_reads_it() {
        let doorbell = Doorbell::new().unwrap();
        let event = new_event().unwrap();
        let theirs = EventBell(event.as_fd().try_clone_to_owned().unwrap());
        let watched = doorbell.watch(event).unwrap();
        for _ in 0..3 {
            theirs.ring();
            assert!(rings(&doorbell));
            doorbell.clear();
            assert!(!rings(&doorbell));
        }
        // Nobody can empty it for another.
        theirs.ring();
        watched.file().read().unwrap();
        doorbell.ring();
        assert!(rings(&doorbell));
        doorbell.clear();
        drop(watched);
        theirs.ring();
        assert!(!rings(&doorbell));
    }
}
