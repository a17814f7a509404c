//! One session with a node: appends to the log, moves messages, waits for answers.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use genie_client::control::Control;
use genie_client::link::{Link, TICK};
use genie_control_api::v1::{CloseSessionRequest, OpenSessionReply, SubmitSegmentRequest};
use genie_session::client::{AppendError, Appended, ClientLog, Draft, Message};
use genie_session::fault::Fault;
use genie_session::frame::{Header, Kind};
use genie_session::machine::Metas;
use genie_session::node::{ACK_BULK_BYTES, decode_metas};
use genie_session::record;
use parking_lot::{Condvar, Mutex};

use crate::errors::{Error, Exception};
use crate::reading::ReadState;
use genie_recorder::shapes::ShapeCache;
use crate::sites::{self, SiteId};
use crate::counters::Counters;
use crate::trace::Trace;
use crate::wake::Wake;

/// Bytes of records under way at most; less than a ring to an executor holds.
const RETAINED_BYTES_MAX: usize = 2 << 20;
/// Silence after which the node is asked whether it lives.
const PING_AFTER: Duration = Duration::from_millis(400);
/// Silence after a ping that means it does not.
const DEAD_AFTER: Duration = Duration::from_millis(1500);
/// Results that a synchronous operator may have.
const RESERVED: u64 = 64;
/// Records that nobody waits for leave after this long.
const FLUSH_AFTER: Duration = Duration::from_millis(1);
/// Without anything to do for so long, the housekeeper sleeps.
const IDLE_AFTER: Duration = Duration::from_millis(20);

/// An answer that somebody waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Key {
    /// A fetch or a barrier, by its id.
    Wait(u64),
    /// A synchronous operator, by its record.
    Call(u64),
}

/// How far an answer has come.
pub enum Slot {
    /// Not here. A fetch's bytes go to this place.
    Pending(Destination),
    /// Its bytes are being read into place.
    Receiving,
    /// Here.
    Done(Result<Vec<u8>, Fault>),
    /// Nobody waits any more.
    Abandoned,
}

/// Memory of a waiting thread.
#[derive(Clone, Copy)]
pub struct Destination {
    /// First byte.
    pub pointer: *mut u8,
    /// Bytes.
    pub len: usize,
}

// SAFETY: the memory belongs to a thread that waits until the slot is no longer pending, and
// only the one thread that reads the link writes to it.
unsafe impl Send for Destination {}

struct Outgoing {
    message: Message,
    /// Bulk bytes that follow: the memory of a thread that waits until they were sent.
    raw: Option<(*const u8, usize)>,
}

// SAFETY: the thread that owns the memory waits in `upload` until the message was written.
unsafe impl Send for Outgoing {}

/// What appending needs, under the append lock.
pub struct Append {
    pub log: ClientLog,
    pub shapes: ShapeCache,
    pub trace: Trace,
    next_wait: u64,
}

/// Where a record comes from.
#[derive(Clone, Copy, Debug)]
pub struct Origin {
    /// autograd's number of this forward operator, or -1.
    pub sequence_nr: i64,
    /// In a backward: the number of the forward operator, or -1.
    pub forward_nr: i64,
}

/// One session.
pub struct Session {
    /// Its number in this process; part of every tensor's storage handle.
    pub epoch: u16,
    /// What the node answered.
    pub opened: OpenSessionReply,
    pub(crate) link: Link,
    control: Control,
    append: Mutex<Append>,
    outbox: Mutex<VecDeque<Outgoing>>,
    writing: Mutex<()>,
    reading: Mutex<ReadState>,
    pub(crate) slots: Mutex<HashMap<Key, Slot>>,
    pub(crate) woken: Condvar,
    waiting: AtomicUsize,
    follows_plan: AtomicBool,
    dirty: AtomicBool,
    wake: Wake,
    lost: OnceLock<Error>,
    is_lost: AtomicBool,
    started: Instant,
    last_received_ms: AtomicU64,
    last_ping_ms: AtomicU64,
    ping_queued: AtomicBool,
    pub(crate) counters: Counters,
}

impl Session {
    /// A session over a link that was welcomed. Start [`Session::housekeeping`] next.
    pub fn new(
        epoch: u16,
        opened: OpenSessionReply,
        link: Link,
        control: Control,
        wake: Wake,
    ) -> Self {
        Self {
            epoch,
            opened,
            link,
            control,
            append: Mutex::new(Append {
                log: ClientLog::new(),
                shapes: ShapeCache::default(),
                trace: Trace::default(),
                next_wait: 1,
            }),
            outbox: Mutex::default(),
            writing: Mutex::default(),
            reading: Mutex::default(),
            slots: Mutex::default(),
            woken: Condvar::new(),
            waiting: AtomicUsize::new(0),
            follows_plan: AtomicBool::new(false),
            dirty: AtomicBool::new(false),
            wake,
            lost: OnceLock::new(),
            is_lost: AtomicBool::new(false),
            started: Instant::now(),
            last_received_ms: AtomicU64::new(0),
            last_ping_ms: AtomicU64::new(0),
            ping_queued: AtomicBool::new(false),
            counters: Counters::default(),
        }
    }

    /// Fails once the session is over.
    pub fn check(&self) -> Result<(), Error> {
        if self.is_lost.load(Ordering::Acquire) {
            return Err(self.lost.get().cloned().unwrap_or(Error::Interrupted));
        }
        Ok(())
    }

    /// The session is over; the first reason stays.
    pub fn lose(&self, reason: Error) {
        let _ = self.lost.set(reason);
        self.is_lost.store(true, Ordering::Release);
        self.link.shutdown();
        let _slots = self.slots.lock();
        self.woken.notify_all();
    }

    fn lose_link(&self, error: &io::Error) {
        let why = match error.kind() {
            io::ErrorKind::UnexpectedEof => "it closed the connection".to_owned(),
            _ => error.to_string(),
        };
        self.lose(Error::Genie(
            Exception::NodeLost,
            format!(
                "the node was lost: {why}. Tensors of this session are gone; genie.connect() \
                 starts another"
            ),
        ));
    }

    // --- appending ---

    /// Runs `body` under the append lock, once the window has room.
    fn appending<R>(
        &self,
        bulk: u64,
        body: impl FnOnce(&mut Append) -> Result<R, Error>,
    ) -> Result<R, Error> {
        self.check()?;
        let mut append = self.append.lock();
        while !self.has_room(&append.log, bulk) {
            self.flush_into_outbox(&mut append);
            drop(append);
            self.pump(true)?;
            self.wait_while(|| !self.has_room(&self.append.lock().log, bulk))?;
            append = self.append.lock();
        }
        let result = body(&mut append);
        self.follows_plan.store(append.log.follows_plan(), Ordering::Relaxed);
        result
    }

    fn has_room(&self, log: &ClientLog, bulk: u64) -> bool {
        log.in_flight() < self.opened.window_records
            && log.retained_bytes() < RETAINED_BYTES_MAX
            && (bulk == 0
                || log.bulk_in_flight() + bulk <= self.opened.window_bytes
                || log.bulk_in_flight() < ACK_BULK_BYTES)
    }

    fn flush_into_outbox(&self, append: &mut Append) {
        self.dirty.store(false, Ordering::Relaxed);
        if let Some(message) = append.log.flush() {
            self.outbox.lock().push_back(Outgoing { message, raw: None });
        }
        if append.log.is_dirty() {
            self.mark_dirty();
        }
    }

    fn mark_dirty(&self) {
        if !self.dirty.swap(true, Ordering::Relaxed) {
            self.wake.wake_if_idle();
        }
    }

    /// Whether the line of the next record has to be looked up.
    #[must_use]
    pub fn wants_site(&self, origin: Origin) -> bool {
        origin.forward_nr < 0
    }

    /// Appends `draft`; after it, what is full leaves.
    pub fn record(
        &self,
        draft: &Draft<'_>,
        name: &str,
        origin: Origin,
        site: SiteId,
    ) -> Result<Appended, Error> {
        let appended =
            self.appending(0, |append| self.append_noted(append, draft, name, origin, site))?;
        self.sent_later(&appended)?;
        Ok(appended)
    }

    /// As [`Session::record`] where the results are known by signature; `Ok(None)` if not.
    pub fn record_known(
        &self,
        draft: &mut Draft<'_>,
        signature: &genie_recorder::shapes::Signature<'_>,
        name: impl FnOnce() -> &'static str,
        origin: Origin,
        site: SiteId,
    ) -> Result<Option<(Appended, Arc<genie_recorder::shapes::Results>)>, Error> {
        let found = self.appending(0, |append| {
            let Some(results) = append.shapes.find(signature) else { return Ok(None) };
            let draft = Draft {
                tail: &results.skeleton,
                tail_numbers: &results.params,
                fresh: results.fresh,
                ..*draft
            };
            let name = if append.log.is_defined(draft.op) { "" } else { name() };
            let appended = self.append_noted(append, &draft, name, origin, site)?;
            Ok(Some((appended, results)))
        })?;
        if let Some((appended, _)) = &found {
            self.sent_later(appended)?;
        }
        Ok(found)
    }

    /// Remembers the results of a call.
    pub fn learn(&self, signature: &genie_recorder::shapes::Signature<'_>, results: genie_recorder::shapes::Results) {
        self.append.lock().shapes.learn(signature, results);
    }

    fn append_noted(
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
        if let Some((plan, index)) = appended.planned {
            site = append.trace.planned(plan, index);
        } else if origin.forward_nr >= 0 {
            site = append.trace.forward(origin.forward_nr);
        }
        let backward = origin.forward_nr >= 0;
        append.trace.note(appended.seq, draft.op, site, backward);
        if origin.sequence_nr >= 0 {
            append.trace.note_forward(origin.sequence_nr, site);
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
    fn submit(&self, append: &mut Append) {
        let submission = append.log.take_submission();
        append.trace.end_segment(submission.as_ref().map(|submission| submission.plan));
        let Some(submission) = submission else { return };
        let plan = submission.plan;
        self.counters.sent(submission.segment.len() as u64);
        let request = SubmitSegmentRequest {
            session_id: self.opened.session_id,
            plan_id: plan,
            segment: submission.segment,
            data_token: self.opened.data_token.clone(),
        };
        let epoch = self.epoch;
        let accepted = self.control.submit(
            request,
            Box::new(move |reply| {
                let Some(session) = crate::current::of_epoch(epoch) else { return };
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

    fn sent_later(&self, appended: &Appended) -> Result<(), Error> {
        if appended.full {
            self.pump(false)
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

    /// Overwrites storage `id` with `len` bytes; returns when they were copied or sent.
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
            let origin = Origin { sequence_nr: -1, forward_nr: -1 };
            return self.record(&draft, "", origin, 0).map(|_| ());
        }
        self.appending(len as u64, |append| {
            let (before, bulk) =
                append.log.append_bulk(id, len as u64).map_err(append_error)?;
            append.trace.note(bulk.header.seq, 0, 0, false);
            let mut outbox = self.outbox.lock();
            outbox.extend(before.map(|message| Outgoing { message, raw: None }));
            outbox.push_back(Outgoing { message: bulk, raw: Some((source, len)) });
            Ok(())
        })?;
        // Everything in the outbox is written when this returns, the bulk too.
        self.pump(true)
    }

    /// Waits for the elements of a view, written to `destination`. `draft` is the fetch's
    /// skeleton, storage and params.
    pub fn fetch(&self, draft: &Draft<'_>, destination: Destination) -> Result<(), Error> {
        self.ask(draft, destination).map(|_| ())
    }

    /// Waits until everything recorded so far has run.
    pub fn barrier(&self) -> Result<(), Error> {
        let nowhere = Destination { pointer: std::ptr::null_mut(), len: 0 };
        self.ask(&Draft::new(record::Kind::Barrier), nowhere).map(|_| ())
    }

    fn ask(&self, draft: &Draft<'_>, destination: Destination) -> Result<Vec<u8>, Error> {
        let origin = Origin { sequence_nr: -1, forward_nr: -1 };
        let site = if self.wants_site(origin) { sites::here() } else { 0 };
        let key = self.appending(0, |append| {
            let id = append.next_wait;
            append.next_wait += 1;
            let key = Key::Wait(id);
            let draft = Draft { tail_numbers: &[id as i64], ..*draft };
            self.slots.lock().insert(key, Slot::Pending(destination));
            self.append_noted(append, &draft, "", origin, site).inspect_err(|_| {
                self.slots.lock().remove(&key);
            })?;
            self.flush_into_outbox(append);
            Ok(key)
        })?;
        self.pump_for(key)?;
        self.wait(key)
    }

    /// Runs an operator whose results only the node can tell.
    pub fn call_sync(
        &self,
        draft: &Draft<'_>,
        name: &str,
        origin: Origin,
        site: SiteId,
    ) -> Result<(u64, Metas), Error> {
        let mut tail = Vec::with_capacity(2);
        genie_session::varint::put_u64(&mut tail, RESERVED);
        let draft = Draft { tail: &tail, fresh: RESERVED, ..*draft };
        let (key, first_fresh) = self.appending(0, |append| {
            let nowhere = Destination { pointer: std::ptr::null_mut(), len: 0 };
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

    // --- moving ---

    fn pump_for(&self, key: Key) -> Result<(), Error> {
        self.pump(true).inspect_err(|_| self.abandon(key))
    }

    /// Writes what is in the outbox. With `must`, all of it is written when this returns; without,
    /// another thread may be at it.
    fn pump(&self, must: bool) -> Result<(), Error> {
        loop {
            let guard = if must {
                self.writing.lock()
            } else {
                match self.writing.try_lock() {
                    Some(guard) => guard,
                    None => return Ok(()),
                }
            };
            loop {
                let next = self.outbox.lock().pop_front();
                let Some(outgoing) = next else { break };
                self.write(outgoing)?;
            }
            drop(guard);
            // Somebody may have found the lock taken after the last look.
            if self.outbox.lock().is_empty() {
                return Ok(());
            }
        }
    }

    fn write(&self, outgoing: Outgoing) -> Result<(), Error> {
        self.check()?;
        let header = outgoing.message.header.encode();
        let raw = match outgoing.raw {
            // SAFETY: the thread that owns the memory waits for this message (see `upload`).
            Some((pointer, len)) => unsafe { std::slice::from_raw_parts(pointer, len) },
            None => &[],
        };
        let parts: [&[u8]; 3] = [&header, &outgoing.message.payload, raw];
        if outgoing.message.header.kind == Kind::Ping {
            let heard = self.last_received_ms.load(Ordering::Relaxed);
            self.last_ping_ms.store(self.now_ms().max(heard + 1), Ordering::Relaxed);
            self.ping_queued.store(false, Ordering::Relaxed);
        }
        let mut interrupted = false;
        let (mut last_tick, mut stalled) = (Instant::now(), Duration::ZERO);
        let written = self.link.write_all(&parts, &mut || {
            if self.is_lost.load(Ordering::Acquire) {
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            if check_signals().is_err() {
                interrupted = true;
                return Err(io::ErrorKind::Interrupted.into());
            }
            // Ticks that follow each other closely had no progress between them.
            let since = last_tick.elapsed();
            last_tick = Instant::now();
            stalled = if since < TICK * 3 / 2 { stalled + since } else { Duration::ZERO };
            let heard = self.last_received_ms.load(Ordering::Relaxed);
            let silent = Duration::from_millis(self.now_ms().saturating_sub(heard));
            if stalled > DEAD_AFTER && silent > DEAD_AFTER {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "it takes no more bytes"));
            }
            Ok(())
        });
        self.counters.sent(parts.iter().map(|part| part.len() as u64).sum());
        if let Err(error) = written {
            if interrupted {
                // Half a message is on the wire: the stream can't go on.
                self.lose(Error::Genie(
                    Exception::NodeLost,
                    "interrupted in the middle of sending: the session is over; \
                     genie.connect() starts another"
                        .to_owned(),
                ));
                return Err(Error::Interrupted);
            }
            self.lose_link(&error);
            return self.check();
        }
        if let Some(mut append) = self.append.try_lock() {
            append.log.recycle(outgoing.message.payload);
        }
        Ok(())
    }

    fn abandon(&self, key: Key) {
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

    // --- waiting ---

    fn wait(&self, key: Key) -> Result<Vec<u8>, Error> {
        self.wait_while(|| !matches!(self.slots.lock().get(&key), Some(Slot::Done(_))))
            .inspect_err(|_| self.abandon(key))?;
        self.counters.round_trip();
        match self.slots.lock().remove(&key) {
            Some(Slot::Done(Ok(payload))) => Ok(payload),
            Some(Slot::Done(Err(fault))) => Err(self.explain(&fault)),
            _ => Err(Error::Runtime("an answer was lost".to_owned())),
        }
    }

    /// The error of a fault, with the operator and the user's line.
    fn explain(&self, fault: &Fault) -> Error {
        let place = self
            .append
            .lock()
            .trace
            .describe(fault.cause_seq, |op| genie_recorder::names::name(op).to_owned());
        Error::from_fault(fault, &place)
    }

    /// Reads and handles frames until `pending` is false. One thread reads for all that wait.
    fn wait_while(&self, pending: impl Fn() -> bool) -> Result<(), Error> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let result = self.wait_inner(&pending);
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        result
    }

    fn wait_inner(&self, pending: &impl Fn() -> bool) -> Result<(), Error> {
        while pending() {
            self.check()?;
            if let Some(mut reading) = self.reading.try_lock() {
                let mut ticked = false;
                while !ticked && pending() {
                    ticked = !self.read_frame(&mut reading)?;
                }
                drop(reading);
                let slots = self.slots.lock();
                drop(slots);
                // Whoever else waits takes over the reading.
                self.woken.notify_all();
                if !ticked {
                    continue;
                }
            } else {
                let mut slots = self.slots.lock();
                self.woken.wait_for(&mut slots, Duration::from_millis(5));
            }
            check_signals()?;
            self.look_after_node()?;
        }
        Ok(())
    }

    /// One frame, or a tick without any (`false`).
    fn read_frame(&self, reading: &mut ReadState) -> Result<bool, Error> {
        match reading.frame(self) {
            Ok(got) => Ok(got),
            Err(error) => {
                self.lose_link(&error);
                self.check().map(|()| false)
            }
        }
    }

    fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    /// Bytes came from the node.
    pub(crate) fn heard(&self) {
        self.last_received_ms.store(self.now_ms(), Ordering::Relaxed);
    }

    /// Between reads of raw bytes: fails when the node does not answer any more.
    pub(crate) fn node_answers(&self) -> io::Result<()> {
        self.look_after_node().map_err(|_| io::ErrorKind::ConnectionAborted.into())
    }

    /// Asks a silent node whether it lives; gives it up when it does not answer.
    fn look_after_node(&self) -> Result<(), Error> {
        let now = self.now_ms();
        let heard = self.last_received_ms.load(Ordering::Relaxed);
        let asked = self.last_ping_ms.load(Ordering::Relaxed);
        let silent = Duration::from_millis(now.saturating_sub(heard));
        if asked > heard && now.saturating_sub(asked) > DEAD_AFTER.as_millis() as u64 {
            self.lose(Error::Genie(
                Exception::NodeLost,
                format!(
                    "the node was lost: it has not answered for {} ms. Tensors of this session \
                     are gone; genie.connect() starts another",
                    silent.as_millis()
                ),
            ));
            return self.check();
        }
        if silent > PING_AFTER && asked <= heard && !self.ping_queued.swap(true, Ordering::Relaxed)
        {
            let message = Message { header: Header::new(Kind::Ping, now, 0), payload: Vec::new() };
            self.outbox.lock().push_back(Outgoing { message, raw: None });
            // Not waited for: whoever writes now takes it along.
            return self.pump(false);
        }
        Ok(())
    }

    /// Handles a frame without raw bytes.
    pub(crate) fn handle(&self, header: &Header, payload: &[u8]) -> io::Result<()> {
        let hostile = |error: genie_session::WireError| {
            io::Error::new(io::ErrorKind::InvalidData, error.to_string())
        };
        match header.kind {
            Kind::Ack => {
                self.append.lock().log.acknowledged(header.seq, header.aux).map_err(hostile)?;
                Ok(())
            }
            Kind::Synced => {
                self.answer(Key::Wait(header.seq), Ok(Vec::new()));
                Ok(())
            }
            Kind::Metas => {
                self.answer(Key::Call(header.seq), Ok(payload.to_vec()));
                Ok(())
            }
            Kind::FetchFault => {
                let fault = Fault::decode(payload).map_err(hostile)?;
                let key = match header.aux {
                    0 => Key::Wait(header.seq),
                    _ => Key::Call(header.seq),
                };
                self.answer(key, Err(fault));
                Ok(())
            }
            Kind::Fault => {
                self.counters.fault();
                Fault::decode(payload).map(|_| ()).map_err(hostile)
            }
            Kind::Refused => {
                let mut append = self.append.lock();
                let messages =
                    append.log.refused(header.seq, header.aux).map_err(hostile)?;
                let mut outbox = self.outbox.lock();
                outbox.extend(messages.into_iter().map(|m| Outgoing { message: m, raw: None }));
                drop(outbox);
                self.flush_into_outbox(&mut append);
                drop(append);
                // Written by whoever comes next: a reader must not wait for a writer.
                self.mark_dirty();
                Ok(())
            }
            Kind::Pong => Ok(()),
            Kind::Lost => {
                let fault = Fault::decode(payload).map_err(hostile)?;
                self.lose(Error::from_fault(&fault, ""));
                Ok(())
            }
            _ => Err(io::Error::new(io::ErrorKind::InvalidData, "an unexpected frame")),
        }
    }

    pub(crate) fn answer(&self, key: Key, result: Result<Vec<u8>, Fault>) {
        let mut slots = self.slots.lock();
        match slots.get_mut(&key) {
            Some(Slot::Abandoned) => {
                slots.remove(&key);
            }
            Some(slot) => *slot = Slot::Done(result),
            // Asked for by a record that is being repeated: nobody waits.
            None => {}
        }
        if self.waiting.load(Ordering::Relaxed) > 1 {
            self.woken.notify_all();
        }
    }

    // --- housekeeping ---

    /// Sends what nobody waits for, reads what nobody waits for, until the session ends.
    pub fn housekeeping(&self) {
        let mut last_work = Instant::now();
        while !self.is_lost.load(Ordering::Acquire) {
            if last_work.elapsed() > IDLE_AFTER && self.waiting.load(Ordering::Relaxed) == 0 {
                self.wake.sleep(&self.link, &self.dirty, PING_AFTER);
            } else {
                std::thread::sleep(FLUSH_AFTER);
            }
            if self.dirty.load(Ordering::Relaxed) {
                last_work = Instant::now();
                let mut append = self.append.lock();
                self.flush_into_outbox(&mut append);
            }
            if !self.outbox.lock().is_empty() {
                let _ = self.pump(false);
            }
            if self.waiting.load(Ordering::Relaxed) == 0
                && let Some(mut reading) = self.reading.try_lock()
            {
                while reading.has_frame() || self.link.wait_readable(Duration::ZERO) {
                    last_work = Instant::now();
                    if !self.read_frame(&mut reading).unwrap_or(false) {
                        break;
                    }
                }
            }
            let _ = self.look_after_node();
        }
    }

    /// Ends the session in good order.
    pub fn close(&self) {
        if self.check().is_ok() {
            let mut append = self.append.lock();
            self.flush_into_outbox(&mut append);
            let message = Message { header: Header::new(Kind::Goodbye, 0, 0), payload: Vec::new() };
            self.outbox.lock().push_back(Outgoing { message, raw: None });
            drop(append);
            let _ = self.pump(true);
        }
        self.lose(Error::Genie(
            Exception::StaleTensor,
            "this tensor's session was closed by genie.disconnect()".to_owned(),
        ));
        let request = CloseSessionRequest {
            session_id: self.opened.session_id,
            data_token: self.opened.data_token.clone(),
        };
        self.control.close(request, Duration::from_millis(500));
        // The session itself stays, since others may still look at it; what it held does not.
        let mut append = self.append.lock();
        append.log = ClientLog::new();
        append.shapes = ShapeCache::default();
        append.trace = Trace::small();
    }

    /// Counters of the log: records, operators, plan hits and misses.
    pub fn log_counters(&self) -> genie_session::client::ClientCounters {
        self.append.lock().log.counters()
    }

    /// Signatures in the shape cache.
    pub fn signatures(&self) -> usize {
        self.append.lock().shapes.len()
    }

    /// The line of record `seq` became known only now.
    pub fn amend_site(&self, seq: u64, site: SiteId) {
        self.append.lock().trace.amend(seq, site);
    }
}

fn append_error(error: AppendError) -> Error {
    match error {
        AppendError::UnknownStorage(_) => {
            Error::Genie(Exception::StaleTensor, error.to_string())
        }
        AppendError::BlobTooLong(_) | AppendError::TooLong => Error::Value(error.to_string()),
    }
}

/// Lets Python's signal handlers run; they only do on the main thread.
fn check_signals() -> Result<(), Error> {
    // SAFETY: the interpreter is running; Ensure and Release pair up.
    unsafe {
        if pyo3::ffi::Py_IsInitialized() == 0 {
            return Ok(());
        }
        let state = pyo3::ffi::PyGILState_Ensure();
        let interrupted = pyo3::ffi::PyErr_CheckSignals() != 0;
        pyo3::ffi::PyGILState_Release(state);
        if interrupted { Err(Error::Interrupted) } else { Ok(()) }
    }
}
