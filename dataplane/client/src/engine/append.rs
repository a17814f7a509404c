//! Appending records, within the window.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use genie_control_api::v1::SubmitSegmentRequest;
use genie_session::client::{AppendError, Appended, Draft};

use super::shapes::{Results, Signature};
use super::{Append, Error, Exception, Origin, REST_RECORDS, Session};

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

impl Session {
    /// Runs `body` under the append lock, once the window has room.
    pub(super) fn appending<R>(
        &self,
        bulk: u64,
        body: impl FnOnce(&mut Append) -> Result<R, Error>,
    ) -> Result<R, Error> {
        self.check()?;
        let mut append = self.append.lock();
        while !append.log.has_room(bulk) {
            self.flush_into_outbox(&mut append);
            drop(append);
            self.pump()?;
            self.wait_while(|| !self.append.lock().log.has_room(bulk))?;
            append = self.append.lock();
        }
        body(&mut append)
    }

    /// Waits until a record has room, with handlers of the program let in between.
    ///
    /// # Errors
    /// The session is over; interrupted.
    pub fn wait_for_room(&self) -> Result<(), Error> {
        self.appending(0, |_| Ok(()))
    }

    pub(super) fn flush_into_outbox(&self, append: &mut Append) {
        self.dirty.store(false, Ordering::Relaxed);
        append.unsent = 0;
        if let Some(message) = append.log.flush() {
            self.outbox.put(message);
        }
        if append.log.is_dirty() {
            self.mark_dirty();
        }
    }

    pub(super) fn mark_dirty(&self) {
        if !self.dirty.swap(true, Ordering::Relaxed) {
            self.wake.wake_if_idle();
        }
    }

    /// Appends `draft`; after it, what is full leaves.
    ///
    /// # Errors
    /// The session is over; a record that can't be; an interrupted wait for room.
    pub fn record(
        &self,
        draft: &Draft<'_>,
        name: &str,
        origin: Origin,
        site: SiteId,
    ) -> Result<Appended, Error> {
        let appended = self.appending(0, |append| {
            self.append_noted(append, draft, name, origin, site)
        })?;
        self.sent_later(&appended)?;
        Ok(appended)
    }

    /// As [`Session::record`] where the results are known by signature. Never waits for room, so
    /// that what `draft` lies in is never there while handlers of the program run.
    ///
    /// # Errors
    /// As [`Session::record`].
    pub fn record_known(
        &self,
        draft: &Draft<'_>,
        signature: &Signature<'_>,
        name: impl FnOnce() -> &'static str,
        origin: Origin,
        site: SiteId,
    ) -> Result<Recorded, Error> {
        self.check()?;
        let (appended, results) = {
            let append = &mut *self.append.lock();
            if !append.log.has_room(0) {
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
            let name = if append.log.is_defined(draft.op) {
                ""
            } else {
                name()
            };
            let appended = self.append_noted(append, &draft, name, origin, site)?;
            (appended, results)
        };
        self.sent_later(&appended)?;
        Ok(Recorded::Done(appended, results))
    }

    /// Remembers the results of a call.
    pub fn learn(&self, signature: &Signature<'_>, results: Results) {
        self.append.lock().shapes.learn(signature, results);
    }

    pub(super) fn append_noted(
        &self,
        append: &mut Append,
        draft: &Draft<'_>,
        name: &str,
        origin: Origin,
        mut site: SiteId,
    ) -> Result<Appended, Error> {
        if !name.is_empty() {
            append.log.define_op(draft.op, name);
        }
        let appended = append.log.append(draft).map_err(append_error)?;
        if origin.forward_nr >= 0 {
            site = append.trace.forward(origin.forward_nr);
        }
        let backward = origin.forward_nr >= 0;
        append
            .trace
            .note(appended.seq, draft.kind, draft.op, site, backward);
        if origin.sequence_nr >= 0 {
            append.trace.note_forward(origin.sequence_nr, site);
        }
        append.unsent += 1;
        if append.unsent == REST_RECORDS {
            self.wake.wake_if_resting();
        }
        if appended.ended {
            self.submit(append);
        }
        if appended.full {
            self.flush_into_outbox(append);
        }
        Ok(appended)
    }

    /// Sends a finished segment to be planned.
    pub(super) fn submit(&self, append: &mut Append) {
        let Some(submission) = append.log.take_submission() else {
            return;
        };
        let plan = submission.plan;
        self.counters.sent(submission.segment.len() as u64);
        let request = SubmitSegmentRequest {
            session_id: self.opened.session_id,
            plan_id: plan,
            segment: submission.segment,
            data_token: self.opened.data_token.clone(),
        };
        let this = self.this.clone();
        let accepted = self.control.submit(
            request,
            Box::new(move |reply| {
                let Some(session) = this.upgrade() else {
                    return;
                };
                let installed = reply.as_ref().is_ok_and(|reply| reply.installed);
                session.counters.received(32);
                if let Ok(reply) = reply {
                    session.counters.analysed(&reply);
                }
                session.append.lock().log.plan_answered(plan, installed);
            }),
        );
        if !accepted {
            append.log.plan_answered(plan, false);
        }
    }

    pub(super) fn sent_later(&self, appended: &Appended) -> Result<(), Error> {
        if appended.full {
            self.pump()
        } else {
            self.mark_dirty();
            Ok(())
        }
    }

    /// Notes that a storage died. Never blocks for long: the lock is held for appends only.
    pub fn free(&self, id: u64) {
        self.append.lock().log.free(id);
        self.mark_dirty();
    }
}

pub(super) fn append_error(error: AppendError) -> Error {
    match error {
        AppendError::UnknownStorage(_) => Error::Genie(Exception::StaleTensor, error.to_string()),
        AppendError::BlobTooLong(_) | AppendError::TooLong => Error::Value(error.to_string()),
    }
}
