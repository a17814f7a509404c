//! Cores and the threads that poll on them.

use std::marker::PhantomData;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use crate::{Eal, Errno};

/// A core of the host, as the kernel numbers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CoreId(usize);

impl CoreId {
    /// The kernel's number.
    pub fn raw(self) -> usize {
        self.0
    }
}

impl std::fmt::Display for CoreId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// The cores that the calling thread may run on, in order.
pub fn allowed_cores() -> Vec<CoreId> {
    let Ok(set) = sched_getaffinity(Pid::from_raw(0)) else {
        return Vec::new();
    };
    (0..CpuSet::count())
        .filter(|&core| set.is_set(core).unwrap_or(false))
        .map(CoreId)
        .collect()
}

/// Why a thread did not become an lcore.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LcoreError {
    /// The kernel does not let the thread run there.
    #[error("the thread can't be kept on {cores:?}: {errno}")]
    Pin {
        /// The cores asked for.
        cores: Vec<CoreId>,
        /// The kernel's answer.
        errno: Errno,
    },
    /// The calling thread is an lcore already.
    #[error("the thread is an lcore already")]
    Already,
    /// DPDK has no number left.
    #[error("DPDK has no lcore left: {0}")]
    Register(Errno),
}

/// The calling thread as an lcore: registered with DPDK, and pinned if it is to be, so that it has a
/// cache of its own in each mempool. Dropping it undoes both.
///
/// Invariant: it never leaves the thread that made it (it is not `Send`), and a thread has at most
/// one. Threads without one may use every type too; their mbufs pass by the pools' caches.
///
/// <https://doc.dpdk.org/guides/prog_guide/env_abstraction_layer.html#non-eal-pthread-support>
#[derive(Debug)]
pub struct Lcore {
    eal: Eal,
    id: u32,
    pinned: Option<Pinned>,
    _this_thread: PhantomData<*const ()>,
}

/// Where a thread is kept, until this is dropped on it.
#[derive(Debug)]
struct Pinned {
    cores: Vec<CoreId>,
    before: CpuSet,
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // The set was the thread's own.
        let _ = sched_setaffinity(Pid::from_raw(0), &self.before);
    }
}

thread_local! {
    static IS_LCORE: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

impl Lcore {
    /// Pins the calling thread to `core` and registers it.
    pub fn claim(eal: &Eal, core: CoreId) -> Result<Self, LcoreError> {
        Self::within(eal, &[core])
    }

    /// Keeps the calling thread on `cores` and registers it. DPDK knows it as one of their NUMA node,
    /// if they are of one.
    pub fn within(eal: &Eal, cores: &[CoreId]) -> Result<Self, LcoreError> {
        if IS_LCORE.get() {
            return Err(LcoreError::Already);
        }
        let pin = |errno| LcoreError::Pin {
            cores: cores.to_vec(),
            errno: Errno::of_result(errno as i32),
        };
        let this = Pid::from_raw(0);
        let before = sched_getaffinity(this).map_err(pin)?;
        let mut only = CpuSet::new();
        for core in cores {
            only.set(core.0).map_err(pin)?;
        }
        sched_setaffinity(this, &only).map_err(pin)?;
        let cores = cores.to_vec();
        Self::register(eal, Some(Pinned { cores, before }))
    }

    /// Registers the calling thread, which stays where it may run.
    pub fn join(eal: &Eal) -> Result<Self, LcoreError> {
        if IS_LCORE.get() {
            return Err(LcoreError::Already);
        }
        Self::register(eal, None)
    }

    fn register(eal: &Eal, pinned: Option<Pinned>) -> Result<Self, LcoreError> {
        // SAFETY: the EAL runs, and this thread is not registered.
        if unsafe { eal.api().rte_thread_register() } < 0 {
            // Where it was pinned, dropping takes that back.
            return Err(LcoreError::Register(Errno::last(eal.api())));
        }
        IS_LCORE.set(true);
        // SAFETY: reads a thread-local variable.
        let id = unsafe { eal.api().genie_dpdk_lcore_id() };
        Ok(Self {
            eal: eal.clone(),
            id,
            pinned,
            _this_thread: PhantomData,
        })
    }

    /// DPDK's number for this thread.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// The core that it is pinned to, if it is to one.
    pub fn core(&self) -> Option<CoreId> {
        match self.pinned.as_ref()?.cores.as_slice() {
            &[core] => Some(core),
            _ => None,
        }
    }
}

impl Drop for Lcore {
    fn drop(&mut self) {
        // SAFETY: this is the thread that `claim` registered, and the EAL still runs.
        unsafe { self.eal.api().rte_thread_unregister() };
        IS_LCORE.set(false);
    }
}
