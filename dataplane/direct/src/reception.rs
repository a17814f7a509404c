//! Frames from a port to the transport, and their data to the device.
//!
//! ```text
//! staged   mbuf in registered huge pages ─► Endpoint::handle ─► orders ─► copies by the device
//!                                                                └► in place: Connection::release
//! direct   head on the CPU, data in the device ─► Endpoint::handle_split ─► orders ─► gather kernel
//!                                                        └► checked, in place: Connection::verified
//! ```
//! A port that splits packets delivers a head and data as two segments; peers then send data at a
//! fixed byte ([`genie_transport::Config::data_at`]). A software port delivers one segment in the
//! payload pool; where the CPU reaches that memory (the host device), the head is read from there.

use genie_dpdk::Mbuf;
use genie_gpudev::device::gather::GatherFrame;
use genie_gpudev::device::{Device, DeviceError, Memory, Queue};
use genie_gpudev::receive::{ReceiveStats, Way};
use genie_transport::{DeviceData, Endpoint, Header, Time};

use crate::gathering::{Gathering, Orders as _, ReceptionError, head_len, order, place};
use crate::regions::DeviceRegions;

/// Receives frames of one payload pool into one memory. `B` keeps a frame's buffer.
///
/// Data of which an event says that they were received are in their places once everything that
/// was pushed up to that event has been given back: note [`Self::position`] with the event, and wait
/// for [`Self::is_settled`].
pub struct Reception<B = Mbuf> {
    gathering: Gathering<B>,
    regions: DeviceRegions,
}

impl<B> Reception<B> {
    /// A reception from `payload` into `target`; the way follows from where the payload lies.
    ///
    /// # Errors
    /// The device can't reach them, or has no memory for tables.
    pub fn new(
        device: &dyn Device,
        queue: Box<dyn Queue>,
        payload: &Memory,
        target: &Memory,
    ) -> Result<Self, DeviceError> {
        Ok(Self {
            gathering: Gathering::new(device, queue, payload, target)?,
            regions: DeviceRegions::new(target, payload),
        })
    }

    /// Which way it is.
    #[must_use]
    pub fn way(&self) -> Way {
        self.gathering.way()
    }

    /// The regions, to add and remove, and for the transport to send from.
    pub fn regions(&mut self) -> &mut DeviceRegions {
        &mut self.regions
    }

    /// Where frames arrive.
    #[must_use]
    pub fn payload(&self) -> &Memory {
        self.gathering.payload()
    }

    /// What reached the device.
    #[must_use]
    pub fn stats(&self) -> ReceiveStats {
        self.gathering.stats()
    }

    /// Frames with data so far.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.gathering.position()
    }

    /// Whether all frames up to a position have left their buffers.
    #[must_use]
    pub fn is_settled(&self, position: u64) -> bool {
        self.gathering.is_settled(position)
    }

    /// Whether a frame can be taken now.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.gathering.has_room()
    }

    /// Takes a frame in two parts: the head, which the CPU has, and `len` bytes of data from
    /// `offset` of the payload memory, which `buffer` keeps there. For the direct way.
    ///
    /// # Errors
    /// [`ReceptionError`]; ask [`Self::has_room`] first, since the buffer does not come back.
    pub fn take_parts(
        &mut self,
        head: &mut [u8],
        data: (u64, u32),
        buffer: B,
        endpoint: &mut Endpoint,
        now: Time,
    ) -> Result<(), ReceptionError> {
        let Self { gathering, regions } = self;
        match order(head, data, endpoint, now, regions)? {
            Some(ordered) => gathering.push(ordered, regions.orders(), buffer, endpoint, now),
            None => Ok(()),
        }
    }

    /// Submits what was collected: when the port has nothing more.
    ///
    /// # Errors
    /// The device failed.
    pub fn flush(&mut self) -> Result<(), DeviceError> {
        self.gathering.flush()
    }

    /// Tells the transport of what the device has done, and frees the packets.
    ///
    /// # Errors
    /// The device failed.
    pub fn poll(&mut self, endpoint: &mut Endpoint, now: Time) -> Result<usize, DeviceError> {
        self.gathering.poll(endpoint, now)
    }

    /// Waits until everything that was taken is done. For the end of a driver, and tests.
    ///
    /// # Errors
    /// The device failed.
    pub fn finish(&mut self, endpoint: &mut Endpoint, now: Time) -> Result<(), DeviceError> {
        self.gathering.finish(endpoint, now)
    }
}

impl Reception<Mbuf> {
    /// Takes a packet whose transport frame starts at byte `skip`.
    ///
    /// # Errors
    /// [`ReceptionError`]; the packet is freed.
    pub fn take(
        &mut self,
        mbuf: Mbuf,
        skip: usize,
        endpoint: &mut Endpoint,
        now: Time,
    ) -> Result<(), ReceptionError> {
        if !self.has_room() {
            return Err(ReceptionError::Busy);
        }
        match self.way() {
            Way::Staged => self.take_staged(mbuf, skip, endpoint, now),
            Way::Direct => self.take_direct(mbuf, skip, endpoint, now),
        }
    }

    fn take_staged(
        &mut self,
        mut mbuf: Mbuf,
        skip: usize,
        endpoint: &mut Endpoint,
        now: Time,
    ) -> Result<(), ReceptionError> {
        if mbuf.segment_count() != 1 {
            return Err(ReceptionError::Layout("more than one segment"));
        }
        let frame = mbuf.data_mut().get_mut(skip..);
        let frame = frame.ok_or(ReceptionError::Layout("shorter than its link header"))?;
        let (offset, len) = place(self.gathering.payload(), frame.as_ptr(), frame.len())?;
        self.regions.begin(offset);
        let handled = endpoint.handle(frame, now, &mut self.regions);
        // Even of a frame that was dropped midway: what was placed counts as placed.
        let connection = match handled {
            Ok(connection) => Some(connection),
            Err(_) => Header::parse(frame).ok().map(|header| header.connection),
        };
        if let Some(connection) = connection
            && !self.regions.orders().is_empty()
        {
            let frame = GatherFrame {
                offset,
                len,
                crc: None,
            };
            let orders = self.regions.orders();
            let gathering = &mut self.gathering;
            gathering.push_frame(&frame, orders, mbuf, connection, None, endpoint)?;
        }
        handled.map(|_| ()).map_err(ReceptionError::Dropped)
    }

    fn take_direct(
        &mut self,
        mut mbuf: Mbuf,
        skip: usize,
        endpoint: &mut Endpoint,
        now: Time,
    ) -> Result<(), ReceptionError> {
        let mut segments = mbuf.segment_addresses();
        let (first, second) = (segments.next(), segments.next());
        if segments.next().is_some() {
            return Err(ReceptionError::Layout("more than two segments"));
        }
        drop(segments);
        let (start, bytes) = first.ok_or(ReceptionError::Layout("no segment"))?;
        let payload = self.gathering.payload();
        // The head is the CPU's: a segment in memory of a device must be reached by it as well.
        if payload.host().is_none() && place(payload, start.as_ptr(), bytes).is_ok() {
            return Err(ReceptionError::Layout("the head is in the device's memory"));
        }
        let frame = mbuf.data_mut().get_mut(skip..);
        let frame = frame.ok_or(ReceptionError::Layout("shorter than its link header"))?;
        let head_len = match Header::parse(frame) {
            Ok(header) if header.data_len > 0 && !header.sealed => head_len(&header),
            Ok(header) if header.data_len > 0 => {
                // Refused and counted: what is sealed goes the staged way.
                let data = DeviceData { handle: 0, len: 0 };
                let refused = endpoint.handle_split(frame, data, now, &mut self.regions);
                return refused.map(|_| ()).map_err(ReceptionError::Dropped);
            }
            // Nothing for a device to check.
            _ => {
                let handled = endpoint.handle(frame, now, &mut self.regions);
                return handled.map(|_| ()).map_err(ReceptionError::Dropped);
            }
        };
        let (head, rest) = frame
            .split_at_mut_checked(head_len)
            .ok_or(ReceptionError::Layout("the head is split"))?;
        let (offset, len) = match second {
            Some((data, len)) if rest.is_empty() => place(payload, data.as_ptr(), len)?,
            Some(_) => return Err(ReceptionError::Layout("data before the split")),
            None => place(payload, rest.as_ptr(), rest.len())?,
        };
        let Self { gathering, regions } = self;
        match order(head, (offset, len), endpoint, now, regions)? {
            Some(ordered) => gathering.push(ordered, regions.orders(), mbuf, endpoint, now),
            None => Ok(()),
        }
    }
}
