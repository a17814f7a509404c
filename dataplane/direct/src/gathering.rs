//! Between the transport and a device that checks and places the data of its frames.

use genie_gpudev::device::gather::{GatherFrame, GatherPiece, Verdict};
use genie_gpudev::device::{DeviceError, Memory};
use genie_gpudev::receive::{ReceiveStats, Receiver, Way};
use genie_transport::limits::PARTS_MAX;
use genie_transport::{
    CHECKSUM_BYTES, ConnectionId, Credit, DeviceData, DropReason, Endpoint, Epoch, HEADER_BYTES,
    Header, PayloadToken, Regions, Time,
};

/// Regions that note where the data of the frame at hand go, instead of writing them.
pub trait Orders: Regions {
    /// A frame whose data start at `offset` of the payload memory.
    fn begin(&mut self, offset: u64);

    /// What was ordered since then.
    fn orders(&self) -> &[GatherPiece];
}

/// A frame that the device is to check and place.
#[derive(Debug)]
#[must_use = "the data are never acknowledged if nobody pushes them"]
pub struct Ordered {
    frame: GatherFrame,
    connection: ConnectionId,
    token: PayloadToken,
}

/// What became of a frame that was not taken.
#[derive(Debug, thiserror::Error)]
pub enum ReceptionError {
    /// Ask whether there is room first. The packet is lost, as on any link, and comes again.
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

/// Frames of one payload pool on their way into one memory. `B` keeps a frame's buffer.
pub struct Gathering<B> {
    receiver: Receiver<Kept<B>>,
    pushed: u64,
    settled: u64,
}

/// Lets the transport order the data of a frame: `head` is what is before them, and `len` bytes from
/// `offset` of the payload memory are they. `None`: nothing is to be placed.
///
/// # Errors
/// The transport drops it.
pub fn order(
    head: &mut [u8],
    (offset, len): (u64, u32),
    endpoint: &mut Endpoint,
    now: Time,
    regions: &mut impl Orders,
) -> Result<Option<Ordered>, ReceptionError> {
    regions.begin(offset);
    let data = DeviceData {
        handle: offset,
        len: len as usize,
    };
    let handled = endpoint.handle_split(head, data, now, regions);
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

impl<B> Gathering<B> {
    /// What a device's receiver does for the transport.
    ///
    /// # Errors
    /// As [`Receiver::new`].
    pub fn new(
        device: &dyn genie_gpudev::device::Device,
        queue: Box<dyn genie_gpudev::device::Queue>,
        payload: &Memory,
        target: &Memory,
    ) -> Result<Self, DeviceError> {
        Ok(Self {
            receiver: Receiver::new(device, queue, payload, target)?,
            pushed: 0,
            settled: 0,
        })
    }

    /// Which way the data go.
    #[must_use]
    pub fn way(&self) -> Way {
        self.receiver.way()
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

    /// Frames that were pushed and have not left their buffers.
    #[must_use]
    pub fn under_way(&self) -> usize {
        self.receiver.under_way()
    }

    /// Whether a frame can be taken now.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.receiver.has_room(PARTS_MAX)
    }

    /// Hands a frame that was ordered to the device, with its orders and what keeps its buffer.
    ///
    /// # Errors
    /// [`ReceptionError`]; the frame then counts as damaged, and comes again.
    pub fn push(
        &mut self,
        ordered: Ordered,
        orders: &[GatherPiece],
        buffer: B,
        endpoint: &mut Endpoint,
        now: Time,
    ) -> Result<(), ReceptionError> {
        let Ordered {
            frame,
            connection,
            token,
        } = ordered;
        let pushed = self.push_frame(&frame, orders, buffer, connection, Some(token), endpoint);
        if pushed.is_err()
            && let Some(connection) = endpoint.connection(connection)
        {
            connection.verified(token, false, now);
        }
        pushed
    }

    pub(crate) fn push_frame(
        &mut self,
        frame: &GatherFrame,
        orders: &[GatherPiece],
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
        let pushed = self.receiver.push(frame, orders, kept);
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
#[must_use]
pub fn head_len(header: &Header) -> usize {
    HEADER_BYTES + usize::from(header.control_len) + 2 * CHECKSUM_BYTES
}

/// Where bytes lie in a memory, by the address that both the CPU's and the device's side use.
///
/// # Errors
/// They do not lie in it.
pub fn place(memory: &Memory, start: *const u8, len: usize) -> Result<(u64, u32), ReceptionError> {
    let outside = ReceptionError::Layout("not in the payload memory");
    let Some(offset) = (start as u64).checked_sub(memory.address()) else {
        return Err(outside);
    };
    match (memory.at(offset, len as u64), u32::try_from(len)) {
        (Ok(_), Ok(len)) => Ok((offset, len)),
        _ => Err(outside),
    }
}
