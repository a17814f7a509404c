//! The steps of a mapping: a file, its length, the map, the node, the pages, the seal.

use std::fs::{self, File, OpenOptions};
use std::ops::Range;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use memmap2::MmapRaw;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::statfs::{HUGETLBFS_MAGIC, fstatfs};
use nix::unistd::{SysconfVar, ftruncate, sysconf};

use super::{Backing, MapError, MapRequest};
use crate::find::{self, Inventory};
use crate::numa::{self, Bind};
use crate::page::PageSize;
use crate::region::{Kind, Region, map_whole};
use crate::root::Root;
use crate::shortage::NoHugePages;

/// Pages that are brought in at a time.
const STEP_BYTES: usize = 4 << 20;

/// A call of the kernel that failed, by name.
type Failed = (&'static str, Errno);

/// Huge pages for a request.
pub(super) struct Pages {
    page: PageSize,
    pages: u64,
    /// Bytes of them.
    len: usize,
}

/// Those that are free, not taken yet.
pub(super) fn free_pages(root: &Root, request: &MapRequest) -> Result<Pages, NoHugePages> {
    let found = Inventory::read(root)?;
    let page = request.page.or(found.default_page);
    let page = page.filter(|_| !found.sizes.is_empty());
    let Some(page) = page else {
        let path = root.path("sys/kernel/mm/hugepages");
        return Err(NoHugePages::NotSupported { path });
    };
    if let Some(node) = request.node.filter(|&node| !found.has_node(node)) {
        let path = find::node_folder(root, node);
        return Err(NoHugePages::NoSuchNode { path, node });
    }
    let path = find::pool_folder(root, request.node, page);
    let Some(totals) = found.size(page) else {
        return Err(NoHugePages::NoSuchPage { path, page });
    };
    let needed = (request.bytes as u64).div_ceil(page.bytes());
    let free = found.usable(page, request.node) + totals.overcommit;
    let len = usize::try_from(needed.saturating_mul(page.bytes()));
    let (Ok(len), true) = (len, needed <= free) else {
        return Err(NoHugePages::TooFew {
            path,
            page,
            node: request.node,
            needed,
            free,
        });
    };
    let pages = needed;
    Ok(Pages { page, pages, len })
}

/// A region of huge pages, every one of them there.
pub(super) fn huge(root: &Root, request: &MapRequest) -> Result<Region, NoHugePages> {
    let Pages { page, pages, len } = free_pages(root, request)?;
    let refused = |(call, errno)| NoHugePages::Refused {
        needed: pages,
        page,
        call,
        errno,
    };
    let (file, kind) = match &request.backing {
        Backing::Memfd => {
            let flags = MFdFlags::MFD_HUGETLB | MFdFlags::from_bits_retain(page.memfd_bits());
            if request.open {
                // Asked of an empty file, since it can't be undone.
                let trial = memfd(flags).map_err(refused)?;
                add_seals(&trial, SealFlag::F_SEAL_FUTURE_WRITE).map_err(refused)?;
            }
            (memfd(flags).map_err(refused)?, Kind::HugeMemfd(page))
        }
        Backing::Hugetlbfs(folder) => (unnamed_file(folder, page)?, Kind::HugeFile(page)),
    };
    let map = sized(&file, len).map_err(refused)?;
    let bound = bind(&map, request, Bind::Only).map_err(refused)?;
    let started = Instant::now();
    let mut at = 0;
    while at < len {
        // In steps: other threads of this process may want its page tables meanwhile.
        let step = (len - at).min(STEP_BYTES.max(page.bytes() as usize));
        populate(&map, &file, at..at + step).map_err(refused)?;
        at += step;
        if let Some(time) = request
            .within
            .filter(|&time| at < len && started.elapsed() > time)
        {
            return Err(NoHugePages::Slow {
                needed: pages,
                page,
                came: at as u64 / page.bytes(),
                time,
            });
        }
    }
    if matches!(kind, Kind::HugeMemfd(_)) {
        seal(&file, request).map_err(refused)?;
    }
    Ok(finish(map, file, kind, request, bound))
}

/// A region of ordinary pages that come when touched.
pub(super) fn ordinary(root: &Root, request: &MapRequest) -> Result<Region, MapError> {
    let bytes = request.bytes;
    let meminfo = root.path("proc/meminfo");
    let available = Root::meminfo(&meminfo, "MemAvailable");
    let have_bytes = available.or_else(|| Root::meminfo(&meminfo, "MemTotal"));
    let page = match sysconf(SysconfVar::PAGE_SIZE) {
        Ok(Some(page)) => usize::try_from(page).unwrap_or(4096),
        _ => 4096,
    };
    let fits = have_bytes.is_none_or(|have| bytes as u64 <= have);
    let len = bytes.checked_next_multiple_of(page);
    let (Some(len), true) = (len.filter(|&len| isize::try_from(len).is_ok()), fits) else {
        return Err(MapError::TooLarge {
            bytes,
            have_bytes: have_bytes.unwrap_or(isize::MAX as u64),
        });
    };
    let refused = |(call, errno)| MapError::Refused { bytes, call, errno };
    let file = memfd(MFdFlags::empty()).map_err(refused)?;
    let map = sized(&file, len).map_err(refused)?;
    let bound = match bind(&map, request, Bind::Preferred) {
        Ok(bound) => bound,
        Err((_, errno)) => {
            tracing::warn!(%errno, node = ?request.node, "memory is not bound to its node");
            false
        }
    };
    seal(&file, request).map_err(refused)?;
    Ok(finish(map, file, Kind::Ordinary, request, bound))
}

fn finish(map: MmapRaw, file: File, kind: Kind, request: &MapRequest, bound: bool) -> Region {
    let mut region = Region::new(map, file, kind);
    if let Some(node) = request.node.filter(|_| bound) {
        region.set_node(node);
    }
    region
}

fn memfd(flags: MFdFlags) -> Result<File, Failed> {
    let flags = flags | MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    memfd_create(c"genie", flags)
        .map(File::from)
        .map_err(|errno| ("memfd_create", errno))
}

/// A new file on a hugetlbfs that is gone by name before it has a page.
fn unnamed_file(folder: &Path, page: PageSize) -> Result<File, NoHugePages> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let not_mounted = || NoHugePages::NotMounted {
        path: folder.to_owned(),
        page,
    };
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let path = folder.join(format!("genie-{}-{number}", std::process::id()));
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true).mode(0o600);
    let file = options.open(&path).map_err(|_| not_mounted())?;
    let removed = fs::remove_file(&path);
    let filesystem = fstatfs(&file).map_err(|_| not_mounted())?;
    let right = filesystem.filesystem_type() == HUGETLBFS_MAGIC
        && u64::try_from(filesystem.block_size()) == Ok(page.bytes());
    match right && removed.is_ok() {
        true => Ok(file),
        false => Err(not_mounted()),
    }
}

/// Gives a file its length and maps it. For huge pages this promises every page to the mapping.
fn sized(file: &File, len: usize) -> Result<MmapRaw, Failed> {
    let end = libc::off_t::try_from(len).map_err(|_| ("ftruncate", Errno::EFBIG))?;
    ftruncate(file, end).map_err(|errno| ("ftruncate", errno))?;
    map_whole(file, len).map_err(|errno| ("mmap", errno))
}

/// Binds to the node that is asked for; false where the kernel can't (no NUMA, a filter).
fn bind(map: &MmapRaw, request: &MapRequest, how: Bind) -> Result<bool, Failed> {
    let Some(node) = request.node else {
        return Ok(false);
    };
    match numa::bind(map.as_mut_ptr(), map.len(), node, how) {
        Ok(()) => Ok(true),
        Err(errno @ (Errno::ENOSYS | Errno::EPERM)) => {
            tracing::warn!(%errno, %node, "this kernel doesn't let memory be bound to a node");
            Ok(false)
        }
        Err(errno) => Err(("mbind", errno)),
    }
}

/// Brings pages in now. A promise counts for the whole machine, not for a node or a cgroup: a first
/// touch could still be SIGBUS, and this is an error instead.
fn populate(map: &MmapRaw, file: &File, range: Range<usize>) -> Result<(), Failed> {
    // SAFETY: the range is inside one live mapping that the caller owns and nobody else knows of
    // yet; populating writes no byte that is there already.
    let done = unsafe {
        libc::madvise(
            map.as_mut_ptr().add(range.start).cast(),
            range.len(),
            libc::MADV_POPULATE_WRITE,
        )
    };
    match Errno::result(done) {
        Ok(_) => Ok(()),
        // Before Linux 5.14 allocating the file's pages does as much, under the same policy.
        Err(Errno::EINVAL) => {
            let flags = nix::fcntl::FallocateFlags::empty();
            let offset = |at| libc::off_t::try_from(at).map_err(|_| ("fallocate", Errno::EFBIG));
            let (start, len) = (offset(range.start)?, offset(range.len())?);
            nix::fcntl::fallocate(file, flags, start, len).map_err(|errno| ("fallocate", errno))
        }
        Err(errno) => Err(("madvise", errno)),
    }
}

/// Fixes the length for everybody, for good.
fn seal(file: &File, request: &MapRequest) -> Result<(), Failed> {
    let mut seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW;
    seals.set(SealFlag::F_SEAL_SEAL, !request.open);
    add_seals(file, seals)
}

fn add_seals(file: &File, seals: SealFlag) -> Result<(), Failed> {
    fcntl(file, FcntlArg::F_ADD_SEALS(seals))
        .map(drop)
        .map_err(|errno| ("F_ADD_SEALS", errno))
}
