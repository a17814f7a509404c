//! What a session needs of its node. It knows no sessions.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use genie_control_api::v1;
use genie_gpudev::device::DeviceInfo;
use genie_gpudev::{DeviceKind, Sandbox};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::budget::Budget;
use super::executor::{Executor, Launcher};
use crate::metrics::Metrics;

/// What can run operators here.
pub struct Executors {
    /// Starts them.
    pub launcher: Box<dyn Launcher>,
    /// What they load.
    pub libtorch: v1::Libtorch,
    /// What they run on, in the order of the node's devices.
    pub devices: Vec<DeviceInfo>,
    /// What holds them in.
    pub sandbox: Sandbox,
}

/// What all sessions of a node share.
pub struct Host {
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// A session that is silent for so long is ended.
    pub lease: Duration,
    /// Set once: what runs operators, or why nothing does.
    executors: OnceLock<Result<Executors, String>>,
    /// How long an operator may run, in milliseconds; 0 is for ever.
    operator_max_ms: AtomicU64,
    /// What sessions may take of this machine's memory.
    pub budget: Budget,
    /// Places for sessions with a data connection.
    attached: Arc<Semaphore>,
    /// Its clones are connections that are being closed.
    closing: Arc<()>,
}

impl Host {
    /// Room for `sessions_max` sessions with a data connection, and nothing to run them on yet.
    #[must_use]
    pub fn new(lease: Duration, sessions_max: usize, budget: Budget) -> Self {
        Self {
            metrics: Arc::default(),
            lease,
            executors: OnceLock::new(),
            operator_max_ms: AtomicU64::new(0),
            budget,
            attached: Arc::new(Semaphore::new(sessions_max)),
            closing: Arc::new(()),
        }
    }

    /// What runs operators from now on, or why nothing does. Set once, at the start.
    pub fn set_executors(&self, executors: Result<Executors, String>) {
        let _ = self.executors.set(executors);
    }

    /// What runs operators.
    ///
    /// # Errors
    /// Why nothing does, for a person.
    pub fn executors(&self) -> Result<&Executors, String> {
        match self.executors.get() {
            Some(Ok(executors)) => Ok(executors),
            Some(Err(reason)) => Err(reason.clone()),
            None => Err("the node is starting".to_owned()),
        }
    }

    /// Whether tensors on this device are in this machine's memory, and so in the budget.
    #[must_use]
    pub fn is_charged(&self, device: usize) -> bool {
        matches!(self.kind(device), Some(DeviceKind::Host(_)))
    }

    /// Whether executors on this device may wait long for it, and take no time of a core.
    #[must_use]
    pub fn waits_for(&self, device: usize) -> bool {
        matches!(self.kind(device), Some(DeviceKind::Cuda(_)))
    }

    fn kind(&self, device: usize) -> Option<DeviceKind> {
        let executors = self.executors().ok()?;
        executors.devices.get(device).map(|info| info.kind)
    }

    /// How long an operator may run, if there is a limit.
    #[must_use]
    pub fn operator_max(&self) -> Option<Duration> {
        let most = self.operator_max_ms.load(Ordering::Relaxed);
        (most > 0).then(|| Duration::from_millis(most))
    }

    /// Sets it.
    pub fn set_operator_max(&self, most: Option<Duration>) {
        let most = most.map_or(0, |most| {
            u64::try_from(most.as_millis()).unwrap_or(u64::MAX)
        });
        self.operator_max_ms.store(most, Ordering::Relaxed);
    }

    /// Starts an executor for a session on a device.
    ///
    /// # Errors
    /// Why not, for a person.
    pub fn launch(
        &self,
        session: u64,
        tenant: &str,
        device: usize,
        memory_bytes: u64,
    ) -> Result<Executor, String> {
        let launcher = &self.executors()?.launcher;
        launcher.launch(session, tenant, device, memory_bytes)
    }

    /// A place for a session that is getting its data connection. `None`: all are taken.
    #[must_use]
    pub fn place(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.attached).try_acquire_owned().ok()
    }

    /// Whether there is a place.
    #[must_use]
    pub fn has_place(&self) -> bool {
        self.attached.available_permits() > 0
    }

    /// Held while a connection is being closed.
    #[must_use]
    pub fn closing(&self) -> Arc<()> {
        Arc::clone(&self.closing)
    }

    /// Whether connections are being closed.
    #[must_use]
    pub fn is_closing(&self) -> bool {
        Arc::strong_count(&self.closing) > 1
    }
}
