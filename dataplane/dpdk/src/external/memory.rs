//! A range of memory that drivers may reach.

use std::any::Any;
use std::ffi::c_void;
use std::fmt;
use std::ptr::NonNull;
use std::sync::Arc;

use genie_dpdk_sys as sys;
use nix::errno::Errno as Known;

use crate::{Eal, Errno};

/// Why memory could not be made known to DPDK.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExternalMemoryError {
    /// The range is empty, or does not consist of whole pages.
    #[error(
        "external memory of {bytes} bytes at {start:#x} does not consist of whole pages of {page_bytes} bytes"
    )]
    Range {
        /// Where it starts.
        start: usize,
        /// How long it is.
        bytes: usize,
        /// The page size that was given, which must be a power of two.
        page_bytes: usize,
    },
    /// A part of the range is known already.
    #[error("external memory at {start:#x} is registered already, or overlaps what is")]
    Overlap {
        /// Where it starts.
        start: usize,
    },
    /// Devices address memory physically, and these addresses are not known.
    #[error("external memory needs an EAL with --iova-mode va (an IOMMU, or no PCI device)")]
    PhysicalAddresses,
    /// DPDK keeps a bounded list of such ranges.
    #[error("DPDK has no room for another range of external memory")]
    TooMany,
    /// Anything else.
    #[error("DPDK does not take external memory: {0}")]
    Other(Errno),
}

/// A range of memory of which DPDK knows, for pools ([`crate::Mempool::over_external`]) and for
/// sending from where bytes lie ([`crate::ExternalSlab`]). Clones are handles of the same range;
/// it is forgotten when the last of them, of its pools and of its packets is gone.
///
/// Invariant: from construction to the last drop the range is registered with DPDK and `owner`
/// keeps it mapped.
///
/// A device that DMAs by an IOMMU (a PCI NIC) must be told too: [`crate::Port::map_memory`].
///
/// <https://doc.dpdk.org/guides/prog_guide/env_abstraction_layer.html#support-for-externally-allocated-memory>
#[derive(Clone)]
pub struct ExternalMemory(Arc<Registered>);

struct Registered {
    eal: Eal,
    start: NonNull<u8>,
    bytes: usize,
    _owner: Arc<dyn Any + Send + Sync>,
}

// SAFETY: only the address and the length are read; what the memory holds is read and written by
// those who own packets in it.
unsafe impl Send for Registered {}
// SAFETY: as above.
unsafe impl Sync for Registered {}

impl ExternalMemory {
    /// Tells DPDK of `bytes` bytes at `start`, in pages of `page_bytes`: 4096 for ordinary memory,
    /// the page of the hugepage file system, 65536 for device memory of CUDA. Both ends of the
    /// range must lie on a page boundary.
    ///
    /// # Safety
    /// - `owner` keeps the whole range mapped, at this place, for as long as it lives.
    /// - A range that a pool is laid over belongs to the pool: nobody else writes to it, and nobody
    ///   else reads the parts that packets own.
    /// - A range that is only sent from may be read and written by others at any time; then what is
    ///   sent, and what [`crate::Mbuf::segments`] shows of it, is whatever was there.
    /// - Where the CPU can't read the range (device memory without a CPU mapping), nobody asks
    ///   packets for the bytes of segments in it ([`crate::Mbuf::data`], `data_mut`, `segments`,
    ///   `append` and the like): only [`crate::Mbuf::segment_addresses`] is used. Drivers that copy
    ///   on the CPU, such as memif, can't be used with it.
    pub unsafe fn register(
        eal: &Eal,
        start: NonNull<u8>,
        bytes: usize,
        page_bytes: usize,
        owner: Arc<dyn Any + Send + Sync>,
    ) -> Result<Self, ExternalMemoryError> {
        let place = start.as_ptr() as usize;
        let whole = page_bytes.is_power_of_two()
            && bytes > 0
            && (place | bytes) & (page_bytes - 1) == 0
            && place.checked_add(bytes).is_some();
        if !whole {
            return Err(ExternalMemoryError::Range {
                start: place,
                bytes,
                page_bytes,
            });
        }
        let api = eal.api();
        // SAFETY: the EAL runs.
        if unsafe { api.rte_eal_iova_mode() } as i32 != sys::GENIE_IOVA_VA {
            return Err(ExternalMemoryError::PhysicalAddresses);
        }
        // SAFETY: the range is whole pages that stay mapped; without a table of addresses DPDK
        // takes the virtual ones.
        let result = unsafe {
            let none = std::ptr::null_mut();
            api.rte_extmem_register(start.as_ptr().cast(), bytes, none, 0, page_bytes)
        };
        if result < 0 {
            let errno = Errno::last(api);
            return Err(match errno.known() {
                Known::EEXIST => ExternalMemoryError::Overlap { start: place },
                Known::ENOSPC => ExternalMemoryError::TooMany,
                _ => ExternalMemoryError::Other(errno),
            });
        }
        Ok(Self(Arc::new(Registered {
            eal: eal.clone(),
            start,
            bytes,
            _owner: owner,
        })))
    }

    /// Where it starts.
    pub fn start(&self) -> NonNull<u8> {
        self.0.start
    }

    /// Its length in bytes.
    pub fn bytes(&self) -> usize {
        self.0.bytes
    }

    pub(crate) fn eal(&self) -> &Eal {
        &self.0.eal
    }

    /// The address by which devices reach a place in it. They use virtual ones, see `register`.
    pub(crate) fn device_address(place: NonNull<u8>) -> u64 {
        place.as_ptr() as u64
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        let start = self.start.as_ptr().cast::<c_void>();
        // SAFETY: registered with these very numbers; no pool, slab or packet of it is left.
        let result = unsafe { self.eal.api().rte_extmem_unregister(start, self.bytes) };
        if result < 0 {
            let errno = Errno::last(self.eal.api());
            tracing::warn!(start = ?self.start, %errno, "DPDK does not forget external memory");
        }
    }
}

impl fmt::Debug for ExternalMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "ExternalMemory({} bytes at {:?})",
            self.0.bytes, self.0.start
        )
    }
}
