//! Mempools for payload, in memory that a device reaches.

use std::ptr::NonNull;
use std::sync::Arc;

use genie_dpdk::{Eal, ExternalMemory, ExternalMemoryError, Mempool, MempoolConfig, MempoolError};
use genie_gpudev::device::{Device, DeviceError, DeviceKind, Memory, register_owned};
use genie_gpudev::receive::Way;
use genie_hugepages::{MapError, MapRequest, Root};

/// Why a payload pool could not be made.
#[derive(Debug, thiserror::Error)]
pub enum PayloadError {
    /// The device refused.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The host has no memory.
    #[error(transparent)]
    Map(#[from] MapError),
    /// DPDK does not take the memory.
    #[error(transparent)]
    External(#[from] ExternalMemoryError),
    /// The pool could not be made.
    #[error(transparent)]
    Pool(#[from] MempoolError),
}

/// A mempool, and the memory in which its packets' data lie.
#[derive(Clone, Debug)]
pub struct PayloadPool {
    mempool: Mempool,
    external: ExternalMemory,
    memory: Memory,
}

impl PayloadPool {
    /// A pool on the way `way`: in the device's own memory, or in huge pages that are registered
    /// with it (ordinary pages, with a warning, where there are none).
    ///
    /// A CUDA device's memory is reached by a network card that DPDK drives, never by a driver that
    /// copies on the CPU (memif, AF_PACKET, AF_XDP): ports of these take staged pools.
    ///
    /// # Errors
    /// No memory; DPDK refuses.
    pub fn new(
        eal: &Eal,
        device: &dyn Device,
        way: Way,
        config: MempoolConfig,
    ) -> Result<Self, PayloadError> {
        let wanted = config.external_bytes() as u64;
        let (memory, page_bytes) = match way {
            Way::Direct => {
                let page_bytes = match device.info().kind {
                    DeviceKind::Host(_) => 4096,
                    DeviceKind::Cuda(_) => 65536,
                };
                let bytes = wanted.next_multiple_of(page_bytes);
                (device.allocate(bytes)?, page_bytes)
            }
            Way::Staged => huge_pages(device, wanted)?,
        };
        let start = NonNull::new(memory.address() as *mut u8);
        let start = start.ok_or(DeviceError::NotHost(memory.device()))?;
        let owner = Arc::new(memory.clone());
        // SAFETY: `owner` keeps the memory mapped at its address, which never changes. Only the
        // pool below writes to it. Packets of CUDA memory are read by address only (`Reception`
        // hands out their places, not their bytes).
        let external = unsafe {
            ExternalMemory::register(
                eal,
                start,
                memory.bytes() as usize,
                page_bytes as usize,
                owner,
            )
        }?;
        let mempool = Mempool::over_external(eal, config, external.clone())?;
        Ok(Self {
            mempool,
            external,
            memory,
        })
    }

    /// The pool, to open a port with.
    #[must_use]
    pub fn mempool(&self) -> &Mempool {
        &self.mempool
    }

    /// What a PCI port must be told of ([`genie_dpdk::Port::map_memory`]).
    #[must_use]
    pub fn external(&self) -> &ExternalMemory {
        &self.external
    }

    /// Where the packets' data lie.
    #[must_use]
    pub fn memory(&self) -> &Memory {
        &self.memory
    }
}

/// Host memory on huge pages, registered with the device, and the size of its pages.
fn huge_pages(device: &dyn Device, bytes: u64) -> Result<(Memory, u64), PayloadError> {
    let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
    let region = genie_hugepages::map(&Root::default(), &MapRequest::new(bytes))?;
    let page_bytes = region.page().map_or(4096, |page| page.bytes());
    let start = NonNull::new(region.address());
    let start = start.ok_or(DeviceError::NotHost(device.info().kind))?;
    let bytes = region.len() as u64;
    // SAFETY: a region is mapped and writable as a whole while it lives.
    let memory = unsafe { register_owned(device, start, bytes, Box::new(region)) }?;
    Ok((memory, page_bytes))
}
