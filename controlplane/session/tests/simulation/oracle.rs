//! What every value must be, computed at once, in the order of records; and what of it is undone when
//! a failure is raised. It keeps a copy of everything at a failure, so it has none of the care of the
//! code it is compared with.

use std::collections::{HashMap, HashSet};

use crate::machine::cant_be_copied;

#[derive(Clone, Debug)]
struct Held {
    /// What the machine has.
    content: Option<u64>,
    /// The record because of which it can't be used.
    cause: Option<u64>,
    size: u64,
}

#[derive(Debug)]
struct Pending {
    cause: u64,
    then: HashMap<u64, Held>,
    kept: HashSet<u64>,
}

/// How a record treats what it writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write {
    /// Reads it, and changes it.
    Change,
    /// Overwrites as many bytes.
    Overwrite(u64),
    /// Brings other bytes, so many.
    Replace(u64),
    /// Reads it, and gives it so many bytes.
    Resize(u64),
}

/// A record that nobody waits for.
pub struct Record<'a> {
    pub seq: u64,
    pub reads: &'a [u64],
    pub write: Option<(u64, Write)>,
    pub first_fresh: u64,
    /// Sizes of what it makes.
    pub fresh: &'a [u64],
    pub fails: bool,
}

#[derive(Debug, Default)]
pub struct Oracle {
    values: HashMap<u64, Held>,
    pending: Option<Pending>,
    pub raised: u64,
}

impl Oracle {
    pub fn len(&self) -> usize {
        self.values.len()
    }

    pub fn free(&mut self, id: u64) {
        self.values.remove(&id);
    }

    /// The value, or the record that spoiled it.
    pub fn value(&self, id: u64) -> Result<u64, u64> {
        let held = &self.values[&id];
        match held.cause {
            Some(cause) => Err(cause),
            None => Ok(held.content.expect("what can be used is there")),
        }
    }

    /// Everything that can be used.
    pub fn usable(&self) -> impl Iterator<Item = (u64, u64)> {
        self.values
            .iter()
            .filter(|(_, held)| held.cause.is_none())
            .map(|(&id, held)| (id, held.content.expect("what can be used is there")))
    }

    pub fn make(&mut self, id: u64, value: u64, size: u64) {
        let held = Held {
            content: Some(value),
            cause: None,
            size,
        };
        assert!(self.values.insert(id, held).is_none(), "an id comes twice");
    }

    /// Somebody waits for an answer. `Err`: a failure is raised instead.
    pub fn look(&mut self) -> Result<(), u64> {
        let Some(pending) = self.pending.take() else {
            return Ok(());
        };
        self.raised += 1;
        for (id, held) in &mut self.values {
            match pending.then.get(id) {
                Some(old) if old.content.is_some() => *held = old.clone(),
                _ if held.content.is_some() => held.cause = None,
                _ => {}
            }
        }
        Err(pending.cause)
    }

    /// Runs a record. `compute` gives, from what it reads, what it writes and what it makes.
    pub fn run(&mut self, record: &Record<'_>, compute: impl FnOnce(&[u64]) -> (u64, Vec<u64>)) {
        let heals = |held: &Held, write: Write| match write {
            Write::Overwrite(bytes) => bytes == held.size,
            Write::Replace(_) => true,
            Write::Change | Write::Resize(_) => false,
        };
        let healed = record
            .write
            .filter(|&(id, write)| heals(&self.values[&id], write))
            .map(|(id, _)| id);
        let mut cause = record
            .reads
            .iter()
            .filter(|&&id| Some(id) != healed)
            .find_map(|id| self.values[id].cause);
        if cause.is_none()
            && let Some(pending) = &mut self.pending
            && let Some((id, write)) = record.write
            && pending
                .then
                .get(&id)
                .is_some_and(|old| old.content.is_some())
            && !pending.kept.contains(&id)
        {
            if cant_be_copied(id) && !matches!(write, Write::Replace(_)) {
                cause = Some(pending.cause);
            } else {
                pending.kept.insert(id);
            }
        }
        let fails = cause.is_none() && record.fails;
        if fails {
            cause = Some(record.seq);
        }
        let Some(cause) = cause else {
            let inputs: Vec<u64> = record
                .reads
                .iter()
                .map(|id| self.values[id].content.unwrap_or_default())
                .collect();
            let (written, made) = compute(&inputs);
            if let Some((id, write)) = record.write {
                let held = self.values.get_mut(&id).expect("it is written");
                held.content = Some(written);
                held.cause = None;
                if let Write::Replace(size) | Write::Resize(size) = write {
                    held.size = size;
                }
            }
            for (index, (value, &size)) in made.into_iter().zip(record.fresh).enumerate() {
                self.make(record.first_fresh + index as u64, value, size);
            }
            return;
        };
        let spoiled = record
            .write
            .is_some_and(|(id, _)| self.values[&id].cause.is_none());
        if (fails || spoiled) && self.pending.is_none() {
            self.pending = Some(Pending {
                cause,
                then: self.values.clone(),
                kept: HashSet::new(),
            });
        }
        if let Some((id, write)) = record.write {
            let held = self.values.get_mut(&id).expect("it is written");
            held.cause = held.cause.or(Some(cause));
            if let Write::Resize(size) = write
                && held.content.is_none()
            {
                held.size = size;
            }
        }
        for (index, &size) in record.fresh.iter().enumerate() {
            let held = Held {
                content: None,
                cause: Some(cause),
                size,
            };
            self.values.insert(record.first_fresh + index as u64, held);
        }
    }
}
