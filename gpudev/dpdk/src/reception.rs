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
use genie_gpudev::device::gather::{GatherFrame, Verdict};
use genie_gpudev::device::{Device, DeviceError, Memory, Queue};
use genie_gpudev::receive::{ReceiveStats, Receiver, Way};
use genie_transport::limits::PARTS_MAX;
use genie_transport::{
    CHECKSUM_BYTES, ConnectionId, Credit, DeviceData, DropReason, Endpoint, Epoch, HEADER_BYTES,
    Header, PayloadToken, Time,
};

use crate::regions::DeviceRegions;

/// A frame that the device is to check and place.
struct Ordered {
    frame: GatherFrame,
    connection: ConnectionId,
    token: PayloadToken,
}

/// What became of a frame that was not taken.
#[derive(Debug, thiserror::Error)]
pub enum ReceptionError {
    /// Ask [`Reception::has_room`] first. The packet is lost, as on any link, and comes again.
    #[error("both batches are with the device")]
    Busy,
    /// The transport dropped it, and counted it.
    #[error("the transport dropped a frame: {0:?}")]
    Dropped(DropReason),
    /// It does not lie in the payload memory, or not as its head says.
    #[error("a packet that is not laid out for this way of receiving: {0}")]
    Layout(&'static str),
    /// The device failed: leave this way of receiving.
    #[error(transparent)]
    Device(#[from] DeviceError),
}

/// What keeps a frame's buffer, and what the transport is to be told.
struct Kept<B> {
    _buffer: B,
    connection: ConnectionId,
    epoch: Epoch,
    token: Option<PayloadToken>,
}

/// Receives frames of one payload pool into one memory. `B` keeps a frame's buffer.
///
/// Data of which an event says that they were received are in their places once everything that
/// was pushed up to that event has been given back: note [`Self::position`] with the event, and wait
/// for [`Self::is_settled`].
pub struct Reception<B = Mbuf> {
    receiver: Receiver<Kept<B>>,
    regions: DeviceRegions,
    pushed: u64,
    settled: u64,
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
            receiver: Receiver::new(device, queue, payload, target)?,
            regions: DeviceRegions::new(target, payload),
            pushed: 0,
            settled: 0,
        })
    }

    /// Which way it is.
    #[must_use]
    pub fn way(&self) -> Way {
        self.receiver.way()
    }

    /// The regions, to add and remove, and for the transport to send from.
    pub fn regions(&mut self) -> &mut DeviceRegions {
        &mut self.regions
    }

    /// Where frames arrive.
    #[must_use]
    pub fn payload(&self) -> &Memory {
        self.receiver.payload()
    }

    /// What reached the device.
    #[must_use]
    pub fn stats(&self) -> ReceiveStats {
        self.receiver.stats()
    }

    /// Frames with data so far.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.pushed
    }

    /// Whether all frames up to a position have left their buffers.
    #[must_use]
    pub fn is_settled(&self, position: u64) -> bool {
        self.settled >= position
    }

    /// Whether a frame can be taken now.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.receiver.has_room(PARTS_MAX)
    }

    /// Takes a frame in two parts: the head, which the CPU has, and `len` bytes of data from
    /// `offset` of the payload memory, which `buffer` keeps there. For the direct way.
    ///
    /// # Errors
    /// [`ReceptionError`]; ask [`Self::has_room`] first, since the buffer does not come back.
    pub fn take_parts(
        &mut self,
        head: &mut [u8],
        (offset, len): (u64, u32),
        buffer: B,
        endpoint: &mut Endpoint,
        now: Time,
    ) -> Result<(), ReceptionError> {
        match self.order(head, offset, len, endpoint, now)? {
            Some(ordered) => self.push_ordered(ordered, buffer, endpoint, now),
            None => Ok(()),
        }
    }

    /// Lets the transport order the data of a frame to their places.
    fn order(
        &mut self,
        head: &mut [u8],
        offset: u64,
        len: u32,
        endpoint: &mut Endpoint,
        now: Time,
    ) -> Result<Option<Ordered>, ReceptionError> {
        self.regions.begin(offset);
        let data = DeviceData {
            handle: offset,
            len: len as usize,
        };
        let handled = endpoint.handle_split(head, data, now, &mut self.regions);
        let (connection, unverified) = handled.map_err(ReceptionError::Dropped)?;
        Ok(unverified.map(|unverified| Ordered {
            frame: GatherFrame {
                offset,
                // No longer than the data, which the transport checked.
                len: u32::try_from(unverified.len).unwrap_or(len).min(len),
                crc: Some(unverified.crc),
            },
            connection,
            token: unverified.token,
        }))
    }

    fn push_ordered(
        &mut self,
        ordered: Ordered,
        buffer: B,
        endpoint: &mut Endpoint,
        now: Time,
    ) -> Result<(), ReceptionError> {
        let Ordered {
            frame,
            connection,
            token,
        } = ordered;
        let pushed = self.push(frame, buffer, connection, Some(token), endpoint);
        if pushed.is_err()
            && let Some(connection) = endpoint.connection(connection)
        {
            connection.verified(token, false, now);
        }
        pushed
    }

    fn push(
        &mut self,
        frame: GatherFrame,
        buffer: B,
        connection: ConnectionId,
        token: Option<PayloadToken>,
        endpoint: &mut Endpoint,
    ) -> Result<(), ReceptionError> {
        let epoch = endpoint
            .connection(connection)
            .map_or(Epoch(0), |connection| connection.config().epoch);
        let kept = Kept {
            _buffer: buffer,
            connection,
            epoch,
            token,
        };
        let pushed = self.receiver.push(&frame, self.regions.orders(), kept);
        pushed.map_err(|refused| refused.error)?;
        self.pushed += 1;
        Ok(())
    }

    /// Submits what was collected: when the port has nothing more.
    ///
    /// # Errors
    /// The device failed.
    pub fn flush(&mut self) -> Result<(), DeviceError> {
        match self.receiver.flush() {
            Err(DeviceError::Full { .. }) => Ok(()),
            other => other,
        }
    }

    /// Tells the transport of what the device has done, and frees the packets.
    ///
    /// # Errors
    /// The device failed.
    pub fn poll(&mut self, endpoint: &mut Endpoint, now: Time) -> Result<usize, DeviceError> {
        let count = self.receiver.poll(|kept, verdict, bytes| {
            tell(endpoint, &kept, verdict, bytes, now);
        })?;
        self.settled += count as u64;
        Ok(count)
    }

    /// Waits until everything that was taken is done. For the end of a driver, and tests.
    ///
    /// # Errors
    /// The device failed.
    pub fn finish(&mut self, endpoint: &mut Endpoint, now: Time) -> Result<(), DeviceError> {
        self.receiver.finish(|kept, verdict, bytes| {
            tell(endpoint, &kept, verdict, bytes, now);
        })?;
        self.settled = self.pushed;
        Ok(())
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
        let (offset, len) = place(self.receiver.payload(), frame.as_ptr(), frame.len())?;
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
            self.push(frame, mbuf, connection, None, endpoint)?;
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
        let payload = self.receiver.payload();
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
        match self.order(head, offset, len, endpoint, now)? {
            Some(ordered) => self.push_ordered(ordered, mbuf, endpoint, now),
            None => Ok(()),
        }
    }
}

fn tell<B>(endpoint: &mut Endpoint, kept: &Kept<B>, verdict: Verdict, bytes: u64, now: Time) {
    let Some(connection) = endpoint.connection(kept.connection) else {
        return;
    };
    let placed = verdict == Verdict::Placed;
    if let Some(token) = kept.token {
        connection.verified(token, placed, now);
    }
    let config = connection.config();
    // A connection that was made anew owes nothing for the frames of the old one.
    if config.epoch == kept.epoch && config.credit_when == Credit::WhenReleased && placed {
        connection.release(bytes);
    }
}

/// Bytes before the data of a checksummed frame that has some. A tag for the head, one for the data.
pub(crate) fn head_len(header: &Header) -> usize {
    HEADER_BYTES + usize::from(header.control_len) + 2 * CHECKSUM_BYTES
}

/// Where bytes lie in a memory, by the address that both the CPU's and the device's side use.
fn place(memory: &Memory, start: *const u8, len: usize) -> Result<(u64, u32), ReceptionError> {
    let outside = ReceptionError::Layout("not in the payload memory");
    let Some(offset) = (start as u64).checked_sub(memory.address()) else {
        return Err(outside);
    };
    match (memory.at(offset, len as u64), u32::try_from(len)) {
        (Ok(_), Ok(len)) => Ok((offset, len)),
        _ => Err(outside),
    }
}
