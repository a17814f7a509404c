//! Appending records, within the window.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use genie_control_api::v1::SubmitSegmentRequest;
use genie_session::client::{AppendError, Appended, Draft};
use genie_shm::clock::now_ns;

use super::shapes::{Results, Signature};
use super::{Append, BURST_RECORDS, Error, Exception, Lane, Origin, Session};

/// A line of the program, as the host numbers them; zero is unknown.
pub type SiteId = u32;

/// What became of a call.
#[derive(Debug)]
pub enum Recorded {
    /// It is appended, and results in this.
    Done(Appended, Arc<Results>),
    /// Nobody has told what it results in ([`Session::learn`]).
    UnknownShape,
    /// Too much is under way ([`Session::wait_for_room`]).
    NoRoom,
}

impl Append {
    /// One of `lanes` that has no room for a record with `bulk` bytes of an upload.
    fn full<'l>(&mut self, lanes: &[&'l Lane], bulk: u64) -> Option<&'l Lane> {
        let mut lanes = lanes.iter().copied();
        lanes.find(|lane| !self.logs[lane.index].log.has_room(bulk))
    }
}

impl Session {
    /// Runs `body` under the append lock, once the windows of `lanes` all have room.
    pub(super) fn appending<R>(
        &self,
        lanes: &[&Lane],
        bulk: u64,
        body: impl FnOnce(&mut Append) -> Result<R, Error>,
    ) -> Result<R, Error> {
        lanes.iter().try_for_each(|lane| lane.check())?;
        let mut append = self.append.lock();
        while let Some(full) = append.full(lanes, bulk) {
            // What makes room here may hang on what lies there.
            self.flush_all(&mut append);
            drop(append);
            self.pump_all(full)?;
            let is_full = || self.append.lock().full(&[full], bulk).is_some();
            let began = self.profiler.is_on().then(now_ns);
            self.wait_while(full, is_full)?;
            if let Some(began) = began {
                self.profiler.waited(full.index, None, began);
            }
            append = self.append.lock();
        }
        body(&mut append)
    }

    /// Waits until a record has room on every device, and for what else it needs, with handlers of the program let in between.
    ///
    /// # Errors
    /// Interrupted. A node that is lost says so to whoever uses it.
    pub fn wait_for_room(&self) -> Result<(), Error> {
        for lane in &self.lanes {
            if let Err(Error::Interrupted) = self.appending(&[lane], 0, |_| Ok(())) {
                return Err(Error::Interrupted);
            }
        }
        self.provide()
    }

    /// A segment of `lane` has ended: so have those of the others, at the same point of their order.
    pub(super) fn cut_others(&self, lane: &Lane, append: &mut Append) {
        for other in self.lanes.iter().filter(|other| other.index != lane.index) {
            append.logs[other.index].log.cut();
            self.submit(other, append);
        }
    }

    /// Puts what lies in any log into its outbox.
    pub(super) fn flush_all(&self, append: &mut Append) {
        for lane in &self.lanes {
            self.flush_into_outbox(lane, append);
        }
    }

    pub(super) fn flush_into_outbox(&self, lane: &Lane, append: &mut Append) {
        lane.dirty.store(false, Ordering::Relaxed);
        let written = &mut append.logs[lane.index];
        written.unsent = 0;
        if let Some(message) = written.log.flush() {
            lane.outbox.put(message);
        }
        if written.log.is_dirty() {
            self.mark_dirty(lane);
        }
    }

    pub(super) fn mark_dirty(&self, lane: &Lane) {
        if !lane.dirty.swap(true, Ordering::Relaxed) {
            self.wake.wake_if_idle();
        }
    }

    /// Appends `draft`; after it, what is full leaves.
    ///
    /// # Errors
    /// The node is lost; a record that can't be; an interrupted wait for room.
    pub fn record(
        &self,
        lane: &Lane,
        draft: &Draft<'_>,
        name: &str,
        origin: Origin,
        site: SiteId,
    ) -> Result<Appended, Error> {
        let appended = self.appending(&[lane], 0, |append| {
            self.append_noted(lane, append, draft, name, origin, site)
        })?;
        self.sent_later(lane, &appended)?;
        Ok(appended)
    }

    /// As [`Session::record`] where the results are known by signature. Never waits for room, so
    /// that what `draft` lies in is never there while handlers of the program run.
    ///
    /// # Errors
    /// As [`Session::record`].
    pub fn record_known(
        &self,
        lane: &Lane,
        draft: &Draft<'_>,
        signature: &Signature<'_>,
        name: impl FnOnce() -> &'static str,
        origin: Origin,
        site: SiteId,
    ) -> Result<Recorded, Error> {
        lane.check()?;
        let (appended, results) = {
            let append = &mut *self.append.lock();
            let log = &mut append.logs[lane.index].log;
            if !log.has_room(0) {
                return Ok(Recorded::NoRoom);
            }
            let Some(results) = append.shapes.find(signature) else {
                return Ok(Recorded::UnknownShape);
            };
            let draft = Draft {
                tail: &results.skeleton,
                tail_numbers: &results.params,
                fresh: results.fresh,
                ..*draft
            };
            let name = if log.is_defined(draft.op) { "" } else { name() };
            let appended = self.append_noted(lane, append, &draft, name, origin, site)?;
            (appended, results)
        };
        self.sent_later(lane, &appended)?;
        Ok(Recorded::Done(appended, results))
    }

    /// Remembers the results of a call.
    pub fn learn(&self, signature: &Signature<'_>, results: Results) {
        self.append.lock().shapes.learn(signature, results);
    }

    pub(super) fn append_noted(
        &self,
        lane: &Lane,
        append: &mut Append,
        draft: &Draft<'_>,
        name: &str,
        origin: Origin,
        mut site: SiteId,
    ) -> Result<Appended, Error> {
        let written = &mut append.logs[lane.index];
        if !name.is_empty() {
            written.log.define_op(draft.op, name);
        }
        let mut appended = written.log.append(draft).map_err(append_error)?;
        (append.ahead).recorded(lane.index, draft.kind, draft.storages);
        (written.seen).recorded(draft.kind, draft.storages, draft.skeleton);
        let backward = origin.forward_nr >= 0;
        if backward {
            site = append.forwards.of_number(origin.forward_nr);
        }
        append.position += 1;
        let (origin_of, position) = ((site, backward), append.position);
        written
            .trace
            .note(appended.seq, draft.kind, draft.op, origin_of, position);
        if origin.sequence_nr >= 0 {
            append.forwards.note(origin.sequence_nr, site);
        }
        if self.profiler.is_on() {
            (self.profiler).captured(lane.index, &appended, draft, origin, site);
        }
        written.unsent += 1;
        written.unheard = !draft.kind.is_look();
        if !written.unheard {
            written.burst = match lane.is_even.load(Ordering::Relaxed) {
                true => BURST_RECORDS,
                false => u32::MAX,
            };
        } else if written.unsent >= written.burst {
            written.burst = written.burst.saturating_mul(2);
            appended.full = true;
        }
        if appended.asks {
            self.submit(lane, append);
        }
        if appended.full {
            self.flush_into_outbox(lane, append);
        }
        Ok(appended)
    }

    /// Sends a finished segment to be planned.
    pub(super) fn submit(&self, lane: &Lane, append: &mut Append) {
        let index = lane.index;
        let log = &mut append.logs[index].log;
        let Some(submission) = log.take_submission() else {
            return;
        };
        let plan = submission.plan;
        let bytes = submission.segment.len();
        tracing::debug!(target: "plans", lane = index, plan, bytes, "a segment is sent to be planned");
        self.counters.sent(submission.segment.len() as u64);
        let request = SubmitSegmentRequest {
            session_id: lane.opened.session_id,
            plan_id: plan,
            segment: submission.segment,
            data_token: lane.opened.data_token.clone(),
        };
        let this = self.this.clone();
        let accepted = lane.control.submit(
            request,
            Box::new(move |reply| {
                let Some(session) = this.upgrade() else {
                    return;
                };
                let installed = reply.as_ref().is_ok_and(|reply| reply.installed);
                match &reply {
                    Ok(reply) => tracing::debug!(
                        target: "plans", lane = index, plan, installed,
                        class = %reply.workload_class, "the plan was answered"
                    ),
                    Err(error) => tracing::debug!(
                        target: "plans", lane = index, plan, %error, "the plan was not answered"
                    ),
                }
                session.counters.received(32);
                if let Ok(reply) = reply {
                    session.counters.analysed(&reply);
                }
                let mut append = session.append.lock();
                append.logs[index].log.plan_answered(plan, installed);
            }),
        );
        if !accepted {
            log.plan_answered(plan, false);
        }
    }

    pub(super) fn sent_later(&self, lane: &Lane, appended: &Appended) -> Result<(), Error> {
        if appended.full {
            self.pump(lane)
        } else {
            self.mark_dirty(lane);
            Ok(())
        }
    }

    /// Notes that a storage died. Never blocks for long: the lock is held for appends only.
    pub fn free(&self, lane: &Lane, id: u64) {
        let append = &mut *self.append.lock();
        self.let_go(append, lane.index, id);
        self.mark_dirty(lane);
    }

    /// A storage is gone from a log, from what is asked for ahead, and for whoever profiles.
    pub(super) fn let_go(&self, append: &mut Append, lane: usize, id: u64) {
        append.ahead.gone(lane, id);
        append.logs[lane].log.free(id);
        if self.profiler.is_on() {
            self.profiler.freed(lane, id);
        }
    }
}

pub(super) fn append_error(error: AppendError) -> Error {
    match error {
        AppendError::UnknownStorage(_) => Error::Genie(Exception::StaleTensor, error.to_string()),
        AppendError::BlobTooLong(_) | AppendError::TooLong => Error::Value(error.to_string()),
    }
}
