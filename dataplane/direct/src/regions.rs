//! Which places of a device's memory a connection's regions are.

use std::collections::HashMap;

use genie_gpudev::device::gather::GatherPiece;
use genie_gpudev::device::{DeviceError, Memory};
use genie_transport::limits::PARTS_MAX;
use genie_transport::{PayloadRef, RegionGone, RegionId, Regions, SourceId};

use crate::gathering::Orders;

/// Regions of one driver at most.
pub const REGIONS_MAX: usize = 4096;

/// A part of the target memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    offset: u64,
    len: u64,
}

/// Regions and sources of one memory. As the transport places a frame's bytes, this notes where
/// they go, and [`crate::Reception`] has them carried there together.
///
/// Who adds a region pins its place in the pool until the region was removed and nothing is under
/// way into it ([`crate::Reception::is_settled`]).
#[derive(Debug)]
pub struct DeviceRegions {
    target: Memory,
    payload: Memory,
    regions: HashMap<RegionId, Range>,
    /// The frame at hand: where its data start in the payload memory, and what is to be placed.
    frame: u64,
    orders: Vec<GatherPiece>,
}

impl DeviceRegions {
    pub(crate) fn new(target: &Memory, payload: &Memory) -> Self {
        Self {
            target: target.clone(),
            payload: payload.clone(),
            regions: HashMap::with_capacity(REGIONS_MAX),
            frame: 0,
            orders: Vec::with_capacity(PARTS_MAX),
        }
    }

    /// Names `len` bytes from `offset` of the target memory.
    ///
    /// # Errors
    /// They are outside of it, or there are too many regions.
    pub fn add(&mut self, region: RegionId, offset: u64, len: u64) -> Result<(), DeviceError> {
        self.target.at(offset, len)?;
        if self.regions.len() >= REGIONS_MAX && !self.regions.contains_key(&region) {
            let (what, max) = ("a driver's regions", REGIONS_MAX);
            return Err(DeviceError::Full { what, max });
        }
        self.regions.insert(region, Range { offset, len });
        Ok(())
    }

    /// Forgets a region; false if it was not known. Nothing more is ordered into it.
    pub fn remove(&mut self, region: RegionId) -> bool {
        self.regions.remove(&region).is_some()
    }

    /// Notes that `len` bytes from `at` of the frame at hand go to `offset` of a region.
    fn order(
        &mut self,
        region: RegionId,
        offset: u64,
        at: u64,
        len: u64,
    ) -> Result<(), RegionGone> {
        let range = *self.regions.get(&region).ok_or(RegionGone)?;
        let end = offset.checked_add(len).ok_or(RegionGone)?;
        if end > range.len || self.orders.len() == PARTS_MAX {
            return Err(RegionGone);
        }
        let piece = GatherPiece::new(at, len, range.offset + offset);
        self.orders.push(piece.ok_or(RegionGone)?);
        Ok(())
    }
}

impl Orders for DeviceRegions {
    fn begin(&mut self, offset: u64) {
        self.frame = offset;
        self.orders.clear();
    }

    fn orders(&self) -> &[GatherPiece] {
        &self.orders
    }
}

impl Regions for DeviceRegions {
    /// Sources are named like regions. Only memory that the CPU reaches is read here.
    fn read(&mut self, source: SourceId, offset: u64, into: &mut [u8]) -> Result<(), RegionGone> {
        let range = *self.regions.get(&RegionId(source.0)).ok_or(RegionGone)?;
        let end = offset.checked_add(into.len() as u64).ok_or(RegionGone)?;
        if end > range.len {
            return Err(RegionGone);
        }
        let read = self.target.read(range.offset + offset, into);
        read.map_err(|_| RegionGone)
    }

    /// Bytes of the frame at hand, which lies in the payload memory.
    fn write(&mut self, region: RegionId, offset: u64, bytes: &[u8]) -> Result<(), RegionGone> {
        let base = self.payload.host().ok_or(RegionGone)?.as_ptr() as u64;
        let start = (bytes.as_ptr() as u64).checked_sub(base);
        let at = start.and_then(|start| start.checked_sub(self.frame));
        self.order(region, offset, at.ok_or(RegionGone)?, bytes.len() as u64)
    }

    fn place_remote(
        &mut self,
        region: RegionId,
        offset: u64,
        from: PayloadRef,
    ) -> Result<(), RegionGone> {
        self.order(region, offset, from.offset, from.len)
    }
}
