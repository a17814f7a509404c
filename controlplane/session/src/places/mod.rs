//! Where the values of a session are whose program chooses no device: for each, the copies that devices
//! hold, by the ids of their logs. All copies of a value are equal; a write ends all but one.

mod unproven;

pub use unproven::{Doubt, KEPT_MAX, Unproven};

use crate::limits::LOGS_MAX;
use crate::segment::{FIRST_ID, IdMap};

/// Some of a session's devices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Set(u128);

const _: () = assert!(LOGS_MAX <= u128::BITS as usize, "a bit a device");

impl Set {
    /// None of them.
    pub const EMPTY: Self = Self(0);

    /// With `device`.
    #[must_use]
    pub fn with(self, device: usize) -> Self {
        Self(self.0 | 1 << device)
    }

    /// Whether `device` is one.
    #[must_use]
    pub fn has(self, device: usize) -> bool {
        device < LOGS_MAX && self.0 >> device & 1 == 1
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// In ascending order.
    pub fn iter(self) -> impl Iterator<Item = usize> {
        (0..LOGS_MAX).filter(move |&device| self.has(device))
    }
}

/// A value's bytes at one device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copy {
    /// Index of the device.
    pub device: usize,
    /// By the device's own log.
    pub id: u64,
}

/// A value of the session: a storage.
#[derive(Clone, Debug, Default)]
pub struct Value {
    bytes: u64,
    version: u64,
    first: Option<Copy>,
    others: Vec<Copy>,
    why: &'static str,
}

impl Value {
    /// Bytes that it has.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Counts its writes.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// What brought it where it is first of all.
    #[must_use]
    pub fn why(&self) -> &'static str {
        self.why
    }

    /// Its copies, the oldest first; none before anything was done with it.
    pub fn copies(&self) -> impl Iterator<Item = Copy> {
        self.first.into_iter().chain(self.others.iter().copied())
    }

    /// Its id at `device`.
    #[must_use]
    pub fn at(&self, device: usize) -> Option<u64> {
        self.copies()
            .find_map(|copy| (copy.device == device).then_some(copy.id))
    }

    /// The devices that hold it.
    #[must_use]
    pub fn devices(&self) -> Set {
        self.copies()
            .fold(Set::EMPTY, |set, copy| set.with(copy.device))
    }
}

/// What gives a device a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bring {
    /// It holds it, by this id.
    Here(u64),
    /// A new storage of so many bytes: nothing was done with the value yet, or it has no bytes.
    Make(u64),
    /// A transfer of so many bytes.
    Send(Copy, u64),
    /// Nothing: this device held it and is lost.
    Lost(usize),
}

/// All values of a session.
#[derive(Debug)]
pub struct Places {
    values: IdMap<Value>,
    next: u64,
    /// Bytes by device.
    held: Box<[u64]>,
    /// Of them, those of copies that are not the oldest of their value.
    spare: Box<[u64]>,
}

impl Places {
    /// Of a session over so many devices, which hold nothing.
    #[must_use]
    pub fn new(devices: usize) -> Self {
        Self {
            values: IdMap::default(),
            next: FIRST_ID,
            held: vec![0; devices].into(),
            spare: vec![0; devices].into(),
        }
    }

    /// Takes names for `count` values, which nobody holds yet; gives the first.
    pub fn take(&mut self, count: u64) -> u64 {
        let first = self.next;
        self.next += count;
        first
    }

    /// A value whose name was taken is there, on no device yet.
    pub fn insert(&mut self, value: u64, bytes: u64) {
        debug_assert!(value < self.next, "its name was taken");
        let new = Value {
            bytes,
            ..Value::default()
        };
        self.values.insert(value, new);
    }

    /// What is known of a value.
    #[must_use]
    pub fn get(&self, value: u64) -> Option<&Value> {
        self.values.get(&value)
    }

    /// What gives `device` a value, with those devices that `lives` says are usable.
    #[must_use]
    pub fn bring(&self, value: u64, device: usize, lives: impl Fn(usize) -> bool) -> Option<Bring> {
        let known = self.values.get(&value)?;
        if let Some(id) = known.at(device) {
            return Some(Bring::Here(id));
        }
        let Some(first) = known.first else {
            return Some(Bring::Make(known.bytes));
        };
        let living = known.copies().find(|copy| lives(copy.device));
        Some(match living {
            None => Bring::Lost(first.device),
            Some(_) if known.bytes == 0 => Bring::Make(0),
            Some(copy) => Bring::Send(copy, known.bytes),
        })
    }

    /// `device` holds a copy of it by `id`.
    pub fn add(&mut self, value: u64, device: usize, id: u64, why: &'static str) {
        let Some(known) = self.values.get_mut(&value) else {
            return;
        };
        self.held[device] += known.bytes;
        let copy = Copy { device, id };
        if known.first.is_none() {
            known.first = Some(copy);
            known.why = why;
        } else {
            self.spare[device] += known.bytes;
            known.others.push(copy);
        }
    }

    /// It is written at `device`: other copies are no longer it. Gives them.
    pub fn written(&mut self, value: u64, device: usize) -> Vec<Copy> {
        let Some(known) = self.values.get_mut(&value) else {
            return Vec::new();
        };
        known.version += 1;
        if known.others.is_empty() {
            return Vec::new();
        }
        for copy in &known.others {
            self.spare[copy.device] = self.spare[copy.device].saturating_sub(known.bytes);
        }
        let (kept, dropped): (Vec<_>, Vec<_>) =
            known.copies().partition(|copy| copy.device == device);
        debug_assert!(!kept.is_empty(), "it is written where it is");
        if kept.first() != known.first.as_ref() {
            known.why = "an operator that writes it ran here";
        }
        let mut kept = kept.into_iter();
        (known.first, known.others) = (kept.next(), kept.collect());
        for copy in &dropped {
            self.held[copy.device] = self.held[copy.device].saturating_sub(known.bytes);
        }
        dropped
    }

    /// Its size is another.
    pub fn resize(&mut self, value: u64, bytes: u64) {
        if let Some(known) = self.values.get_mut(&value) {
            for copy in known.first.iter().chain(&known.others) {
                let held = &mut self.held[copy.device];
                *held = held.saturating_sub(known.bytes) + bytes;
            }
            for copy in &known.others {
                let spare = &mut self.spare[copy.device];
                *spare = spare.saturating_sub(known.bytes) + bytes;
            }
            known.bytes = bytes;
            known.version += 1;
        }
    }

    /// It is gone. Gives what it was.
    pub fn remove(&mut self, value: u64) -> Option<Value> {
        let gone = self.values.remove(&value)?;
        for copy in gone.copies() {
            self.held[copy.device] = self.held[copy.device].saturating_sub(gone.bytes);
        }
        for copy in &gone.others {
            self.spare[copy.device] = self.spare[copy.device].saturating_sub(gone.bytes);
        }
        Some(gone)
    }

    /// Every value keeps only its oldest copy. Gives the others.
    pub fn drop_replicas(&mut self) -> Vec<Copy> {
        let mut dropped = Vec::new();
        for value in self.values.values_mut() {
            for copy in value.others.drain(..) {
                self.held[copy.device] = self.held[copy.device].saturating_sub(value.bytes);
                self.spare[copy.device] = self.spare[copy.device].saturating_sub(value.bytes);
                dropped.push(copy);
            }
        }
        dropped
    }

    /// Makes room at `device`: values of which it has a copy that is not the oldest lose it, but for those
    /// that `keeps` names, until it holds `bytes` less. Gives the copies.
    pub fn make_room(
        &mut self,
        device: usize,
        bytes: u64,
        keeps: impl Fn(u64) -> bool,
    ) -> Vec<Copy> {
        let (mut gone, mut freed) = (Vec::new(), 0);
        if self.spare[device] == 0 {
            return gone;
        }
        for (&id, value) in &mut self.values {
            if freed >= bytes {
                break;
            }
            let copy = value.others.iter().position(|copy| copy.device == device);
            if let Some(at) = copy.filter(|_| value.bytes > 0 && !keeps(id)) {
                gone.push(value.others.swap_remove(at));
                freed += value.bytes;
            }
        }
        self.held[device] = self.held[device].saturating_sub(freed);
        self.spare[device] = self.spare[device].saturating_sub(freed);
        gone
    }

    /// The copy of a value on a device, which goes unless it is the oldest.
    pub fn drop_copy(&mut self, value: u64, device: usize) -> Option<Copy> {
        let known = self.values.get_mut(&value)?;
        let at = (known.others.iter()).position(|copy| copy.device == device)?;
        let gone = known.others.swap_remove(at);
        self.held[device] = self.held[device].saturating_sub(known.bytes);
        self.spare[device] = self.spare[device].saturating_sub(known.bytes);
        Some(gone)
    }

    /// A value is `copy` and nothing else. Gives what it was.
    pub fn replace(&mut self, value: u64, copy: Copy) -> Vec<Copy> {
        let Some(known) = self.values.get_mut(&value) else {
            return Vec::new();
        };
        let was: Vec<Copy> = known.copies().collect();
        for old in &was {
            self.held[old.device] = self.held[old.device].saturating_sub(known.bytes);
        }
        for old in &known.others {
            self.spare[old.device] = self.spare[old.device].saturating_sub(known.bytes);
        }
        self.held[copy.device] += known.bytes;
        (known.first, known.others) = (Some(copy), Vec::new());
        was
    }

    /// Bytes that `device` holds.
    #[must_use]
    pub fn held(&self, device: usize) -> u64 {
        self.held.get(device).copied().unwrap_or_default()
    }

    /// Values there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replicas_make_room_and_nothing_else() {
        let mut places = Places::new(2);
        for id in 1..=6 {
            let value = places.take(1);
            places.insert(value, 10);
            places.add(value, usize::from(id == 6), 100 + id, "made");
            if id < 6 {
                places.add(value, 1, 200 + id, "read");
            }
        }
        assert_eq!(places.held(1), 60);
        let gone = places.make_room(1, 25, |value| value == 2);
        assert_eq!(gone.len(), 3);
        assert!(
            gone.iter()
                .all(|copy| copy.device == 1 && copy.id > 200 && copy.id != 202)
        );
        assert_eq!((places.held(0), places.held(1)), (50, 30));
        // What is kept, and the only copy of a value, stay.
        assert_eq!(places.make_room(1, 1000, |value| value == 2).len(), 1);
        assert_eq!(places.held(1), 20);
        assert_eq!(places.spare[..], [0, 10]);
        assert!(places.get(2).unwrap().at(1).is_some());
        assert!(places.get(6).unwrap().at(1).is_some());
    }

    #[test]
    fn a_write_leaves_one_copy_and_the_books_are_right() {
        let mut places = Places::new(3);
        let value = places.take(1);
        places.insert(value, 100);
        assert!(places.get(value).unwrap().devices().is_empty());
        places.add(value, 0, 7, "made");
        places.add(value, 2, 9, "read");
        assert_eq!((places.held(0), places.held(2)), (100, 100));
        let dropped = places.written(value, 2);
        assert_eq!(dropped, [Copy { device: 0, id: 7 }]);
        assert_eq!((places.held(0), places.held(2)), (0, 100));
        let known = places.get(value).unwrap();
        assert_eq!(
            (known.at(0), known.at(2), known.version()),
            (None, Some(9), 1)
        );
        places.resize(value, 40);
        assert_eq!(places.held(2), 40);
        assert_eq!(places.spare[..], [0, 0, 0]);
        places.add(value, 0, 11, "read");
        places.resize(value, 30);
        assert_eq!(places.spare[..], [30, 0, 0]);
        let gone = places.remove(value).unwrap();
        assert_eq!(gone.copies().count(), 2);
        assert_eq!(places.spare[..], [0, 0, 0]);
        assert_eq!((places.held(2), places.len()), (0, 0));
    }
}
