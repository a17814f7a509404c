//! Uploads, and what waits for an answer.

use std::sync::atomic::Ordering;

use genie_session::client::Draft;
use genie_session::fault::Fault;
use genie_session::machine::Metas;
use genie_session::node::decode_metas;
use genie_session::record;

use super::append::{SiteId, append_error};
use super::{Destination, Error, Key, Origin, Outgoing, RESERVED, Session, Slot};
use crate::link::TICK;

impl Session {
    /// Overwrites storage `id` with `len` bytes; returns when they were copied or sent.
    ///
    /// # Errors
    /// The session is over; no such storage; interrupted.
    ///
    /// # Safety
    /// `source` is valid for `len` bytes during the call.
    pub unsafe fn upload(&self, id: u64, source: *const u8, len: usize) -> Result<(), Error> {
        if len <= record::INLINE_MAX {
            // SAFETY: as the caller says.
            let blob = unsafe { std::slice::from_raw_parts(source, len) };
            let draft = Draft {
                storages: &[id],
                tail: &[0],
                tail_numbers: &[len as i64],
                blob: Some(blob),
                ..Draft::new(record::Kind::Upload)
            };
            return self.record(&draft, "", Origin::NONE, 0).map(|_| ());
        }
        self.appending(len as u64, |append| {
            let (before, bulk) = append
                .log
                .append_bulk(id, len as u64)
                .map_err(append_error)?;
            append.trace.note(bulk.header.seq, 0, 0, false);
            let mut outbox = self.outbox.lock();
            outbox.extend(before.map(|message| Outgoing { message, raw: None }));
            outbox.push_back(Outgoing {
                message: bulk,
                raw: Some((source, len)),
            });
            Ok(())
        })?;
        // Everything in the outbox is written when this returns, the bulk too.
        self.pump(true)
    }

    /// Waits for the elements of a view, written to `destination`. `draft` is the fetch's
    /// skeleton, storage and params.
    ///
    /// # Errors
    /// The elements' fault; the session is over; interrupted.
    pub fn fetch(
        &self,
        draft: &Draft<'_>,
        destination: Destination,
        site: SiteId,
    ) -> Result<(), Error> {
        self.ask(draft, destination, site).map(|_| ())
    }

    /// Waits until everything recorded so far has run.
    ///
    /// # Errors
    /// The session is over; interrupted.
    pub fn barrier(&self, site: SiteId) -> Result<(), Error> {
        let nowhere = Destination {
            pointer: std::ptr::null_mut(),
            len: 0,
            at: 0,
        };
        self.ask(&Draft::new(record::Kind::Barrier), nowhere, site)
            .map(|_| ())
    }

    pub(super) fn ask(
        &self,
        draft: &Draft<'_>,
        destination: Destination,
        site: SiteId,
    ) -> Result<Vec<u8>, Error> {
        let key = self.appending(0, |append| {
            let id = append.next_wait;
            append.next_wait += 1;
            let key = Key::Wait(id);
            let draft = Draft {
                tail_numbers: &[id as i64],
                ..*draft
            };
            self.slots.lock().insert(key, Slot::Pending(destination));
            self.append_noted(append, &draft, "", Origin::NONE, site)
                .inspect_err(|_| {
                    self.slots.lock().remove(&key);
                })?;
            self.flush_into_outbox(append);
            Ok(key)
        })?;
        self.pump_for(key)?;
        self.wait(key)
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
            let nowhere = Destination {
                pointer: std::ptr::null_mut(),
                len: 0,
                at: 0,
            };
            let appended = self.append_noted(append, &draft, name, origin, site)?;
            let key = Key::Call(appended.seq);
            self.slots.lock().insert(key, Slot::Pending(nowhere));
            self.flush_into_outbox(append);
            Ok((key, appended.first_fresh))
        })?;
        self.pump_for(key)?;
        let payload = self.wait(key)?;
        let metas = decode_metas(&payload).map_err(|error| Error::Runtime(error.to_string()))?;
        Ok((first_fresh, metas))
    }

    pub(super) fn pump_for(&self, key: Key) -> Result<(), Error> {
        self.pump(true).inspect_err(|_| self.abandon(key))
    }

    pub(super) fn abandon(&self, key: Key) {
        let mut slots = self.slots.lock();
        // Bytes that are being written have to land before the memory goes.
        while matches!(slots.get(&key), Some(Slot::Receiving))
            && !self.is_lost.load(Ordering::Acquire)
        {
            self.woken.wait_for(&mut slots, TICK);
        }
        match slots.get_mut(&key) {
            Some(slot @ (Slot::Pending(_) | Slot::Receiving)) => *slot = Slot::Abandoned,
            _ => {
                slots.remove(&key);
            }
        }
    }

    pub(super) fn wait(&self, key: Key) -> Result<Vec<u8>, Error> {
        self.wait_while(|| !matches!(self.slots.lock().get(&key), Some(Slot::Done(_))))
            .inspect_err(|_| self.abandon(key))?;
        self.counters.round_trip();
        // Not in the match itself, which would hold the lock: to explain takes the append lock, whose
        // holders take this one.
        let answer = self.slots.lock().remove(&key);
        match answer {
            Some(Slot::Done(Ok(payload))) => Ok(payload),
            Some(Slot::Done(Err(fault))) => Err(self.explain(&fault)),
            _ => Err(Error::Runtime("an answer was lost".to_owned())),
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
