//! A simulated link between two endpoints; everything that happens follows from a seed.
#![allow(dead_code, reason = "each test uses its part")]

pub mod device;
pub mod forge;
pub mod link;
pub mod run;
pub mod transfer;
pub mod victim;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use device::{Device, Gather};
use genie_transport::{
    Config, Connection, ConnectionId, Credit, Endpoint, Epoch, Event, PayloadRef, PayloadToken,
    Protection, RegionGone, RegionId, Regions, Role, Secret, SourceId, Time, crc32c,
};
pub use link::{Link, Random};

/// Memory that notices a second write to a byte and a write after the end.
#[derive(Default)]
pub struct Memory {
    pub sources: Vec<Vec<u8>>,
    pub regions: Vec<Vec<u8>>,
    pub writes: Vec<Vec<u8>>,
    pub ended: Vec<bool>,
    pub gone: Vec<bool>,
    /// Regions that can't be written from this offset on.
    pub broken: Option<(RegionId, u64)>,
    /// A source that is written to as soon as it was summed.
    pub changing: Option<SourceId>,
    pub orders: Vec<(RegionId, u64, PayloadRef)>,
}

impl Memory {
    pub fn add_region(&mut self, len: usize) -> RegionId {
        self.regions.push(vec![0; len]);
        self.writes.push(vec![0; len]);
        self.ended.push(false);
        RegionId(self.regions.len() as u64 - 1)
    }

    pub fn add_source(&mut self, bytes: Vec<u8>) -> SourceId {
        self.sources.push(bytes);
        self.gone.push(false);
        SourceId(self.sources.len() as u64 - 1)
    }
}

impl Regions for Memory {
    fn read(&mut self, source: SourceId, offset: u64, into: &mut [u8]) -> Result<(), RegionGone> {
        let (index, at) = (source.0 as usize, offset as usize);
        if self.gone[index] {
            return Err(RegionGone);
        }
        into.copy_from_slice(&self.sources[index][at..at + into.len()]);
        Ok(())
    }

    /// Every other source can be seen where it lies.
    fn bytes(
        &mut self,
        source: SourceId,
        offset: u64,
        len: usize,
    ) -> Result<Option<&[u8]>, RegionGone> {
        let (index, at) = (source.0 as usize, offset as usize);
        if self.gone[index] {
            return Err(RegionGone);
        }
        Ok((index % 2 == 0).then(|| &self.sources[index][at..at + len]))
    }

    fn crc(
        &mut self,
        source: SourceId,
        offset: u64,
        len: u64,
        seed: u32,
    ) -> Result<Option<u32>, RegionGone> {
        let (index, at) = (source.0 as usize, offset as usize);
        if self.gone[index] {
            return Err(RegionGone);
        }
        let sum = crc32c(seed, &self.sources[index][at..at + len as usize]);
        if self.changing == Some(source) {
            self.sources[index][at] ^= 1;
        }
        Ok(Some(sum))
    }

    fn place_remote(
        &mut self,
        region: RegionId,
        offset: u64,
        from: PayloadRef,
    ) -> Result<(), RegionGone> {
        let broken = |(broken, at)| broken == region && offset >= at;
        if self.broken.is_some_and(broken) {
            return Err(RegionGone);
        }
        self.orders.push((region, offset, from));
        Ok(())
    }

    fn write(&mut self, region: RegionId, offset: u64, bytes: &[u8]) -> Result<(), RegionGone> {
        let (index, at) = (region.0 as usize, offset as usize);
        assert!(!self.ended[index], "a write to {region:?} after its end");
        if self
            .broken
            .is_some_and(|(broken, from)| broken == region && offset >= from)
        {
            return Err(RegionGone);
        }
        self.regions[index][at..at + bytes.len()].copy_from_slice(bytes);
        for count in &mut self.writes[index][at..at + bytes.len()] {
            *count += 1;
            assert_eq!(*count, 1, "a byte of {region:?} was written twice");
        }
        Ok(())
    }
}

/// Memory that is not there: only the counters matter.
pub struct Nowhere;

static NOTHING: [u8; 8192] = [0; 8192];

impl Regions for Nowhere {
    fn read(&mut self, _: SourceId, _: u64, _: &mut [u8]) -> Result<(), RegionGone> {
        Ok(())
    }
    fn bytes(&mut self, _: SourceId, at: u64, len: usize) -> Result<Option<&[u8]>, RegionGone> {
        // Some are sealed from where they lie, some copied first.
        Ok(NOTHING.get(..len).filter(|_| at < 20_000))
    }
    fn write(&mut self, _: RegionId, _: u64, _: &[u8]) -> Result<(), RegionGone> {
        Ok(())
    }
}

impl Gather for Nowhere {
    fn gather(&mut self, _: PayloadToken, _: Option<&[u8]>) {}
}

pub const ID: ConnectionId = ConnectionId(77);

pub struct End<M> {
    pub endpoint: Endpoint,
    pub memory: M,
    /// Takes frames out without their data, where it can.
    pub split: bool,
    /// Receives data in a device's memory, where it can.
    pub device: Option<Device>,
    /// Until then its core is another's.
    pub stalled_until: u64,
    free_at: u64,
}

/// Arrives when, order, to whom, bytes.
type Flight = (u64, u64, usize, Vec<u8>);

pub struct Pair<M> {
    pub ends: [End<M>; 2],
    pub link: Link,
    pub random: Random,
    pub now: Time,
    pub frames: u64,
    wire: BinaryHeap<Reverse<Flight>>,
}

pub fn config(role: Role, epoch: u32, sealed: bool) -> Config {
    let protection = if sealed {
        Protection::Sealed(Secret([7; 32]))
    } else {
        Protection::Checksummed
    };
    Config::new(ID, Epoch(epoch), role, protection)
}

/// Of both ends.
pub fn configs(epoch: u32, sealed: bool) -> [Config; 2] {
    [Role::Initiator, Role::Responder].map(|role| config(role, epoch, sealed))
}

/// Of a receiver that has room for 128 KiB until it releases them.
pub fn staged() -> Config {
    let mut config = config(Role::Responder, 1, false);
    (config.credit, config.credit_when) = (128 << 10, Credit::WhenReleased);
    config
}

impl<M: Regions> End<M> {
    pub fn new(memory: M) -> Self {
        Self {
            endpoint: Endpoint::new(),
            memory,
            split: false,
            device: None,
            stalled_until: 0,
            free_at: 0,
        }
    }

    /// The next frame as the wire sees it: data that are only named are read now.
    pub fn next_frame(&mut self, now: Time, buffer: &mut [u8]) -> Option<Vec<u8>> {
        if !self.split {
            let sent = self.endpoint.poll_transmit(now, &mut self.memory, buffer)?;
            return Some(buffer[..sent.len].to_vec());
        }
        let sent = self
            .endpoint
            .poll_transmit_split(now, &mut self.memory, buffer)?;
        let mut frame = buffer[..sent.head_len].to_vec();
        for span in sent.data() {
            let at = frame.len();
            frame.resize(at + span.len as usize, 0);
            let read = self.memory.read(span.source, span.offset, &mut frame[at..]);
            read.expect("a source lives as long as its transfer");
        }
        assert_eq!(frame.len(), sent.frame_len());
        Some(frame)
    }
}

impl<M: Gather> Pair<M> {
    pub fn new(link: Link, random: Random, memory: [M; 2]) -> Self {
        let ends = memory.map(End::new);
        let now = Time(1_000_000);
        Self {
            ends,
            link,
            random,
            now,
            frames: 0,
            wire: BinaryHeap::new(),
        }
    }

    pub fn open(&mut self, configs: [Config; 2]) {
        for (end, config) in self.ends.iter_mut().zip(configs) {
            if let Some(device) = &mut end.device {
                device.forget();
            }
            end.endpoint.open(config, self.now).unwrap();
        }
    }

    pub fn connection(&mut self, end: usize) -> &mut Connection {
        self.ends[end].endpoint.connection(ID).unwrap()
    }

    pub fn events(&mut self, end: usize) -> Vec<Event> {
        let connection = self.connection(end);
        std::iter::from_fn(|| connection.poll_event()).collect()
    }

    /// Puts a frame on the wire to `to`.
    pub fn inject(&mut self, to: usize, frame: Vec<u8>, after: Duration) {
        self.frames += 1;
        let at = self.now.after(after).0;
        self.wire.push(Reverse((at, self.frames, to, frame)));
    }

    /// Copies of the frames that are under way.
    pub fn on_wire(&self) -> Vec<Vec<u8>> {
        self.wire
            .iter()
            .take(20)
            .map(|Reverse((_, _, _, frame))| frame.clone())
            .collect()
    }

    /// Lets both ends send all that they may now.
    pub fn transmit(&mut self) {
        let mut buffer = vec![0; 16 * 1024];
        for from in 0..2 {
            if self.ends[from].stalled_until > self.now.0 {
                continue;
            }
            while let Some(frame) = self.ends[from].next_frame(self.now, &mut buffer) {
                self.carry(from, frame);
            }
        }
    }

    fn carry(&mut self, from: usize, mut frame: Vec<u8>) {
        let (link, random) = (self.link.clone(), &mut self.random);
        let free_at = self.ends[from].free_at.max(self.now.0);
        let backlog =
            (free_at - self.now.0) as u128 * u128::from(link.bytes_per_second) / 1_000_000_000;
        let full = backlog > u128::from(link.queue_bytes);
        if link.cut || full || frame.len() > link.mtu {
            return;
        }
        let leaves = free_at + frame.len() as u64 * 1_000_000_000 / link.bytes_per_second;
        self.ends[from].free_at = leaves;
        // Lost on the far side of the queue: it took its time on the wire.
        if random.chance(link.loss) {
            return;
        }
        let copies = 1 + usize::from(random.chance(link.duplicate));
        if random.chance(link.flip) {
            let bit = random.below(frame.len() as u64 * 8) as usize;
            frame[bit / 8] ^= 1 << (bit % 8);
        }
        for copy in 0..copies {
            let mut at = leaves + link.delay_ns + random.below(link.jitter_ns + 1);
            if copy > 0 || random.chance(link.reorder) {
                at += random.below(4 * (link.delay_ns + link.jitter_ns));
            }
            self.frames += 1;
            self.wire
                .push(Reverse((at, self.frames, 1 - from, frame.clone())));
        }
    }

    /// Sends, then goes to the next moment at which something happens; `false` when nothing will.
    pub fn step(&mut self) -> bool {
        self.transmit();
        let arrives = self.wire.peek().map(|Reverse(next)| next.0);
        let timers = self.ends.each_ref().map(|end| {
            let due = end.endpoint.timeout().map(|time| time.0);
            let wakes = (end.stalled_until > self.now.0).then_some(end.stalled_until);
            due.max(wakes)
        });
        let devices = self
            .ends
            .iter()
            .filter_map(|end| end.device.as_ref()?.next());
        let times = timers.into_iter().flatten().chain(arrives).chain(devices);
        let Some(next) = times.min() else {
            return false;
        };
        self.now = Time(next.max(self.now.0 + 1));
        for end in &mut self.ends {
            end.verify(self.now);
        }
        while let Some(Reverse((at, _, to, _))) = self.wire.peek()
            && *at <= self.now.0
        {
            let to = *to;
            let Some(Reverse((_, order, _, mut frame))) = self.wire.pop() else {
                break;
            };
            if self.ends[to].stalled_until > self.now.0 {
                // It lies in the ring, which keeps its order.
                let at = self.ends[to].stalled_until;
                self.wire.push(Reverse((at, order, to, frame)));
                continue;
            }
            self.ends[to].take(&mut frame, self.now, &mut self.random);
        }
        true
    }
}
