//! The memory that clients share with the gateway: huge pages while enough are free, else ordinary
//! ones.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use genie_channel::attach::ArenaCounts;
use genie_hugepages::{MapRequest, PageSize, Root, map};
use genie_shm::{Mapping, MemoryError};
use parking_lot::Mutex;

/// How long a client may be kept waiting for huge pages: its node waits for it, too, and less than
/// two seconds.
const WITHIN: Duration = Duration::from_millis(500);

/// Makes arenas, and says so when it changes what they are made of.
pub struct Arenas {
    root: Root,
    bytes: u64,
    /// What the last one is made of.
    last: Mutex<Option<Pages>>,
    huge: AtomicU64,
    ordinary: AtomicU64,
    failed: AtomicU64,
}

/// What an arena is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pages {
    Huge,
    Ordinary,
}

impl Arenas {
    /// Arenas of `bytes` each. Says what one would be made of now.
    pub fn new(root: Root, bytes: u64) -> Self {
        let this = Self {
            root,
            bytes,
            last: Mutex::new(None),
            huge: AtomicU64::new(0),
            ordinary: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        };
        let now = this.request().available(&this.root);
        this.note(now.map_err(|reason| reason.to_string()));
        this
    }

    /// A new one, for one client. Of huge pages all are there, and none is safe to touch before the
    /// client has mapped it and it was frozen.
    ///
    /// # Errors
    /// What the kernel says of ordinary pages.
    pub fn make(&self) -> Result<Mapping, MemoryError> {
        match self.huge() {
            Ok(arena) => {
                self.note(Ok(()));
                Ok(arena)
            }
            Err(reason) => {
                self.note(Err(reason));
                Mapping::create(self.bytes)
            }
        }
    }

    fn request(&self) -> MapRequest {
        MapRequest::new(usize::try_from(self.bytes).unwrap_or(usize::MAX))
            .page(PageSize::MIB_2)
            .huge_only()
            .open_to_seals()
            .within(WITHIN)
    }

    /// Where fewer pages may be had than are free (the limit of a cgroup), it is told here.
    fn huge(&self) -> Result<Mapping, String> {
        let region = map(&self.root, &self.request()).map_err(|reason| reason.to_string())?;
        Mapping::from_peer(region.into_fd()).map_err(|reason| reason.to_string())
    }

    fn note(&self, found: Result<(), String>) {
        let pages = match found {
            Ok(()) => Pages::Huge,
            Err(_) => Pages::Ordinary,
        };
        if !self.changes_to(pages) {
            return;
        }
        let mib = self.bytes >> 20;
        match found {
            Ok(()) => tracing::info!("memory of clients, {mib} MiB each: huge pages"),
            Err(reason) => {
                tracing::warn!("memory of clients, {mib} MiB each: ordinary pages: {reason}");
            }
        }
    }

    fn changes_to(&self, pages: Pages) -> bool {
        self.last.lock().replace(pages) != Some(pages)
    }

    /// Counts a client that has one, or that was given up.
    pub fn count(&self, arena: Option<&Mapping>) {
        let counter = match arena {
            Some(arena) if arena.is_huge() => &self.huge,
            Some(_) => &self.ordinary,
            None => &self.failed,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// How many clients had which so far.
    pub fn counts(&self) -> ArenaCounts {
        let value = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        ArenaCounts {
            huge: value(&self.huge),
            ordinary: value(&self.ordinary),
            failed: value(&self.failed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_huge_pages_they_are_ordinary_and_that_is_said_once() {
        let arenas = Arenas::new(Root::at("/nonexistent"), 8 << 20);
        assert!(!arenas.changes_to(Pages::Ordinary), "said at the start");
        let arena = arenas.make().unwrap();
        assert_eq!((arena.capacity(), arena.is_huge()), (8 << 20, false));
        assert!(!arenas.changes_to(Pages::Ordinary), "not for each client");
        assert!(arenas.changes_to(Pages::Huge));
        assert!(!arenas.changes_to(Pages::Huge));
        assert!(arenas.changes_to(Pages::Ordinary));
    }

    #[test]
    fn clients_are_counted_by_what_they_have() {
        let arenas = Arenas::new(Root::at("/nonexistent"), 1 << 20);
        let arena = arenas.make().unwrap();
        arenas.count(Some(&arena));
        arenas.count(Some(&arena));
        arenas.count(None);
        let (huge, ordinary, failed) = (0, 2, 1);
        let counts = ArenaCounts {
            huge,
            ordinary,
            failed,
        };
        assert_eq!(arenas.counts(), counts);
    }
}
