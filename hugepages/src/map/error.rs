//! Why there is no mapping.

use nix::errno::Errno;

use crate::lock::LockError;
use crate::shortage::NoHugePages;

/// Why there is no mapping at all.
#[derive(Debug, thiserror::Error)]
pub enum MapError {
    /// Nothing was asked for.
    #[error("a region of no bytes was asked for; ask for at least one")]
    Empty,
    /// More than the machine has.
    #[error("{bytes} bytes: this machine has {have_bytes} available; ask for less")]
    TooLarge {
        /// What was asked for.
        bytes: usize,
        /// What is there.
        have_bytes: u64,
    },
    /// Huge pages alone would do.
    #[error(transparent)]
    NoHugePages(#[from] NoHugePages),
    /// It could be mapped and not locked.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The kernel refused ordinary pages.
    #[error("{bytes} bytes of ordinary pages: {call} failed: {errno}; see `ulimit -a`")]
    Refused {
        /// What was asked for.
        bytes: usize,
        /// The call.
        call: &'static str,
        /// What it said.
        errno: Errno,
    },
}
