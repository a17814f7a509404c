//! Executors from zygotes: one a tenant, so that what one tenant learns of where things lie in memory
//! tells nothing of another's.

mod crashes;
mod home;
mod nursery;

use std::path::PathBuf;
use std::sync::Arc;

use genie_gpudev::{
    Device, DeviceKind, ExecutorHandle, Life, Limits, SandboxMode, ZygoteError, ZygoteInfo,
    ZygoteProgram,
};

use super::data::executor::{Executor, Launcher, Process};
use super::data::memory::SessionMemory;
use super::data::staging::SessionMemoryError;
use super::libtorch::Found;
use crate::metrics::Metrics;
use nursery::Nursery;

/// Told of an executor's end: of which session it was (none: of all), and how it ended.
pub type OnExit = Arc<dyn Fn(Option<u64>, String) + Send + Sync>;

/// Who is told of what becomes of executors.
#[derive(Clone)]
pub struct Told {
    /// Of each end.
    pub on_exit: OnExit,
    /// Where what is out of the ordinary is counted.
    pub metrics: Arc<Metrics>,
}

/// How zygotes are started and kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ZygoteOptions {
    /// Whether executors are held in.
    pub sandbox: SandboxMode,
    /// Clients may be of several tenants: then one zygote waits for the next tenant.
    pub tenants: bool,
    /// Threads that one operator may use; 0 is as many as have a free core.
    pub threads: u32,
}

/// Starts executors by forking processes that have loaded libtorch.
pub struct ZygoteLauncher {
    libtorch: PathBuf,
    device: DeviceKind,
    threads: u32,
    /// Where sessions' tensors are in pools of the device: that device.
    pools: Option<Arc<dyn Device>>,
    nursery: Arc<Nursery>,
}

impl ZygoteLauncher {
    /// Starts the first zygote; `told` hears of exits. With `pools`, tensors are in pools of that device,
    /// which is `device`; else in memory that is shared with executors.
    ///
    /// # Errors
    /// It can't be started, or can't load libtorch.
    pub fn start(
        found: Found,
        device: DeviceKind,
        pools: Option<Arc<dyn Device>>,
        options: ZygoteOptions,
        told: Told,
    ) -> Result<(Self, ZygoteInfo), ZygoteError> {
        let program = ZygoteProgram {
            executable: found.executor,
            libtorch: found.libtorch.clone(),
            sandbox: options.sandbox,
            device,
        };
        let (nursery, info) = Nursery::start(program, options.tenants, told)?;
        let launcher = Self {
            libtorch: found.libtorch,
            device,
            threads: options.threads,
            pools,
            nursery,
        };
        Ok((launcher, info))
    }

    /// The folder of its libtorch.
    #[must_use]
    pub fn libtorch(&self) -> &PathBuf {
        &self.libtorch
    }
}

impl Launcher for ZygoteLauncher {
    fn launch(&self, session: u64, tenant: &str, memory_bytes: u64) -> Result<Executor, String> {
        let home = self.nursery.home(tenant)?;
        let limits = Limits {
            memory_bytes,
            arena_bytes: memory_bytes,
            threads: self.threads,
            ..Limits::default()
        };
        let zygote = home.zygote();
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
        if forked.is_err() {
            home.end_if_stopped();
        }
        forked
    }

    fn look_after(&self) {
        self.nursery.look_after();
    }

    fn zygotes(&self) -> u64 {
        self.nursery.zygotes()
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
        allowance: Arc::clone(handle.life.allowance()),
        process: Box::new(handle.life),
    })
}

impl Process for Life {
    fn kill(&self) {
        Life::kill(self);
    }
}
