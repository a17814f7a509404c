//! A failure between its record and the moment when the program hears of it.
//!
//! A record that fails leaves a *pending* fault. The next look (a fetch, a barrier, a synchronous
//! operator) answers with it: that is when it is *raised*, and of several the first. What the program
//! recorded in between it recorded in ignorance, and when the fault is raised it finds things as if
//! the exception had come at the failing operator:
//!
//! - what depends on the fault is not run, and its results can never be used;
//! - what does not depend on it, and writes nothing older than the fault, lives;
//! - values that are older than the fault are again what they were: a write that depends on the fault
//!   does not happen, and before any other the machine keeps what was there. Where there is no memory
//!   to keep it the write does not happen either;
//! - newer values that such a write would have changed are what they were before it.
//!
//! So a training step that ran out of memory costs that step and not the model. Without a fault
//! nothing is kept and nothing is copied. Everything here is in terms of one order of records, so
//! several logs that share an order can share it.

use std::sync::Arc;

use crate::fault::Fault;
use crate::machine::Machine;
use crate::segment::IdMap;

/// A storage as the log knows it.
#[derive(Clone, Debug, Default)]
pub(super) struct Value {
    /// Counts writes; with the id it names a value.
    pub(super) version: u64,
    trouble: Option<Box<Trouble>>,
}

#[derive(Clone, Debug, Default)]
struct Trouble {
    /// The first cause, if what it holds can't be used.
    cause: Option<Arc<Fault>>,
    /// The machine has no such storage, since what was to make it failed: its size in bytes.
    missing: Option<u64>,
    /// What it held at the pending fault is seen to: the machine keeps it, or there was nothing.
    old: Option<Old>,
    /// It comes from another device, by this record, and nobody has used it yet.
    pending: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Old {
    Kept,
    Nothing,
}

impl Value {
    /// A storage that was never made, because of `cause`.
    pub(super) fn missing(cause: Arc<Fault>, bytes: u64) -> Self {
        Self {
            version: 0,
            trouble: Some(Box::new(Trouble {
                cause: Some(cause),
                missing: Some(bytes),
                old: None,
                pending: None,
            })),
        }
    }

    /// One that another device sends, by record `seq`.
    pub(super) fn expected(seq: u64) -> Self {
        let mut value = Self::default();
        value.change(|trouble| trouble.pending = Some(seq));
        value
    }

    /// The record by which it comes, if it still has to be waited for.
    pub(super) fn pending(&self) -> Option<u64> {
        self.trouble.as_ref()?.pending
    }

    /// It is here.
    pub(super) fn arrived(&mut self) {
        self.change(|trouble| trouble.pending = None);
    }

    /// Why it can't be used.
    pub(super) fn cause(&self) -> Option<&Arc<Fault>> {
        self.trouble.as_ref()?.cause.as_ref()
    }

    /// Its size, if the machine does not have it.
    pub(super) fn missing_bytes(&self) -> Option<u64> {
        self.trouble.as_ref()?.missing
    }

    /// It holds what a write put there, all of it.
    pub(super) fn written(&mut self) {
        self.version += 1;
        if self.trouble.is_some() {
            self.change(|trouble| {
                trouble.cause = None;
                trouble.missing = None;
            });
        }
    }

    /// A storage that is missing has another size now.
    pub(super) fn resized(&mut self, bytes: u64) {
        self.change(|trouble| trouble.missing = Some(bytes));
    }

    fn is_seen_to(&self) -> bool {
        let trouble = self.trouble.as_ref();
        trouble.is_some_and(|trouble| trouble.old.is_some())
    }

    fn change(&mut self, change: impl FnOnce(&mut Trouble)) {
        let mut trouble = self.trouble.take().unwrap_or_default();
        change(&mut trouble);
        let matters = trouble.cause.is_some()
            || trouble.missing.is_some()
            || trouble.old.is_some()
            || trouble.pending.is_some();
        self.trouble = matters.then_some(trouble);
    }
}

#[derive(Debug)]
struct Pending {
    cause: Arc<Fault>,
    /// Ids below this are older than the fault.
    older_than: u64,
}

/// The fault that nobody heard of yet, and what is undone when it is raised.
#[derive(Debug, Default)]
pub(super) struct Faults {
    pending: Option<Pending>,
    /// Values to look at then. Some may be gone by then; ids are not used twice.
    touched: Vec<u64>,
}

impl Faults {
    /// What the next look will answer.
    pub(super) fn pending(&self) -> Option<&Arc<Fault>> {
        self.pending.as_ref().map(|pending| &pending.cause)
    }

    /// A record failed, or could not write because of an earlier failure; ids from `older_than` on
    /// were not given before it.
    pub(super) fn add(&mut self, cause: &Arc<Fault>, older_than: u64) {
        self.pending.get_or_insert_with(|| Pending {
            cause: Arc::clone(cause),
            older_than,
        });
    }

    /// Before `id` is written while a fault is pending: what it holds is kept. `replaced`: the write
    /// reads nothing of it and brings its own storage. Fails where there is no memory for that.
    pub(super) fn keep(
        &mut self,
        values: &mut IdMap<Value>,
        id: u64,
        replaced: bool,
        machine: &mut impl Machine,
    ) -> bool {
        let Some(pending) = &self.pending else {
            return true;
        };
        let Some(value) = values.get_mut(&id) else {
            return true;
        };
        if id >= pending.older_than || value.is_seen_to() {
            return true;
        }
        let old = match value.missing_bytes() {
            Some(_) => Old::Nothing,
            None if machine.keep(id, !replaced).is_ok() => Old::Kept,
            None => return false,
        };
        value.change(|trouble| trouble.old = Some(old));
        self.touched.push(id);
        true
    }

    /// `id` was to be written, and was not, or not rightly. `lost`: nothing of it is left but its
    /// size. Whether it could be used until now.
    pub(super) fn spoil(
        &mut self,
        values: &mut IdMap<Value>,
        id: u64,
        cause: &Arc<Fault>,
        lost: Option<u64>,
    ) -> bool {
        let Some(value) = values.get_mut(&id) else {
            return false;
        };
        let was_usable = value.cause().is_none();
        if !was_usable && lost.is_none() {
            return false;
        }
        value.change(|trouble| {
            trouble.cause = Some(Arc::clone(cause));
            trouble.missing = trouble.missing.or(lost);
        });
        self.touched.push(id);
        was_usable
    }

    /// The program hears of the pending fault, if there is one: what it did since is undone.
    pub(super) fn raise(
        &mut self,
        values: &mut IdMap<Value>,
        machine: &mut impl Machine,
    ) -> Option<Arc<Fault>> {
        let pending = self.pending.take()?;
        for id in self.touched.drain(..) {
            let Some(value) = values.get_mut(&id) else {
                continue;
            };
            value.change(|trouble| {
                if trouble.old.take() == Some(Old::Kept) {
                    machine.restore(id);
                    trouble.missing = None;
                }
                if trouble.missing.is_none() {
                    trouble.cause = None;
                }
            });
        }
        Some(pending.cause)
    }
}
