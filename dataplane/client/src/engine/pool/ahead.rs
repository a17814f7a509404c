//! Looks at values of a pool: what comes next is asked for where it lies.

use genie_planner::Choice;
use genie_session::client::Draft;

use super::super::ahead::{Asked, Next};
use super::super::append::SiteId;
use super::super::bytes::Bytes;
use super::super::slots::Destination;
use super::super::{Error, Lane, Session};
use super::route::unknown;
use super::{Pool, Wanted};

impl Session {
    /// The same bytes of the copy of a value that is looked at: the oldest one that is not lost.
    pub(in super::super) fn placed(&self, pool: &Pool, bytes: &Bytes) -> Option<(usize, Bytes)> {
        let copy = self.living(pool.places.get(bytes.storage)?)?;
        let storage = copy.id;
        Some((copy.device, Bytes { storage, ..*bytes }))
    }

    /// As [`Session::fetch_ahead`] of a view of a value.
    pub(in super::super) fn fetch_placed(
        &self,
        draft: &Draft<'_>,
        into: &mut [u8],
        next: Next<'_>,
        site: SiteId,
    ) -> Result<(), Error> {
        let bytes = Bytes::of(draft, into.len());
        self.forget_stale();
        if let Some((lane, taken, look)) = bytes.and_then(|bytes| self.asked_for(draft, &bytes)) {
            self.take_asked(lane, &taken, into, next)?;
            self.end_look(look);
            return Ok(());
        }
        let &[value] = draft.storages else {
            return Err(Error::Runtime(
                "a fetch of something but one view".to_owned(),
            ));
        };
        let outlined = outlined(draft);
        let (lane, id, key, look) = self.placing(|append, pool| {
            let planned = self.planned_place(pool, &outlined);
            let known = pool.places.get(value).ok_or_else(|| unknown(value))?;
            let copy = self.living(known).or_else(|| known.copies().next());
            let lane = match copy {
                Some(copy) => &self.lanes[copy.device],
                None => self.usable(0)?,
            };
            lane.check()?;
            let here = Choice {
                device: lane.index,
                why: "it was looked at before anything was done with it",
            };
            let Some(id) = self.bring(append, pool, value, here)? else {
                return Ok(None);
            };
            if !append.logs[lane.index].log.has_room(0) {
                pool.wanted.push(Wanted::Room(lane.index));
                return Ok(None);
            }
            let placed = Draft {
                storages: &[id],
                ..*draft
            };
            // SAFETY: `wait` returns once the answer was taken or nobody waits for it any more.
            let destination = unsafe { Destination::new(into.as_mut_ptr(), into.len()) };
            let key = self.append_question(lane, append, &placed, destination, site)?;
            Self::follow_outline(pool, &outlined, planned.is_some());
            let look = self.ended(append, pool, lane);
            Ok(Some((lane, id, key, look)))
        })?;
        if let Some(bytes) = bytes {
            self.ask_ahead(
                lane,
                &Bytes {
                    storage: id,
                    ..bytes
                },
                next,
            );
        }
        self.wait(lane, key)?;
        self.end_look(look);
        Ok(())
    }

    /// What was asked for, and the look that it is.
    fn asked_for(&self, draft: &Draft<'_>, bytes: &Bytes) -> Option<(&Lane, (Asked, usize), u64)> {
        let append = &mut *self.append.lock();
        let (device, placed) = self.placed(append.pool.as_deref()?, bytes)?;
        let taken = append.ahead.take(device, &placed)?;
        let lane = &self.lanes[device];
        let look = Self::with_pool(append, |append, pool| {
            // Plans know the looks of a program, asked for or not.
            let outlined = outlined(draft);
            let planned = self.planned_place(pool, &outlined);
            Self::follow_outline(pool, &outlined, planned.is_some());
            Ok(self.ended(append, pool, lane))
        });
        Some((lane, taken, look.unwrap_or(0)))
    }
}

/// A look, as plans know it.
fn outlined<'a>(draft: &Draft<'a>) -> Draft<'a> {
    Draft {
        tail_numbers: &[0],
        ..*draft
    }
}
