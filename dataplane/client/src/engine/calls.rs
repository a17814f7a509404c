//! Uploads, and what waits for an answer.

use genie_session::client::Draft;
use genie_session::fault::Fault;
use genie_session::machine::Metas;
use genie_session::node::decode_metas;
use genie_session::record;

use super::append::{SiteId, append_error};
use super::slots::{Destination, Key};
use super::{Error, Origin, RESERVED, Session};

/// What was asked and is not answered yet. Dropping it gives it up.
#[must_use]
pub struct Asked<'s> {
    session: &'s Session,
    /// None once it was waited for.
    key: Option<Key>,
    bytes: Vec<u8>,
}

impl Asked<'_> {
    /// Waits for the answer. Gives the memory that was handed over, with the elements in it.
    ///
    /// # Errors
    /// As [`Session::fetch`].
    pub fn wait(mut self) -> Result<Vec<u8>, Error> {
        if let Some(key) = self.key.take() {
            self.session.wait(key)?;
        }
        Ok(std::mem::take(&mut self.bytes))
    }
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.session.slots.forget(key);
        }
    }
}

impl Session {
    /// Overwrites storage `id` with `len` bytes; returns when they were copied or sent.
    ///
    /// # Errors
    /// The session is over; no such storage; interrupted.
    ///
    /// # Safety
    /// `source` is valid for `len` bytes during the call.
    pub unsafe fn upload(
        &self,
        id: u64,
        source: *const u8,
        len: usize,
        site: SiteId,
    ) -> Result<(), Error> {
        if len <= record::INLINE_MAX {
            // SAFETY: as the caller says.
            let blob = unsafe { std::slice::from_raw_parts(source, len) };
            let bytes = [len as i64];
            let draft = Draft {
                blob: Some(blob),
                ..Draft::upload(&id, &bytes)
            };
            return self.record(&draft, "", Origin::NONE, site).map(|_| ());
        }
        let ticket = self.appending(len as u64, |append| {
            let (before, bulk) = append
                .log
                .append_bulk(id, len as u64)
                .map_err(append_error)?;
            let kind = record::Kind::Upload;
            append.trace.note(bulk.header.seq, kind, 0, site, false);
            if let Some(before) = before {
                self.outbox.put(before);
            }
            // SAFETY: as the caller says; `pump_own` returns when the memory is free, and what is
            // not sent when the session is over is dropped by `lose`.
            Ok(unsafe { self.outbox.lend(bulk, self.owner(), source, len) })
        })?;
        self.pump_own(ticket)
    }

    /// Waits for the elements of a view, written to `into`. `draft` is the fetch's skeleton, storage
    /// and params.
    ///
    /// # Errors
    /// The elements' fault; the session is over; interrupted.
    pub fn fetch(&self, draft: &Draft<'_>, into: &mut [u8], site: SiteId) -> Result<(), Error> {
        // SAFETY: `wait` returns once the answer was taken or nobody waits for it any more.
        let destination = unsafe { Destination::new(into.as_mut_ptr(), into.len()) };
        let key = self.ask(draft, destination, site)?;
        self.wait(key).map(|_| ())
    }

    /// As [`Session::fetch`], and goes on: the elements come into `into` meanwhile.
    ///
    /// # Errors
    /// The session is over; interrupted.
    pub fn start_fetch(
        &self,
        draft: &Draft<'_>,
        mut into: Vec<u8>,
        site: SiteId,
    ) -> Result<Asked<'_>, Error> {
        // SAFETY: `Asked` owns the memory, which stays where it is when the vector is moved, and
        // lets go of it only once the answer was taken or nobody waits for it any more.
        let destination = unsafe { Destination::new(into.as_mut_ptr(), into.len()) };
        self.asked(draft, destination, into, site)
    }

    /// As [`Session::barrier`], and goes on.
    ///
    /// # Errors
    /// The session is over; interrupted.
    pub fn start_barrier(&self, site: SiteId) -> Result<Asked<'_>, Error> {
        let draft = Draft::new(record::Kind::Barrier);
        self.asked(&draft, Destination::NOWHERE, Vec::new(), site)
    }

    fn asked(
        &self,
        draft: &Draft<'_>,
        destination: Destination,
        bytes: Vec<u8>,
        site: SiteId,
    ) -> Result<Asked<'_>, Error> {
        let key = self.ask(draft, destination, site)?;
        // Gives it up where it can't be sent.
        let asked = Asked {
            session: self,
            key: Some(key),
            bytes,
        };
        self.pump()?;
        Ok(asked)
    }

    /// Waits until everything recorded so far has run.
    ///
    /// # Errors
    /// The session is over; interrupted.
    pub fn barrier(&self, site: SiteId) -> Result<(), Error> {
        let draft = Draft::new(record::Kind::Barrier);
        let key = self.ask(&draft, Destination::NOWHERE, site)?;
        self.wait(key).map(|_| ())
    }

    fn ask(&self, draft: &Draft<'_>, destination: Destination, site: SiteId) -> Result<Key, Error> {
        self.appending(0, |append| {
            let id = append.next_wait;
            append.next_wait += 1;
            let key = Key::Wait(id);
            let draft = Draft {
                tail_numbers: &[id as i64],
                ..*draft
            };
            self.slots.open(key, destination);
            self.append_noted(append, &draft, "", Origin::NONE, site)
                .inspect_err(|_| self.slots.forget(key))?;
            self.flush_into_outbox(append);
            Ok(key)
        })
    }

    /// Runs an operator whose results only the node can tell.
    ///
    /// # Errors
    /// The operator's fault; the session is over; interrupted.
    pub fn call_sync(
        &self,
        draft: &Draft<'_>,
        name: &str,
        origin: Origin,
        site: SiteId,
    ) -> Result<(u64, Metas), Error> {
        let mut tail = Vec::with_capacity(2);
        genie_session::varint::put_u64(&mut tail, RESERVED);
        let draft = Draft {
            tail: &tail,
            fresh: RESERVED,
            ..*draft
        };
        let (key, first_fresh) = self.appending(0, |append| {
            let appended = self.append_noted(append, &draft, name, origin, site)?;
            let key = Key::Call(appended.seq);
            self.slots.open(key, Destination::NOWHERE);
            self.flush_into_outbox(append);
            Ok((key, appended.first_fresh))
        })?;
        let payload = self.wait(key)?;
        let metas = decode_metas(&payload).map_err(|error| Error::Runtime(error.to_string()))?;
        Ok((first_fresh, metas))
    }

    fn wait(&self, key: Key) -> Result<Vec<u8>, Error> {
        self.pump()
            .and_then(|()| self.wait_while(|| !self.slots.is_done(key)))
            .inspect_err(|_| self.slots.forget(key))?;
        self.counters.round_trip();
        match self.slots.take(key) {
            Some(Ok(payload)) => Ok(payload),
            Some(Err(fault)) => Err(self.explain(&fault)),
            None => Err(Error::Runtime("an answer was lost".to_owned())),
        }
    }

    /// The error of a fault, with the operator and the user's line.
    pub(super) fn explain(&self, fault: &Fault) -> Error {
        let place = self
            .append
            .lock()
            .trace
            .describe(fault.cause_seq, &*self.host);
        Error::from_fault(fault, &place)
    }
}
