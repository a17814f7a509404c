//! Uploads, and what waits for an answer.

use genie_session::client::{Appended, Draft};
use genie_session::fault::{Code, Fault};
use genie_session::machine::Metas;
use genie_session::node::decode_metas;
use genie_session::record;
use genie_shm::clock::now_ns;

use super::append::{SiteId, append_error};
use super::outbox::Ticket;
use super::slots::{Destination, Key};
use super::{Append, Error, Lane, Origin, RESERVED, Session};

/// How an upload was appended.
pub(super) enum Uploaded {
    /// With its bytes.
    Inside(Appended),
    /// Its bytes are the outbox's until they are sent.
    Lent(Ticket),
}

/// Bytes of an upload that count as bulk: all that do not fit into the record.
pub(super) fn bulk_bytes(len: usize) -> u64 {
    if len > record::INLINE_MAX {
        len as u64
    } else {
        0
    }
}

/// The tail of a synchronous operator: how many results it may have.
pub(super) fn reserved_tail() -> Vec<u8> {
    let mut tail = Vec::with_capacity(2);
    genie_session::varint::put_u64(&mut tail, RESERVED);
    tail
}

/// What was asked and is not answered yet. Dropping it gives it up.
#[must_use]
pub struct Asked<'s> {
    session: &'s Session,
    lane: &'s Lane,
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
            self.session.wait(self.lane, key)?;
        }
        Ok(std::mem::take(&mut self.bytes))
    }
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.lane.slots.forget(key);
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
        lane: &Lane,
        id: u64,
        source: *const u8,
        len: usize,
        site: SiteId,
    ) -> Result<(), Error> {
        tracing::trace!(target: "values", lane = lane.index, storage = id, bytes = len, "upload");
        let uploaded = self.appending(&[lane], bulk_bytes(len), |append| {
            // SAFETY: as the caller says.
            unsafe { self.append_upload(lane, append, id, source, len, site) }
        })?;
        match uploaded {
            Uploaded::Inside(appended) => self.sent_later(lane, &appended),
            Uploaded::Lent(ticket) => self.pump_own(lane, ticket),
        }
    }

    /// Appends an upload, for which there is room: its bytes go inside the record, or are lent to the
    /// outbox until [`Session::pump_own`] has returned.
    ///
    /// # Safety
    /// `source` is valid for `len` bytes until then.
    pub(super) unsafe fn append_upload(
        &self,
        lane: &Lane,
        append: &mut Append,
        id: u64,
        source: *const u8,
        len: usize,
        site: SiteId,
    ) -> Result<Uploaded, Error> {
        if bulk_bytes(len) == 0 {
            // SAFETY: as the caller says.
            let blob = unsafe { std::slice::from_raw_parts(source, len) };
            let bytes = [len as i64];
            let draft = Draft {
                blob: Some(blob),
                ..Draft::upload(&id, &bytes)
            };
            let appended = self.append_noted(lane, append, &draft, "", Origin::NONE, site);
            return appended.map(Uploaded::Inside);
        }
        let written = &mut append.logs[lane.index];
        let appended = written.log.append_bulk(id, len as u64);
        let (before, bulk) = appended.map_err(append_error)?;
        written.unheard = true;
        append.position += 1;
        let (kind, position) = (record::Kind::Upload, append.position);
        append.ahead.recorded(lane.index, kind, &[id]);
        written.seen.recorded(kind, &[id], &[]);
        written
            .trace
            .note(bulk.header.seq, kind, 0, (site, false), position);
        if self.profiler.is_on() {
            let bytes = [len as i64];
            let draft = Draft::upload(&id, &bytes);
            let appended = Appended {
                seq: bulk.header.seq,
                ..Appended::default()
            };
            (self.profiler).captured(lane.index, &appended, &draft, Origin::NONE, site);
        }
        if let Some(before) = before {
            lane.outbox.put(before);
        }
        // SAFETY: as the caller says; what is not sent when the session is over is dropped by `lose`.
        let ticket = unsafe { lane.outbox.lend(bulk, self.owner(), source, len) };
        Ok(Uploaded::Lent(ticket))
    }

    /// Waits for the elements of a view, written to `into`. `draft` is the fetch's skeleton, storage
    /// and params.
    ///
    /// # Errors
    /// The elements' fault; the session is over; interrupted.
    pub fn fetch(
        &self,
        lane: &Lane,
        draft: &Draft<'_>,
        into: &mut [u8],
        site: SiteId,
    ) -> Result<(), Error> {
        // SAFETY: `wait` returns once the answer was taken or nobody waits for it any more.
        let destination = unsafe { Destination::new(into.as_mut_ptr(), into.len()) };
        let key = self.ask(lane, draft, destination, site)?;
        self.wait(lane, key).map(|_| ())
    }

    /// Whether a view of one device can be fetched; raises nothing.
    pub(super) fn ask_fetch(
        &self,
        lane: &Lane,
        draft: &Draft<'_>,
        into: &mut [u8],
    ) -> Result<bool, Error> {
        // SAFETY: `answer` returns once the answer was taken or nobody waits for it any more.
        let destination = unsafe { Destination::new(into.as_mut_ptr(), into.len()) };
        let key = self.ask(lane, draft, destination, 0)?;
        self.answer(lane, key).map(|answer| answer.is_ok())
    }

    /// As [`Session::fetch`], and goes on: the elements come into `into` meanwhile.
    ///
    /// # Errors
    /// The session is over; interrupted.
    pub fn start_fetch<'s>(
        &'s self,
        lane: &'s Lane,
        draft: &Draft<'_>,
        mut into: Vec<u8>,
        site: SiteId,
    ) -> Result<Asked<'s>, Error> {
        // SAFETY: `Asked` owns the memory, which stays where it is when the vector is moved, and
        // lets go of it only once the answer was taken or nobody waits for it any more.
        let destination = unsafe { Destination::new(into.as_mut_ptr(), into.len()) };
        self.asked(lane, draft, destination, into, site)
    }

    /// As [`Session::barrier`], and goes on.
    ///
    /// # Errors
    /// The session is over; interrupted.
    pub fn start_barrier<'s>(&'s self, lane: &'s Lane, site: SiteId) -> Result<Asked<'s>, Error> {
        let draft = Draft::new(record::Kind::Barrier);
        self.asked(lane, &draft, Destination::NOWHERE, Vec::new(), site)
    }

    fn asked<'s>(
        &'s self,
        lane: &'s Lane,
        draft: &Draft<'_>,
        destination: Destination,
        bytes: Vec<u8>,
        site: SiteId,
    ) -> Result<Asked<'s>, Error> {
        let key = self.ask(lane, draft, destination, site)?;
        // Gives it up where it can't be sent.
        let asked = Asked {
            session: self,
            lane,
            key: Some(key),
            bytes,
        };
        self.pump_all(lane)?;
        Ok(asked)
    }

    /// Waits until everything recorded so far has run, on every device.
    ///
    /// # Errors
    /// Of the operators that failed, the first one's fault; a node is lost; interrupted.
    pub fn barrier(&self, site: SiteId) -> Result<(), Error> {
        let look = self.begin_look();
        let mut asked = Vec::with_capacity(self.lanes.len());
        let mut lost = Ok(());
        for lane in &self.lanes {
            match self.ask_barrier(lane, site) {
                Ok(key) => asked.push((lane, key)),
                Err(error) => lost = lost.and(Err(error)),
            }
        }
        let all = asked.len();
        self.collect(asked, all)?;
        self.end_look(look);
        lost
    }

    fn ask_barrier(&self, lane: &Lane, site: SiteId) -> Result<Key, Error> {
        let draft = Draft::new(record::Kind::Barrier);
        self.ask(lane, &draft, Destination::NOWHERE, site)
    }

    /// Waits for what was asked, and raises of all failures the first in the order of records; the
    /// others are over with it. Gives what the first was answered. Of lanes that are lost those after
    /// the first `needed` say so to whoever uses them.
    fn collect(&self, asked: Vec<(&Lane, Key)>, needed: usize) -> Result<Vec<u8>, Error> {
        let (mut faults, mut first) = (Vec::new(), Ok(Vec::new()));
        let mut asked = asked.into_iter().enumerate();
        while let Some((at, (lane, key))) = asked.next() {
            match self.answer(lane, key) {
                Ok(Ok(payload)) if at == 0 => first = first.map(|_| payload),
                Ok(Ok(_)) => {}
                Ok(Err(fault)) => faults.push((lane.index, fault)),
                Err(Error::Interrupted) => {
                    asked.for_each(|(_, (lane, key))| lane.slots.forget(key));
                    return Err(Error::Interrupted);
                }
                Err(error) if at < needed => first = first.and(Err(error)),
                Err(_) => {}
            }
        }
        let raised = {
            let append = self.append.lock();
            faults.into_iter().min_by_key(|(lane, fault)| {
                let log = append.logs.get(fault.log.map_or(*lane, usize::from));
                log.map_or(0, |log| log.trace.position(fault.cause_seq))
            })
        };
        match raised {
            Some((lane, fault)) => {
                self.take_back();
                Err(self.explain(&self.lanes[lane], &fault))
            }
            None => first,
        }
    }

    pub(super) fn ask(
        &self,
        lane: &Lane,
        draft: &Draft<'_>,
        destination: Destination,
        site: SiteId,
    ) -> Result<Key, Error> {
        self.appending(&[lane], 0, |append| {
            let key = self.append_question(lane, append, draft, destination, site)?;
            self.cut_others(lane, append);
            self.flush_all(append);
            Ok(key)
        })
    }

    /// Appends what is answered to a key of its own, and opens that.
    pub(super) fn append_question(
        &self,
        lane: &Lane,
        append: &mut Append,
        draft: &Draft<'_>,
        destination: Destination,
        site: SiteId,
    ) -> Result<Key, Error> {
        let id = append.next_wait;
        append.next_wait += 1;
        let key = Key::Wait(id);
        let draft = Draft {
            tail_numbers: &[id as i64],
            ..*draft
        };
        lane.slots.open(key, destination);
        self.append_noted(lane, append, &draft, "", Origin::NONE, site)
            .inspect_err(|_| lane.slots.forget(key))?;
        Ok(key)
    }

    /// Runs an operator whose results only the node can tell.
    ///
    /// # Errors
    /// The operator's fault; the session is over; interrupted.
    pub fn call_sync(
        &self,
        lane: &Lane,
        draft: &Draft<'_>,
        name: &str,
        origin: Origin,
        site: SiteId,
    ) -> Result<(u64, Metas), Error> {
        let tail = reserved_tail();
        let draft = Draft {
            tail: &tail,
            fresh: RESERVED,
            ..*draft
        };
        let (key, first_fresh) = self.appending(&[lane], 0, |append| {
            let appended = self.append_noted(lane, append, &draft, name, origin, site)?;
            let key = Key::Call(appended.seq);
            lane.slots.open(key, Destination::NOWHERE);
            self.cut_others(lane, append);
            self.flush_all(append);
            Ok((key, appended.first_fresh))
        })?;
        tracing::debug!(target: "capture", lane = lane.index, operator = name, "waits for an operator's results");
        let payload = self.wait(lane, key)?;
        let metas = decode_metas(&payload).map_err(|error| Error::Runtime(error.to_string()))?;
        Ok((first_fresh, metas))
    }

    /// Waits for an answer, and for what was recorded before it on other devices: a look hears of
    /// every failure before it.
    pub(super) fn wait(&self, lane: &Lane, key: Key) -> Result<Vec<u8>, Error> {
        if let [_] = *self.lanes {
            let answer = self.answer(lane, key)?;
            return answer.map_err(|fault| self.explain(lane, &fault));
        }
        let mut asked = vec![(lane, key)];
        for other in self.lanes.iter().filter(|other| other.index != lane.index) {
            if other.is_lost() || !self.append.lock().logs[other.index].unheard {
                continue;
            }
            match self.ask_barrier(other, 0) {
                Ok(key) => asked.push((other, key)),
                Err(Error::Interrupted) => {
                    asked.iter().for_each(|(lane, key)| lane.slots.forget(*key));
                    return Err(Error::Interrupted);
                }
                Err(_) => {}
            }
        }
        self.collect(asked, 1)
    }

    /// What became of what is asked for now.
    fn answer(&self, lane: &Lane, key: Key) -> Result<Result<Vec<u8>, Fault>, Error> {
        let answer = self.answer_asked(lane, key)?;
        self.counters.round_trip();
        Ok(answer)
    }

    /// What became of what was asked.
    pub(super) fn answer_asked(
        &self,
        lane: &Lane,
        key: Key,
    ) -> Result<Result<Vec<u8>, Fault>, Error> {
        let began = now_ns();
        self.pump_all(lane)
            .and_then(|()| self.wait_while(lane, || !lane.slots.is_done(key)))
            .inspect_err(|_| lane.slots.forget(key))?;
        lane.waited(began);
        if self.profiler.is_on() {
            self.profiler.waited(lane.index, Some(key), began);
        }
        let answer = lane.slots.take(key);
        answer.ok_or_else(|| Error::Runtime("an answer was lost".to_owned()))
    }

    /// The error of a fault that `lane` tells of, with the operator and the user's line.
    pub(super) fn explain(&self, lane: &Lane, fault: &Fault) -> Error {
        let of = fault.log.map_or(lane.index, usize::from);
        // No operator of the program's did that.
        if let (Code::SessionGone, Some(gone)) = (fault.code, self.lanes.get(of)) {
            return self.error_of(fault, &format!("the node of that is {}", gone.node));
        }
        let append = self.append.lock();
        let log = append.logs.get(of);
        let place = log.map(|log| log.trace.describe(fault.cause_seq, &*self.host));
        drop(append);
        self.error_of(fault, &place.unwrap_or_default())
    }

    pub(super) fn error_of(&self, fault: &Fault, place: &str) -> Error {
        Error::from_fault(fault, place, self.host.hint(fault.code))
    }
}
