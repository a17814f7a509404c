//! Memory to send from and to: in huge pages where the kernel gives them, and touched before
//! anything is measured.

use std::num::NonZeroUsize;
use std::ptr::NonNull;

use anyhow::{Context, Result};
use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap_anonymous, munmap};

const HUGE_BYTES: usize = 2 << 20;

/// Zeroed memory of its own.
pub struct Memory {
    start: NonNull<libc::c_void>,
    mapped: NonZeroUsize,
    bytes: usize,
}

// SAFETY: the mapping belongs to this value alone, and moves with it.
unsafe impl Send for Memory {}

impl Memory {
    /// `bytes` bytes, not zero, with their pages.
    pub fn new(bytes: usize) -> Result<Self> {
        let wanted = bytes.max(1);
        let align = if wanted >= HUGE_BYTES {
            HUGE_BYTES
        } else {
            4096
        };
        let mapped = wanted
            .checked_next_multiple_of(align)
            .and_then(NonZeroUsize::new)
            .context("a size past the address space")?;
        let rights = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new private mapping at an address of the kernel's choice overlaps nothing.
        let start = unsafe { mmap_anonymous(None, mapped, rights, MapFlags::MAP_PRIVATE) }
            .with_context(|| format!("no memory for {bytes} bytes"))?;
        // Ordinary pages do as well, only slower.
        // SAFETY: advice about the mapping that was just made.
        let _ = unsafe { madvise(start, mapped.get(), MmapAdvise::MADV_HUGEPAGE) };
        let mut memory = Self {
            start,
            mapped,
            bytes,
        };
        memory.bytes_mut().fill(0);
        Ok(memory)
    }

    /// The memory.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the mapping is at least so long, lives as long as `self`, and is initialised.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().cast(), self.bytes) }
    }

    /// The memory, to write.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`, and `self` is borrowed alone.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr().cast(), self.bytes) }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's, and nothing borrows it any more.
        let _ = unsafe { munmap(self.start, self.mapped.get()) };
    }
}
