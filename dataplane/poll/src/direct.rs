//! Level 0: packets arrive in a device's memory, and the device checks their data and puts them in
//! their places.
//!
//! Only frames that are not sealed: sealed ones are opened by the CPU. And only packets whose head
//! the CPU reaches: those of the `host` device. A card that splits packets, for a device whose memory
//! the CPU does not reach, is in `genie-direct` and not used here yet.

use std::sync::Arc;

use genie_direct::gathering::{head_len, order, place};
use genie_direct::{Gathering, Ordered, Orders as _, ReceptionError};
use genie_gpudev::device::{Device, DeviceError, Memory as DeviceMemory, register_mapping};
use genie_shm::Mapping;
use genie_transport::{Endpoint, Header, Time};

use crate::memory::{Memory, MemoryId};

/// The device in whose memory packets arrive.
pub struct Direct {
    /// It.
    pub device: Arc<dyn Device>,
    /// The memory of the packets.
    pub payload: DeviceMemory,
}

/// Data on their way into the memory of one program. `P` is a packet, and keeps its buffer.
pub(crate) struct Gather<P> {
    gathering: Gathering<P>,
    sink: MemoryId,
}

impl<P> Gather<P> {
    /// Into `mapping`, which the loop calls `sink`.
    pub(crate) fn new(
        direct: &Direct,
        mapping: &Arc<Mapping>,
        sink: MemoryId,
    ) -> Result<Self, DeviceError> {
        let device = &*direct.device;
        let target = register_mapping(device, mapping)?;
        let gathering = Gathering::new(device, device.queue()?, &direct.payload, &target)?;
        Ok(Self { gathering, sink })
    }

    /// Lets the transport order the data of a frame, which lies in the payload memory.
    pub(crate) fn order(
        &mut self,
        frame: &mut [u8],
        header: &Header,
        endpoint: &mut Endpoint,
        now: Time,
        memory: &mut Memory,
    ) -> Result<Option<Ordered>, ReceptionError> {
        if !self.gathering.has_room() {
            self.gathering.poll(endpoint, now)?;
            if !self.gathering.has_room() {
                // Lost, as on any link.
                return Err(ReceptionError::Busy);
            }
        }
        let halves = frame.split_at_mut_checked(head_len(header));
        let (head, data) = halves.ok_or(ReceptionError::Layout("shorter than its head"))?;
        let data = place(self.gathering.payload(), data.as_ptr(), data.len())?;
        memory.gather_into(self.sink);
        order(head, data, endpoint, now, memory)
    }

    /// Hands a frame that was ordered just now to the device.
    pub(crate) fn push(
        &mut self,
        ordered: Ordered,
        packet: P,
        endpoint: &mut Endpoint,
        now: Time,
        memory: &Memory,
    ) -> Result<(), ReceptionError> {
        self.gathering
            .push(ordered, memory.orders(), packet, endpoint, now)
    }

    /// Hands what was collected to the device, and takes back what it has done; says of how many
    /// frames it placed the data, and how many were corrupt.
    pub(crate) fn settle(
        &mut self,
        endpoint: &mut Endpoint,
        now: Time,
    ) -> Result<(u64, u64), DeviceError> {
        if self.gathering.under_way() == 0 {
            return Ok((0, 0));
        }
        let before = self.gathering.stats();
        self.gathering.flush()?;
        self.gathering.poll(endpoint, now)?;
        let after = self.gathering.stats();
        Ok((after.frames - before.frames, after.corrupt - before.corrupt))
    }

    /// The device has work of it.
    pub(crate) fn is_under_way(&self) -> bool {
        self.gathering.under_way() > 0
    }

    /// Waits for the device: nothing is written afterwards.
    pub(crate) fn finish(&mut self, endpoint: &mut Endpoint, now: Time) {
        if let Err(error) = self.gathering.finish(endpoint, now) {
            tracing::error!("the device failed: {error}");
        }
    }
}
