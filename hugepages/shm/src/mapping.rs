//! Memory that the daemon and an executor share: an anonymous file, mapped in both.
//!
//! The file is sealed, so that it can neither shrink nor grow: no access inside the mapping can
//! fault, whatever the other process does. Its bytes may change at any time, though, so nothing
//! read from it is trusted, and it is accessed by raw pointers and atomics.
//!
//! That holds for ordinary pages: one that the other process takes out of the file comes back as
//! zeroes. A huge page comes back only if there is another, and is SIGBUS if not. So who gives huge
//! pages to a stranger calls [`Mapping::freeze`] before it touches them.

mod frozen;

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;

use frozen::PageBytes;

const SEALS: libc::c_int = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;
/// Mappings of this size or more start at a multiple of it: hardware is told of larger pages, which
/// are fewer, and the kernel may use such.
const ALIGNED_FROM: usize = 2 << 20;
/// Largest mapping that is accepted from a peer: 16 TiB.
const LEN_MAX: u64 = 1 << 44;

/// Why shared memory could not be had or accessed.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// The kernel refused.
    #[error("shared memory: {what} failed: {source}")]
    System {
        /// Which call.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The peer's file could shrink, which would crash who reads it.
    #[error("shared memory from a peer is not sealed against shrinking")]
    NotSealed,
    /// Its holes could be anybody's doing: the seals against them are not there.
    #[error(
        "shared memory could not be sealed against holes: the process that has it sealed it first"
    )]
    NotFrozen,
    /// Huge pages stay until the memory is unmapped.
    #[error("huge pages of shared memory are not given back one by one")]
    Kept,
    /// A size that is zero or absurd.
    #[error("{0} bytes are no size for shared memory")]
    Size(u64),
    /// Not inside the mapping.
    #[error("bytes {offset}..+{len} are outside the {capacity} bytes of the shared memory")]
    Bounds {
        /// First byte.
        offset: u64,
        /// How many.
        len: u64,
        /// Size of the mapping.
        capacity: u64,
    },
}

impl MemoryError {
    fn last(what: &'static str) -> Self {
        Self::System {
            what,
            source: io::Error::last_os_error(),
        }
    }
}

/// A mapped, sealed anonymous file. Unmapped when dropped.
#[derive(Debug)]
pub struct Mapping {
    file: OwnedFd,
    base: NonNull<u8>,
    len: usize,
    page: PageBytes,
}

// SAFETY: the memory is plain bytes, mapped for the value's life, and only handed out as raw
// pointers or copied; whoever dereferences a pointer answers for races.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// New zeroed memory of `len` bytes. Pages are taken when they are touched.
    ///
    /// # Errors
    /// A size of zero or past 16 TiB; what the kernel says.
    pub fn create(len: u64) -> Result<Self, MemoryError> {
        let size = checked_len(len)?;
        // SAFETY: the name is a C string; the flags are valid.
        let raw = unsafe {
            libc::memfd_create(
                c"genie".as_ptr(),
                libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING,
            )
        };
        if raw < 0 {
            return Err(MemoryError::last("memfd_create"));
        }
        // SAFETY: `raw` was just opened and belongs to nobody else.
        let file = unsafe { OwnedFd::from_raw_fd(raw) };
        // SAFETY: plain system calls on a file of our own.
        if unsafe { libc::ftruncate(file.as_raw_fd(), size as libc::off_t) } < 0 {
            return Err(MemoryError::last("ftruncate"));
        }
        // SAFETY: as above.
        if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, SEALS) } < 0 {
            return Err(MemoryError::last("sealing"));
        }
        Self::map(file, size)
    }

    /// Maps memory that a peer created, or another part of this program.
    ///
    /// # Errors
    /// A file that could shrink, an absurd size, what the kernel says.
    pub fn from_peer(file: OwnedFd) -> Result<Self, MemoryError> {
        // SAFETY: a plain system call on an open file.
        let seals = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GET_SEALS) };
        if seals < 0 || seals & libc::F_SEAL_SHRINK == 0 {
            return Err(MemoryError::NotSealed);
        }
        // SAFETY: all-zero bytes are a valid `stat`, which fstat fills.
        let mut stat: libc::stat = unsafe { std::mem::zeroed() };
        // SAFETY: `stat` is a valid place to write to.
        if unsafe { libc::fstat(file.as_raw_fd(), &mut stat) } < 0 {
            return Err(MemoryError::last("fstat"));
        }
        let size = checked_len(u64::try_from(stat.st_size).unwrap_or(0))?;
        Self::map(file, size)
    }

    fn map(file: OwnedFd, len: usize) -> Result<Self, MemoryError> {
        let page = PageBytes::of(file.as_fd())?;
        let flags = match page.is_huge() {
            // Enough huge pages are set aside for it, or this fails.
            true => libc::MAP_SHARED,
            false => libc::MAP_SHARED | libc::MAP_NORESERVE,
        };
        let (place, fixed) = match page.is_huge() || len < ALIGNED_FROM {
            true => (std::ptr::null_mut(), 0),
            false => (aligned_place(len)?, libc::MAP_FIXED),
        };
        // SAFETY: a new mapping at an address of the kernel's choice, or over one that was set aside
        // for it just now, touches no memory in use.
        let raw = unsafe {
            libc::mmap(
                place,
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                flags | fixed,
                file.as_raw_fd(),
                0,
            )
        };
        if raw == libc::MAP_FAILED {
            let failed = MemoryError::last("mmap");
            if !place.is_null() {
                // SAFETY: set aside above, and nobody has it.
                unsafe { libc::munmap(place, len) };
            }
            return Err(failed);
        }
        let base = NonNull::new(raw.cast()).ok_or(MemoryError::Size(len as u64))?;
        Ok(Self {
            file,
            base,
            len,
            page,
        })
    }

    /// The file, to be sent to the other process.
    #[must_use]
    pub fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Size in bytes.
    #[must_use]
    pub fn capacity(&self) -> u64 {
        self.len as u64
    }

    /// Bytes of each of its pages, as hardware and the kernel see them. It starts at such a page's
    /// boundary.
    #[must_use]
    pub fn page_bytes(&self) -> u64 {
        self.page.bytes()
    }

    /// Whether its pages are huge.
    #[must_use]
    pub fn is_huge(&self) -> bool {
        self.page.is_huge()
    }

    /// Address of `offset`, from which `len` bytes are inside the mapping. Reading and writing
    /// there races with the other process, which may write at any time.
    ///
    /// # Errors
    /// Outside the mapping.
    pub fn address(&self, offset: u64, len: u64) -> Result<NonNull<u8>, MemoryError> {
        let capacity = self.len as u64;
        match offset.checked_add(len) {
            // SAFETY: `offset` is inside the mapping or one past its end.
            Some(end) if end <= capacity => Ok(unsafe { self.base.add(offset as usize) }),
            _ => Err(MemoryError::Bounds {
                offset,
                len,
                capacity,
            }),
        }
    }

    /// Copies `into.len()` bytes from `offset`.
    ///
    /// # Errors
    /// Outside the mapping.
    pub fn read(&self, offset: u64, into: &mut [u8]) -> Result<(), MemoryError> {
        let from = self.address(offset, into.len() as u64)?;
        // SAFETY: the source is inside the mapping, the target is a slice of our own elsewhere.
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), into.as_mut_ptr(), into.len()) };
        Ok(())
    }

    /// Copies `bytes` to `offset`.
    ///
    /// # Errors
    /// Outside the mapping.
    pub fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), MemoryError> {
        let to = self.address(offset, bytes.len() as u64)?;
        // SAFETY: the target is inside the mapping, the source is a slice of our own elsewhere.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to.as_ptr(), bytes.len()) };
        Ok(())
    }

    /// The bytes as a slice, for interfaces that know nothing else (vectored writes, TLS).
    ///
    /// # Errors
    /// Outside the mapping.
    ///
    /// # Safety
    /// The caller only passes the bytes on (copies, system calls) and draws no conclusion from
    /// reading them twice: the other process may change them meanwhile.
    pub unsafe fn bytes(&self, offset: u64, len: u64) -> Result<&[u8], MemoryError> {
        let from = self.address(offset, len)?;
        // SAFETY: inside the mapping, which lives as long as `self`; the rest is the caller's.
        Ok(unsafe { std::slice::from_raw_parts(from.as_ptr(), len as usize) })
    }

    /// The bytes as a slice to write to, for interfaces that know nothing else.
    ///
    /// # Errors
    /// Outside the mapping.
    ///
    /// # Safety
    /// Nobody else in this process uses these bytes meanwhile, and the caller only writes to
    /// them: the other process may change them at any time.
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn bytes_mut(&self, offset: u64, len: u64) -> Result<&mut [u8], MemoryError> {
        let to = self.address(offset, len)?;
        // SAFETY: inside the mapping, which lives as long as `self`; the rest is the caller's.
        Ok(unsafe { std::slice::from_raw_parts_mut(to.as_ptr(), len as usize) })
    }

    /// Receives at most `len` bytes from a socket into `offset`; 0 at its end.
    ///
    /// # Errors
    /// Outside the mapping (`InvalidInput`); what the socket says, `WouldBlock` included.
    pub fn receive(&self, socket: BorrowedFd<'_>, offset: u64, len: u64) -> io::Result<usize> {
        let to = self.address(offset, len).map_err(invalid)?;
        // SAFETY: the kernel writes at most `len` bytes inside the mapping.
        let n = unsafe { libc::recv(socket.as_raw_fd(), to.as_ptr().cast(), len as usize, 0) };
        usize::try_from(n).map_err(|_| io::Error::last_os_error())
    }

    /// Sends at most `len` bytes from `offset` to a socket.
    ///
    /// # Errors
    /// As [`Mapping::receive`].
    pub fn send(&self, socket: BorrowedFd<'_>, offset: u64, len: u64) -> io::Result<usize> {
        let from = self.address(offset, len).map_err(invalid)?;
        let flags = libc::MSG_NOSIGNAL;
        // SAFETY: the kernel reads at most `len` bytes inside the mapping.
        let n = unsafe {
            libc::send(
                socket.as_raw_fd(),
                from.as_ptr().cast(),
                len as usize,
                flags,
            )
        };
        usize::try_from(n).map_err(|_| io::Error::last_os_error())
    }

    /// Gives the pages of this range back to the system; they read as zeroes afterwards.
    /// `offset` and `len` are multiples of the page size.
    ///
    /// # Errors
    /// Outside the mapping; huge pages, which are kept; what the kernel says.
    pub fn discard(&self, offset: u64, len: u64) -> Result<(), MemoryError> {
        self.address(offset, len)?;
        if self.is_huge() {
            return Err(MemoryError::Kept);
        }
        let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        // SAFETY: a plain system call on a file of our own; the mapping stays valid.
        let done = unsafe {
            libc::fallocate(
                self.file.as_raw_fd(),
                mode,
                offset as libc::off_t,
                len as libc::off_t,
            )
        };
        if done < 0 {
            Err(MemoryError::last("fallocate"))
        } else {
            Ok(())
        }
    }

    /// Takes the pages of this range at once, which is several times faster than touching them
    /// one by one. Only a hint: failure is no error.
    pub fn populate(&self, offset: u64, len: u64) {
        if self.is_huge() {
            // They are few, and there already.
            return;
        }
        let start = offset & !(self.page_bytes() - 1);
        let Ok(address) = self.address(start, len.saturating_add(offset - start)) else {
            return;
        };
        // SAFETY: the range is inside the mapping, and populating changes no byte.
        unsafe {
            libc::madvise(
                address.as_ptr().cast(),
                (len + (offset - start)) as usize,
                libc::MADV_POPULATE_WRITE,
            );
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range was mapped by `map` and is unmapped only here.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
    }
}

/// Sets aside `len` bytes of addresses that start at a multiple of [`ALIGNED_FROM`].
fn aligned_place(len: usize) -> Result<*mut libc::c_void, MemoryError> {
    let whole = len
        .checked_add(ALIGNED_FROM)
        .ok_or(MemoryError::Size(len as u64))?;
    // SAFETY: addresses of the kernel's choice, which nobody may touch yet.
    let start = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            whole,
            libc::PROT_NONE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
            -1,
            0,
        )
    };
    if start == libc::MAP_FAILED {
        return Err(MemoryError::last("mmap"));
    }
    let before = (start as usize).wrapping_neg() % ALIGNED_FROM;
    let after = len.next_multiple_of(page_size());
    let rest = whole.saturating_sub(before + after);
    // SAFETY: both edges are pages of the range that was mapped above, and nobody has them.
    unsafe {
        let place = start.byte_add(before);
        if before > 0 {
            libc::munmap(start, before);
        }
        if rest > 0 {
            libc::munmap(place.byte_add(after), rest);
        }
        Ok(place)
    }
}

/// Bytes of the machine's own pages.
fn page_size() -> usize {
    // SAFETY: a plain question.
    usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096)
}

fn checked_len(len: u64) -> Result<usize, MemoryError> {
    usize::try_from(len)
        .ok()
        .filter(|_| len > 0 && len <= LEN_MAX)
        .ok_or(MemoryError::Size(len))
}

fn invalid(error: MemoryError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_mappings_start_at_large_pages_and_leave_no_addresses_behind() {
        let set_aside = || {
            let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
            maps.lines().filter(|line| line.contains(" ---p ")).count()
        };
        let before = set_aside();
        for round in 0..50 {
            for len in [2 << 20, (2 << 20) + 4096, (7 << 20) + 100, 64 << 20] {
                let mapping = Mapping::create(len).unwrap();
                let start = mapping.address(0, len).unwrap();
                assert_eq!(start.as_ptr() as usize % ALIGNED_FROM, 0);
                mapping.write(len - 3, b"end").unwrap();
                let mut end = [0; 3];
                mapping.read(len - 3, &mut end).unwrap();
                assert_eq!(&end, b"end", "round {round}");
            }
        }
        // Threads of other tests have some, too: a page below each stack.
        let now = set_aside();
        assert!(
            now < before + 50,
            "{before} ranges were set aside, and now {now}"
        );
    }

    #[test]
    fn two_mappings_show_the_same_bytes() {
        let here = Mapping::create(1 << 20).unwrap();
        let there = Mapping::from_peer(here.file().try_clone_to_owned().unwrap()).unwrap();
        here.write(4090, b"over a page").unwrap();
        let mut seen = [0; 11];
        there.read(4090, &mut seen).unwrap();
        assert_eq!(&seen, b"over a page");
        there.discard(4096, 4096).unwrap();
        here.read(4090, &mut seen).unwrap();
        assert_eq!(&seen, b"over a\0\0\0\0\0");
    }

    #[test]
    fn bounds_are_checked() {
        let memory = Mapping::create(8192).unwrap();
        assert!(memory.address(0, 8192).is_ok());
        assert!(memory.address(8192, 0).is_ok());
        assert!(memory.address(8191, 2).is_err());
        assert!(memory.address(u64::MAX, 2).is_err());
        assert!(memory.write(8190, b"abc").is_err());
        assert!(Mapping::create(0).is_err());
        assert!(Mapping::create(u64::MAX).is_err());
    }

    #[test]
    fn an_unsealed_file_is_refused() {
        // SAFETY: a plain system call; the descriptor is owned at once.
        let file = unsafe {
            let raw = libc::memfd_create(c"loose".as_ptr(), libc::MFD_CLOEXEC);
            assert!(raw >= 0 && libc::ftruncate(raw, 4096) == 0);
            OwnedFd::from_raw_fd(raw)
        };
        assert!(matches!(
            Mapping::from_peer(file),
            Err(MemoryError::NotSealed)
        ));
    }

    #[test]
    fn a_sealed_file_can_not_shrink() {
        let memory = Mapping::create(8192).unwrap();
        // SAFETY: a plain system call on an open file.
        let cut = unsafe { libc::ftruncate(memory.file().as_raw_fd(), 0) };
        assert_eq!(cut, -1);
    }
}
