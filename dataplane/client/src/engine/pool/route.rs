//! What has to be recorded before a record can run where it is to run.

use std::sync::atomic::Ordering;

use genie_planner::{Choice, Device, Input, Step, full_bytes};
use genie_session::client::Draft;
use genie_session::places::{Bring, Set};
use genie_session::record;

use super::super::append::append_error;
use super::super::moves::Way;
use super::super::{Append, Error, Lane, Origin, Session};
use super::{BYTES, Pool, Wanted, first_bytes};

/// Why a copy is where it was brought.
pub(super) const TAKEN: &str = "an operator that runs here takes it";

/// What a record asks the router.
pub(super) struct Question<'a> {
    pub(super) values: &'a [u64],
    /// Which of them it writes.
    pub(super) writes: &'a [bool],
    pub(super) fresh_bytes: u64,
    /// Where the plan has it.
    pub(super) planned: Option<usize>,
    /// The devices that have its operator, if not all do.
    pub(super) home: Option<Set>,
}

pub(super) fn unknown(value: u64) -> Error {
    append_error(genie_session::client::AppendError::UnknownStorage(value))
}

impl Session {
    /// Decides where a record runs, and brings there what it takes: where and why, with the ids there in
    /// `pool.ids`. `None` where something is to be waited for, which is in `pool.wanted` then.
    pub(super) fn route(
        &self,
        append: &mut Append,
        pool: &mut Pool,
        question: &Question<'_>,
    ) -> Result<Option<Choice>, Error> {
        pool.inputs.clear();
        for (&value, &writes) in question.values.iter().zip(question.writes) {
            let known = pool.places.get(value).ok_or_else(|| unknown(value))?;
            pool.inputs.push(Input {
                value,
                bytes: known.bytes(),
                at: known.devices(),
                writes,
            });
        }
        let has_it = |device: usize| question.home.is_none_or(|home| home.has(device));
        let planned = question.planned.filter(|&device| has_it(device));
        let planned = planned.map(|device| Choice {
            device,
            why: "the control plane planned its operator here",
        });
        let decided = pool.decided.take().filter(|chosen| has_it(chosen.device));
        let chosen = match planned.or(decided) {
            Some(chosen) => chosen,
            None => {
                self.look_at_devices(pool);
                for (at, device) in pool.devices.iter_mut().enumerate() {
                    device.alive &= has_it(at);
                }
                let step = Step {
                    inputs: &pool.inputs,
                    fresh_bytes: question.fresh_bytes,
                };
                pool.policy.place(&step, &pool.devices)
            }
        };
        let (lane, chosen) = match question.home {
            Some(home) => self.at_home(chosen, home)?,
            None => self.usable_choice(chosen)?,
        };
        let left = question.planned.filter(|&planned| planned != lane.index);
        if left.is_some_and(|planned| self.lanes.get(planned).is_none_or(Lane::is_lost)) {
            // Its device is gone, and so is what it was made for.
            pool.outline.forget_plans();
        }
        pool.ids.clear();
        for &value in question.values {
            let Some(id) = self.bring(append, pool, value, chosen)? else {
                pool.decided = Some(chosen);
                return Ok(None);
            };
            pool.ids.push(id);
        }
        if !append.logs[lane.index].log.has_room(0) {
            pool.wanted.push(Wanted::Room(lane.index));
            pool.decided = Some(chosen);
            return Ok(None);
        }
        pool.touched = pool.touched.with(lane.index);
        Ok(Some(chosen))
    }

    /// Where the plan has a record of values, before it is routed.
    pub(super) fn planned_place(&self, pool: &mut Pool, draft: &Draft<'_>) -> Option<usize> {
        if !pool.policy.wants_plans() {
            return None;
        }
        if pool.outline.is_long() {
            self.cut_outline(pool);
        }
        let planned = pool.outline.place(draft);
        pool.is_planned = planned.is_some();
        for &value in pool.outline.first_used() {
            // It may be gone when the segment ends.
            if let Some(known) = pool.places.get(value) {
                (pool.used).insert(value, (known.bytes(), known.devices()));
            }
        }
        planned
    }

    /// It was appended, and is where the plan has it, or not.
    pub(super) fn follow_outline(pool: &mut Pool, draft: &Draft<'_>, by_plan: bool) {
        if pool.policy.wants_plans() {
            pool.outline.commit(draft, by_plan);
        }
    }

    /// What a policy may know of the devices.
    pub(super) fn look_at_devices(&self, pool: &mut Pool) {
        pool.devices.clear();
        let places = &pool.places;
        pool.devices.extend(self.lanes.iter().map(|lane| Device {
            alive: !lane.is_lost(),
            held_bytes: places.held(lane.index),
            limit_bytes: lane.opened.memory_budget_bytes,
            others_bytes: lane.others_bytes.load(Ordering::Relaxed),
            busy_ns: lane.busy_ns.load(Ordering::Relaxed),
        }));
    }

    /// The lane of a device, or of another if that is lost.
    pub(super) fn usable(&self, device: usize) -> Result<&Lane, Error> {
        let chosen = self.lanes.get(device).filter(|lane| !lane.is_lost());
        match chosen.or_else(|| self.coordinator()) {
            Some(lane) => Ok(lane),
            None => self.first().check().map(|()| self.first()),
        }
    }

    /// The lane of a choice, and the choice that it is.
    pub(super) fn usable_choice(&self, chosen: Choice) -> Result<(&Lane, Choice), Error> {
        let lane = self.usable(chosen.device)?;
        let instead = Choice {
            device: lane.index,
            why: "the device that was chosen is lost",
        };
        let stays = chosen.device == lane.index;
        Ok((lane, if stays { chosen } else { instead }))
    }

    /// The same for an operator that only these devices have.
    fn at_home(&self, chosen: Choice, home: Set) -> Result<(&Lane, Choice), Error> {
        let lives = |at: &usize| self.lanes.get(*at).is_some_and(|lane| !lane.is_lost());
        if home.has(chosen.device) && lives(&chosen.device) {
            return Ok((&self.lanes[chosen.device], chosen));
        }
        if let Some(device) = home.iter().find(lives) {
            let why = "of the devices that have its operator it is the first";
            return Ok((&self.lanes[device], Choice { device, why }));
        }
        let mut lost = home.iter().filter_map(|at| self.lanes.get(at));
        lost.try_for_each(Lane::check)?;
        Err(Error::Runtime("no device has this operator".to_owned()))
    }

    /// The id of a value at a device, where it is brought unless it is there. `None`: something is to be
    /// waited for.
    pub(super) fn bring(
        &self,
        append: &mut Append,
        pool: &mut Pool,
        value: u64,
        to: Choice,
    ) -> Result<Option<u64>, Error> {
        let lane = &self.lanes[to.device];
        let lives = |at: usize| !self.lanes[at].is_lost();
        let bring = pool.places.bring(value, lane.index, lives);
        let (copy, bytes) = match bring.ok_or_else(|| unknown(value))? {
            Bring::Here(id) => return Ok(Some(id)),
            Bring::Make(bytes) => return self.make(append, pool, value, bytes, to),
            Bring::Send(copy, bytes) => (copy, bytes),
            Bring::Lost(at) => {
                self.lanes[at].check()?;
                return Err(unknown(value));
            }
        };
        let from = &self.lanes[copy.device];
        match self.known_way(from, lane) {
            Some(Way::Direct) => {}
            Some(Way::Relayed) => {
                pool.wanted.push(Wanted::Relay(value, lane.index));
                return Ok(None);
            }
            None => {
                pool.wanted.push(Wanted::Way(from.index, lane.index));
                return Ok(None);
            }
        }
        for full in [from, lane] {
            if !append.logs[full.index].log.has_room(0) {
                pool.wanted.push(Wanted::Room(full.index));
                return Ok(None);
            }
        }
        self.make_room(append, pool, lane, bytes);
        let view = Draft {
            skeleton: &BYTES,
            storages: &[copy.id],
            params: &first_bytes(bytes),
            ..Draft::new(record::Kind::Send)
        };
        let (_, received) =
            self.append_transfer(append, from, &view, lane, (bytes, pool.is_planned), 0)?;
        let id = received.first_fresh;
        pool.unproven.bring(value, lane.index);
        pool.moved_bytes += bytes;
        pool.touched = pool.touched.with(from.index).with(lane.index);
        pool.places.add(value, lane.index, id, TAKEN);
        Ok(Some(id))
    }

    /// Where a device is full, copies that were only read go, to have room for `bytes`.
    fn make_room(&self, append: &mut Append, pool: &mut Pool, lane: &Lane, bytes: u64) {
        let full = full_bytes(lane.opened.memory_budget_bytes);
        let over = (pool.places.held(lane.index) + bytes).saturating_sub(full);
        if over > 0 {
            let needed = |value| pool.inputs.iter().any(|input| input.value == value);
            let gone = pool.places.make_room(lane.index, over, needed);
            self.drop_copies(append, gone);
        }
    }

    /// An uninitialised value gets its storage.
    fn make(
        &self,
        append: &mut Append,
        pool: &mut Pool,
        value: u64,
        bytes: u64,
        at: Choice,
    ) -> Result<Option<u64>, Error> {
        let lane = &self.lanes[at.device];
        if !append.logs[lane.index].log.has_room(0) {
            pool.wanted.push(Wanted::Room(lane.index));
            return Ok(None);
        }
        let bytes = [bytes as i64];
        let draft = Draft::alloc(&bytes);
        let made = self.append_noted(lane, append, &draft, "", Origin::NONE, 0)?;
        pool.touched = pool.touched.with(lane.index);
        pool.places.add(value, lane.index, made.first_fresh, at.why);
        Ok(Some(made.first_fresh))
    }

    /// `body` with the pool, which the session has.
    pub(super) fn with_pool<R>(
        append: &mut Append,
        body: impl FnOnce(&mut Append, &mut Pool) -> Result<R, Error>,
    ) -> Result<R, Error> {
        let Some(mut pool) = append.pool.take() else {
            return Err(Error::Runtime("this session has no pool".to_owned()));
        };
        let done = body(append, &mut pool);
        append.pool = Some(pool);
        done
    }

    /// As far as records were appended, they leave.
    pub(super) fn pump_touched(&self, touched: Set) -> Result<(), Error> {
        for lane in touched.iter().filter_map(|at| self.lanes.get(at)) {
            if !lane.outbox.has_work() {
                self.mark_dirty(lane);
            } else if let Err(Error::Interrupted) = self.pump(lane) {
                return Err(Error::Interrupted);
            }
        }
        Ok(())
    }
}
