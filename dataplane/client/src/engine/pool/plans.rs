//! What the control plane plans for a pool, and what nodes say of their loads. The node of the first lane
//! that lives is asked: it knows nothing that another does not.

use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use genie_control_api::v1::{
    DeviceState, Holding, LoadRequest, ObserveReply, ObserveRequest, PlaceReply, PlaceRequest,
    PlanStats, PlanStep, plan_step,
};
use genie_planner::Choice;
use genie_planner::segment::STEPS_MAX;
use genie_session::outline::{Counts, Question, Seen, Stats, Step};

use super::super::{Append, Lane, Session};
use super::Pool;

/// How often nodes are asked while something happens.
pub(in super::super) const LOAD_EVERY: Duration = Duration::from_millis(100);
/// How often is told what became of plans, while something happens.
pub(in super::super) const OBSERVED_EVERY: Duration = Duration::from_secs(1);
/// Why a copy is where a plan sent it.
const SENT: &str = "the control plane planned it to be here before it is taken";
/// How long a session that begins waits to hear what its devices have to do.
const LOAD_FIRST: Duration = Duration::from_secs(1);

/// What plans have done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Planned {
    /// Of the structure before routing.
    pub counts: Counts,
    /// Plans that could not be obeyed.
    pub refused: u64,
    /// Values that are state, of the plan that came last.
    pub states: u64,
    /// What that plan moves each time, as predicted.
    pub transfer_bytes: u64,
    /// Copies that plans sent before they were taken.
    pub sent: u64,
    /// Copies that plans let go.
    pub let_go: u64,
    /// How often it was told what became of plans.
    pub observed: u64,
}

impl Session {
    /// What plans have done; `None` where the program places.
    #[must_use]
    pub fn planned(&self) -> Option<Planned> {
        let append = self.append.lock();
        let pool = append.pool.as_ref()?;
        Some(Planned {
            counts: pool.outline.counts(),
            ..pool.planned
        })
    }

    /// The device whose control plane is asked: the first that lives.
    pub(super) fn coordinator(&self) -> Option<&Lane> {
        self.lanes.iter().find(|lane| !lane.is_lost())
    }

    /// A segment of the program has ended.
    pub(super) fn cut_outline(&self, pool: &mut Pool) {
        if !pool.policy.wants_plans() {
            return;
        }
        let now = Instant::now();
        let began = pool.began.replace(now);
        let seen = Seen {
            ns: began.map_or(0, |began| {
                let took = now.saturating_duration_since(began);
                u64::try_from(took.as_nanos()).unwrap_or(u64::MAX)
            }),
            moved_bytes: std::mem::take(&mut pool.moved_bytes),
            used_bytes: pool.used.values().map(|&(bytes, _)| bytes).sum(),
        };
        if let Some(question) = pool.outline.cut(seen) {
            self.ask_for_places(pool, question);
        }
        pool.used.clear();
    }

    /// What the plan does with values now that a record which takes `values`, and made those from `first`
    /// on, is appended. What finds no room is left: it is brought when it is taken.
    pub(super) fn follow_steps(
        &self,
        append: &mut Append,
        pool: &mut Pool,
        values: &[u64],
        first: u64,
    ) {
        if pool.outline.steps().is_empty() {
            return;
        }
        let steps: Vec<Step> = pool.outline.steps().to_vec();
        for step in steps {
            let made = step.value.checked_sub(values.len());
            let value = match made {
                Some(nth) => first + nth as u64,
                None => values[step.value],
            };
            // It may have been freed, or be made by nothing yet.
            let is_there = pool
                .places
                .get(value)
                .is_some_and(|known| known.copies().next().is_some());
            let lives = self
                .lanes
                .get(step.device)
                .is_some_and(|lane| !lane.is_lost());
            if !is_there || !lives {
                continue;
            }
            if !step.is_send {
                let gone = pool.places.drop_copy(value, step.device);
                pool.planned.let_go += u64::from(gone.is_some());
                self.drop_copies(append, gone);
                continue;
            }
            let to = Choice {
                device: step.device,
                why: SENT,
            };
            let (moved, wanted) = (pool.moved_bytes, pool.wanted.len());
            if !matches!(self.bring(append, pool, value, to), Ok(Some(_))) {
                pool.wanted.truncate(wanted);
            }
            pool.planned.sent += u64::from(pool.moved_bytes > moved);
        }
    }

    /// Tells the control plane what became of its plans, and hears which are no good.
    pub(in super::super) fn observe(&self) {
        let (stats, devices) = {
            let append = &mut *self.append.lock();
            let Some(pool) = append.pool.as_mut() else {
                return;
            };
            (pool.outline.take_stats(), self.device_states(pool))
        };
        let (Some(lane), false) = (self.coordinator(), stats.is_empty()) else {
            return;
        };
        let request = ObserveRequest {
            session_id: lane.opened.session_id,
            data_token: lane.opened.data_token.clone(),
            plans: stats.into_iter().map(told).collect(),
            devices,
        };
        let this = self.this.clone();
        // If too many wait, it is told the next time, of what happens until then.
        lane.control.observe(
            request,
            Box::new(move |reply| {
                if let (Some(session), Ok(reply)) = (this.upgrade(), reply) {
                    let append = &mut *session.append.lock();
                    if let Some(pool) = append.pool.as_mut() {
                        heed(pool, &reply);
                    }
                }
            }),
        );
    }

    /// What each device holds of this session.
    fn device_states(&self, pool: &Pool) -> Vec<DeviceState> {
        let state = |lane: &Lane| DeviceState {
            alive: !lane.is_lost(),
            held_bytes: pool.places.held(lane.index),
            limit_bytes: lane.opened.memory_budget_bytes,
        };
        self.lanes.iter().map(state).collect()
    }

    fn ask_for_places(&self, pool: &mut Pool, question: Question) {
        let plan = question.plan;
        let Some(lane) = self.coordinator() else {
            return;
        };
        let holding = |&value: &u64| {
            let known = pool.places.get(value);
            let known = known.map(|known| (known.bytes(), known.devices()));
            let (bytes, at) = known.or_else(|| pool.used.get(&value).copied())?;
            Some(Holding {
                value,
                bytes,
                devices: at.iter().map(|at| at as u32).collect(),
            })
        };
        let request = PlaceRequest {
            session_id: lane.opened.session_id,
            data_token: lane.opened.data_token.clone(),
            devices: self.device_states(pool),
            holdings: question.externals.iter().filter_map(holding).collect(),
            segment: question.segment,
            plan,
            before: question.before,
        };
        self.counters.sent(request.segment.len() as u64);
        let this = self.this.clone();
        let asked = lane.control.place(
            request,
            Box::new(move |reply| {
                if let Some(session) = this.upgrade() {
                    session.counters.received(32);
                    let append = &mut *session.append.lock();
                    if let Some(pool) = append.pool.as_mut() {
                        session.obey(pool, plan, &reply.unwrap_or_default());
                    }
                }
            }),
        );
        if !asked {
            pool.outline.answered(plan, &[], Vec::new());
        }
    }

    /// A plan came. One that names a device that is not there, or does too much, is not obeyed.
    fn obey(&self, pool: &mut Pool, plan: u64, reply: &PlaceReply) {
        let is_there = |&place: &u8| {
            let lane = self.lanes.get(usize::from(place));
            lane.is_some_and(|lane| !lane.is_lost())
        };
        let steps: Option<Vec<_>> = reply.steps.iter().map(step).collect();
        let lives = |step: &Step| {
            self.lanes
                .get(step.device)
                .is_some_and(|lane| !lane.is_lost())
        };
        let steps = steps.filter(|steps| {
            steps.len() <= STEPS_MAX * reply.places.len()
                && steps.iter().all(|(_, step)| lives(step))
        });
        let (true, Some(steps)) = (reply.places.iter().all(is_there), steps) else {
            pool.planned.refused += 1;
            pool.outline.answered(plan, &[], Vec::new());
            return;
        };
        if !reply.places.is_empty() {
            pool.planned.states = u64::from(reply.states);
            pool.planned.transfer_bytes = reply.transfer_bytes;
        }
        pool.outline.answered(plan, &reply.places, steps);
    }

    /// Asks nodes what their devices have to do, behind whoever works.
    pub(in super::super) fn ask_loads(&self) {
        for lane in self.lanes.iter().filter(|lane| !lane.is_lost()) {
            self.ask_load(lane, None);
        }
    }

    /// The same, and waits: a session is about to begin.
    pub(in super::super) fn hear_loads(&self) {
        let (heard, all) = mpsc::channel();
        for lane in &self.lanes {
            self.ask_load(lane, Some(heard.clone()));
        }
        drop(heard);
        // Nobody says anything: it ends when all have answered.
        let _ = all.recv_timeout(LOAD_FIRST);
    }

    fn ask_load(&self, lane: &Lane, heard: Option<mpsc::Sender<()>>) {
        let (this, index) = (self.this.clone(), lane.index);
        let request = LoadRequest {
            session_id: lane.opened.session_id,
            data_token: lane.opened.data_token.clone(),
        };
        lane.control.load(
            request,
            Box::new(move |reply| {
                if let (Some(session), Ok(load)) = (this.upgrade(), reply) {
                    let lane = &session.lanes[index];
                    lane.busy_ns.store(load.busy_ns, Ordering::Relaxed);
                    lane.others_bytes
                        .store(load.others_bytes, Ordering::Relaxed);
                }
                drop(heard);
            }),
        );
    }
}

fn told(stats: Stats) -> PlanStats {
    PlanStats {
        plan: stats.plan,
        steps: stats.steps,
        moved_bytes: stats.seen.moved_bytes,
        used_bytes: stats.seen.used_bytes,
        step_ns: stats.seen.ns,
        placed: stats.placed,
    }
}

/// What is said of plans is done.
fn heed(pool: &mut Pool, reply: &ObserveReply) {
    pool.planned.observed += 1;
    for &plan in &reply.again {
        pool.outline.ask_again(plan);
    }
    for &plan in &reply.drop {
        pool.outline.drop_plan(plan);
    }
}

/// A step of a plan, and after which record it is. `None`: it is none.
fn step(step: &PlanStep) -> Option<(usize, Step)> {
    let is_send = match step.act() {
        plan_step::Act::Send => true,
        plan_step::Act::Drop => false,
        plan_step::Act::Unspecified => return None,
    };
    let number = |number: u32| usize::try_from(number).ok();
    let read = Step {
        is_send,
        value: number(step.value)?,
        device: number(step.device)?,
    };
    Some((number(step.record)?, read))
}
