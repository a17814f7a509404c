//! The machine's own memory and cores as a device.

mod memory;
mod queue;

use std::collections::BTreeMap;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError};

pub(crate) use memory::HostMemory;
use memory::Registered;
pub use queue::HostQueue;

use super::{Device, DeviceError, DeviceInfo, DeviceKind, Memory, Queue, Residence, Share};

/// Host memory that is registered with a device, by its start and length.
#[derive(Debug, Default)]
pub(crate) struct Registry(Mutex<BTreeMap<u64, u64>>);

impl Registry {
    /// Notes a range; false if a part of it is noted already.
    pub(crate) fn add(&self, start: u64, len: u64) -> bool {
        let mut ranges = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let end = start.saturating_add(len);
        let before = ranges.range(..end).next_back();
        let is_free = before.is_none_or(|(&other, &other_len)| other + other_len <= start);
        if is_free {
            ranges.insert(start, len);
        }
        is_free
    }

    pub(crate) fn remove(&self, start: u64) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&start);
    }
}

/// The machine's own memory and cores.
#[derive(Clone, Debug)]
pub struct HostDevice {
    index: u8,
    registry: Arc<Registry>,
}

impl HostDevice {
    /// The host as device `host:index`.
    #[must_use]
    pub fn new(index: u8) -> Self {
        Self {
            index,
            registry: Arc::default(),
        }
    }

    /// A queue with a thread of its own, so that copies run beside the caller as they do on a GPU.
    ///
    /// # Errors
    /// The thread can't be started.
    pub fn worker_queue(&self) -> Result<HostQueue, DeviceError> {
        HostQueue::with_worker(self.kind())
    }

    fn kind(&self) -> DeviceKind {
        DeviceKind::Host(self.index)
    }
}

impl Device for HostDevice {
    fn info(&self) -> DeviceInfo {
        let (memory_bytes, free_bytes) = host_memory();
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        DeviceInfo {
            kind: self.kind(),
            name: format!("{} cores of {}", cores, std::env::consts::ARCH),
            memory_bytes,
            free_bytes,
            page_bytes: memory::PAGE_BYTES,
            processors: u32::try_from(cores).unwrap_or(u32::MAX),
            nic_reach: true,
        }
    }

    fn reserve(&self, bytes: u64, bytes_max: u64) -> Result<Memory, DeviceError> {
        let memory = HostMemory::new(self.kind(), Residence::Device, bytes, bytes_max)?;
        Ok(Arc::new(memory))
    }

    /// The host device reaches all memory of the host: registering only keeps the books.
    fn reserve_host(&self, bytes: u64, bytes_max: u64) -> Result<Memory, DeviceError> {
        let memory = HostMemory::new(self.kind(), Residence::Host, bytes, bytes_max)?;
        Ok(Arc::new(memory))
    }

    unsafe fn register(&self, address: NonNull<u8>, bytes: u64) -> Result<Memory, DeviceError> {
        let registered = Registered::new(self.kind(), Arc::clone(&self.registry), address, bytes)?;
        Ok(Arc::new(registered))
    }

    fn attach(&self, parts: Vec<Share>) -> Result<Memory, DeviceError> {
        Ok(Arc::new(HostMemory::attach(self.kind(), parts)?))
    }

    /// A queue that does its work in the call that submits it.
    fn queue(&self) -> Result<Box<dyn Queue>, DeviceError> {
        Ok(Box::new(HostQueue::new(self.kind())))
    }
}

/// The machine's memory and how much of it can be had, in bytes; zeroes where unknown.
fn host_memory() -> (u64, u64) {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let value = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key))?;
        line.split_ascii_whitespace()
            .next()?
            .parse::<u64>()
            .ok()
            .map(|kib| kib << 10)
    };
    (
        value("MemTotal:").unwrap_or(0),
        value("MemAvailable:").unwrap_or(0),
    )
}

#[cfg(test)]
mod tests;
