//! The daemon's side of starting executors.
//!
//! A zygote is a process that has loaded libtorch and waits; an executor is a fork of it, for
//! one session. The zygote dies with the daemon and executors die with the zygote. What an
//! executor does to itself (a crash in a kernel) reaches the daemon as [`Exit`], and the rings
//! to it are closed, so that nobody waits for it.

mod launch;
mod memory;

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::device::{Device, DeviceKind};
use crate::message::{Exit, FromZygote, Limits, MESSAGE_MAX, OPERATORS_MAX, Tensors, ToZygote};
use crate::pool::PoolError;
use crate::pools::handover::HandoverError;
use crate::sandbox::{Sandbox, SandboxMode};
use genie_shm::mapping::MemoryError;
use genie_shm::ring::{RingCloser, RingConsumer, RingError, RingProducer};
use genie_shm::{Word, seqpacket};
use launch::{bury, command};
pub use memory::{Announcer, DevicePools, SharedArenas};

/// How long libtorch may take to load.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a fork may take.
const FORK_TIMEOUT: Duration = Duration::from_secs(10);

/// Why there is no zygote, or no executor.
#[derive(Debug, thiserror::Error)]
pub enum ZygoteError {
    /// The program could not be started.
    #[error("can't start {program}: {source}")]
    Spawn {
        /// Which program.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It ended, or said nothing, before libtorch was loaded.
    #[error("the executor did not load libtorch from {libtorch}: {why}")]
    NotReady {
        /// From where.
        libtorch: PathBuf,
        /// What is known.
        why: String,
    },
    /// An operator library.
    #[error("{0}")]
    Library(String),
    /// It is gone.
    #[error("the zygote is gone; restart the daemon")]
    Gone,
    /// It could not fork.
    #[error("no executor could be forked: {0}")]
    Fork(String),
    /// The executor ended before it was ready.
    #[error("an executor ended before it was ready, by {0}")]
    NotBegun(Exit),
    /// It did not answer.
    #[error("the zygote did not answer within {0:?}")]
    Timeout(Duration),
    /// A session that has an executor already.
    #[error("session {0} has an executor already")]
    Twice(u64),
    /// Its socket failed.
    #[error("the zygote's socket: {0}")]
    Socket(#[from] io::Error),
    /// No shared memory.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// No ring.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// No pool of the device.
    #[error("no memory of the device for a session: {0}")]
    Pool(#[from] PoolError),
    /// The executor was not told of its first pool.
    #[error(transparent)]
    Handover(#[from] HandoverError),
}

/// What a zygote said of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ZygoteInfo {
    /// Its process.
    pub pid: u32,
    /// Version of its libtorch, `2.11.0`.
    pub torch_version: String,
    /// Fingerprint of its libtorch's operators.
    pub schema_hash: u64,
    /// What holds its executors in.
    pub sandbox: Sandbox,
    /// The schemas of each operator library's operators, in the libraries' order.
    pub operator_libraries: Vec<Vec<String>>,
}

/// The program that becomes a zygote, and for what.
#[derive(Clone, Debug)]
pub struct ZygoteProgram {
    /// `genie-executor`.
    pub executable: PathBuf,
    /// A folder with `lib`, as in a Python package or a libtorch archive.
    pub libtorch: PathBuf,
    /// Whether its executors are held in.
    pub sandbox: SandboxMode,
    /// Shared objects that define operators, loaded in this order.
    pub operator_libraries: Vec<PathBuf>,
    /// What they work on: an accelerator's driver needs files that the host device does not.
    pub device: DeviceKind,
}

/// What happened to executors, told on the zygote's own thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// An executor is gone. Its rings were closed before.
    Exited {
        /// Its session.
        session: u64,
        /// Its process.
        pid: u32,
        /// How it ended.
        exit: Exit,
    },
    /// The zygote itself is gone, and every executor with it; no event follows.
    Gone {
        /// Those that had one. Their rings were closed before.
        sessions: Vec<u64>,
    },
}

#[derive(Debug)]
struct Running {
    to: RingCloser,
    from: RingCloser,
    /// Known once it was forked.
    pid: Option<u32>,
    /// It said that it is held in.
    ready: bool,
    answer: Option<Sender<Result<u32, ZygoteError>>>,
}

impl Running {
    fn close(&self) {
        self.to.close();
        self.from.close();
    }

    /// Answers who waits for it, once it is known and ready: either may be heard of first.
    fn begin(&mut self) {
        if let (Some(pid), true) = (self.pid, self.ready) {
            self.answer(Ok(pid));
        }
    }

    fn answer(&mut self, answer: Result<u32, ZygoteError>) {
        if let Some(sender) = self.answer.take() {
            drop(sender.send(answer));
        }
    }
}

/// What the handle, the thread and the executors' handles share.
#[derive(Debug)]
struct Inner {
    socket: OwnedFd,
    running: Mutex<HashMap<u64, Running>>,
}

impl Inner {
    fn running(&self) -> MutexGuard<'_, HashMap<u64, Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn send(&self, message: &ToZygote, files: &[BorrowedFd<'_>]) -> io::Result<()> {
        seqpacket::send(self.socket.as_fd(), &message.encode(), files)
    }
}

/// A process with libtorch loaded, from which executors are forked. Dropping it ends it and all
/// its executors.
#[derive(Debug)]
pub struct Zygote {
    inner: Arc<Inner>,
    thread: Option<JoinHandle<()>>,
}

impl Zygote {
    /// Starts `executable zygote` with the libtorch in `libtorch_dir` (a folder with `lib`, as
    /// in a Python package or a libtorch archive). `on_event` is called on a thread of the
    /// zygote's own and must not block for long.
    ///
    /// # Errors
    /// [`ZygoteError`].
    pub fn start(
        executable: &Path,
        libtorch_dir: &Path,
        on_event: impl FnMut(Event) + Send + 'static,
    ) -> Result<(Self, ZygoteInfo), ZygoteError> {
        let program = ZygoteProgram {
            executable: executable.into(),
            libtorch: libtorch_dir.into(),
            sandbox: SandboxMode::Auto,
            operator_libraries: Vec::new(),
            device: DeviceKind::Host(0),
        };
        Self::start_program(&program, on_event)
    }

    /// As [`Zygote::start`], with all that may be chosen.
    ///
    /// # Errors
    /// [`ZygoteError`].
    pub fn start_program(
        program: &ZygoteProgram,
        on_event: impl FnMut(Event) + Send + 'static,
    ) -> Result<(Self, ZygoteInfo), ZygoteError> {
        let (ours, theirs) = seqpacket::pair()?;
        let inner = Arc::new(Inner {
            socket: ours,
            running: Mutex::new(HashMap::new()),
        });
        let command = command(program, &theirs);
        let libraries = program.operator_libraries.clone();
        let (sender, hello) = channel();
        let shared = Arc::clone(&inner);
        let thread = std::thread::Builder::new()
            .name("genie-zygote".into())
            .spawn(move || {
                // Spawned here because the kernel kills it when the thread that started it ends.
                watch(command, &libraries, theirs, &shared, &sender, on_event);
            })?;
        let zygote = Self {
            inner,
            thread: Some(thread),
        };
        let not_ready = |why: String| ZygoteError::NotReady {
            libtorch: program.libtorch.clone(),
            why,
        };
        match hello.recv_timeout(START_TIMEOUT) {
            Ok(Start::Ready(info)) => Ok((zygote, info)),
            Ok(Start::NotSpawned(source)) => Err(ZygoteError::Spawn {
                program: program.executable.clone(),
                source,
            }),
            Ok(Start::Refused(why)) => Err(ZygoteError::Library(why)),
            Ok(Start::Ended(how)) => Err(not_ready(match release(&program.libtorch) {
                Some(release) => format!(
                    "{how}; it is of torch {release}, and an executor fits the release it was \
                     built for (`genie-executor --version` says which)"
                ),
                None => how,
            })),
            Err(_) => Err(not_ready(format!(
                "it said nothing within {START_TIMEOUT:?}"
            ))),
        }
    }

    /// Forks an executor for `session`, with rings and arenas of its own, whose operators run on
    /// `device`.
    ///
    /// # Errors
    /// [`ZygoteError`].
    pub fn fork(
        &self,
        session: u64,
        device: DeviceKind,
        limits: Limits,
    ) -> Result<ExecutorHandle<SharedArenas>, ZygoteError> {
        let memory = SharedArenas::create(limits.arena_bytes)?;
        let files = [memory.inbound.memory().file(), memory.outbound.file()];
        let (to, from, life) =
            self.start_executor(session, device, Tensors::Shared, limits, &files)?;
        Ok(ExecutorHandle::new(to, from, memory, life))
    }

    /// Forks an executor for `session` whose tensors are in pools of `device`.
    ///
    /// # Errors
    /// [`ZygoteError`].
    pub fn fork_with_pools(
        &self,
        session: u64,
        device: &Arc<dyn Device>,
        limits: Limits,
    ) -> Result<ExecutorHandle<DevicePools>, ZygoteError> {
        let (memory, socket) = DevicePools::create(device, limits.memory_bytes)?;
        let (kind, files) = (device.info().kind, [socket.as_fd()]);
        let (to, from, life) =
            self.start_executor(session, kind, Tensors::Pools, limits, &files)?;
        Ok(ExecutorHandle::new(to, from, memory, life))
    }

    fn start_executor(
        &self,
        session: u64,
        device: DeviceKind,
        tensors: Tensors,
        limits: Limits,
        memory: &[BorrowedFd<'_>],
    ) -> Result<(RingProducer, RingConsumer, Life), ZygoteError> {
        let to_executor = RingProducer::create(limits.ring_bytes)?;
        let from_executor = RingConsumer::create(limits.ring_bytes, limits.wait_policy())?;
        let allowance = Arc::new(Word::create(u64::MAX)?);
        let (sender, answer) = channel();
        {
            let mut running = self.inner.running();
            if running.contains_key(&session) {
                return Err(ZygoteError::Twice(session));
            }
            let (to, from) = (to_executor.closer(), from_executor.closer());
            running.insert(
                session,
                Running {
                    to,
                    from,
                    pid: None,
                    ready: false,
                    answer: Some(sender),
                },
            );
        }
        // From here on dropping it cleans up.
        let mut life = Life {
            allowance: Arc::clone(&allowance),
            session,
            pid: 0,
            inner: Arc::clone(&self.inner),
        };
        let mut files = vec![to_executor.file(), from_executor.file()];
        files.extend(memory);
        files.push(allowance.file());
        let fork = ToZygote::Fork {
            session,
            device,
            tensors,
            limits,
        };
        self.inner
            .send(&fork, &files)
            .map_err(|_| ZygoteError::Gone)?;
        life.pid = wait_for_pid(&answer)?;
        Ok((to_executor, from_executor, life))
    }

    /// Executors that live.
    #[must_use]
    pub fn executors(&self) -> usize {
        self.inner.running().len()
    }
}

impl Drop for Zygote {
    fn drop(&mut self) {
        // The zygote ends at the end of its socket; its death ends the executors and the thread.
        // SAFETY: a plain system call on an open socket.
        unsafe { libc::shutdown(self.inner.socket.as_raw_fd(), libc::SHUT_RDWR) };
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// The daemon's end of an executor. Dropping `life` kills the executor; the memory goes when the
/// last of rings and arenas is dropped.
#[derive(Debug)]
pub struct ExecutorHandle<M> {
    /// Its process.
    pub pid: u32,
    /// Frames to it.
    pub to_executor: RingProducer,
    /// Frames from it.
    pub from_executor: RingConsumer,
    /// Where its tensors are.
    pub memory: M,
    /// Ends the executor when dropped.
    pub life: Life,
}

impl<M> ExecutorHandle<M> {
    fn new(to_executor: RingProducer, from_executor: RingConsumer, memory: M, life: Life) -> Self {
        Self {
            pid: life.pid,
            to_executor,
            from_executor,
            memory,
            life,
        }
    }

    /// Kills the executor. [`Event::Exited`] follows.
    pub fn kill(&self) {
        self.life.kill();
    }
}

/// Holds an executor alive. Dropping it closes the rings and kills the executor.
#[derive(Debug)]
pub struct Life {
    allowance: Arc<Word>,
    session: u64,
    pid: u32,
    inner: Arc<Inner>,
}

impl Life {
    /// The executor's process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// What its tensors may come to, in bytes, besides what [`Limits`] says; the executor reads it.
    #[must_use]
    pub fn allowance(&self) -> &Arc<Word> {
        &self.allowance
    }

    /// Kills the executor. [`Event::Exited`] follows.
    pub fn kill(&self) {
        // The zygote does it, since it knows whether the process still is this executor. If it
        // is gone, so is the executor.
        drop(self.inner.send(
            &ToZygote::Kill {
                session: self.session,
            },
            &[],
        ));
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        let lives = match self.inner.running().get(&self.session) {
            Some(running) => {
                running.close();
                true
            }
            None => false,
        };
        if lives {
            self.kill();
        }
    }
}

fn wait_for_pid(answer: &Receiver<Result<u32, ZygoteError>>) -> Result<u32, ZygoteError> {
    match answer.recv_timeout(FORK_TIMEOUT) {
        Ok(answer) => answer,
        Err(std::sync::mpsc::RecvTimeoutError::Timeout) => Err(ZygoteError::Timeout(FORK_TIMEOUT)),
        Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => Err(ZygoteError::Gone),
    }
}

/// How a start went.
enum Start {
    Ready(ZygoteInfo),
    NotSpawned(io::Error),
    Refused(String),
    Ended(String),
}

/// The zygote's thread: starts it, passes on what it says, buries it.
fn watch(
    mut command: Command,
    libraries: &[PathBuf],
    theirs: OwnedFd,
    inner: &Inner,
    start: &Sender<Start>,
    mut on_event: impl FnMut(Event),
) {
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => {
            drop(start.send(Start::NotSpawned(error)));
            return;
        }
    };
    drop(theirs);
    let mut bytes = vec![0; MESSAGE_MAX];
    let mut operator_libraries = vec![Vec::new(); libraries.len()];
    let mut loading = None;
    loop {
        let message = match seqpacket::receive(inner.socket.as_fd(), &mut bytes) {
            Ok((0, _)) | Err(_) => break,
            Ok((len, _)) => FromZygote::decode(&bytes[..len]),
        };
        match message {
            Ok(FromZygote::Hello {
                pid,
                torch_version,
                schema_hash,
                sandbox,
            }) => {
                loading = None;
                let info = ZygoteInfo {
                    pid,
                    torch_version,
                    schema_hash,
                    sandbox,
                    operator_libraries: std::mem::take(&mut operator_libraries),
                };
                drop(start.send(Start::Ready(info)));
            }
            Ok(FromZygote::Operators { library, schemas }) => {
                if let Some(known) = operator_libraries.get_mut(usize::from(library)) {
                    known.extend(schemas);
                    known.truncate(OPERATORS_MAX);
                }
            }
            Ok(FromZygote::Loading { library }) => loading = Some(usize::from(library)),
            Ok(FromZygote::NotLoaded { message }) => drop(start.send(Start::Refused(message))),
            Ok(FromZygote::Forked { session, pid }) => {
                if let Some(running) = inner.running().get_mut(&session) {
                    running.pid = Some(pid);
                    running.begin();
                }
            }
            Ok(FromZygote::Ready { session }) => {
                if let Some(running) = inner.running().get_mut(&session) {
                    running.ready = true;
                    running.begin();
                }
            }
            Ok(FromZygote::ForkFailed { session, message }) => {
                let gone = inner.running().remove(&session);
                if let Some(mut gone) = gone {
                    gone.answer(Err(ZygoteError::Fork(message)));
                }
            }
            Ok(FromZygote::Exited { session, pid, exit }) => {
                let gone = inner.running().remove(&session);
                if let Some(mut gone) = gone {
                    gone.close();
                    gone.answer(Err(ZygoteError::NotBegun(exit)));
                }
                on_event(Event::Exited { session, pid, exit });
            }
            Err(error) => {
                tracing::error!(%error, "the zygote is not to be trusted any more");
                break;
            }
        }
    }
    let how = bury(&mut child);
    tracing::debug!(%how, "the zygote ended");
    let fatal = loading.and_then(|at: usize| libraries.get(at));
    drop(start.send(match fatal {
        Some(library) => Start::Refused(format!(
            "the operator library {} can't be loaded: {how} meanwhile; what it said stands above",
            library.display()
        )),
        None => Start::Ended(how),
    }));
    let gone: Vec<(u64, Running)> = inner.running().drain().collect();
    for (_, running) in &gone {
        running.close();
    }
    let sessions = gone.iter().map(|(session, _)| *session).collect();
    on_event(Event::Gone { sessions });
}

/// The release of the torch that a libtorch belongs to, if its folder tells.
fn release(libtorch: &Path) -> Option<String> {
    let text = std::fs::read_to_string(libtorch.join("version.py")).ok()?;
    let (_, after) = text.split_once("__version__ = '")?;
    Some(after[..after.find('\'')?].to_owned())
}
