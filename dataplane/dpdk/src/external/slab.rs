//! Sending bytes from where they lie.

use std::cell::UnsafeCell;
use std::ffi::c_void;
use std::fmt;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use genie_dpdk_sys as sys;

use super::memory::ExternalMemory;
use crate::{Eal, Mbuf};

/// Room for DPDK's part of a slab, in words.
const SHARED_WORDS: usize = 4;
const _: () = assert!(sys::GENIE_SHARED_BYTES <= SHARED_WORDS * 8);

/// Why bytes of a slab could not be attached.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SlabError {
    /// Outside of the slab, or longer than a segment can be.
    #[error(
        "bytes {range:?} of a slab of {bytes} bytes can't be a segment, which has at most 65535"
    )]
    Range {
        /// What was asked for.
        range: Range<usize>,
        /// The slab's length.
        bytes: usize,
    },
    /// Too many segments of this slab are with packets and drivers.
    #[error("{0} segments of the slab are in flight, the most that may be")]
    InFlight(u16),
    /// The mbuf that was to carry the bytes has data, or more than one segment.
    #[error("the mbuf that is to carry the bytes is not empty")]
    NotEmpty,
    /// The packet has as many segments as it may.
    #[error("the packet has 64 segments already")]
    Segments,
}

/// A range of [`ExternalMemory`] whose bytes are sent without a copy by us. ([`Mbuf::attach`] puts
/// them into packets; a driver may copy yet: memif does in the burst, AF_PACKET and AF_XDP into
/// their rings.) Of one transfer's source, typically: [`Self::in_flight`] says when it is no longer
/// read.
///
/// Making one allocates once; attaching does not. The slab may be dropped while segments are in
/// flight: its memory is kept until the last of them is freed, on whatever thread.
///
/// Invariant: `shared` counts this value and every mbuf that is attached; whoever takes it to zero
/// frees it. While this value lives the count is not zero.
///
/// <https://doc.dpdk.org/guides/prog_guide/mbuf_lib.html#direct-and-indirect-buffers>
pub struct ExternalSlab {
    shared: NonNull<Shared>,
    start: NonNull<u8>,
    bytes: usize,
}

/// What the attached mbufs point to.
#[repr(C)]
struct Shared {
    /// DPDK's `rte_mbuf_ext_shared_info`. First, so that both have one address.
    info: UnsafeCell<[u64; SHARED_WORDS]>,
    memory: ExternalMemory,
}

// SAFETY: the range is only read by drivers, and `shared` is only touched through its atomic count.
unsafe impl Send for ExternalSlab {}
// SAFETY: as above.
unsafe impl Sync for ExternalSlab {}

impl ExternalSlab {
    /// Segments of one slab that may be in flight at a time.
    pub const IN_FLIGHT_MAX: u16 = 32768;

    /// Of the bytes `range` of `memory`; nothing where it has no such bytes.
    pub fn new(memory: &ExternalMemory, range: Range<usize>) -> Option<Self> {
        if range.start > range.end || range.end > memory.bytes() {
            return None;
        }
        // SAFETY: the range lies inside the memory.
        let start = unsafe { memory.start().byte_add(range.start) };
        let shared = Box::new(Shared {
            info: UnsafeCell::new([0; SHARED_WORDS]),
            memory: memory.clone(),
        });
        let shared = NonNull::from(Box::leak(shared));
        let info = shared.as_ptr().cast::<c_void>();
        // SAFETY: `info` is at least as long as DPDK's part (asserted above), aligned for it, and
        // lives until `freed` is called with its address.
        unsafe {
            let api = memory.eal().api();
            api.genie_dpdk_shared_init(info, Some(freed), info);
        }
        Some(Self {
            shared,
            start,
            bytes: range.len(),
        })
    }

    /// Its length in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Segments that packets or drivers still hold. Once it is zero after the last was attached,
    /// nobody reads the bytes any more.
    pub fn in_flight(&self) -> u16 {
        self.count().load(Ordering::Acquire) - 1
    }

    /// DPDK counts in 16 bits, and without an atomic operation where it sees the count at 1. It
    /// never does while this value lives, except here, so attaching counts on its own.
    fn count(&self) -> &AtomicU16 {
        // SAFETY: the count lies inside `shared`, which lives as long as this value, and is aligned
        // for 16 bits; DPDK writes to it atomically while it is above 1.
        unsafe {
            let place = self.shared.byte_add(sys::GENIE_SHARED_REFCNT);
            place.cast::<AtomicU16>().as_ref()
        }
    }

    fn eal(&self) -> &Eal {
        // SAFETY: `shared` lives as long as this value, and `memory` is never written to.
        unsafe { (*self.shared.as_ptr()).memory.eal() }
    }

    /// Lets `mbuf`, fresh from a pool, describe the bytes `range`.
    fn attach_to(&self, mbuf: &mut Mbuf, range: Range<usize>) -> Result<(), SlabError> {
        let bytes = u16::try_from(range.len()).ok();
        let inside = range.start <= range.end && range.end <= self.bytes;
        let Some(bytes) = bytes.filter(|_| inside) else {
            return Err(SlabError::Range {
                range,
                bytes: self.bytes,
            });
        };
        if !mbuf.is_fresh() {
            return Err(SlabError::NotEmpty);
        }
        let before = self.count().fetch_add(1, Ordering::Relaxed);
        if before > Self::IN_FLIGHT_MAX {
            self.count().fetch_sub(1, Ordering::Relaxed);
            return Err(SlabError::InFlight(Self::IN_FLIGHT_MAX));
        }
        // SAFETY: the range lies inside the slab; the mbuf is owned, empty and has its own buffer;
        // its reference was counted just now.
        unsafe {
            let start = self.start.byte_add(range.start);
            let info = self.shared.as_ptr().cast::<c_void>();
            self.eal().api().genie_dpdk_mbuf_attach(
                mbuf.raw(),
                start.as_ptr().cast(),
                ExternalMemory::device_address(start),
                bytes,
                info,
            );
        }
        Ok(())
    }
}

impl Mbuf {
    /// Puts the bytes `range` of `slab` behind this packet as a further segment, without copying
    /// them. `carrier` is an empty mbuf, whose own buffer stays unused: one of a pool with a small
    /// `data_bytes` will do. Allocates nothing.
    ///
    /// On an error `carrier` is freed and the packet is as before.
    ///
    /// The packet must have a first segment of its own, for the headers; it may be empty.
    pub fn attach(
        &mut self,
        mut carrier: Mbuf,
        slab: &ExternalSlab,
        range: Range<usize>,
    ) -> Result<(), SlabError> {
        slab.attach_to(&mut carrier, range)?;
        self.chain(carrier).map_err(|_| SlabError::Segments)
    }
}

/// Called by DPDK, on any thread, when the last mbuf is freed after the slab.
unsafe extern "C" fn freed(_start: *mut c_void, info: *mut c_void) {
    // SAFETY: `info` is the box that `ExternalSlab::new` leaked, and nobody counts on it any more.
    drop(unsafe { Box::from_raw(info.cast::<Shared>()) });
}

impl Drop for ExternalSlab {
    fn drop(&mut self) {
        if self.count().fetch_sub(1, Ordering::AcqRel) == 1 {
            let info = self.shared.as_ptr().cast();
            // SAFETY: no mbuf is left, so DPDK will not call this.
            unsafe { freed(std::ptr::null_mut(), info) };
        }
    }
}

impl fmt::Debug for ExternalSlab {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExternalSlab")
            .field("bytes", &self.bytes)
            .field("in_flight", &self.in_flight())
            .finish_non_exhaustive()
    }
}
