//! Calls of a program that chooses no device.

use genie_session::client::Draft;
use genie_session::machine::Metas;
use genie_session::node::decode_metas;
use genie_session::record;
use genie_session::skeleton;

use super::super::append::{SiteId, append_error};
use super::super::slots::{Destination, Key};
use super::super::{Append, Error, Origin, RESERVED, Recorded, Session, Signature};
use super::route::{Question, unknown};
use super::{Pool, Wanted};

impl Session {
    /// As [`Session::record_known`]; storages are values.
    pub(in super::super) fn record_placed(
        &self,
        draft: &Draft<'_>,
        signature: &Signature<'_>,
        name: impl FnOnce() -> &'static str,
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
                    operator: draft.op,
                    values: draft.storages,
                    writes: &results.writes,
                    fresh_bytes: results.fresh_bytes.iter().sum(),
                    planned: self.planned_place(pool, &outlined),
                };
                let Some(device) = self.route(append, pool, &question)? else {
                    self.flush_all(append);
                    return Ok((Recorded::NoRoom, std::mem::take(&mut pool.touched)));
                };
                let ids = std::mem::take(&mut pool.ids);
                let placed = Draft {
                    storages: &ids,
                    ..outlined
                };
                let log = &append.logs[device].log;
                let is_known = log.is_defined(draft.op) && pool.is_named(draft.op);
                let name = if is_known { "" } else { name() };
                pool.name(draft.op, name);
                let lane = &self.lanes[device];
                let mut appended = self.append_noted(lane, append, &placed, name, origin, site)?;
                pool.ids = ids;
                Self::follow_outline(pool, &outlined, question.planned, device);
                self.wrote(append, pool, &question, device);
                let first = pool.places.take(results.fresh);
                let why = "its operator ran here";
                for (nth, &bytes) in (0..).zip(&results.fresh_bytes) {
                    pool.places.insert(first + nth, bytes);
                    (pool.places).add(first + nth, device, appended.first_fresh + nth, why);
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
    fn placing<R>(
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
        name: &str,
        origin: Origin,
        site: SiteId,
    ) -> Result<(u64, Metas), Error> {
        let mut tail = Vec::with_capacity(2);
        genie_session::varint::put_u64(&mut tail, RESERVED);
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
        let ((lane, key, look), (first, first_id)) = self.placing(|append, pool| {
            let question = Question {
                operator: draft.op,
                values: draft.storages,
                writes: &writes,
                fresh_bytes: 0,
                planned: self.planned_place(pool, &outlined),
            };
            let Some(device) = self.route(append, pool, &question)? else {
                return Ok(None);
            };
            let ids = std::mem::take(&mut pool.ids);
            let placed = Draft {
                storages: &ids,
                ..outlined
            };
            pool.name(draft.op, name);
            let lane = &self.lanes[device];
            let appended = self.append_noted(lane, append, &placed, name, origin, site)?;
            pool.ids = ids;
            Self::follow_outline(pool, &outlined, question.planned, device);
            self.wrote(append, pool, &question, device);
            let key = Key::Call(appended.seq);
            lane.slots.open(key, Destination::NOWHERE);
            let look = self.ended(append, pool, device);
            let first = pool.places.take(RESERVED);
            let waited = (&self.lanes[device], key, look);
            Ok(Some((waited, (first, appended.first_fresh))))
        })?;
        let payload = self.wait(lane, key)?;
        self.end_look(look);
        let metas = decode_metas(&payload).map_err(|error| Error::Runtime(error.to_string()))?;
        let bytes = skeleton::fresh_bytes(&metas.out_skeleton, &metas.out_params)
            .map_err(|error| Error::Runtime(error.to_string()))?;
        let append = &mut *self.append.lock();
        if let Some(pool) = append.pool.as_mut() {
            for (nth, &bytes) in (0..).zip(&bytes) {
                pool.places.insert(first + nth, bytes);
                let why = "its operator ran here";
                pool.places
                    .add(first + nth, lane.index, first_id + nth, why);
            }
        }
        Ok((first, metas))
    }

    /// A look at `device` ends a segment: the number of the look.
    fn ended(&self, append: &mut Append, pool: &mut Pool, device: usize) -> u64 {
        self.cut_others(&self.lanes[device], append);
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
            Self::follow_outline(pool, &draft, planned, planned.unwrap_or_default());
            let value = pool.places.take(1);
            pool.places.insert(value, bytes);
            Ok(value)
        })
    }

    pub(in super::super) fn free_placed(&self, value: u64) {
        let append = &mut *self.append.lock();
        let gone = (append.pool.as_mut()).and_then(|pool| {
            if pool.plans {
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
            let Some(copy) = known
                .copies()
                .find(|copy| !self.lanes[copy.device].is_lost())
            else {
                if let Some(copy) = known.copies().next() {
                    self.lanes[copy.device].check()?;
                }
                pool.places.resize(value, bytes);
                Self::follow_outline(pool, &outlined, planned, planned.unwrap_or_default());
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
            Self::follow_outline(pool, &outlined, planned, planned.unwrap_or_default());
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
        let (bytes, is_bulk) = ([len as i64], len > record::INLINE_MAX);
        let outlined = Draft {
            tail: &[u8::from(is_bulk)],
            ..Draft::upload(&value, &bytes)
        };
        let (device, ticket) = self.placing(|append, pool| {
            let planned = self.planned_place(pool, &outlined);
            let Some((device, id)) = self.place_upload(append, pool, value, len as u64)? else {
                return Ok(None);
            };
            let lane = &self.lanes[device];
            let ticket = if !is_bulk {
                // SAFETY: as the caller says.
                let blob = unsafe { std::slice::from_raw_parts(source, len) };
                let draft = Draft {
                    blob: Some(blob),
                    ..Draft::upload(&id, &bytes)
                };
                self.append_noted(lane, append, &draft, "", Origin::NONE, site)?;
                None
            } else {
                let written = &mut append.logs[device];
                let appended = written.log.append_bulk(id, len as u64);
                let (before, bulk) = appended.map_err(append_error)?;
                written.unheard = true;
                append.position += 1;
                let (kind, position) = (record::Kind::Upload, append.position);
                (written.trace).note(bulk.header.seq, kind, 0, (site, false), position);
                if let Some(before) = before {
                    lane.outbox.put(before);
                }
                // SAFETY: as the caller says; `pump_own` returns when the memory is free, and what
                // is not sent when the session is over is dropped by `lose`.
                Some(unsafe { lane.outbox.lend(bulk, self.owner(), source, len) })
            };
            pool.touched = pool.touched.with(device);
            Self::follow_outline(pool, &outlined, planned, planned.unwrap_or_default());
            let dropped = pool.places.written(value, device);
            self.drop_copies(append, dropped);
            Ok(Some((device, ticket)))
        })?;
        match ticket {
            Some(ticket) => self.pump_own(&self.lanes[device], ticket),
            None => Ok(()),
        }
    }

    /// The device and id there that an upload of all of a value goes to; with room for it.
    fn place_upload(
        &self,
        append: &mut Append,
        pool: &mut Pool,
        value: u64,
        len: u64,
    ) -> Result<Option<(usize, u64)>, Error> {
        let known = pool.places.get(value).ok_or_else(|| unknown(value))?;
        let living = (known.copies()).find(|copy| !self.lanes[copy.device].is_lost());
        let device = match (living, pool.decided.take()) {
            (Some(copy), _) => copy.device,
            (None, Some(device)) => device,
            (None, None) => {
                self.look_at_devices(pool);
                pool.policy.upload(len, &pool.devices).device
            }
        };
        let lane = self.usable(device)?;
        let bulk = if len > record::INLINE_MAX as u64 {
            len
        } else {
            0
        };
        if !append.logs[lane.index].log.has_room(bulk) {
            pool.wanted.push(Wanted::Bulk(lane.index, bulk));
            pool.decided = Some(lane.index);
            return Ok(None);
        }
        let id = self.bring_for_overwriting(append, pool, value, lane)?;
        Ok(id.map(|id| (lane.index, id)))
    }

    /// The id of a value at `lane`, whose bytes do not matter any more.
    fn bring_for_overwriting(
        &self,
        append: &mut Append,
        pool: &mut Pool,
        value: u64,
        lane: &super::super::Lane,
    ) -> Result<Option<u64>, Error> {
        let known = pool.places.get(value).ok_or_else(|| unknown(value))?;
        if known.at(lane.index).is_none() && known.copies().next().is_some() {
            // It was on devices that are lost, and is made anew.
            let bytes = known.bytes();
            pool.places.remove(value);
            pool.places.insert(value, bytes);
        }
        self.bring(append, pool, value, lane)
    }

    /// As [`Session::fetch`] of a view of a value.
    pub(in super::super) fn fetch_placed(
        &self,
        draft: &Draft<'_>,
        into: &mut [u8],
        site: SiteId,
    ) -> Result<(), Error> {
        let &[value] = draft.storages else {
            return Err(Error::Runtime(
                "a fetch of something but one view".to_owned(),
            ));
        };
        let outlined = Draft {
            tail_numbers: &[0],
            ..*draft
        };
        let (lane, key, look) = self.placing(|append, pool| {
            let planned = self.planned_place(pool, &outlined);
            let known = pool.places.get(value).ok_or_else(|| unknown(value))?;
            let living = (known.copies()).find(|copy| !self.lanes[copy.device].is_lost());
            let device = living.or_else(|| known.copies().next());
            let lane = match device {
                Some(copy) => &self.lanes[copy.device],
                None => self.usable(0)?,
            };
            lane.check()?;
            let Some(id) = self.bring(append, pool, value, lane)? else {
                return Ok(None);
            };
            if !append.logs[lane.index].log.has_room(0) {
                pool.wanted.push(Wanted::Room(lane.index));
                return Ok(None);
            }
            let wait = append.next_wait;
            append.next_wait += 1;
            let key = Key::Wait(wait);
            let placed = Draft {
                storages: &[id],
                tail_numbers: &[wait as i64],
                ..*draft
            };
            // SAFETY: `wait` returns once the answer was taken or nobody waits for it any more.
            let destination = unsafe { Destination::new(into.as_mut_ptr(), into.len()) };
            lane.slots.open(key, destination);
            self.append_noted(lane, append, &placed, "", Origin::NONE, site)
                .inspect_err(|_| lane.slots.forget(key))?;
            Self::follow_outline(pool, &outlined, planned, planned.unwrap_or_default());
            let look = self.ended(append, pool, lane.index);
            Ok(Some((lane, key, look)))
        })?;
        self.wait(lane, key)?;
        self.end_look(look);
        Ok(())
    }
}
