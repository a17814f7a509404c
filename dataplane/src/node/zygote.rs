//! Executors from a zygote, which is started anew when it died.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use genie_gpudev::zygote::Event;
use genie_gpudev::{
    Device, DeviceKind, ExecutorHandle, Life, Limits, Zygote, ZygoteError, ZygoteInfo,
};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use parking_lot::Mutex;

use super::data::executor::{Executor, Launcher, Process};
use super::data::memory::{SessionMemory, SessionMemoryError};
use super::libtorch::Found;
use crate::process;

/// Told of an executor's end: of which session it was (none: of all), and how it ended.
pub type OnExit = Arc<dyn Fn(Option<u64>, String) + Send + Sync>;

/// Starts executors by forking a process that has loaded libtorch.
pub struct ZygoteLauncher {
    found: Found,
    device: DeviceKind,
    /// That one operator may use; 0 is as many as have a free core.
    threads: u32,
    /// Where sessions' tensors are in pools of the device: that device.
    pools: Option<Arc<dyn Device>>,
    on_exit: OnExit,
    zygote: Mutex<Option<Zygote>>,
    /// The zygote's process, and looks in a row at which it was stopped.
    seen: Mutex<(u32, u32)>,
    gone: Arc<AtomicBool>,
}

impl ZygoteLauncher {
    /// Starts the zygote; `on_exit` is told of exits. With `pools`, tensors are in pools of that device,
    /// which is `device`; else in memory that is shared with executors.
    ///
    /// # Errors
    /// It can't be started, or can't load libtorch.
    pub fn start(
        found: Found,
        device: DeviceKind,
        threads: u32,
        pools: Option<Arc<dyn Device>>,
        on_exit: OnExit,
    ) -> Result<(Self, ZygoteInfo), ZygoteError> {
        let launcher = Self {
            found,
            device,
            threads,
            pools,
            on_exit,
            zygote: Mutex::new(None),
            seen: Mutex::new((0, 0)),
            gone: Arc::new(AtomicBool::new(false)),
        };
        let (zygote, info) = launcher.spawn()?;
        *launcher.zygote.lock() = Some(zygote);
        *launcher.seen.lock() = (info.pid, 0);
        Ok((launcher, info))
    }

    /// The folder of its libtorch.
    #[must_use]
    pub fn libtorch(&self) -> &PathBuf {
        &self.found.libtorch
    }

    fn spawn(&self) -> Result<(Zygote, ZygoteInfo), ZygoteError> {
        let (on_exit, gone) = (Arc::clone(&self.on_exit), Arc::clone(&self.gone));
        gone.store(false, Ordering::SeqCst);
        Zygote::start(
            &self.found.executor,
            &self.found.libtorch,
            move |event| match event {
                Event::Exited { session, exit, .. } => {
                    on_exit(Some(session), format!("died of {exit}"));
                }
                Event::Gone => {
                    gone.store(true, Ordering::SeqCst);
                    on_exit(None, "died with the process that started it".to_owned());
                }
            },
        )
    }
}

impl Launcher for ZygoteLauncher {
    fn launch(&self, session: u64, memory_bytes: u64) -> Result<Executor, String> {
        let mut zygote = self.zygote.lock();
        if zygote.is_none() || self.gone.load(Ordering::SeqCst) {
            tracing::warn!("the zygote is gone: starting another");
            *zygote = None;
            let (another, info) = self.spawn().map_err(|error| error.to_string())?;
            *zygote = Some(another);
            *self.seen.lock() = (info.pid, 0);
        }
        let Some(zygote) = zygote.as_ref() else {
            return Err(ZygoteError::Gone.to_string());
        };
        let limits = Limits {
            memory_bytes,
            arena_bytes: memory_bytes,
            threads: self.threads,
            ..Limits::default()
        };
        let forked = match &self.pools {
            None => zygote
                .fork(session, self.device, limits)
                .map_err(|error| error.to_string())
                .and_then(|handle| executor(handle, |arenas| Ok(arenas.into()))),
            Some(device) => zygote
                .fork_with_pools(session, device, limits)
                .map_err(|error| error.to_string())
                .and_then(|handle| {
                    executor(handle, |pools| SessionMemory::on_device(&**device, pools))
                }),
        };
        if forked.is_err() && !self.gone.load(Ordering::SeqCst) {
            self.end_if_stopped();
        }
        forked
    }

    fn look_after(&self) {
        let (pid, looks) = {
            let mut seen = self.seen.lock();
            let stopped = process::state(seen.0).is_some_and(|state| state.stopped);
            seen.1 = if stopped { seen.1 + 1 } else { 0 };
            *seen
        };
        match looks {
            0 | 1 => {}
            2 => {
                tracing::warn!("the zygote was stopped by somebody: it is told to go on");
                signal(pid, Signal::SIGCONT);
            }
            _ => {
                tracing::error!("the zygote is stopped and does not go on: it is replaced");
                signal(pid, Signal::SIGKILL);
            }
        }
    }
}

impl ZygoteLauncher {
    /// One that forks nothing since it is stopped is replaced with the next session.
    fn end_if_stopped(&self) {
        let pid = self.seen.lock().0;
        if process::state(pid).is_some_and(|state| state.stopped) {
            signal(pid, Signal::SIGKILL);
        }
    }
}

/// The zygote is this process' child, buried by this process alone: the number is still its own.
fn signal(pid: u32, signal: Signal) {
    if let Ok(pid) = i32::try_from(pid)
        && pid > 1
    {
        // It may be gone already.
        let _ = kill(Pid::from_raw(pid), signal);
    }
}

fn executor<M>(
    handle: ExecutorHandle<M>,
    memory: impl FnOnce(M) -> Result<SessionMemory, SessionMemoryError>,
) -> Result<Executor, String> {
    Ok(Executor {
        pid: handle.pid,
        to: handle.to_executor,
        from: handle.from_executor,
        memory: memory(handle.memory).map_err(|error| error.to_string())?,
        process: Box::new(handle.life),
    })
}

impl Process for Life {
    fn kill(&self) {
        Life::kill(self);
    }
}
