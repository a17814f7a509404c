//! Memory that stays in place: `mlock(2)`.
//!
//! Huge pages are never swapped; locking them still faults every page in and is what drivers ask
//! for. Ordinary pages must be locked before hardware may reach them.

use std::ptr::NonNull;

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit};

use crate::region::Region;

/// Why memory was not locked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LockError {
    /// The process's limit is too small.
    #[error(
        "locking {needed_bytes} bytes: RLIMIT_MEMLOCK allows {limit_bytes}; \
         `ulimit -l unlimited`, or LimitMEMLOCK=infinity in the systemd unit"
    )]
    Limit {
        /// How many bytes were to be locked.
        needed_bytes: usize,
        /// How many the process may lock in all.
        limit_bytes: u64,
    },
    /// The kernel refused for another reason.
    #[error(
        "locking {needed_bytes} bytes failed: {errno}; `grep Mem /proc/meminfo` shows what is left"
    )]
    Refused {
        /// How many bytes were to be locked.
        needed_bytes: usize,
        /// What the kernel said.
        errno: Errno,
    },
}

impl Region {
    /// Locks every page of it in memory until the region goes. Locking it twice is harmless.
    ///
    /// # Errors
    /// See [`LockError`]; the region stays as it was.
    pub fn lock(&mut self) -> Result<(), LockError> {
        let needed_bytes = self.len();
        // SAFETY: the region is one live mapping of exactly `len` bytes, which it owns; locking
        // changes where its pages may be and none of its bytes.
        let lock = |at| unsafe { nix::sys::mman::mlock(at, needed_bytes) };
        match NonNull::new(self.address().cast()).map_or(Err(Errno::EFAULT), lock) {
            Ok(()) => {
                self.set_locked(true);
                Ok(())
            }
            Err(errno) => {
                // A failed mlock may leave a part locked.
                self.unlock();
                Err(explain(errno, needed_bytes))
            }
        }
    }

    /// Undoes [`Region::lock`].
    pub fn unlock(&mut self) {
        // SAFETY: as in `lock`; memory that isn't locked stays so.
        let unlock = |at| unsafe { nix::sys::mman::munlock(at, self.len()) };
        if let Some(Err(errno)) = NonNull::new(self.address().cast()).map(unlock) {
            tracing::debug!(%errno, "munlock");
        }
        self.set_locked(false);
    }
}

/// EPERM, ENOMEM and EAGAIN can each mean the limit; it is the limit if the limit is too small.
fn explain(errno: Errno, needed_bytes: usize) -> LockError {
    match getrlimit(Resource::RLIMIT_MEMLOCK) {
        Ok((limit_bytes, _)) if limit_bytes < needed_bytes as u64 => LockError::Limit {
            needed_bytes,
            limit_bytes,
        },
        _ => LockError::Refused {
            needed_bytes,
            errno,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_what_to_do() {
        let limit = LockError::Limit {
            needed_bytes: 4096,
            limit_bytes: 0,
        };
        assert!(limit.to_string().contains("ulimit -l"));
        let refused = explain(Errno::EAGAIN, 0);
        assert!(matches!(refused, LockError::Refused { .. }), "{refused}");
    }
}
