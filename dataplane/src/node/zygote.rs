//! Executors from a zygote, which is started anew when it died.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use genie_gpudev::zygote::Event;
use genie_gpudev::{
    Device, DeviceKind, ExecutorHandle, Life, Limits, Zygote, ZygoteError, ZygoteInfo,
};
use parking_lot::Mutex;

use super::data::executor::{Executor, Launcher, Process};
use super::data::memory::{SessionMemory, SessionMemoryError};
use super::libtorch::Found;

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
            gone: Arc::new(AtomicBool::new(false)),
        };
        let (zygote, info) = launcher.spawn()?;
        *launcher.zygote.lock() = Some(zygote);
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
            let (another, _) = self.spawn().map_err(|error| error.to_string())?;
            *zygote = Some(another);
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
        match &self.pools {
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
        }
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
