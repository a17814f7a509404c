//! An owned mapping that other processes can be let into.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use memmap2::{MmapOptions, MmapRaw};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::statfs::{HUGETLBFS_MAGIC, fstatfs};

use crate::numa::{self, NodeId};
use crate::page::PageSize;
use crate::shortage::NoHugePages;

/// What a region is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Huge pages by `memfd_create(2)` with `MFD_HUGETLB`.
    HugeMemfd(PageSize),
    /// Huge pages by a file on a hugetlbfs that has no name any more.
    HugeFile(PageSize),
    /// Ordinary pages, by a memfd: the kernel may swap and move them unless they are locked.
    Ordinary,
}

/// Bytes that are asked for beyond a region's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("bytes {offset}..+{len} are not in a region of {region} bytes")]
pub struct OutOfRegion {
    /// The first byte.
    pub offset: usize,
    /// How many.
    pub len: usize,
    /// The region's length.
    pub region: usize,
}

/// Why a descriptor that another process sent can't be mapped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AttachError {
    /// Its length is zero, or more than the caller allows.
    #[error("the memory has {bytes} bytes; 1 to {bytes_max} are accepted")]
    Length {
        /// What it has.
        bytes: u64,
        /// What is allowed.
        bytes_max: usize,
    },
    /// Its owner could cut it short while it is mapped, and a read would then kill this process.
    #[error("the memory is not sealed against shrinking (F_SEAL_SHRINK); make it with map()")]
    NotSealed,
    /// The kernel refused.
    #[error("{call} failed: {errno}; is the descriptor a memfd?")]
    Refused {
        /// The call.
        call: &'static str,
        /// What it said.
        errno: Errno,
    },
}

/// An owned, shared, writable mapping of whole pages, zeroed when it was made.
///
/// The mapping lives as long as the region; its memory, as long as any process maps it or holds
/// its descriptor. A memfd's length is sealed: nobody who gets the descriptor can shorten it below
/// a mapping. Bytes are reached by copies, or by address: another process may change them at any
/// time, so the region never lends a slice.
#[derive(Debug)]
pub struct Region {
    map: MmapRaw,
    file: File,
    kind: Kind,
    node: Option<NodeId>,
    locked: bool,
    fallback: Option<NoHugePages>,
}

impl Region {
    pub(crate) fn new(map: MmapRaw, file: File, kind: Kind) -> Self {
        Self {
            map,
            file,
            kind,
            node: None,
            locked: false,
            fallback: None,
        }
    }

    /// Maps memory that another process made with [`map()`](crate::map()) and sent as a descriptor.
    ///
    /// # Errors
    /// See [`AttachError`]. Nothing that the sender does can shorten the region once this returns.
    /// A sender can still punch a hole into it; an ordinary page then reads as zero, and so does
    /// a huge page unless the machine has none left, which is SIGBUS. Let only processes that are
    /// trusted so far hold huge pages writable, or see [`crate::MapRequest::open_to_seals`].
    pub fn attach(fd: OwnedFd, bytes_max: usize) -> Result<Self, AttachError> {
        let refused = |call| move |errno| AttachError::Refused { call, errno };
        let seals = fcntl(&fd, FcntlArg::F_GET_SEALS).map_err(refused("F_GET_SEALS"))?;
        if !SealFlag::from_bits_retain(seals).contains(SealFlag::F_SEAL_SHRINK) {
            return Err(AttachError::NotSealed);
        }
        let stat = nix::sys::stat::fstat(&fd).map_err(refused("fstat"))?;
        let bytes = u64::try_from(stat.st_size).unwrap_or(0);
        let len = usize::try_from(bytes).unwrap_or(usize::MAX);
        if len == 0 || len > bytes_max {
            return Err(AttachError::Length { bytes, bytes_max });
        }
        let filesystem = fstatfs(&fd).map_err(refused("fstatfs"))?;
        let page = u64::try_from(filesystem.block_size())
            .ok()
            .and_then(PageSize::new)
            .filter(|_| filesystem.filesystem_type() == HUGETLBFS_MAGIC);
        let file = File::from(fd);
        let map = map_whole(&file, len).map_err(refused("mmap"))?;
        Ok(Self::new(
            map,
            file,
            page.map_or(Kind::Ordinary, Kind::HugeMemfd),
        ))
    }

    /// Its descriptor alone, for an owner that maps the memory in a way of its own. The pages stay
    /// where they are; what was locked is not any more.
    pub fn into_fd(self) -> OwnedFd {
        self.file.into()
    }

    /// In bytes: what was asked for, rounded up to whole pages.
    #[allow(clippy::len_without_is_empty, reason = "a mapping is never empty")]
    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// Its first byte, for hardware, drivers and rings. Aligned to its page size. It is good for
    /// [`Region::len`] bytes until the region goes; whoever writes there agrees with whoever else
    /// has the memory.
    pub fn address(&self) -> *mut u8 {
        self.map.as_mut_ptr()
    }

    /// What it is made of.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The size of its pages; none for ordinary pages.
    pub fn page(&self) -> Option<PageSize> {
        match self.kind {
            Kind::HugeMemfd(page) | Kind::HugeFile(page) => Some(page),
            Kind::Ordinary => None,
        }
    }

    /// The node that it was bound to; none if none was asked for, or if binding isn't possible.
    pub fn node(&self) -> Option<NodeId> {
        self.node
    }

    /// The node on which the page of this byte is, as the kernel sees it now; none where the
    /// kernel doesn't tell.
    pub fn node_at(&self, offset: usize) -> Option<NodeId> {
        self.check(offset, 1).ok()?;
        numa::node_of(self.address().wrapping_add(offset))
    }

    /// Whether it was locked.
    pub fn is_locked(&self) -> bool {
        self.locked
    }

    /// Why it has ordinary pages, if huge ones were wanted.
    pub fn fallback(&self) -> Option<&NoHugePages> {
        self.fallback.as_ref()
    }

    /// Copies `bytes` to `offset`.
    ///
    /// # Errors
    /// They don't fit; nothing was copied.
    pub fn write_at(&mut self, offset: usize, bytes: &[u8]) -> Result<(), OutOfRegion> {
        self.check(offset, bytes.len())?;
        // SAFETY: `check` keeps source and target inside their memory. `bytes` can't overlap the
        // mapping: no safe code has a reference into it. Another process may write the same bytes
        // meanwhile, which mixes values of a type that any value is good for.
        unsafe {
            let target = self.address().add(offset);
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), target, bytes.len());
        }
        Ok(())
    }

    /// Copies what is at `offset` into `bytes`.
    ///
    /// # Errors
    /// It goes beyond the end; nothing was copied.
    pub fn read_at(&self, offset: usize, bytes: &mut [u8]) -> Result<(), OutOfRegion> {
        self.check(offset, bytes.len())?;
        // SAFETY: as in `write_at`, the other way round.
        unsafe {
            let source = self.address().add(offset);
            std::ptr::copy_nonoverlapping(source, bytes.as_mut_ptr(), bytes.len());
        }
        Ok(())
    }

    fn check(&self, offset: usize, len: usize) -> Result<(), OutOfRegion> {
        let region = self.len();
        match offset.checked_add(len) {
            Some(end) if end <= region => Ok(()),
            _ => Err(OutOfRegion {
                offset,
                len,
                region,
            }),
        }
    }

    pub(crate) fn set_node(&mut self, node: NodeId) {
        self.node = Some(node);
    }

    pub(crate) fn set_locked(&mut self, locked: bool) {
        self.locked = locked;
    }

    pub(crate) fn set_fallback(&mut self, reason: NoHugePages) {
        self.fallback = Some(reason);
    }
}

/// Its descriptor, to send to another process. Whoever has it can read and write the memory.
impl AsFd for Region {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// All of a file, shared and writable.
pub(crate) fn map_whole(file: &File, len: usize) -> Result<MmapRaw, Errno> {
    MmapOptions::new()
        .len(len)
        .map_raw(file)
        .map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EINVAL)))
}
