//! What the storages of a segment are called in its records.

use genie_session::WireError;
use genie_session::segment::Ref;

const STRANGE: WireError = WireError::Malformed("a record names a storage that it can't know");

/// By the names that records have for them, storages as whoever reads the segment numbers them.
#[derive(Clone, Debug, Default)]
pub struct Names {
    /// From before the segment, in the order in which records name them.
    slots: Vec<usize>,
    /// That the segment made, in order; ids that were reserved and not used among them.
    locals: Vec<usize>,
}

impl Names {
    /// What a record's references are. `external` numbers a storage from before the segment that is named
    /// for the first time; its id is the next of `ids`.
    ///
    /// # Errors
    /// A name that no storage has.
    pub fn resolve(
        &mut self,
        refs: &[Ref],
        ids: &[i64],
        mut external: impl FnMut(u64) -> usize,
    ) -> Result<Vec<usize>, WireError> {
        let mut ids = ids.iter();
        let mut storages = Vec::with_capacity(refs.len());
        for &reference in refs {
            let storage = match reference {
                Ref::Local(index) => *self.locals.get(index as usize).ok_or(STRANGE)?,
                Ref::Slot(index) => *self.slots.get(index as usize).ok_or(STRANGE)?,
                Ref::New => {
                    let id = ids.next().and_then(|&id| u64::try_from(id).ok());
                    self.slots.push(external(id.ok_or(STRANGE)?));
                    self.slots[self.slots.len() - 1]
                }
            };
            storages.push(storage);
        }
        Ok(storages)
    }

    /// The segment makes a storage.
    pub fn make(&mut self, storage: usize) {
        self.locals.push(storage);
    }

    /// The storage that the segment made as its `index`th.
    #[must_use]
    pub fn local(&self, index: usize) -> Option<usize> {
        self.locals.get(index).copied()
    }
}
