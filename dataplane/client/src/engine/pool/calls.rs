//! Calls of a program that chooses no device.

use genie_planner::Choice;
use genie_session::client::Draft;
use genie_session::machine::Metas;
use genie_session::node::decode_metas;
use genie_session::record;
use genie_session::skeleton;

use super::super::append::SiteId;
use super::super::calls::{Uploaded, bulk_bytes, reserved_tail};
use super::super::slots::{Destination, Key};
use super::super::{Append, Error, Lane, Origin, RESERVED, Recorded, Session, Signature};
use super::route::{Question, unknown};
use super::{Pool, Wanted};

impl Session {
    /// As [`Session::record_known`]; storages are values.
    pub(in super::super) fn record_placed(
        &self,
        draft: &Draft<'_>,
        signature: &Signature<'_>,
        name: impl Fn() -> &'static str,
        origin: Origin,
        site: SiteId,
    ) -> Result<Recorded, Error> {
        let (recorded, touched) = {
            let append = &mut *self.append.lock();
            let Some(results) = append.shapes.find(signature) else {
                return Ok(Recorded::UnknownShape);
            };
            Self::with_pool(append, |append, pool| {
                let outlined = Draft {
                    tail: &results.skeleton,
                    tail_numbers: &results.params,
                    fresh: results.fresh,
                    ..*draft
                };
                let question = Question {
                    values: draft.storages,
                    writes: &results.writes,
                    fresh_bytes: results.fresh_bytes.iter().sum(),
                    planned: self.planned_place(pool, &outlined),
                    home: pool.home(&name),
                };
                let Some(chosen) = self.route(append, pool, &question)? else {
                    self.flush_all(append);
                    return Ok((Recorded::NoRoom, std::mem::take(&mut pool.touched)));
                };
                let ids = std::mem::take(&mut pool.ids);
                let placed = Draft {
                    storages: &ids,
                    ..outlined
                };
                let log = &append.logs[chosen.device].log;
                let is_known = log.is_defined(draft.op) && pool.is_named(draft.op);
                let name = if is_known { "" } else { name() };
                pool.name(draft.op, name);
                let lane = &self.lanes[chosen.device];
                let mut appended = self.append_noted(lane, append, &placed, name, origin, site)?;
                pool.ids = ids;
                let by_plan = question.planned == Some(chosen.device);
                Self::follow_outline(pool, &outlined, by_plan);
                self.wrote(append, pool, &question, chosen.device);
                let first = pool.places.take(results.fresh);
                pool.made(chosen, (first, appended.first_fresh), &results.fresh_bytes);
                if by_plan {
                    self.follow_steps(append, pool, draft.storages, first);
                }
                appended.first_fresh = first;
                let touched = std::mem::take(&mut pool.touched);
                Ok((Recorded::Done(appended, results), touched))
            })?
        };
        self.pump_touched(touched)?;
        Ok(recorded)
    }

    /// Written values have one copy.
    fn wrote(&self, append: &mut Append, pool: &mut Pool, question: &Question<'_>, device: usize) {
        for (&value, &writes) in question.values.iter().zip(question.writes) {
            if writes {
                let dropped = pool.places.written(value, device);
                let gone = pool.unproven.write(value, device, dropped);
                self.drop_copies(append, gone);
            }
        }
    }

    /// Runs `body` until it finds what it needs.
    pub(super) fn placing<R>(
        &self,
        mut body: impl FnMut(&mut Append, &mut Pool) -> Result<Option<R>, Error>,
    ) -> Result<R, Error> {
        loop {
            let (done, touched) = {
                let append = &mut *self.append.lock();
                Self::with_pool(append, |append, pool| {
                    let done = body(append, pool)?;
                    if done.is_none() {
                        self.flush_all(append);
                    }
                    Ok((done, std::mem::take(&mut pool.touched)))
                })?
            };
            for lane in touched.iter().filter_map(|at| self.lanes.get(at)) {
                self.mark_dirty(lane);
            }
            match done {
                // Whoever waits for it sends it.
                Some(done) => return Ok(done),
                None => self.wait_for_room()?,
            }
        }
    }

    /// As [`Session::call_sync`]; storages are values.
    pub(in super::super) fn call_sync_placed(
        &self,
        draft: &Draft<'_>,
        name: &'static str,
        origin: Origin,
        site: SiteId,
    ) -> Result<(u64, Metas), Error> {
        let tail = reserved_tail();
        let mut writes = Vec::with_capacity(draft.storages.len());
        skeleton::measure(draft.skeleton, |flags, _, _| {
            writes.push(flags & skeleton::flag::WRITE != 0);
        })
        .map_err(|error| Error::Runtime(error.to_string()))?;
        let outlined = Draft {
            tail: &tail,
            fresh: RESERVED,
            ..*draft
        };
        let ((key, look), chosen, names) = self.placing(|append, pool| {
            let question = Question {
                values: draft.storages,
                writes: &writes,
                fresh_bytes: 0,
                planned: self.planned_place(pool, &outlined),
                home: pool.home(|| name),
            };
            let Some(chosen) = self.route(append, pool, &question)? else {
                return Ok(None);
            };
            let ids = std::mem::take(&mut pool.ids);
            let placed = Draft {
                storages: &ids,
                ..outlined
            };
            pool.name(draft.op, name);
            let lane = &self.lanes[chosen.device];
            let appended = self.append_noted(lane, append, &placed, name, origin, site)?;
            pool.ids = ids;
            let by_plan = question.planned == Some(chosen.device);
            Self::follow_outline(pool, &outlined, by_plan);
            self.wrote(append, pool, &question, chosen.device);
            let key = Key::Call(appended.seq);
            lane.slots.open(key, Destination::NOWHERE);
            let look = self.ended(append, pool, lane);
            let names = (pool.places.take(RESERVED), appended.first_fresh);
            Ok(Some(((key, look), chosen, names)))
        })?;
        let payload = self.wait(&self.lanes[chosen.device], key)?;
        self.end_look(look);
        let metas = decode_metas(&payload).map_err(|error| Error::Runtime(error.to_string()))?;
        let bytes = skeleton::fresh_bytes(&metas.out_skeleton, &metas.out_params)
            .map_err(|error| Error::Runtime(error.to_string()))?;
        let append = &mut *self.append.lock();
        if let Some(pool) = append.pool.as_mut() {
            pool.made(chosen, names, &bytes);
        }
        Ok((names.0, metas))
    }

    /// A look at a device ends a segment: the number of the look.
    pub(super) fn ended(&self, append: &mut Append, pool: &mut Pool, lane: &Lane) -> u64 {
        self.cut_others(lane, append);
        self.cut_outline(pool);
        self.look_at_devices(pool);
        pool.policy.cut(&pool.devices);
        self.flush_all(append);
        pool.unproven.look()
    }

    /// A new value of uninitialised bytes. Nobody holds it before it is used.
    pub(in super::super) fn alloc_placed(&self, bytes: u64) -> Result<u64, Error> {
        self.usable(0)?;
        let append = &mut *self.append.lock();
        Self::with_pool(append, |_, pool| {
            let numbers = [bytes as i64];
            let draft = Draft::alloc(&numbers);
            // It is made where it is used first.
            let planned = self.planned_place(pool, &draft);
            Self::follow_outline(pool, &draft, planned.is_some());
            let value = pool.places.take(1);
            pool.places.insert(value, bytes);
            Ok(value)
        })
    }

    pub(in super::super) fn free_placed(&self, value: u64) {
        let append = &mut *self.append.lock();
        let gone = (append.pool.as_mut()).and_then(|pool| {
            if pool.policy.wants_plans() {
                pool.outline.free(value);
            }
            pool.places.remove(value)
        });
        if let Some(gone) = gone {
            self.drop_copies(append, gone.copies());
        }
    }

    pub(in super::super) fn resize_placed(&self, value: u64, bytes: u64) -> Result<(), Error> {
        let numbers = [bytes as i64];
        let outlined = Draft {
            storages: &[value],
            tail_numbers: &numbers,
            ..Draft::new(record::Kind::Resize)
        };
        self.placing(|append, pool| {
            let planned = self.planned_place(pool, &outlined);
            let known = pool.places.get(value).ok_or_else(|| unknown(value))?;
            let Some(copy) = self.living(known) else {
                if let Some(copy) = known.copies().next() {
                    self.lanes[copy.device].check()?;
                }
                pool.places.resize(value, bytes);
                Self::follow_outline(pool, &outlined, planned.is_some());
                return Ok(Some(()));
            };
            let lane = &self.lanes[copy.device];
            if !append.logs[copy.device].log.has_room(0) {
                pool.wanted.push(Wanted::Room(copy.device));
                return Ok(None);
            }
            let draft = Draft {
                storages: &[copy.id],
                ..outlined
            };
            self.append_noted(lane, append, &draft, "", Origin::NONE, 0)?;
            // It is wherever the value is.
            Self::follow_outline(pool, &outlined, planned.is_some());
            pool.touched = pool.touched.with(copy.device);
            let dropped = pool.places.written(value, copy.device);
            pool.places.resize(value, bytes);
            self.drop_copies(append, dropped);
            Ok(Some(()))
        })
    }

    /// As [`Session::upload`] to a value.
    ///
    /// # Safety
    /// `source` is valid for `len` bytes during the call.
    pub(in super::super) unsafe fn upload_placed(
        &self,
        value: u64,
        source: *const u8,
        len: usize,
        site: SiteId,
    ) -> Result<(), Error> {
        let (bytes, bulk) = ([len as i64], bulk_bytes(len));
        let outlined = Draft {
            tail: &[u8::from(bulk > 0)],
            ..Draft::upload(&value, &bytes)
        };
        let (lane, uploaded) = self.placing(|append, pool| {
            let planned = self.planned_place(pool, &outlined);
            let Some((device, id)) = self.place_upload(append, pool, value, bulk)? else {
                return Ok(None);
            };
            let lane = &self.lanes[device];
            // SAFETY: as the caller says.
            let uploaded = unsafe { self.append_upload(lane, append, id, source, len, site) }?;
            pool.touched = pool.touched.with(device);
            Self::follow_outline(pool, &outlined, planned.is_some());
            let dropped = pool.places.written(value, device);
            self.drop_copies(append, dropped);
            Ok(Some((lane, uploaded)))
        })?;
        match uploaded {
            Uploaded::Lent(ticket) => self.pump_own(lane, ticket),
            Uploaded::Inside(_) => Ok(()),
        }
    }

    /// The device and id there that an upload of all of a value goes to; with room for it, and for so many
    /// bytes of bulk.
    fn place_upload(
        &self,
        append: &mut Append,
        pool: &mut Pool,
        value: u64,
        bulk: u64,
    ) -> Result<Option<(usize, u64)>, Error> {
        let known = pool.places.get(value).ok_or_else(|| unknown(value))?;
        let (bytes, living) = (known.bytes(), self.living(known));
        let is_lost = living.is_none() && known.copies().next().is_some();
        let chosen = match (living, pool.decided.take()) {
            (Some(copy), _) => Choice {
                device: copy.device,
                why: known.why(),
            },
            (None, Some(chosen)) => chosen,
            (None, None) => {
                self.look_at_devices(pool);
                pool.policy.upload(bytes, &pool.devices)
            }
        };
        let (lane, chosen) = self.usable_choice(chosen)?;
        if !append.logs[lane.index].log.has_room(bulk) {
            pool.wanted.push(Wanted::Bulk(lane.index, bulk));
            pool.decided = Some(chosen);
            return Ok(None);
        }
        if is_lost {
            // It is made anew: its bytes do not matter any more.
            pool.places.remove(value);
            pool.places.insert(value, bytes);
        }
        let id = self.bring(append, pool, value, chosen)?;
        Ok(id.map(|id| (lane.index, id)))
    }
}
