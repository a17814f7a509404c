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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ZygoteOptions {
    /// Whether executors are held in.
    pub sandbox: SandboxMode,
    /// Clients may be of several tenants: then one zygote waits for the next tenant.
    pub tenants: bool,
    /// What is loaded besides libtorch.
    pub operator_libraries: Vec<PathBuf>,
}

/// A device that executors are started on.
pub struct LaunchDevice {
    /// Which.
    pub kind: DeviceKind,
    /// Where sessions' tensors are in pools of the device: that device. Else they are in memory that
    /// is shared with executors.
    pub pools: Option<Arc<dyn Device>>,
    /// Threads that one operator may use; 0 is as many as have a free core.
    pub threads: u32,
    /// Of 100: less makes it slower.
    pub speed_percent: u32,
}

/// Starts executors by forking processes that have loaded libtorch.
pub struct ZygoteLauncher {
    libtorch: PathBuf,
    devices: Vec<LaunchDevice>,
    /// For the host's devices, for accelerators: what holds executors in differs.
    nurseries: [Option<Arc<Nursery>>; 2],
}

/// Which nursery is this device's.
fn class(kind: DeviceKind) -> usize {
    match kind {
        DeviceKind::Host(_) => 0,
        DeviceKind::Cuda(_) => 1,
    }
}

impl ZygoteLauncher {
    /// Starts a first zygote for the devices of each kind; `told` hears of exits. `None`: no device.
    ///
    /// # Errors
    /// One can't be started, or can't load libtorch.
    pub fn start(
        found: Found,
        devices: Vec<LaunchDevice>,
        options: &ZygoteOptions,
        told: &Told,
    ) -> Result<Option<(Self, ZygoteInfo)>, ZygoteError> {
        let mut nurseries = [None, None];
        let mut first = None;
        for LaunchDevice { kind, .. } in &devices {
            let nursery = &mut nurseries[class(*kind)];
            if nursery.is_some() {
                continue;
            }
            let program = ZygoteProgram {
                executable: found.executor.clone(),
                libtorch: found.libtorch.clone(),
                sandbox: options.sandbox,
                operator_libraries: options.operator_libraries.clone(),
                device: *kind,
            };
            let (started, info) = Nursery::start(program, options.tenants, told.clone())?;
            *nursery = Some(started);
            first.get_or_insert(info);
        }
        let launcher = Self {
            libtorch: found.libtorch,
            devices,
            nurseries,
        };
        Ok(first.map(|info| (launcher, info)))
    }

    /// The folder of its libtorch.
    #[must_use]
    pub fn libtorch(&self) -> &PathBuf {
        &self.libtorch
    }
}

impl Launcher for ZygoteLauncher {
    fn launch(
        &self,
        session: u64,
        tenant: &str,
        device: usize,
        memory_bytes: u64,
    ) -> Result<Executor, String> {
        let device = self.devices.get(device).ok_or("there is no such device")?;
        let nursery = self.nurseries[class(device.kind)].as_ref();
        let home = nursery.ok_or("there is no zygote")?.home(tenant)?;
        let limits = Limits {
            memory_bytes,
            arena_bytes: memory_bytes,
            threads: device.threads,
            speed_percent: device.speed_percent,
            ..Limits::default()
        };
        let zygote = home.zygote();
        let forked = match &device.pools {
            None => zygote
                .fork(session, device.kind, limits)
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
        self.nurseries
            .iter()
            .flatten()
            .for_each(|nursery| nursery.look_after());
    }

    fn zygotes(&self) -> u64 {
        let nurseries = self.nurseries.iter().flatten();
        nurseries.map(|nursery| nursery.zygotes()).sum()
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
