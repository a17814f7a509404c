//! What an executor leaves behind for its zygote: a page that both map. It is written in signal
//! handlers, so it is made of atomics. An executor that is hostile may write what it likes there: it
//! can lie about its own end, and nothing else.

use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};

use genie_gpudev::Exit;

use super::Unconfined;

/// What is known of the executor's end.
mod end {
    pub const UNKNOWN: u32 = 0;
    pub const FORBIDDEN: u32 = 1;
    pub const UNCONFINED: u32 = 2;
    pub const ABORTED: u32 = 3;
}

/// The page itself.
#[repr(C)]
#[derive(Debug)]
pub struct Page {
    end: AtomicU32,
    call: AtomicU32,
    part: AtomicU32,
    errno: AtomicI32,
    barriers: AtomicU32,
}

impl Page {
    /// A call was forbidden.
    pub fn forbidden(&self, call: u32) {
        self.call.store(call, Ordering::Relaxed);
        self.end.store(end::FORBIDDEN, Ordering::Release);
    }

    /// The program ended itself by abort().
    pub fn aborted(&self) {
        self.end.store(end::ABORTED, Ordering::Release);
    }
}

/// A shared page, unmapped when dropped.
#[derive(Debug)]
pub struct Report(&'static Page);

impl Report {
    /// A page of zeros.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn new() -> std::io::Result<Self> {
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory in use.
        let raw = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                size_of::<Page>(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if raw == libc::MAP_FAILED {
            return Err(std::io::Error::last_os_error());
        }
        // SAFETY: just mapped, aligned to a page, zeros are valid atomics, and it stays until `self`
        // is dropped.
        Ok(Self(unsafe { &*raw.cast::<Page>() }))
    }

    /// For signal handlers, in a process that never drops it.
    pub fn page(&self) -> &'static Page {
        self.0
    }

    /// It did not begin, since something does not hold.
    pub fn unconfined(&self, unconfined: Unconfined) {
        let (part, errno) = unconfined.into_raw();
        self.0.part.store(u32::from(part), Ordering::Relaxed);
        self.0.errno.store(errno, Ordering::Relaxed);
        self.0.end.store(end::UNCONFINED, Ordering::Release);
    }

    /// What does not hold, if that was said.
    pub fn said_unconfined(&self) -> Option<Unconfined> {
        (self.0.end.load(Ordering::Acquire) == end::UNCONFINED).then_some(())?;
        let part = u8::try_from(self.0.part.load(Ordering::Relaxed)).ok()?;
        Unconfined::from_raw(part, self.0.errno.load(Ordering::Relaxed))
    }

    /// The filter switched speculation barriers on.
    pub fn note_barriers(&self, barriers: bool) {
        let barriers = u32::from(barriers);
        self.0.barriers.store(barriers, Ordering::Relaxed);
    }

    /// As noted.
    pub fn barriers(&self) -> bool {
        self.0.barriers.load(Ordering::Relaxed) != 0
    }

    /// How the executor ended, where it knows better than its exit status does.
    pub fn exit(&self, exit: Exit) -> Exit {
        match self.0.end.load(Ordering::Acquire) {
            end::FORBIDDEN => Exit::Forbidden(self.0.call.load(Ordering::Relaxed)),
            end::UNCONFINED => self
                .said_unconfined()
                .map_or(exit, |unconfined| Exit::Unconfined(unconfined.part())),
            end::ABORTED => Exit::Signal(libc::SIGABRT),
            end::UNKNOWN.. => exit,
        }
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        // SAFETY: mapped by `new`; whoever has the page by `page` never drops this.
        unsafe {
            libc::munmap(
                std::ptr::from_ref(self.0).cast_mut().cast(),
                size_of::<Page>(),
            )
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use genie_gpudev::sandbox::Part;

    #[test]
    fn what_is_left_behind_is_read() {
        let killed = Exit::Signal(libc::SIGKILL);
        let report = Report::new().unwrap();
        assert_eq!(report.exit(killed), killed);
        report.page().forbidden(42);
        assert_eq!(report.exit(killed), Exit::Forbidden(42));
        let report = Report::new().unwrap();
        report.unconfined(Unconfined::let_through(Part::Network));
        assert_eq!(report.exit(killed), Exit::Unconfined(Part::Network));
        report.page().part.store(200, Ordering::Relaxed);
        assert_eq!(report.exit(killed), killed);
    }
}
