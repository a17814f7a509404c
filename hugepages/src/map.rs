//! Memory mapped: huge pages if they can be had, ordinary ones if they can't.

mod error;
mod steps;

use std::path::PathBuf;
use std::time::Duration;

use crate::numa::NodeId;
use crate::page::PageSize;
use crate::region::Region;
use crate::root::Root;
use crate::shortage::NoHugePages;

pub use error::MapError;

/// Where huge pages come from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Backing {
    /// A memfd with `MFD_HUGETLB`: needs no mount and no name, and can be sealed.
    #[default]
    Memfd,
    /// A file in this folder of a hugetlbfs, unlinked at once: for a kernel or a container that
    /// lets a process have huge pages in no other way. It can't be sealed, so
    /// [`Region::attach`] refuses it.
    Hugetlbfs(PathBuf),
}

/// What memory is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MapRequest {
    bytes: usize,
    page: Option<PageSize>,
    node: Option<NodeId>,
    backing: Backing,
    locked: bool,
    fallback: bool,
    open: bool,
    within: Option<Duration>,
}

impl MapRequest {
    /// At least so many bytes, on huge pages of the kernel's default size, from any node, not
    /// locked, or on ordinary pages where there are no huge ones.
    pub fn new(bytes: usize) -> Self {
        Self {
            bytes,
            page: None,
            node: None,
            backing: Backing::Memfd,
            locked: false,
            fallback: true,
            open: false,
            within: None,
        }
    }

    /// On huge pages of this size.
    #[must_use]
    pub fn page(mut self, page: PageSize) -> Self {
        self.page = Some(page);
        self
    }

    /// On this node. Huge pages come from there or not at all; ordinary pages, while it has room.
    #[must_use]
    pub fn node(mut self, node: NodeId) -> Self {
        self.node = Some(node);
        self
    }

    /// From there.
    #[must_use]
    pub fn backing(mut self, backing: Backing) -> Self {
        self.backing = backing;
        self
    }

    /// Locked, or an error.
    #[must_use]
    pub fn locked(mut self) -> Self {
        self.locked = true;
        self
    }

    /// Huge pages, or [`MapError::NoHugePages`].
    #[must_use]
    pub fn huge_only(mut self) -> Self {
        self.fallback = false;
        self
    }

    /// Open to more seals, and only on a kernel that knows `F_SEAL_FUTURE_WRITE` (Linux 5.1): for
    /// memory that goes to a process which is not trusted. That one maps it first, and is then kept
    /// from punching holes into it.
    #[must_use]
    pub fn open_to_seals(mut self) -> Self {
        self.open = true;
        self
    }

    /// Huge pages that are there in this time, or none: clearing them takes a machine a tenth of a
    /// second a GiB, and a virtual one whose host has to find them first up to 16 seconds.
    #[must_use]
    pub fn within(mut self, time: Duration) -> Self {
        self.within = Some(time);
        self
    }

    /// Whether so many huge pages are free now; why not, and what to type, if they aren't.
    ///
    /// # Errors
    /// See [`NoHugePages`].
    pub fn available(&self, root: &Root) -> Result<(), NoHugePages> {
        steps::free_pages(root, self).map(drop)
    }
}

/// Maps what is wanted. Huge pages are all there when this returns: no later touch can fail.
/// Ordinary pages come when they are touched, or at once if the region is locked.
///
/// Falling back to ordinary pages is a warning in the log and in [`Region::fallback`].
///
/// # Errors
/// See [`MapError`].
pub fn map(root: &Root, request: &MapRequest) -> Result<Region, MapError> {
    if request.bytes == 0 {
        return Err(MapError::Empty);
    }
    let mut region = match steps::huge(root, request) {
        Ok(region) => region,
        Err(reason) if request.fallback => {
            let mut region = steps::ordinary(root, request)?;
            tracing::warn!(%reason, bytes = region.len(), "ordinary pages instead of huge pages");
            region.set_fallback(reason);
            region
        }
        Err(reason) => return Err(reason.into()),
    };
    if request.locked {
        region.lock()?;
    }
    Ok(region)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::region::{AttachError, Kind};
    use crate::testing::Fake;
    use std::os::fd::AsFd;

    fn no_pages() -> Fake {
        let fake = Fake::new();
        fake.pool(None, 2048, 1, 1);
        fake.file(
            "proc/meminfo",
            "MemTotal: 9999999 kB\nHugepagesize: 2048 kB\n",
        );
        fake
    }

    #[test]
    fn too_few_huge_pages_give_ordinary_ones_and_say_what_to_type() {
        let fake = no_pages();
        let mut region = map(&fake.root(), &MapRequest::new(5_000_000)).unwrap();
        assert_eq!(region.kind(), Kind::Ordinary);
        assert!(region.len() >= 5_000_000);
        let reason = region.fallback().unwrap();
        assert!(
            matches!(
                reason,
                NoHugePages::TooFew {
                    needed: 3,
                    free: 1,
                    ..
                }
            ),
            "{reason}"
        );
        assert!(
            reason
                .to_string()
                .contains("genie-hugepages reserve 6MiB --page 2MiB")
        );
        let end = region.len();
        region.write_at(end - 2, b"ab").unwrap();
        let mut back = [0; 3];
        region.read_at(end - 3, &mut back).unwrap();
        assert_eq!(&back, b"\0ab");
        for (offset, len) in [(end - 1, 2), (end + 1, 0), (usize::MAX, 2)] {
            assert!(region.write_at(offset, &[0; 2][..len]).is_err(), "{offset}");
        }
        assert!(region.node_at(end).is_none());
    }

    #[test]
    fn who_wants_only_huge_pages_gets_an_error() {
        let fake = no_pages();
        let request = MapRequest::new(5_000_000).huge_only();
        let error = map(&fake.root(), &request).unwrap_err();
        assert!(matches!(error, MapError::NoHugePages(_)), "{error}");
        let request = MapRequest::new(1).page(PageSize::GIB_1);
        let region = map(&fake.root(), &request).unwrap();
        assert!(matches!(
            region.fallback(),
            Some(NoHugePages::NoSuchPage { .. })
        ));
        let nothing = Fake::new();
        let region = map(&nothing.root(), &MapRequest::new(1)).unwrap();
        assert!(matches!(
            region.fallback(),
            Some(NoHugePages::NotSupported { .. })
        ));
    }

    #[test]
    fn sizes_and_nodes_that_cannot_be_are_refused() {
        let fake = no_pages();
        assert!(matches!(
            map(&fake.root(), &MapRequest::new(0)),
            Err(MapError::Empty)
        ));
        for bytes in [usize::MAX, usize::MAX / 2, 1 << 50] {
            let error = map(&fake.root(), &MapRequest::new(bytes)).unwrap_err();
            assert!(
                matches!(error, MapError::TooLarge { .. }),
                "{bytes}: {error}"
            );
        }
        let request = MapRequest::new(1).node(NodeId::new(9).unwrap());
        let region = map(&fake.root(), &request).unwrap();
        assert!(matches!(
            region.fallback(),
            Some(NoHugePages::NoSuchNode { .. })
        ));
        assert_eq!(region.node(), None);
    }

    #[test]
    fn another_process_can_attach_and_nobody_can_shorten_it() {
        let fake = no_pages();
        let mut region = map(&fake.root(), &MapRequest::new(4_000_000)).unwrap();
        region.write_at(7, b"hello").unwrap();
        let fd = || region.as_fd().try_clone_to_owned().unwrap();
        let other = Region::attach(fd(), 1 << 24).unwrap();
        let mut bytes = [0; 5];
        other.read_at(7, &mut bytes).unwrap();
        assert_eq!(&bytes, b"hello");
        assert_eq!(
            nix::unistd::ftruncate(region.as_fd(), 0),
            Err(nix::errno::Errno::EPERM)
        );
        let small = Region::attach(fd(), 4096).unwrap_err();
        assert!(matches!(small, AttachError::Length { .. }), "{small}");
    }

    #[test]
    fn open_memory_takes_one_more_seal_and_can_not_be_shortened_either() {
        use nix::fcntl::{FcntlArg, SealFlag, fcntl};
        let fake = no_pages();
        let seal = |request: MapRequest| {
            let fd = map(&fake.root(), &request).unwrap().into_fd();
            let added = fcntl(&fd, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_FUTURE_WRITE));
            let cut = nix::unistd::ftruncate(&fd, 0);
            assert_eq!(cut, Err(nix::errno::Errno::EPERM));
            added
        };
        let request = MapRequest::new(4_000_000);
        assert_eq!(seal(request.clone()), Err(nix::errno::Errno::EPERM));
        assert!(seal(request.open_to_seals()).is_ok());
    }

    #[test]
    fn memory_that_can_be_shortened_or_is_no_memory_is_not_attached() {
        use nix::sys::memfd::{MFdFlags, memfd_create};
        let bare = memfd_create(c"bare", MFdFlags::MFD_ALLOW_SEALING).unwrap();
        nix::unistd::ftruncate(&bare, 4096).unwrap();
        assert_eq!(
            Region::attach(bare, 4096).unwrap_err(),
            AttachError::NotSealed
        );
        let null = std::fs::File::open("/dev/null").unwrap();
        let error = Region::attach(null.into(), 4096).unwrap_err();
        assert!(matches!(error, AttachError::Refused { .. }), "{error}");
    }
}
