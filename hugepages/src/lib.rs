//! Huge pages: memory that hardware may reach, found, reserved, mounted, mapped and locked.
//!
//! | Module | What it does | Kernel document |
//! |---|---|---|
//! | [`mod@find`] | which page sizes, how many pages on which NUMA node, which mounts | `admin-guide/mm/hugetlbpage.rst` |
//! | [`mod@reserve`] | more pages into a node's pool, and back when the guard goes | the same |
//! | [`mod@mount`] | a hugetlbfs of one page size | the same |
//! | [`mod@map`] | an owned [`Region`]: memfd or hugetlbfs, bound to a node, populated, sealed | `memfd_create(2)`, `mbind(2)`, `madvise(2)` |
//! | [`mod@lock`] | `mlock(2)` with its limit explained | `mlock(2)` |
//! | [`topology`] | the cores of a node, the node of a device | `ABI/stable/sysfs-devices-node` |
//! | [`advice`] | what to write down so that a reservation outlives a boot | `admin-guide/kernel-parameters.txt` |
//!
//! Where huge pages can't be had, [`map()`] falls back to ordinary pages, says why in
//! [`Region::fallback`], and logs one warning with what to type.
//!
//! Every path below `/sys` and `/proc` hangs from a [`Root`], so a test can bring its own.

pub mod advice;
pub mod find;
pub mod lock;
pub mod map;
pub mod mount;
mod numa;
mod page;
mod region;
pub mod reserve;
mod root;
mod shortage;
#[cfg(test)]
mod testing;
pub mod topology;

pub use advice::Advice;
pub use find::{Inventory, Pool, SizeTotals};
pub use lock::LockError;
pub use map::{Backing, MapError, MapRequest, map};
pub use mount::{HugeMount, MountError, Mounted};
pub use numa::{NodeId, Preferred};
pub use page::{ByteSize, PageSize, SizeError};
pub use region::{AttachError, Kind, OutOfRegion, Region};
pub use reserve::{Reservation, ReserveError, ReserveRequest, reserve};
pub use root::{FindError, Root};
pub use shortage::NoHugePages;
