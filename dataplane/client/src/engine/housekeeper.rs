//! What nobody waits for, and the session's end.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use genie_session::client::Message;
use genie_session::frame::{Header, Kind};
use genie_session::places::Set;

use super::heartbeat::PING_AFTER;
use super::pool::{LOAD_EVERY, OBSERVED_EVERY};
use super::shapes::ShapeCache;
use super::trace::Forwards;
use super::{
    Error, Exception, FLUSH_AFTER, IDLE_AFTER, IDLE_TICK, Lane, REST, Session, TRIM_AFTER,
};
use crate::control::goodbye;

/// How long what was said last may take to leave.
const LAST_WORDS: Duration = Duration::from_millis(500);

impl Session {
    /// Sends what nobody waits for, reads what nobody waits for, until the session ends.
    pub(super) fn housekeeping(&self) {
        let mut last_work = Instant::now();
        let mut waits = self.waits();
        let mut rests = false;
        let mut asked_loads = Instant::now();
        let mut observed = Instant::now();
        let mut told = Set::EMPTY;
        while !self.is_over() {
            if last_work.elapsed() > IDLE_AFTER && !self.is_waited_for() {
                self.wake.sleep(&self.lanes, IDLE_TICK);
            } else if rests {
                std::thread::sleep(REST);
            } else {
                std::thread::sleep(FLUSH_AFTER);
            }
            let waited = self.waits() != waits;
            waits = self.waits();
            rests = waited || self.is_waited_for();
            if waited {
                last_work = Instant::now();
            }
            for lane in self.lanes.iter().filter(|lane| !lane.is_lost()) {
                let dirty = lane.dirty.load(Ordering::Relaxed);
                rests &= !dirty && !lane.outbox.has_work();
                if self.keep(lane, dirty) {
                    last_work = Instant::now();
                }
            }
            self.forget_stale();
            for lane in &self.lanes {
                if lane.is_lost() && !told.has(lane.index) && self.tell_of_lost(lane) {
                    told = told.with(lane.index);
                }
            }
            if self.wants_load && asked_loads.elapsed() > LOAD_EVERY {
                // Nobody places while nothing happens.
                if last_work.elapsed() < LOAD_EVERY {
                    self.ask_loads();
                }
                asked_loads = Instant::now();
            }
            if self.is_pool && observed.elapsed() > OBSERVED_EVERY {
                if last_work.elapsed() < OBSERVED_EVERY {
                    self.observe();
                }
                observed = Instant::now();
            }
            if last_work.elapsed() > TRIM_AFTER {
                self.host.rest();
                for lane in &self.lanes {
                    lane.link.trim();
                }
            }
        }
        for lane in &self.lanes {
            lane.control.abandon();
        }
    }

    /// How often a thread has waited so far.
    fn waits(&self) -> u64 {
        self.lanes.iter().map(|lane| lane.slots.waits()).sum()
    }

    fn is_waited_for(&self) -> bool {
        self.lanes.iter().any(|lane| lane.slots.waiting() > 0)
    }

    /// Sends what lies in a lane, and reads what came, unless somebody waits there; whether there was
    /// anything.
    fn keep(&self, lane: &Lane, dirty: bool) -> bool {
        let mut worked = dirty;
        if dirty {
            let mut append = self.append.lock();
            self.flush_into_outbox(lane, &mut append);
        }
        if lane.outbox.has_work() {
            let _ = self.pump(lane);
        }
        // Whoever waits reads for itself.
        if lane.slots.waiting() == 0 {
            lane.slots.turn(&lane.reading, |reading| {
                while lane.slots.waiting() == 0
                    && (reading.has_frame() || lane.link.wait_readable(Duration::ZERO))
                {
                    worked = true;
                    if !self.read_frame(lane, reading).unwrap_or(false) {
                        break;
                    }
                }
            });
        }
        // The lease has to be kept also while nobody waits.
        let _ = if lane.slots.waiting() > 0 {
            self.look_after_node(lane, PING_AFTER)
        } else {
            self.look_after_node(lane, lane.lease() / 4)
        };
        worked
    }

    /// Ends the session in good order.
    pub fn close(&self) {
        let living = || self.lanes.iter().filter(|lane| !lane.is_lost());
        {
            let mut append = self.append.lock();
            for lane in living() {
                self.flush_into_outbox(lane, &mut append);
                lane.outbox.put(Message {
                    header: Header::new(Kind::Goodbye, 0, 0),
                    payload: Vec::new(),
                });
            }
        }
        for lane in living() {
            let _ = self.pump(lane);
        }
        // Others may be at it.
        let began = Instant::now();
        while living().any(|lane| !lane.outbox.is_empty()) && began.elapsed() < LAST_WORDS {
            std::thread::sleep(FLUSH_AFTER);
        }
        // Before the node closes the connection, which would be another reason.
        let reason = Error::Genie(
            Exception::StaleTensor,
            "this tensor's session was closed by genie.disconnect()".to_owned(),
        );
        for lane in &self.lanes {
            lane.note_end(reason.clone());
        }
        let began = Instant::now();
        for lane in &self.lanes {
            let left = LAST_WORDS.saturating_sub(began.elapsed());
            lane.control.close(goodbye(&lane.opened), left);
            lane.lose(reason.clone());
        }
        // The session itself stays, since others may still look at it; what it held does not.
        let mut append = self.append.lock();
        for lane in &mut append.logs {
            lane.empty();
        }
        if let Some(pool) = &mut append.pool {
            pool.empty();
        }
        append.shapes = ShapeCache::default();
        append.forwards = Forwards::small();
    }
}
