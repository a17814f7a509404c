//! Names of storages within a segment, the same on both ends without a message.
//!
//! Ids count up in the order of records, so what a segment creates is its first id plus an
//! index. What comes from before is named once by its id and then by its slot.

pub use crate::limits::SEGMENT_RECORDS_MAX;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use crate::WireError;

/// A storage as a record names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ref {
    /// From before the segment and not named yet: its id is among the numbers, and it takes
    /// the next slot.
    New,
    /// The n-th storage that the segment created.
    Local(u32),
    /// The n-th slot.
    Slot(u32),
}

impl Ref {
    /// Its number in a structure.
    #[must_use]
    pub fn code(self) -> u64 {
        match self {
            Self::New => 0,
            Self::Local(index) => 1 + 2 * u64::from(index),
            Self::Slot(index) => 2 + 2 * u64::from(index),
        }
    }

    /// The reference of this number.
    ///
    /// # Errors
    /// An index past 32 bits.
    pub fn from_code(code: u64) -> Result<Self, WireError> {
        if code == 0 {
            return Ok(Self::New);
        }
        let index = u32::try_from((code - 1) / 2)
            .map_err(|_| WireError::Malformed("a storage reference past 32 bits"))?;
        Ok(if code % 2 == 1 {
            Self::Local(index)
        } else {
            Self::Slot(index)
        })
    }
}

/// Ids are counters, so one multiplication spreads them well enough.
#[derive(Default)]
pub struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(u64::from(byte));
        }
    }
    fn write_u64(&mut self, id: u64) {
        self.0 = (self.0.rotate_left(5) ^ id).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
    fn write_u32(&mut self, id: u32) {
        self.write_u64(u64::from(id));
    }
}

/// A map keyed by ids.
pub type IdMap<V> = HashMap<u64, V, BuildHasherDefault<IdHasher>>;

/// The client's side: from ids to references.
#[derive(Debug)]
pub struct Namer {
    base: u64,
    next: u64,
    slots: IdMap<u32>,
}

/// The id of the first storage of a session. Zero is no storage.
pub const FIRST_ID: u64 = 1;

impl Default for Namer {
    fn default() -> Self {
        Self {
            base: FIRST_ID,
            next: FIRST_ID,
            slots: IdMap::default(),
        }
    }
}

impl Namer {
    /// For a segment whose first id is `base`.
    #[must_use]
    pub(crate) fn starting_at(base: u64) -> Self {
        Self {
            base,
            next: base,
            slots: IdMap::default(),
        }
    }

    /// First id of the segment.
    #[must_use]
    pub fn base(&self) -> u64 {
        self.base
    }

    /// The id that the next fresh storage takes.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Takes `count` ids; gives the first.
    pub fn take(&mut self, count: u64) -> u64 {
        let first = self.next;
        self.next += count;
        first
    }

    /// Names `id`. `None` for an id that was never given.
    #[inline]
    pub fn name(&mut self, id: u64) -> Option<Ref> {
        if id >= self.base {
            return (id < self.next).then(|| Ref::Local((id - self.base) as u32));
        }
        if id < FIRST_ID {
            return None;
        }
        let slot = self.slots.len() as u32;
        match self.slots.entry(id) {
            std::collections::hash_map::Entry::Occupied(known) => Some(Ref::Slot(*known.get())),
            std::collections::hash_map::Entry::Vacant(new) => {
                new.insert(slot);
                Some(Ref::New)
            }
        }
    }

    /// How many have a slot.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.slots.len()
    }

    /// Takes back the latest name, which `id` was given.
    pub fn forget(&mut self, id: u64) {
        let slot = self.slots.remove(&id);
        debug_assert_eq!(slot, Some(self.slots.len() as u32), "not the latest");
    }

    /// Starts the next segment.
    pub fn cut(&mut self) {
        self.base = self.next;
        self.slots.clear();
    }
}

/// The node's side: from references to ids.
#[derive(Debug)]
pub struct Resolver {
    base: u64,
    next: u64,
    slots: Vec<u64>,
}

impl Default for Resolver {
    fn default() -> Self {
        Self {
            base: FIRST_ID,
            next: FIRST_ID,
            slots: Vec::new(),
        }
    }
}

impl Resolver {
    /// For a segment whose first id is `base`.
    #[must_use]
    pub(crate) fn starting_at(base: u64) -> Self {
        Self {
            base,
            next: base,
            slots: Vec::new(),
        }
    }

    /// The id that the next fresh storage takes.
    #[must_use]
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// First id of the segment.
    #[must_use]
    pub fn base(&self) -> u64 {
        self.base
    }

    /// Takes `count` ids; gives the first.
    pub fn take(&mut self, count: u64) -> u64 {
        let first = self.next;
        self.next = self.next.saturating_add(count);
        first
    }

    /// Resolves references into `ids`; new ones take their ids from the front of `externals`.
    ///
    /// # Errors
    /// A reference to something that the segment does not have.
    pub fn resolve(
        &mut self,
        refs: &[Ref],
        externals: &[i64],
        ids: &mut Vec<u64>,
    ) -> Result<(), WireError> {
        let mut externals = externals.iter();
        for &reference in refs {
            let id = match reference {
                Ref::Local(index) => Some(self.base + u64::from(index)).filter(|&i| i < self.next),
                Ref::Slot(index) => self.slots.get(index as usize).copied(),
                Ref::New => {
                    let id = externals.next().and_then(|&id| u64::try_from(id).ok());
                    let id = id.filter(|&id| id >= FIRST_ID && id < self.base);
                    self.slots.extend(id);
                    id
                }
            };
            ids.push(id.ok_or(WireError::Malformed(
                "a reference to a storage that never was",
            ))?);
        }
        Ok(())
    }

    /// The id that lies `relative` from the segment's first.
    ///
    /// # Errors
    /// An id that was never given.
    pub fn relative(&self, relative: i64) -> Result<u64, WireError> {
        self.base
            .checked_add_signed(relative)
            .filter(|&id| id >= FIRST_ID && id < self.next)
            .ok_or(WireError::Malformed("a free of a storage that never was"))
    }

    /// Starts the next segment.
    pub fn cut(&mut self) {
        self.base = self.next;
        self.slots.clear();
    }
}
