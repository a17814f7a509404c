//! What the control plane plans for a pool, and what nodes say of their loads. The node of the first lane
//! that lives is asked: it knows nothing that another does not.

use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::time::Duration;

use genie_control_api::v1::{DeviceState, Holding, LoadRequest, PlaceReply, PlaceRequest};
use genie_session::outline::{Counts, Question};

use super::super::{Lane, Session};
use super::Pool;

/// How often nodes are asked while something happens.
pub(in super::super) const LOAD_EVERY: Duration = Duration::from_millis(100);
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

    /// A segment of the program has ended.
    pub(super) fn cut_outline(&self, pool: &mut Pool) {
        if !pool.policy.wants_plans() {
            return;
        }
        if let Some(question) = pool.outline.cut() {
            self.ask_for_places(pool, question);
        }
        pool.used.clear();
    }

    fn ask_for_places(&self, pool: &mut Pool, question: Question) {
        let plan = question.plan;
        let Some(lane) = self.lanes.iter().find(|lane| !lane.is_lost()) else {
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
        let state = |lane: &Lane| DeviceState {
            alive: !lane.is_lost(),
            held_bytes: pool.places.held(lane.index),
            limit_bytes: lane.opened.memory_budget_bytes,
        };
        let request = PlaceRequest {
            session_id: lane.opened.session_id,
            data_token: lane.opened.data_token.clone(),
            devices: self.lanes.iter().map(state).collect(),
            holdings: question.externals.iter().filter_map(holding).collect(),
            segment: question.segment,
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
            pool.outline.answered(plan, &[]);
        }
    }

    /// A plan came. One that names a device that is not there is not obeyed.
    fn obey(&self, pool: &mut Pool, plan: u64, reply: &PlaceReply) {
        let is_there = |&place: &u8| {
            let lane = self.lanes.get(usize::from(place));
            lane.is_some_and(|lane| !lane.is_lost())
        };
        if !reply.places.iter().all(is_there) {
            pool.planned.refused += 1;
            pool.outline.answered(plan, &[]);
            return;
        }
        if !reply.places.is_empty() {
            pool.planned.states = u64::from(reply.states);
            pool.planned.transfer_bytes = reply.transfer_bytes;
        }
        pool.outline.answered(plan, &reply.places);
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
