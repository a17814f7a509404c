//! Between a connection and a device's memory: staging memory of the host that the device knows,
//! and the device's queues, which copy. While one part is copied, the next is on its way.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use genie_channel::BULK_PART_MAX;
use genie_gpudev::device::{
    CopyOrder, CopyPiece, DeviceError, Event, Memory, Queue, register_mapping,
};
use genie_gpudev::pools::Allocated;
use genie_gpudev::pools::handover::HandoverError;
use genie_gpudev::zygote::{Announcer, DevicePools};
use genie_gpudev::{Device, Pools, PoolsStats};
use genie_shm::space::PlaceError;
use genie_shm::{Arena, Mapping, MemoryError};
use parking_lot::{Condvar, Mutex};

use crate::metrics::Copies;

/// Staging memory of each direction: so many parts can be on their way. Pages are taken when they
/// are used first, unless the device pins them.
const LANE_BYTES: u64 = 4 * BULK_PART_MAX;
/// How often one who waits for a slot looks whether it may still come.
const TICK: Duration = Duration::from_millis(100);

/// Why a session's memory can't be used.
#[derive(Debug, thiserror::Error)]
pub enum SessionMemoryError {
    /// Staging memory.
    #[error("no staging memory: {0}")]
    Memory(#[from] MemoryError),
    /// The device.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The executor was not told of a pool.
    #[error(transparent)]
    Handover(#[from] HandoverError),
    /// What is to leave does not.
    #[error("its answers do not leave: the client does not take them, or the session is over")]
    Stuck,
}

/// A session's memory on a device.
pub struct Staged {
    pools: Mutex<Pools>,
    /// Held from a new pool's making until the executor was told.
    placing: Mutex<()>,
    announcer: Announcer,
    outbound: Memory,
    /// Towards the device.
    pub incoming: Lane,
    /// From the device.
    pub outgoing: Lane,
}

/// Staging memory of one direction, with the queue that copies from or to it.
pub struct Lane {
    mapping: Arc<Mapping>,
    registered: Memory,
    slots: Mutex<Arena>,
    freed: Condvar,
    queue: Mutex<Box<dyn Queue>>,
}

impl Lane {
    fn new(device: &dyn Device) -> Result<Self, SessionMemoryError> {
        let slots = Arena::create(LANE_BYTES)?;
        let mapping = Arc::clone(slots.memory());
        Ok(Self {
            registered: register_mapping(device, &mapping)?,
            mapping,
            slots: Mutex::new(slots),
            freed: Condvar::new(),
            queue: Mutex::new(device.queue()?),
        })
    }

    /// The memory itself.
    #[must_use]
    pub fn mapping(&self) -> &Arc<Mapping> {
        &self.mapping
    }

    /// Gives a slot back. What is no slot is ignored: nobody but this process names them.
    pub fn free(&self, slot: u64) {
        let freed = self.slots.lock().free(slot);
        if let Err(error) = freed {
            tracing::error!(%error, "a slot of staging memory was freed twice");
        }
        self.freed.notify_all();
    }

    /// Submits one copy between this memory and the device's.
    fn submit(&self, from: &Memory, to: &Memory, piece: CopyPiece) -> Result<Event, DeviceError> {
        self.queue.lock().copy(from, to, &[piece], CopyOrder::Any)
    }

    fn wait(&self, event: Event) -> Result<(), DeviceError> {
        self.queue.lock().wait(event)
    }
}

impl Staged {
    /// Over the pools of an executor.
    pub(super) fn new(device: &dyn Device, pools: DevicePools) -> Result<Self, SessionMemoryError> {
        let (pools, outbound, announcer) = pools.into_parts();
        Ok(Self {
            pools: Mutex::new(pools),
            placing: Mutex::new(()),
            announcer,
            outbound,
            incoming: Lane::new(device)?,
            outgoing: Lane::new(device)?,
        })
    }

    /// A place for an upload, and the way to it. `None`: the session or the device has no room.
    ///
    /// # Errors
    /// The executor can't be told of a new pool.
    pub fn place<'a>(
        &'a self,
        bytes: u64,
        copies: &'a Copies,
    ) -> Result<Option<Landing<'a>>, SessionMemoryError> {
        let _alone = self.placing.lock();
        let (Allocated { place, made }, target, offset) = {
            let mut pools = self.pools.lock();
            let allocated = pools.allocate(bytes).and_then(|allocated| {
                let (memory, offset) = pools.memory(allocated.place, bytes)?;
                let memory = memory.clone();
                Ok((allocated, memory, offset))
            });
            match allocated {
                Ok(allocated) => allocated,
                Err(error) => {
                    tracing::debug!(%error, "an upload finds no memory");
                    return Ok(None);
                }
            }
        };
        // Without the lock of the pools: the executor may take its time.
        if let Some((base, memory)) = made {
            self.announcer.announce(base, &memory)?;
        }
        Ok(Some(Landing {
            lane: &self.incoming,
            copies,
            target,
            offset,
            place,
            wanted: VecDeque::new(),
            under_way: VecDeque::new(),
            failed: None,
        }))
    }

    /// How full the pools of uploads are.
    pub(super) fn stats(&self) -> PoolsStats {
        self.pools.lock().stats()
    }

    /// See [`super::memory::SessionMemory::free`].
    pub(super) fn free(&self, place: u64) -> Result<Option<u64>, PlaceError> {
        self.pools.lock().free(place).map_err(|_| PlaceError(place))
    }

    /// Whether an executor's reply is inside the memory that it answers from.
    #[must_use]
    pub fn holds_reply(&self, place: u64, bytes: u64) -> bool {
        self.outbound.at(place, bytes).is_ok()
    }

    /// Begins to copy `len` bytes of a reply out of the device. Waits for a slot while one may come:
    /// until `give_up` says so.
    ///
    /// # Errors
    /// They lie outside of the outbound pool; the device; nothing leaves.
    pub fn fetch(
        &self,
        place: u64,
        len: u64,
        copies: &Copies,
        mut give_up: impl FnMut() -> bool,
    ) -> Result<Leaving, SessionMemoryError> {
        let lane = &self.outgoing;
        let slot = {
            let mut slots = lane.slots.lock();
            loop {
                if let Some(slot) = slots.allocate(len) {
                    break slot;
                }
                if give_up() {
                    return Err(SessionMemoryError::Stuck);
                }
                lane.freed.wait_for(&mut slots, TICK);
            }
        };
        let piece = CopyPiece {
            from: place,
            to: slot,
            len,
        };
        match lane.submit(&self.outbound, &lane.registered, piece) {
            Ok(event) => {
                copies.submissions.increment();
                copies.from_device.add(len);
                Ok(Leaving { slot, len, event })
            }
            Err(error) => {
                lane.free(slot);
                Err(error.into())
            }
        }
    }

    /// Waits until what is to leave is in its slot.
    ///
    /// # Errors
    /// The device failed.
    pub fn wait_fetched(&self, leaving: &Leaving) -> Result<(), SessionMemoryError> {
        Ok(self.outgoing.wait(leaving.event)?)
    }
}

/// A part of a reply on its way into its slot.
#[derive(Debug)]
pub struct Leaving {
    /// Where it will be, in the outgoing lane.
    pub slot: u64,
    /// How long it is.
    pub len: u64,
    event: Event,
}

/// Where bulk is put as it comes, part by part.
pub trait Land {
    /// Where this part is to be put. `None`: there is no room until a part that was placed before
    /// has arrived.
    ///
    /// # Errors
    /// It can't be put anywhere.
    fn place(&mut self, part: &Range<u64>) -> io::Result<Option<u64>>;

    /// A part that was placed is there.
    ///
    /// # Errors
    /// It can't be passed on.
    fn arrived(&mut self, place: u64) -> io::Result<()>;
}

/// Bulk that stays where it is put.
pub struct InPlace<'a> {
    /// From here on.
    pub place: u64,
    /// The memory, where its pages are still to be taken.
    pub cold: Option<&'a Mapping>,
}

impl InPlace<'_> {
    /// Where a part goes; its pages are there.
    pub fn place_of(&self, part: &Range<u64>) -> u64 {
        let at = self.place + part.start;
        if let Some(memory) = self.cold {
            memory.populate(at, part.end - part.start);
        }
        at
    }
}

impl Land for InPlace<'_> {
    fn place(&mut self, part: &Range<u64>) -> io::Result<Option<u64>> {
        Ok(Some(self.place_of(part)))
    }

    fn arrived(&mut self, _place: u64) -> io::Result<()> {
        Ok(())
    }
}

/// An upload on its way to a device: each part into a slot, and from there to its place.
pub struct Landing<'a> {
    lane: &'a Lane,
    copies: &'a Copies,
    target: Memory,
    offset: u64,
    place: u64,
    /// Slots that wait for their part.
    wanted: VecDeque<(u64, Range<u64>)>,
    /// Slots that are being copied from.
    under_way: VecDeque<(Event, u64)>,
    failed: Option<DeviceError>,
}

impl Landing<'_> {
    /// Where the upload will be.
    #[must_use]
    pub fn place(&self) -> u64 {
        self.place
    }

    /// The bytes of a slot, to be filled.
    ///
    /// # Safety
    /// The slot was given by this landing for a part of this length and has not arrived; nobody
    /// else has these bytes.
    pub unsafe fn slot(&mut self, slot: u64, len: u64) -> io::Result<&mut [u8]> {
        // SAFETY: the caller's promise; what is written there is only copied.
        let bytes = unsafe { self.lane.mapping.bytes_mut(slot, len) };
        bytes.map_err(io::Error::other)
    }

    /// Waits until all of it is in its place.
    ///
    /// # Errors
    /// The device failed.
    pub fn finish(&mut self) -> io::Result<()> {
        while self.wait_oldest()? {}
        Ok(())
    }

    /// Why the device failed, if it did.
    #[must_use]
    pub fn failure(&self) -> Option<&DeviceError> {
        self.failed.as_ref()
    }

    /// Gives back the slot of the oldest copy, when that is done. False: there is none.
    fn wait_oldest(&mut self) -> io::Result<bool> {
        let Some((event, slot)) = self.under_way.pop_front() else {
            return Ok(false);
        };
        let waited = self.lane.wait(event);
        // After a failure the slot stays taken: the device may still be reading it.
        self.told(waited)?;
        self.lane.free(slot);
        Ok(true)
    }

    fn told<T>(&mut self, result: Result<T, DeviceError>) -> io::Result<T> {
        result.map_err(|error| {
            let text = error.to_string();
            self.failed = Some(error);
            io::Error::other(text)
        })
    }
}

impl Land for Landing<'_> {
    fn place(&mut self, part: &Range<u64>) -> io::Result<Option<u64>> {
        loop {
            let slot = self.lane.slots.lock().allocate(part.end - part.start);
            if let Some(slot) = slot {
                self.wanted.push_back((slot, part.clone()));
                return Ok(Some(slot));
            }
            if !self.wait_oldest()? {
                return Ok(None);
            }
        }
    }

    fn arrived(&mut self, place: u64) -> io::Result<()> {
        let known = self.wanted.iter().position(|(slot, _)| *slot == place);
        let Some((slot, part)) = known.and_then(|at| self.wanted.remove(at)) else {
            return Err(io::Error::other("bulk arrived where none was awaited"));
        };
        let piece = CopyPiece {
            from: slot,
            to: self.offset + part.start,
            len: part.end - part.start,
        };
        let event = loop {
            match self.lane.submit(&self.lane.registered, &self.target, piece) {
                Err(DeviceError::Full { .. }) if !self.under_way.is_empty() => {
                    self.wait_oldest()?;
                }
                other => break self.told(other)?,
            }
        };
        self.copies.submissions.increment();
        self.copies.to_device.add(piece.len);
        self.under_way.push_back((event, slot));
        Ok(())
    }
}

impl Drop for Landing<'_> {
    fn drop(&mut self) {
        // An upload that broke off ends its session. Its copies are let run out; slots that still
        // wait are not given back, since the link may yet write there.
        while matches!(self.wait_oldest(), Ok(true)) {}
    }
}
