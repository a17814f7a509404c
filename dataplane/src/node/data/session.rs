//! One session of a node: its data connection, its executor, and its end.
//!
//! A session ends once, whoever finds out first; the rest is taken down by a thread of its own, so
//! that nobody who ends one waits for its client.
//!
//! The session log could outlive a connection by the lease and resume. For now a session ends with
//! its connection.

use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use genie_channel::AppHalf;
use genie_controlplane::node::{NodeError, SessionSpec};
use genie_gpudev::PoolsStats;
use genie_poll::PollLoop;
use genie_session::fault::{Code, Fault};
use genie_session::frame::{HELLO_BYTES, Header, Kind, PAYLOAD_MAX, decode_hello};
use genie_shm::RingCloser;
use genie_transport::ConnectionId;
use parking_lot::{Condvar, Mutex};
use rustls::ServerConnection;
use tokio::sync::watch;

use super::counters::Counters;
use super::inbox::{Inbox, Undelivered};
use super::installs::Installs;
use super::memory::SessionMemory;
use super::outgoing::Outgoing;
use super::stream::{Cut, ReadHalf, WriteHalf};
use super::{channel, reader, socket, writer};
use crate::node::Shared;
use crate::node::executor::Process;

/// How long a client has to read the last frame before its connection is cut.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Stack of the two threads of a session; their buffers are elsewhere.
const STACK_BYTES: usize = 256 << 10;
/// How long a plan waits for an executor that is starting.
const START_WAIT: Duration = Duration::from_secs(1);

/// Why a session ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// For the log.
    pub reason: String,
    /// What the client is told, if it is still there.
    pub fault: Option<Fault>,
    /// It was not the client's wish.
    pub lost: bool,
}

impl End {
    /// As the client wished.
    #[must_use]
    pub fn quiet(reason: String) -> Self {
        Self {
            reason,
            fault: None,
            lost: false,
        }
    }

    /// With a fault that the client is told.
    #[must_use]
    pub fn lost(fault: Fault) -> Self {
        Self {
            reason: fault.message.clone(),
            fault: Some(fault),
            lost: true,
        }
    }
}

/// A data connection.
pub struct Link {
    /// Its sending side.
    pub outgoing: Outgoing,
    cut: Cut,
    running: OnceLock<Running>,
    /// The transport's connection that carries it, if one does.
    carrier: Option<Carrier>,
}

/// A connection of the transport.
#[derive(Clone)]
pub struct Carrier {
    /// Who drives it.
    pub poll: Arc<PollLoop>,
    /// Its name.
    pub connection: ConnectionId,
}

/// A running executor, as both threads see it.
pub struct Running {
    /// Frames to it.
    pub inbox: Inbox,
    /// Where its tensors are.
    pub memory: SessionMemory,
    closers: [RingCloser; 2],
    process: Box<dyn Process>,
}

impl Running {
    /// The bytes of a reply have left: the executor may use their place again.
    ///
    /// # Errors
    /// The executor is gone, or takes nothing.
    pub fn place_sent(&self, place: u64) -> Result<(), Undelivered> {
        self.inbox
            .post(Header::new(Kind::PlaceSent, place, 0), Vec::new())
    }

    /// Bulk that a poll loop was sending has left: it was at `place` of what it sends from.
    ///
    /// # Errors
    /// As [`Running::place_sent`].
    fn left(&self, place: u64) -> Result<(), Undelivered> {
        match &self.memory {
            SessionMemory::Shared(_) => self.place_sent(place),
            SessionMemory::Staged(staged) => {
                staged.outgoing.free(place);
                Ok(())
            }
        }
    }

    /// A pool of uploads is gone, and the executor is to let go of it.
    ///
    /// # Errors
    /// As [`Running::place_sent`].
    pub fn pool_gone(&self, base: u64) -> Result<(), Undelivered> {
        self.inbox
            .post(Header::new(Kind::PoolGone, base, 0), Vec::new())
    }

    fn stop(&self) {
        self.process.kill();
        for closer in &self.closers {
            closer.close();
        }
    }
}

/// A session.
pub struct Session {
    spec: SessionSpec,
    node: Arc<Shared>,
    /// What it did.
    pub counters: Counters,
    opened: Instant,
    /// Milliseconds from the opening to the last sign of life.
    heard_ms: AtomicU64,
    connected: AtomicBool,
    link: OnceLock<Link>,
    end: OnceLock<End>,
    progress: Mutex<Progress>,
    progressed: Condvar,
    installs: Installs,
    started: watch::Sender<bool>,
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
    pub fn new(spec: SessionSpec, node: Arc<Shared>) -> Self {
        Self {
            spec,
            node,
            counters: Counters::default(),
            opened: Instant::now(),
            heard_ms: AtomicU64::new(0),
            connected: AtomicBool::new(false),
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

    /// The node it is on.
    #[must_use]
    pub fn node(&self) -> &Shared {
        &self.node
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

    /// Claims the session's one data connection. False if it has one.
    pub fn claim(&self) -> bool {
        !self.connected.swap(true, Ordering::AcqRel)
    }

    /// Starts the data path on a claimed session's TCP connection. Blocking sockets from here on.
    ///
    /// # Errors
    /// What the system says of the socket or of threads.
    pub fn connect(
        self: &Arc<Self>,
        socket: TcpStream,
        tls: Option<ServerConnection>,
    ) -> std::io::Result<()> {
        socket.set_nonblocking(false)?;
        socket.set_nodelay(true)?;
        // Silence for a lease ends a session, without a timer.
        socket.set_read_timeout(Some(self.node.lease))?;
        socket.set_write_timeout(Some(self.node.lease))?;
        let (read, write, socket) = socket::split(socket, tls);
        let read = ReadHalf::Socket(read);
        let work = self.welcome(read, WriteHalf::Socket(write), Cut::Socket(socket), None)?;
        spawn(format!("read-{:x}", self.id()), work)
    }

    /// Waits for the client on a channel to the poll loop. The session has its data path when the
    /// client shows its token there; another connection may be faster, and then the channel ends.
    ///
    /// # Errors
    /// What the system says of threads.
    pub fn expect(self: &Arc<Self>, channel: AppHalf, carrier: Carrier) -> std::io::Result<()> {
        let this = Arc::downgrade(self);
        let on_sent = Box::new(move |place| {
            let session = this.upgrade();
            let running = session.as_ref().and_then(|session| session.running());
            // An executor that is gone needs no memory.
            let _ = running.map(|running| running.left(place));
        });
        let (read, write, cut) = channel::split(channel, self.node.lease, on_sent);
        let mut read = ReadHalf::Channel(Box::new(read));
        let this = Arc::clone(self);
        spawn(format!("read-{:x}", self.id()), move || {
            if !this.is_shown_token(&mut read) || !this.claim() {
                return;
            }
            let write = WriteHalf::Channel(write);
            match this.welcome(read, write, Cut::Channel(cut), Some(carrier)) {
                Ok(work) => work(),
                Err(error) => this.end(End {
                    reason: format!("its data connection failed: {error}"),
                    fault: None,
                    lost: true,
                }),
            }
        })
    }

    /// Reads the opening of a data connection; whether it is this session's.
    fn is_shown_token(&self, read: &mut ReadHalf) -> bool {
        let mut hello = [0; HELLO_BYTES];
        let mut have = 0;
        while have < hello.len() && !self.is_over() && !self.is_connected() {
            match read.read(&mut hello[have..]) {
                Ok(count) if count > 0 => have += count,
                _ => return false,
            }
        }
        have == hello.len()
            && decode_hello(&hello).is_ok_and(|token| self.spec.token.matches(&token))
    }

    /// Lets the client in; gives what its reading thread is to do.
    fn welcome(
        self: &Arc<Self>,
        read: ReadHalf,
        write: WriteHalf,
        cut: Cut,
        carrier: Option<Carrier>,
    ) -> std::io::Result<impl FnOnce() + Send + 'static> {
        let outgoing = Outgoing::new(write);
        self.heard();
        outgoing.send_urgent(&Header::new(Kind::Welcome, 0, 0), &[])?;
        let link = Link {
            outgoing,
            cut,
            running: OnceLock::new(),
            carrier,
        };
        if self.link.set(link).is_err() {
            return Err(std::io::ErrorKind::AlreadyExists.into());
        }
        if self.is_over() {
            // It ended while it connected, and nobody else saw the link.
            self.take_down();
        }
        let this = Arc::clone(self);
        Ok(move || {
            if let Some(link) = this.link.get() {
                reader::run(&this, link, read);
            }
            this.progress.lock().reader_done = true;
            this.progressed.notify_all();
        })
    }

    /// How full its pools on a device are.
    #[must_use]
    pub fn pools(&self) -> PoolsStats {
        let running = self.running();
        running.map_or_else(PoolsStats::default, |running| running.memory.pools())
    }

    fn running(&self) -> Option<&Running> {
        self.link.get()?.running.get()
    }

    /// Starts the session's executor, with its first frame that needs one.
    ///
    /// # Errors
    /// Why there is none, for a person.
    pub fn start_executor(self: &Arc<Self>) -> Result<&Running, String> {
        let link = self.link.get().ok_or("the session has no connection")?;
        let started = Instant::now();
        let executor = self.node.launch(self.id(), self.spec.memory_budget_bytes)?;
        let (pid, from) = (executor.pid, executor.from);
        let running = Running {
            closers: [executor.to.closer(), from.closer()],
            inbox: Inbox::new(executor.to),
            memory: executor.memory,
            process: executor.process,
        };
        let running = link.running.get_or_init(|| running);
        if let Some(Carrier { poll, connection }) = &link.carrier {
            let (source, sink) = (running.memory.source(), running.memory.sink());
            poll.share(*connection, Arc::clone(source), Arc::clone(sink))
                .map_err(|error| format!("its memory can't be reached: {error}"))?;
        }
        if self.is_over() {
            running.stop();
            return Err("the session ended".to_owned());
        }
        let this = Arc::clone(self);
        let write = move || {
            if let Some(link) = this.link.get()
                && let Some(running) = link.running.get()
            {
                writer::run(&this, link, running, from);
            }
        };
        spawn(format!("write-{:x}", self.id()), write)
            .map_err(|error| format!("this node can't start a thread: {error}"))?;
        self.started.send_replace(true);
        self.node.metrics.executors_started.increment();
        tracing::debug!(
            session = self.id(),
            pid,
            "the executor of session {} started in {:?}",
            self.id(),
            started.elapsed()
        );
        Ok(running)
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
        let (id, principal, reason) = (self.id(), &self.spec.principal, &end.reason);
        if end.lost {
            self.node.metrics.sessions_lost.increment();
            tracing::warn!(session = id, %principal, "session {id} is lost: {reason}");
        } else {
            tracing::info!(session = id, %principal, "session {id} ended: {reason}");
        }
        if let Some(fault) = &end.fault {
            self.node.metrics.fault(fault.code);
        }
        self.node.forget(self.id(), end.reason);
        self.take_down();
    }

    /// Stops the executor, tells the client, cuts the connection.
    fn take_down(self: &Arc<Self>) {
        let Some(link) = self.link.get() else { return };
        if let Some(running) = link.running.get() {
            running.stop();
        }
        let this = Arc::clone(self);
        let closing = self.node.closing();
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
            self.node.metrics.plans_installed.increment();
        }
        self.installs.answer(plan, installed);
    }

    /// Counts a frame of the client.
    pub fn received(&self, bytes: u64) {
        self.node.metrics.frames_received.increment();
        self.received_raw(bytes);
        self.heard();
    }

    /// Counts raw bytes of the client.
    pub fn received_raw(&self, bytes: u64) {
        self.counters.bytes_received.add(bytes);
        self.node.metrics.bytes_received.add(bytes);
    }

    /// Counts an upload that found no memory.
    pub fn dropped_bulk(&self) {
        self.node.metrics.bulk_dropped.increment();
    }

    /// Counts a frame to the client.
    pub fn sent(&self, bytes: u64) {
        self.node.metrics.frames_sent.increment();
        self.counters.bytes_sent.add(bytes);
        self.node.metrics.bytes_sent.add(bytes);
    }

    /// Every record below `seq` was executed.
    pub fn executed(&self, seq: u64) {
        let before = self.counters.records.set(seq);
        self.node.metrics.records.add(seq.saturating_sub(before));
    }

    fn heard(&self) {
        let now = u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.heard_ms.store(now, Ordering::Relaxed);
    }
}

fn spawn(name: String, work: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    std::thread::Builder::new()
        .name(name)
        .stack_size(STACK_BYTES)
        .spawn(work)
        .map(drop)
}
