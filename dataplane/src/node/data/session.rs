//! One session of a node: its data connection, its executor, and its end.
//!
//! A session ends once, whoever finds out first; the rest is taken down by a thread of its own, so
//! that nobody who ends one waits for its client.
//!
//! The session log could outlive a connection by the lease and resume. For now a session ends with
//! its connection.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use genie_controlplane::node::{NodeError, SessionSpec};
use genie_gpudev::PoolsStats;
use genie_session::fault::{Code, Fault};
use genie_session::frame::{Header, Kind, PAYLOAD_MAX};
use parking_lot::{Condvar, Mutex};
use tokio::sync::{OwnedSemaphorePermit, watch};

use super::counters::Counters;
use super::end::End;
use super::host::Host;
use super::installs::Installs;
use super::link::Link;
use super::running::Running;
use super::ways::{Unwanted, Ways};

/// How long a client has to read the last frame before its connection is cut.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Stack of the two threads of a session; their buffers are elsewhere.
const STACK_BYTES: usize = 256 << 10;
/// How long a plan waits for an executor that is starting.
const START_WAIT: Duration = Duration::from_secs(1);

/// A session.
pub struct Session {
    spec: SessionSpec,
    host: Arc<Host>,
    /// Told of its end.
    on_end: OnEnd,
    /// What it did.
    pub counters: Counters,
    /// To other devices of its client.
    pub ways: Ways,
    /// Of what comes from other devices.
    pub unwanted: Unwanted,
    opened: Instant,
    /// Milliseconds from the opening to the last sign of life.
    heard_ms: AtomicU64,
    /// The same, to the last time that it wanted something.
    worked_ms: AtomicU64,
    connected: AtomicBool,
    /// Its place among those with a data connection.
    place: Mutex<Option<OwnedSemaphorePermit>>,
    /// A result was sent.
    answered: AtomicBool,
    link: OnceLock<Link>,
    end: OnceLock<End>,
    progress: Mutex<Progress>,
    progressed: Condvar,
    installs: Installs,
    started: watch::Sender<bool>,
}

/// Who is told that a session, by its id, has ended, and why.
pub type OnEnd = Box<dyn Fn(u64, String) + Send + Sync>;

/// What came of claiming a session's data connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// It is the caller's.
    Mine,
    /// The session has one.
    Taken,
    /// The node has as many sessions as it takes.
    Full,
}

#[derive(Debug, Default)]
struct Progress {
    over: bool,
    reader_done: bool,
    /// How the executor ended.
    exit: Option<String>,
}

impl Session {
    /// One that waits for its data connection.
    #[must_use]
    pub fn new(spec: SessionSpec, host: Arc<Host>, on_end: OnEnd) -> Self {
        Self {
            spec,
            host,
            on_end,
            counters: Counters::default(),
            ways: Ways::default(),
            unwanted: Unwanted::default(),
            opened: Instant::now(),
            heard_ms: AtomicU64::new(0),
            worked_ms: AtomicU64::new(0),
            connected: AtomicBool::new(false),
            place: Mutex::new(None),
            answered: AtomicBool::new(false),
            link: OnceLock::new(),
            end: OnceLock::new(),
            progress: Mutex::new(Progress::default()),
            progressed: Condvar::new(),
            installs: Installs::default(),
            started: watch::Sender::new(false),
        }
    }

    /// Unique on the node.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.spec.id
    }

    /// What it was opened with.
    #[must_use]
    pub fn spec(&self) -> &SessionSpec {
        &self.spec
    }

    /// What it needs of its node.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// How long it has been open.
    #[must_use]
    pub fn age(&self) -> Duration {
        self.opened.elapsed()
    }

    /// Has, or had, a data connection.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.connected.load(Ordering::Acquire)
    }

    /// How long nothing was heard of the client.
    #[must_use]
    pub fn silent(&self) -> Duration {
        let heard = Duration::from_millis(self.heard_ms.load(Ordering::Relaxed));
        self.opened.elapsed().saturating_sub(heard)
    }

    /// Whether its client has wanted nothing for `long`, and its executor has nothing to do.
    #[must_use]
    pub fn is_idle(&self, long: Duration) -> bool {
        let worked = Duration::from_millis(self.worked_ms.load(Ordering::Relaxed));
        let busy = self.running().is_some_and(|running| running.work().busy);
        !busy && self.opened.elapsed().saturating_sub(worked) >= long
    }

    /// Claims the session's one data connection.
    pub fn claim(&self) -> Claim {
        if self.connected.swap(true, Ordering::AcqRel) {
            return Claim::Taken;
        }
        let Some(place) = self.host.place() else {
            return Claim::Full;
        };
        *self.place.lock() = Some(place);
        Claim::Mine
    }

    /// Its data connection, once it has one.
    #[must_use]
    pub fn link(&self) -> Option<&Link> {
        self.link.get()
    }

    /// It has its data connection.
    ///
    /// # Errors
    /// It had one already.
    pub fn set_link(self: &Arc<Self>, link: Link) -> std::io::Result<()> {
        if self.link.set(link).is_err() {
            return Err(std::io::ErrorKind::AlreadyExists.into());
        }
        if self.is_over() {
            // It ended while it connected, and nobody else saw the link.
            self.take_down();
        }
        Ok(())
    }

    /// Nobody reads its connection any more.
    pub fn reader_is_done(&self) {
        self.progress.lock().reader_done = true;
        self.progressed.notify_all();
    }

    /// Its executor runs.
    pub fn executor_started(&self) {
        self.started.send_replace(true);
        self.host.metrics.executors_started.increment();
    }

    /// How full its pools on a device are.
    #[must_use]
    pub fn pools(&self) -> PoolsStats {
        let running = self.running();
        running.map_or_else(PoolsStats::default, |running| running.memory.pools())
    }

    /// Its executor, once it has one.
    #[must_use]
    pub fn running(&self) -> Option<&Running> {
        self.link.get()?.running.get()
    }

    /// The session's executor is gone. The writer ends the session, after what the executor said
    /// before.
    pub fn executor_exited(&self, how: String) {
        self.progress.lock().exit = Some(how);
        self.progressed.notify_all();
    }

    /// What to tell a client whose executor left: how, if that is known within `timeout`.
    #[must_use]
    pub fn executor_fault(&self, timeout: Duration) -> Fault {
        let records = self.counters.records.value();
        let how = {
            let mut progress = self.progress.lock();
            let deadline = Instant::now() + timeout;
            while progress.exit.is_none()
                && !progress.over
                && !self
                    .progressed
                    .wait_until(&mut progress, deadline)
                    .timed_out()
            {}
            progress.exit.clone()
        };
        let how = how.unwrap_or_else(|| "left without a word".to_owned());
        let message = format!(
            "the executor of session {} {how}, somewhere after record {records}; other sessions \
             are not affected; reconnect to go on",
            self.id()
        );
        Fault::new(Code::ExecutorDied, records, message)
    }

    /// Ends the session; the first reason counts. Does not wait.
    pub fn end(self: &Arc<Self>, end: End) {
        {
            let mut progress = self.progress.lock();
            if progress.over {
                return;
            }
            progress.over = true;
            // Only here, under the lock.
            let _ = self.end.set(end.clone());
        }
        self.progressed.notify_all();
        self.installs.give_up();
        let (id, principal, reason) = (self.id(), &self.spec.identity.principal, &end.reason);
        if end.lost {
            self.host.metrics.sessions_lost.increment();
            tracing::warn!(session = id, %principal, "session {id} is lost: {reason}");
        } else {
            tracing::info!(session = id, %principal, "session {id} ended: {reason}");
        }
        if let Some(fault) = &end.fault {
            self.host.metrics.fault(fault.code);
        }
        drop(self.place.lock().take());
        self.host.budget.leave(self.id());
        (self.on_end)(self.id(), end.reason);
        self.take_down();
    }

    /// Stops the executor, tells the client, cuts the connection.
    fn take_down(self: &Arc<Self>) {
        self.ways.close();
        let Some(link) = self.link.get() else { return };
        if let Some(running) = link.running.get() {
            running.stop();
        }
        let this = Arc::clone(self);
        let closing = self.host.closing();
        let close = move || {
            this.close();
            drop(closing);
        };
        if let Err(error) = spawn(format!("close-{:x}", self.id()), close) {
            tracing::warn!("a connection is cut without its last frame: {error}");
            link.cut.cut();
        }
    }

    fn close(&self) {
        let Some(link) = self.link.get() else { return };
        let fault = self
            .end
            .get()
            .and_then(|end| end.fault.as_ref())
            .map(Fault::encode);
        let header = Header::new(Kind::Lost, 0, 0);
        link.outgoing
            .finish(fault.as_ref().map(|fault| (&header, fault.as_slice())));
        {
            let mut progress = self.progress.lock();
            let deadline = Instant::now() + LAST_WORDS;
            while !progress.reader_done
                && !self
                    .progressed
                    .wait_until(&mut progress, deadline)
                    .timed_out()
            {}
        }
        link.cut.cut();
    }

    /// True once it ended.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.end.get().is_some()
    }

    /// Waits until it ended, at most `timeout`.
    pub fn wait_over(&self, timeout: Duration) {
        let mut progress = self.progress.lock();
        let deadline = Instant::now() + timeout;
        while !progress.over
            && !self
                .progressed
                .wait_until(&mut progress, deadline)
                .timed_out()
        {}
    }

    /// Installs a plan and waits for the executor's word. False where there is no executor, or it
    /// refuses.
    ///
    /// # Errors
    /// The session is over.
    pub async fn install(&self, plan: u32, template: &[u8]) -> Result<bool, NodeError> {
        if self.is_over() {
            return Err(NodeError::UnknownSession(self.id()));
        }
        // A segment may overtake the records that start the executor.
        let mut started = self.started.subscribe();
        let _ = tokio::time::timeout(START_WAIT, started.wait_for(|started| *started)).await;
        let Some(running) = self.running() else {
            return Ok(false);
        };
        if template.len() > PAYLOAD_MAX {
            return Ok(false);
        }
        let Some(answer) = self.installs.expect(plan) else {
            return Ok(false);
        };
        let header = Header::new(Kind::InstallPlan, u64::from(plan), 0);
        if running.inbox.post(header, template.to_vec()).is_err() {
            return Ok(false);
        }
        Ok(self.installs.wait(plan, answer).await)
    }

    /// The executor's word on a plan.
    pub fn plan_installed(&self, plan: u32, installed: bool) {
        if installed {
            self.counters.plans.add(1);
            self.host.metrics.plans_installed.increment();
        }
        self.installs.answer(plan, installed);
    }

    /// Counts a frame of the client.
    pub fn received(&self, bytes: u64) {
        self.host.metrics.frames_received.increment();
        self.received_raw(bytes);
        self.heard();
    }

    /// The client wants something.
    pub fn worked(&self) {
        let now = u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.worked_ms.store(now, Ordering::Relaxed);
    }

    /// Counts raw bytes of the client.
    pub fn received_raw(&self, bytes: u64) {
        self.counters.bytes_received.add(bytes);
        self.host.metrics.bytes_received.add(bytes);
    }

    /// Whether the node has `bytes` for an upload.
    #[must_use]
    pub fn has_room(&self, bytes: u64) -> bool {
        !self.host.is_charged(self.spec.device) || self.host.budget.has(bytes)
    }

    /// An upload has come, or its place is free again.
    pub fn count_arrived(&self, running: &Running) {
        if self.host.is_charged(self.spec.device) {
            let bytes = || running.memory.arrived_bytes();
            self.host.budget.arrived(self.id(), bytes);
        }
    }

    /// Its executor says what it holds.
    pub fn count_held(&self, bytes: u64) {
        if self.host.is_charged(self.spec.device) {
            self.host.budget.held(self.id(), bytes);
        }
    }

    /// Counts an upload that found no memory.
    pub fn dropped_bulk(&self) {
        self.host.metrics.bulk_dropped.increment();
    }

    /// Counts a frame to the client.
    pub fn sent(&self, bytes: u64) {
        self.host.metrics.frames_sent.increment();
        self.counters.bytes_sent.add(bytes);
        self.host.metrics.bytes_sent.add(bytes);
    }

    /// Counts a result; a fetch has so many bytes.
    pub fn result(&self, fetched: Option<u64>) {
        let times = &self.host.metrics.times;
        if !self.answered.swap(true, Ordering::Relaxed) {
            times
                .first_result
                .observe(self.opened.elapsed().as_secs_f64());
        }
        if let Some(bytes) = fetched {
            times.fetch_bytes.observe(bytes as f64);
        }
    }

    /// Every record below `seq` was executed.
    pub fn executed(&self, seq: u64) {
        let before = self.counters.records.set(seq);
        self.host.metrics.records.add(seq.saturating_sub(before));
    }

    /// The client has given a sign of life.
    pub fn heard(&self) {
        let now = u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.heard_ms.store(now, Ordering::Relaxed);
    }
}

/// A thread of a session's.
///
/// # Errors
/// What the system says.
pub(super) fn spawn(name: String, work: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    std::thread::Builder::new()
        .name(name)
        .stack_size(STACK_BYTES)
        .spawn(work)
        .map(drop)
}
