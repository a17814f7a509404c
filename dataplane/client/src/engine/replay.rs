//! Records that were made before, appended again for other storages.

use genie_session::client::Draft;

use super::append::SiteId;
use super::{Error, Lane, Origin, Session, begins};

/// A call that was recorded before. Its storages are known by slots: what is in them is the replay's.
#[derive(Clone, Copy, Debug)]
pub struct Replayed<'a> {
    /// The call with its results, without storages.
    pub draft: Draft<'a>,
    /// The slots of its storages, in order.
    pub slots: &'a [u32],
    /// The slot of its first fresh storage; those of the others follow.
    pub first_fresh: u32,
    /// Slots whose storages die after it.
    pub freed: &'a [u32],
    /// The line that it is of.
    pub site: SiteId,
}

/// The storages of a replay.
pub trait Slots {
    /// The storage in a slot.
    ///
    /// # Errors
    /// There is none, or it is elsewhere.
    fn get(&self, slot: u32) -> Result<u64, Error>;
    /// A storage was made.
    fn put(&mut self, slot: u32, id: u64);
    /// It is to be freed, and in its slot no longer.
    fn take(&mut self, slot: u32) -> Result<u64, Error>;
}

impl Session {
    /// Appends calls under one lock, as far as there is room. Gives how many; the first ones are
    /// appended too where it fails.
    ///
    /// # Errors
    /// As [`Session::record_known`].
    pub fn replay<'a>(
        &self,
        lane: &Lane,
        calls: impl Iterator<Item = Replayed<'a>>,
        slots: &mut impl Slots,
        name: impl Fn(u32) -> &'static str,
        annotation: u64,
    ) -> Result<usize, Error> {
        let origin = Origin {
            annotation,
            ..Origin::NONE
        };
        lane.check()?;
        let is_profiled = self.profiler.is_on();
        let mut ids = Vec::new();
        let mut done = 0;
        let mut append = self.append.lock();
        for call in calls {
            let log = &mut append.logs[lane.index].log;
            if !log.has_room(0) {
                break;
            }
            ids.clear();
            for &slot in call.slots {
                ids.push(slots.get(slot)?);
            }
            let draft = Draft {
                storages: &ids,
                ..call.draft
            };
            let is_named = log.is_defined(draft.op);
            let name = if is_named { "" } else { name(draft.op) };
            if is_profiled {
                begins();
            }
            let appended = self.append_noted(lane, &mut append, &draft, name, origin, call.site)?;
            for (slot, id) in (call.first_fresh..)
                .zip(appended.first_fresh..)
                .take(draft.fresh as usize)
            {
                slots.put(slot, id);
            }
            done += 1;
            for &slot in call.freed {
                let id = slots.take(slot)?;
                self.let_go(&mut append, lane.index, id);
            }
            if appended.full {
                drop(append);
                self.pump(lane)?;
                append = self.append.lock();
            }
        }
        drop(append);
        self.mark_dirty(lane);
        Ok(done)
    }

    /// How many records were appended so far, by all threads.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.append.lock().position
    }
}
