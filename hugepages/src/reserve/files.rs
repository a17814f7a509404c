//! One `nr_hugepages` file: changed by so many pages, under its lock.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use super::ReserveError;
use crate::root::{FindError, Root};

/// How a number gets into a file.
pub(super) type Write<'a> = dyn FnMut(&Path, u64) -> io::Result<()> + 'a;

/// A kernel that compacts memory for many 1 GiB pages takes seconds.
const LOCK_WAIT_MAX: Duration = Duration::from_secs(10);
const LOCK_POLL: Duration = Duration::from_millis(5);

/// The way of the kernel's own files: one write, no truncation, no new file.
pub(super) fn write(path: &Path, pages: u64) -> io::Result<()> {
    let mut file = fs::OpenOptions::new()
        .write(true)
        .truncate(true)
        .open(path)?;
    io::Write::write_all(&mut file, pages.to_string().as_bytes())
}

/// What came of a change.
pub(super) struct Grown {
    /// Persistent pages before.
    pub before: u64,
    /// Pages that were not in the pool before.
    pub came: u64,
    /// What to take off to undo it. More than came if others' surplus pages became persistent,
    /// which the kernel does first.
    pub owed: u64,
}

/// Adds `pages`, as far as the kernel has room.
pub(super) fn grow(path: &Path, pages: u64, write: &mut Write<'_>) -> Result<Grown, ReserveError> {
    let _lock = lock(path)?;
    let before = Count::read(path)?;
    if pages > 0 {
        let target = before.total.saturating_add(pages);
        write(path, target).map_err(|source| failed(path, target, source))?;
    }
    let after = Count::read(path)?;
    Ok(Grown {
        before: before.persistent(),
        came: after.total.saturating_sub(before.total).min(pages),
        owed: after.persistent().saturating_sub(before.persistent()),
    })
}

/// Takes `pages` away; those in use become surplus, and go when they are freed.
pub(super) fn shrink(path: &Path, pages: u64, write: &mut Write<'_>) -> Result<(), ReserveError> {
    let _lock = lock(path)?;
    let target = Count::read(path)?.persistent().saturating_sub(pages);
    write(path, target).map_err(|source| failed(path, target, source))
}

/// `nr_hugepages` reads as all pages, and is written as those that aren't surplus.
struct Count {
    total: u64,
    surplus: u64,
}

impl Count {
    fn read(path: &Path) -> Result<Self, FindError> {
        Ok(Self {
            total: Root::number(path)?,
            surplus: Root::number(&path.with_file_name("surplus_hugepages")).unwrap_or(0),
        })
    }

    fn persistent(&self) -> u64 {
        self.total.saturating_sub(self.surplus)
    }
}

fn lock(path: &Path) -> Result<Flock<File>, ReserveError> {
    let mut file = File::open(path).map_err(|source| FindError::Read {
        path: path.to_owned(),
        source,
    })?;
    let began = Instant::now();
    loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err((back, Errno::EWOULDBLOCK | Errno::EINTR)) if began.elapsed() < LOCK_WAIT_MAX => {
                file = back;
                std::thread::sleep(LOCK_POLL);
            }
            Err((_, Errno::EWOULDBLOCK | Errno::EINTR)) => {
                let path = path.to_owned();
                return Err(ReserveError::Busy { path });
            }
            Err((_, errno)) => {
                let path = path.to_owned();
                let source = errno.into();
                return Err(FindError::Read { path, source }.into());
            }
        }
    }
}

fn failed(path: &Path, pages: u64, source: io::Error) -> ReserveError {
    let path = path.to_owned();
    match source.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            ReserveError::Denied {
                path,
                pages,
                source,
            }
        }
        _ => ReserveError::Write {
            path,
            pages,
            source,
        },
    }
}
