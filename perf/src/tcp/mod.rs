//! Genie's TCP link as a path: the frames of the session protocol, in the stream.
//!
//! A transfer is a `Bulk` frame whose payload is the slot (u32) and whose raw bytes are read into
//! the slot's region; an `Ack` counts what was consumed, which frees the slot. A message is a
//! `Records` frame. From the accepting end a transfer is a `Data` frame (`seq` is the slot) and a
//! message a `Metas` frame. Slots take the place of grants: both ends know them from the plan.

mod kernel;
mod open;
mod stream;

use std::collections::VecDeque;
use std::os::fd::RawFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use genie_session::frame::{HEADER_BYTES, Header, Kind as Frame};
use genie_session::record::INLINE_MAX;

pub use self::kernel::{mtu, retransmissions};
pub use self::open::{accept, connect, listen, token};
use self::stream::Stream;
use crate::control::readable;
use crate::machine;
use crate::memory::Memory;
use crate::path::{Event, Facts, Kind, Part, Path, Plan, Wait};

/// Bytes that a read takes at most, unless they go to a region.
const BUFFER_BYTES: usize = 64 << 10;
/// Frames that are gathered before they leave.
const GATHER_BYTES: usize = 256 << 10;
/// Transfers at least this large are read and written in place.
const PLACED_BYTES: u64 = 64 << 10;
/// Bytes of the slot in a `Bulk` frame.
const SLOT_BYTES: usize = 4;
/// How long to ask for news before sleeping for it: waking takes longer than most answers.
const SPIN: Duration = Duration::from_micros(50);
/// How long to sleep for what is said over the control socket.
const SLEEP: Duration = Duration::from_millis(100);
/// A peer that stays silent in the middle of a transfer for so long is gone.
const SILENCE: Duration = Duration::from_secs(10);

/// Which end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Connecting,
    Accepting,
}

/// One end of a TCP data path.
pub struct Tcp<S> {
    stream: S,
    side: Side,
    watched: Option<RawFd>,
    /// The other end wants this one to look at the control socket.
    nudged: bool,
    plan: Option<Plan>,
    sources: Vec<Memory>,
    regions: Vec<Memory>,
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    /// Of the last message, in the buffer.
    message: std::ops::Range<usize>,
    /// A transfer that is being read: its slot, and bytes that came.
    reading: Option<(u32, usize)>,
    /// Frames that wait to leave.
    out: Vec<u8>,
    /// Slots whose transfers are under way, in order.
    under_way: VecDeque<u32>,
    /// Transfers that were sent and acknowledged in this test.
    acknowledged: u64,
    /// Transfers that arrived in this test, and those that were acknowledged.
    arrived: u64,
    arrived_told: u64,
}

impl<S: Stream> Tcp<S> {
    fn new(stream: S, side: Side) -> Self {
        Self {
            stream,
            side,
            watched: None,
            nudged: false,
            plan: None,
            sources: Vec::new(),
            regions: Vec::new(),
            buffer: vec![0; BUFFER_BYTES].into_boxed_slice(),
            start: 0,
            end: 0,
            message: 0..0,
            reading: None,
            out: Vec::with_capacity(GATHER_BYTES + BUFFER_BYTES),
            under_way: VecDeque::new(),
            acknowledged: 0,
            arrived: 0,
            arrived_told: 0,
        }
    }

    fn size(&self) -> u64 {
        self.plan.as_ref().map_or(0, |plan| plan.size)
    }

    fn has_placed_transfers(&self) -> bool {
        self.plan.as_ref().is_some_and(|plan| {
            plan.size >= PLACED_BYTES && matches!(plan.kind, Kind::Transfers | Kind::EchoTransfers)
        })
    }

    /// Says what arrived. Before anything that answers it: then nothing is open when a test ends.
    fn queue_ack(&mut self) {
        if self.arrived > self.arrived_told && self.side == Side::Accepting {
            let header = Header::new(Frame::Ack, self.arrived, self.arrived * self.size());
            self.out.extend_from_slice(&header.encode());
            self.arrived_told = self.arrived;
        }
    }

    fn flush(&mut self) -> Result<()> {
        self.queue_ack();
        if !self.out.is_empty() {
            self.stream.write(&[&self.out]).context(LOST_SENDING)?;
            self.out.clear();
        }
        Ok(())
    }

    /// Reads the raw bytes of a transfer into its region. True when it is whole.
    fn read_raw(&mut self, slot: u32, at: &mut usize) -> Result<bool> {
        let Some(region) = self.regions.get_mut(slot as usize) else {
            bail!("the other end filled slot {slot}, which is none");
        };
        let region = region.bytes_mut();
        let here = (self.end - self.start).min(region.len() - *at);
        region[*at..*at + here].copy_from_slice(&self.buffer[self.start..self.start + here]);
        self.start += here;
        *at += here;
        let mut heard = Instant::now();
        while *at < region.len() {
            match self
                .stream
                .read_sure(&mut region[*at..])
                .context(LOST_RECEIVING)?
            {
                Some(n) => {
                    *at += n;
                    heard = Instant::now();
                }
                None if heard.elapsed() > SILENCE => bail!("a transfer has stopped in the middle"),
                None => return Ok(false),
            }
        }
        Ok(true)
    }

    /// Bytes that a header needs, with what it says of its payload.
    fn needs(&self) -> Result<(usize, Option<Header>)> {
        let Some(raw) = self.buffer[self.start..self.end].first_chunk() else {
            return Ok((HEADER_BYTES, None));
        };
        let header = Header::decode(raw)?;
        let needs = HEADER_BYTES + header.payload_len as usize;
        if needs > self.buffer.len() {
            bail!(
                "the other end sent a message of {} bytes",
                header.payload_len
            );
        }
        Ok((needs, Some(header)))
    }

    /// Takes a frame that is in the buffer, with its payload. `None`: nothing for the caller.
    fn take(&mut self, header: &Header, payload: std::ops::Range<usize>) -> Result<Option<Event>> {
        let (message, transfer) = match self.side {
            Side::Connecting => (Frame::Metas, Frame::Data),
            Side::Accepting => (Frame::Records, Frame::Bulk),
        };
        if header.kind == message {
            self.message = payload;
            return Ok(Some(Event::Message));
        }
        if header.kind == transfer {
            if header.aux != self.size() {
                bail!("the other end sent a transfer of another size than planned");
            }
            let slot = match self.side {
                Side::Connecting => u32::try_from(header.seq).ok(),
                Side::Accepting => self.buffer[payload].try_into().ok().map(u32::from_le_bytes),
            };
            self.reading = Some((slot.context("the other end named no slot")?, 0));
            return Ok(None);
        }
        if header.kind == Frame::Ack && self.side == Side::Connecting {
            let sent = self.acknowledged + self.under_way.len() as u64;
            if header.seq < self.acknowledged || header.seq > sent {
                bail!("the other end acknowledged what was not sent");
            }
            // Told one at a time: see `next`.
            self.arrived = header.seq;
            return Ok(None);
        }
        if header.kind == Frame::Ping && self.side == Side::Accepting {
            self.nudged = true;
            return Ok(None);
        }
        bail!("an unexpected frame: {:?}", header.kind)
    }

    fn queue(&mut self, header: &Header, payload: &[u8]) {
        self.out.extend_from_slice(&header.encode());
        self.out.extend_from_slice(payload);
    }
}

const LOST_SENDING: &str = "the other end was lost while sending";
const LOST_RECEIVING: &str = "the other end was lost while receiving";

impl<S: Stream> Path for Tcp<S> {
    fn facts(&mut self) -> Facts {
        Facts {
            transport: "tcp",
            path: "kernel TCP; transfers are read straight into their region".to_owned(),
            mtu_bytes: kernel::mtu(self.stream.descriptor()),
            seal: if self.stream.is_sealed() {
                "tls"
            } else {
                "off"
            },
        }
    }

    fn message_max(&self) -> usize {
        INLINE_MAX
    }

    fn begin(&mut self, plan: &Plan) -> Result<()> {
        let size = usize::try_from(plan.size)?;
        let (sends, receives) = match (plan.kind, self.side) {
            (Kind::Transfers, Side::Connecting) => (true, false),
            (Kind::Transfers, Side::Accepting) => (false, true),
            (Kind::EchoTransfers, side) => (side == Side::Connecting, true),
            _ => (false, false),
        };
        let slots = |wanted: bool| -> Result<Vec<Memory>> {
            let count = if wanted { plan.slots } else { 0 };
            (0..count).map(|_| Memory::new(size)).collect()
        };
        // The old go first: both may be large.
        self.sources.clear();
        self.regions.clear();
        self.sources = slots(sends)?;
        self.regions = slots(receives)?;
        self.under_way.clear();
        (self.acknowledged, self.arrived, self.arrived_told) = (0, 0, 0);
        self.plan = Some(plan.clone());
        Ok(())
    }

    fn memory(&mut self, part: Part, slot: u32) -> &mut [u8] {
        let all = match part {
            Part::Source => &mut self.sources,
            Part::Region => &mut self.regions,
        };
        all.get_mut(slot as usize)
            .map_or(&mut [], Memory::bytes_mut)
    }

    fn send(&mut self, slot: u32, part: Part) -> Result<bool> {
        self.queue_ack();
        let size = self.size();
        let number = self.acknowledged + self.under_way.len() as u64;
        let (header, payload) = match self.side {
            Side::Connecting => (Header::new(Frame::Bulk, number, size), slot.to_le_bytes()),
            Side::Accepting => (
                Header::new(Frame::Data, u64::from(slot), size),
                [0; SLOT_BYTES],
            ),
        };
        let payload: &[u8] = if self.side == Side::Connecting {
            &payload
        } else {
            &[]
        };
        self.queue(&header.with_payload(payload.len()), payload);
        let all = match part {
            Part::Source => &self.sources,
            Part::Region => &self.regions,
        };
        let bytes = all.get(slot as usize).context("no such slot")?.bytes();
        if size >= PLACED_BYTES {
            self.stream
                .write(&[&self.out, bytes])
                .context(LOST_SENDING)?;
            self.out.clear();
        } else {
            self.out.extend_from_slice(bytes);
            if self.out.len() >= GATHER_BYTES {
                self.flush()?;
            }
        }
        if self.side == Side::Connecting {
            self.under_way.push_back(slot);
        }
        Ok(true)
    }

    fn message(&mut self, bytes: &[u8]) -> Result<bool> {
        let kind = match self.side {
            Side::Connecting => Frame::Records,
            Side::Accepting => Frame::Metas,
        };
        self.queue(&Header::new(kind, 0, 0).with_payload(bytes.len()), bytes);
        if self.out.len() >= GATHER_BYTES {
            self.flush()?;
        }
        Ok(true)
    }

    fn next(&mut self) -> Result<Option<Event>> {
        loop {
            if self.side == Side::Connecting && self.arrived > self.acknowledged {
                self.acknowledged += 1;
                if let Some(slot) = self.under_way.pop_front() {
                    return Ok(Some(Event::Sent(slot)));
                }
            }
            if let Some((slot, mut at)) = self.reading.take() {
                if !self.read_raw(slot, &mut at)? {
                    self.reading = Some((slot, at));
                    return Ok(None);
                }
                if self.side == Side::Accepting {
                    self.arrived += 1;
                }
                return Ok(Some(Event::Filled(slot)));
            }
            let (needs, header) = self.needs()?;
            let Some(header) = header.filter(|_| self.end - self.start >= needs) else {
                return Ok(None);
            };
            let payload = self.start + HEADER_BYTES..self.start + needs;
            self.start = payload.end;
            if let Some(event) = self.take(&header, payload)? {
                return Ok(Some(event));
            }
        }
    }

    fn message_bytes(&self) -> &[u8] {
        &self.buffer[self.message.clone()]
    }

    fn wait(&mut self, what: Wait) -> Result<bool> {
        self.flush()?;
        if what == Wait::Control {
            return Ok(readable(self.watched.unwrap_or(-1), SLEEP));
        }
        if self.reading.is_some() || std::mem::take(&mut self.nudged) {
            return Ok(true);
        }
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        let began = Instant::now();
        // The other end may want this core: only who has one of its own asks again and again.
        while machine::is_pinned()
            && began.elapsed() < SPIN
            && !readable(self.stream.descriptor(), Duration::ZERO)
        {}
        // Raw bytes belong into their region, not here.
        let until = match self.needs()? {
            _ if !self.has_placed_transfers() => self.buffer.len(),
            (needs, None) => needs + SLOT_BYTES,
            (needs, Some(_)) => needs,
        };
        let read = self.stream.read(&mut self.buffer[self.end..until]);
        let Some(n) = read.context(LOST_RECEIVING)? else {
            return Ok(true);
        };
        self.end += n;
        Ok(false)
    }

    fn nudge(&mut self) -> Result<()> {
        if self.side == Side::Connecting {
            self.queue(&Header::new(Frame::Ping, 0, 0), &[]);
        }
        self.flush()
    }

    fn watch(&mut self, descriptor: RawFd) {
        self.watched = Some(descriptor);
    }

    fn retransmissions(&mut self) -> u64 {
        kernel::retransmissions(self.stream.descriptor())
    }
}
