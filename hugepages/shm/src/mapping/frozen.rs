//! What makes huge pages safe to share with a stranger: nobody can take one out of the file any
//! more, and all of them are there.
//!
//! After `fcntl(2)` (`F_SEAL_FUTURE_WRITE`), `madvise(2)` (`MADV_POPULATE_WRITE`) and
//! `admin-guide/mm/hugetlbpage.rst`.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::{Mapping, MemoryError};

/// Who has mapped the file may go on writing; nobody maps it to be written from now on, writes by
/// `write(2)`, or punches holes, by whatever call.
const FREEZE: libc::c_int = libc::F_SEAL_FUTURE_WRITE | libc::F_SEAL_SEAL;

/// Bytes whose pages are brought in at a time.
const STEP_BYTES: usize = 16 << 20;

/// The size of a file's pages: the machine's own, or that of huge ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PageBytes {
    bytes: u64,
    is_huge: bool,
}

impl PageBytes {
    /// Asks the file.
    pub(super) fn of(file: BorrowedFd<'_>) -> Result<Self, MemoryError> {
        // SAFETY: all-zero bytes are a valid `statfs`, which fstatfs fills.
        let mut stat: libc::statfs = unsafe { std::mem::zeroed() };
        // SAFETY: `stat` is a valid place to write to.
        if unsafe { libc::fstatfs(file.as_raw_fd(), &mut stat) } < 0 {
            return Err(MemoryError::last("fstatfs"));
        }
        let is_huge = stat.f_type == libc::HUGETLBFS_MAGIC;
        let bytes = if is_huge {
            u64::try_from(stat.f_bsize).unwrap_or(0)
        } else {
            super::page_size() as u64
        };
        match bytes.is_power_of_two() {
            true => Ok(Self { bytes, is_huge }),
            false => Err(MemoryError::Size(bytes)),
        }
    }

    pub(super) fn bytes(self) -> u64 {
        self.bytes
    }

    pub(super) fn is_huge(self) -> bool {
        self.is_huge
    }
}

impl Mapping {
    /// Makes it safe to touch, whatever a process does that has mapped it already: no page can be
    /// taken out of it any more, nobody else maps it to be written, and every page is there. Until
    /// this has returned, memory of huge pages that a stranger has is not to be touched.
    ///
    /// # Errors
    /// It was sealed before, in another way; or pages that were taken out meanwhile can't be had
    /// again. It stays untouchable then.
    pub fn freeze(&self) -> Result<(), MemoryError> {
        // The stranger may have sealed it, too: what counts is which seals there are.
        // SAFETY: plain system calls on an open file.
        let seals = unsafe {
            libc::fcntl(self.file.as_raw_fd(), libc::F_ADD_SEALS, FREEZE);
            libc::fcntl(self.file.as_raw_fd(), libc::F_GET_SEALS)
        };
        if seals < 0 || seals & libc::F_SEAL_FUTURE_WRITE == 0 {
            return Err(MemoryError::NotFrozen);
        }
        // After the seal: what is there now stays.
        self.populate_all()
    }

    /// Every page, or an error instead of a SIGBUS later.
    fn populate_all(&self) -> Result<(), MemoryError> {
        let failed = |source| MemoryError::System {
            what: "having all its pages",
            source,
        };
        // In steps: other threads of this process may want its page tables meanwhile.
        let step = STEP_BYTES.max(self.page.bytes() as usize);
        for start in (0..self.len).step_by(step) {
            let len = step.min(self.len - start);
            // SAFETY: the range is inside the mapping, and populating changes no byte.
            let done = unsafe {
                let at = self.base.add(start).as_ptr().cast();
                libc::madvise(at, len, libc::MADV_POPULATE_WRITE)
            };
            if done == 0 {
                continue;
            }
            let error = io::Error::last_os_error();
            if error.raw_os_error() != Some(libc::EINVAL) {
                return Err(failed(error));
            }
            // Before Linux 5.14: the file's pages, which the mapping then finds.
            let (start, len) = (start as libc::off_t, len as libc::off_t);
            // SAFETY: a plain system call on an open file.
            if unsafe { libc::fallocate(self.file.as_raw_fd(), 0, start, len) } != 0 {
                return Err(failed(io::Error::last_os_error()));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::{FromRawFd, OwnedFd};

    use super::*;

    /// Ordinary memory that takes more seals; huge pages go the same way, see the tests of
    /// `genie-channel`.
    fn open(len: u64) -> Mapping {
        // SAFETY: plain system calls; the descriptor is owned at once.
        let file = unsafe {
            let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
            let raw = libc::memfd_create(c"open".as_ptr(), flags);
            assert!(raw >= 0 && libc::ftruncate(raw, len as libc::off_t) == 0);
            assert_eq!(libc::fcntl(raw, libc::F_ADD_SEALS, libc::F_SEAL_SHRINK), 0);
            OwnedFd::from_raw_fd(raw)
        };
        Mapping::from_peer(file).unwrap()
    }

    fn again(memory: &Mapping) -> Result<Mapping, MemoryError> {
        Mapping::from_peer(memory.file().try_clone_to_owned().unwrap())
    }

    fn resident(memory: &Mapping) -> usize {
        let mut pages = vec![0_u8; memory.len.div_ceil(4096)];
        // SAFETY: the range is the whole mapping, and there is a byte for each page.
        let done =
            unsafe { libc::mincore(memory.base.as_ptr().cast(), memory.len, pages.as_mut_ptr()) };
        assert_eq!(done, 0);
        pages.iter().filter(|&&page| page & 1 == 1).count()
    }

    #[test]
    fn what_is_frozen_is_whole_and_takes_no_holes() {
        let memory = open(64 << 10);
        let theirs = again(&memory).unwrap();
        theirs.write(5000, b"kept").unwrap();
        theirs.discard(8192, 8192).unwrap();
        assert_eq!(resident(&memory), 1);
        memory.freeze().unwrap();
        assert_eq!(resident(&memory), 16);
        assert!(theirs.discard(4096, 4096).is_err());
        assert!(again(&memory).is_err(), "nobody maps it to be written");
        theirs.write(0, b"still").unwrap();
        let mut seen = [0; 5];
        memory.read(0, &mut seen).unwrap();
        assert_eq!(&seen, b"still");
        memory.read(5000, &mut seen).unwrap();
        assert_eq!(&seen, b"kept\0");
        memory.freeze().unwrap();
    }

    #[test]
    fn what_somebody_else_sealed_is_not_frozen() {
        let memory = open(8192);
        // SAFETY: a plain system call on an open file.
        let sealed = unsafe {
            let file = memory.file().as_raw_fd();
            libc::fcntl(file, libc::F_ADD_SEALS, libc::F_SEAL_SEAL)
        };
        assert_eq!(sealed, 0);
        assert!(matches!(memory.freeze(), Err(MemoryError::NotFrozen)));
    }

    #[test]
    fn ordinary_pages_are_the_machines_own() {
        let memory = open(8192);
        assert!(!memory.is_huge());
        assert!(memory.page_bytes() >= 4096);
        assert_eq!(memory.base.as_ptr() as u64 % memory.page_bytes(), 0);
    }
}
