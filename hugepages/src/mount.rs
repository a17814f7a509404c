//! hugetlbfs: the mounts that are there, and one more.
//!
//! Genie itself maps a memfd and needs no mount; DPDK's EAL without `--in-memory` and other
//! programs do. After `admin-guide/mm/hugetlbpage.rst`, "Using Huge Pages".

use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags};

use crate::page::PageSize;
use crate::root::{FindError, Root};

/// A mounted hugetlbfs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HugeMount {
    /// Where.
    pub path: PathBuf,
    /// The size of its pages; none if neither the mount nor the kernel names one.
    pub page: Option<PageSize>,
    /// Whether no file can be made there.
    pub read_only: bool,
}

/// Why there is no new mount.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// The mount point is not a folder, or can't be made one.
    #[error("{path}: can't be a mount point; name an empty folder with an absolute path")]
    Folder {
        /// The mount point.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A hugetlbfs is there already.
    #[error("{path}: a hugetlbfs is mounted there already; use it, or `umount {path}` first")]
    Taken {
        /// The mount point.
        path: PathBuf,
    },
    /// No permission (CAP_SYS_ADMIN).
    #[error(
        "{path}: mounting is not permitted; as root: mount -t hugetlbfs -o pagesize={size} none {path}",
        size = .page.kernel_name()
    )]
    Denied {
        /// The mount point.
        path: PathBuf,
        /// The size asked for.
        page: PageSize,
    },
    /// The kernel has no hugetlbfs, or not with this size.
    #[error(
        "{path}: this kernel has no hugetlbfs with pages of {page}; see /sys/kernel/mm/hugepages"
    )]
    NotSupported {
        /// The mount point.
        path: PathBuf,
        /// The size asked for.
        page: PageSize,
    },
    /// Anything else.
    #[error("{path}: {call} failed")]
    Other {
        /// The mount point.
        path: PathBuf,
        /// `mount` or `umount`.
        call: &'static str,
        /// What the kernel said.
        source: Errno,
    },
    /// The mounts can't be read.
    #[error(transparent)]
    Find(#[from] FindError),
}

/// A hugetlbfs that this process mounted. It is unmounted when this goes, and a folder that was
/// made for it is removed; mapped files stay mapped.
#[derive(Debug)]
pub struct Mounted {
    path: PathBuf,
    page: PageSize,
    made_folder: bool,
    armed: bool,
}

/// The hugetlbfs mounts in `/proc/mounts`. Lines that make no sense are passed over.
pub(crate) fn list(root: &Root, default: Option<PageSize>) -> Result<Vec<HugeMount>, FindError> {
    match Root::text(&root.path("proc/mounts")) {
        Ok(text) => Ok(text
            .lines()
            .filter_map(|line| parse(line, default))
            .collect()),
        Err(FindError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            Ok(Vec::new())
        }
        Err(error) => Err(error),
    }
}

/// One line of `/proc/mounts` (fstab(5)): device, folder, type, options.
fn parse(line: &str, default: Option<PageSize>) -> Option<HugeMount> {
    let mut fields = line.split(' ');
    let (_device, folder, kind) = (fields.next()?, fields.next()?, fields.next()?);
    if kind != "hugetlbfs" || !folder.starts_with('/') {
        return None;
    }
    let options = fields.next()?;
    let named = options
        .split(',')
        .find_map(|option| option.strip_prefix("pagesize="));
    Some(HugeMount {
        path: unescape(folder),
        page: match named {
            Some(size) => size.parse().ok(),
            None => default,
        },
        read_only: options.split(',').any(|option| option == "ro"),
    })
}

/// Undoes `\040` for a space and the like.
fn unescape(field: &str) -> PathBuf {
    let bytes = field.as_bytes();
    let mut path = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let code = bytes
            .get(at + 1..at + 4)
            .filter(|_| byte == b'\\')
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        path.push(code.unwrap_or(byte));
        at += if code.is_some() { 4 } else { 1 };
    }
    PathBuf::from(std::ffi::OsString::from_vec(path))
}

/// Mounts a hugetlbfs with pages of one size at `path`, for the owner only. The folder is made if
/// it is absent (not its parents).
///
/// # Errors
/// See [`MountError`].
pub fn mount(root: &Root, path: &Path, page: PageSize) -> Result<Mounted, MountError> {
    let path = path.to_owned();
    if list(root, None)?.iter().any(|mount| mount.path == path) {
        return Err(MountError::Taken { path });
    }
    let made_folder = match fs::create_dir(&path) {
        Ok(()) => true,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => false,
        Err(source) => return Err(MountError::Folder { path, source }),
    };
    // Dropping this on the way out removes the folder.
    let mut mounted = Mounted {
        path,
        page,
        made_folder,
        armed: false,
    };
    let options = format!("pagesize={},mode=0700", page.kernel_name());
    nix::mount::mount(
        Some("none"),
        &mounted.path,
        Some("hugetlbfs"),
        MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC,
        Some(options.as_str()),
    )
    .map_err(|source| {
        let path = mounted.path.clone();
        match source {
            Errno::EPERM | Errno::EACCES => MountError::Denied { path, page },
            Errno::ENODEV | Errno::EINVAL => MountError::NotSupported { path, page },
            source => MountError::Other {
                path,
                call: "mount",
                source,
            },
        }
    })?;
    mounted.armed = true;
    Ok(mounted)
}

impl Mounted {
    /// Where.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The size of its pages.
    pub fn page(&self) -> PageSize {
        self.page
    }

    /// Leaves it mounted when this goes.
    pub fn keep(mut self) {
        self.armed = false;
        self.made_folder = false;
    }

    /// Unmounts it now.
    ///
    /// # Errors
    /// A file there is open (EBUSY): it stays mounted.
    pub fn unmount(mut self) -> Result<(), MountError> {
        self.undo()
    }

    fn undo(&mut self) -> Result<(), MountError> {
        if std::mem::take(&mut self.armed) {
            let unmounted = nix::mount::umount2(&self.path, MntFlags::UMOUNT_NOFOLLOW);
            unmounted.map_err(|source| {
                self.made_folder = false;
                MountError::Other {
                    path: self.path.clone(),
                    call: "umount",
                    source,
                }
            })?;
        }
        if std::mem::take(&mut self.made_folder) {
            fs::remove_dir(&self.path).map_err(|source| MountError::Folder {
                path: self.path.clone(),
                source,
            })?;
        }
        Ok(())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if let Err(error) = self.undo() {
            tracing::warn!(%error, "a hugetlbfs stays mounted; umount it by hand");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Fake;

    #[test]
    fn mounts_are_read_and_nonsense_is_passed_over() {
        let fake = Fake::new();
        fake.file(
            "proc/mounts",
            "proc /proc proc rw 0 0\n\
             none /dev/huge\\040pages hugetlbfs rw,relatime,pagesize=2M 0 0\n\
             none /mnt/1g hugetlbfs ro,pagesize=1024M 0 0\n\
             none /mnt/default hugetlbfs rw 0 0\n\
             none /mnt/odd hugetlbfs rw,pagesize=blue 0 0\n\
             none /mnt/cut hugetlbfs\n\nx\n \\9 hugetlbfs \\\n",
        );
        let mounts = list(&fake.root(), Some(PageSize::MIB_2)).unwrap();
        let expected = [
            ("/dev/huge pages", Some(PageSize::MIB_2), false),
            ("/mnt/1g", Some(PageSize::GIB_1), true),
            ("/mnt/default", Some(PageSize::MIB_2), false),
            ("/mnt/odd", None, false),
        ];
        assert_eq!(mounts.len(), expected.len(), "{mounts:?}");
        for (mount, (path, page, read_only)) in mounts.iter().zip(expected) {
            assert_eq!(mount.path, Path::new(path));
            assert_eq!((mount.page, mount.read_only), (page, read_only), "{path}");
        }
    }

    #[test]
    fn a_taken_or_absent_mount_point_is_refused() {
        let fake = Fake::new();
        fake.file(
            "proc/mounts",
            "none /dev/hugepages hugetlbfs rw,pagesize=2M 0 0\n",
        );
        let at = |path: &Path| mount(&fake.root(), path, PageSize::MIB_2);
        let taken = at(Path::new("/dev/hugepages"));
        assert!(matches!(taken, Err(MountError::Taken { .. })), "{taken:?}");
        let absent = at(&fake.folder().join("no/such"));
        assert!(
            matches!(absent, Err(MountError::Folder { .. })),
            "{absent:?}"
        );
        let file = at(&fake.folder().join("proc/mounts"));
        assert!(matches!(file, Err(MountError::Folder { .. })), "{file:?}");
    }
}
