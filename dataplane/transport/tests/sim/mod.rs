//! A simulated link between two endpoints; everything that happens follows from a seed.
#![allow(dead_code, reason = "each test uses its part")]

pub mod forge;
pub mod run;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use genie_transport::{
    Config, Connection, ConnectionId, Endpoint, Epoch, Event, Protection, RegionGone, RegionId,
    Regions, Role, Secret, SourceId, Time,
};

/// SplitMix64.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    pub fn chance(&mut self, share: f64) -> bool {
        (self.next() >> 11) as f64 / ((1u64 << 53) as f64) < share
    }
}

/// What a link does to frames.
#[derive(Clone, Debug)]
pub struct Link {
    pub bytes_per_second: u64,
    pub delay_ns: u64,
    pub jitter_ns: u64,
    pub loss: f64,
    pub reorder: f64,
    pub duplicate: f64,
    pub flip: f64,
    pub queue_bytes: u64,
    pub mtu: usize,
    pub cut: bool,
}

impl Link {
    pub fn perfect() -> Self {
        Self {
            bytes_per_second: 1_250_000_000,
            delay_ns: 50_000,
            jitter_ns: 0,
            loss: 0.0,
            reorder: 0.0,
            duplicate: 0.0,
            flip: 0.0,
            queue_bytes: 1 << 20,
            mtu: 9000,
            cut: false,
        }
    }

    pub fn from_seed(random: &mut Random) -> Self {
        let mut maybe = |share: f64, most: u64| {
            let hit = random.chance(share);
            if hit {
                random.below(most) as f64 / 1000.0
            } else {
                0.0
            }
        };
        let (loss, reorder) = (maybe(0.6, 150), maybe(0.4, 100));
        let (duplicate, flip) = (maybe(0.4, 100), maybe(0.4, 50));
        let narrow = random.chance(0.3);
        Self {
            bytes_per_second: if narrow { 5_000_000 } else { 1_250_000_000 },
            delay_ns: 5_000 + random.below(500_000),
            jitter_ns: random.below(200_000),
            loss,
            reorder,
            duplicate,
            flip,
            queue_bytes: if narrow { 50_000 } else { 1 << 20 },
            mtu: [1400, 4200, 9000][random.below(3) as usize],
            cut: false,
        }
    }
}

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

pub const ID: ConnectionId = ConnectionId(77);

pub struct End<M> {
    pub endpoint: Endpoint,
    pub memory: M,
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

impl<M: Regions> Pair<M> {
    pub fn new(link: Link, random: Random, memory: [M; 2]) -> Self {
        let ends = memory.map(|memory| End {
            endpoint: Endpoint::new(),
            memory,
            free_at: 0,
        });
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
            loop {
                let end = &mut self.ends[from];
                let sent = end
                    .endpoint
                    .poll_transmit(self.now, &mut end.memory, &mut buffer);
                let Some(sent) = sent else { break };
                self.carry(from, buffer[..sent.len].to_vec());
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
        let timers = [0, 1].map(|end| self.ends[end].endpoint.timeout().map(|time| time.0));
        let Some(next) = timers.into_iter().flatten().chain(arrives).min() else {
            return false;
        };
        self.now = Time(next.max(self.now.0 + 1));
        while let Some(Reverse((at, _, to, _))) = self.wire.peek()
            && *at <= self.now.0
        {
            let to = *to;
            let Some(Reverse((_, _, _, mut frame))) = self.wire.pop() else {
                break;
            };
            let end = &mut self.ends[to];
            let _counted = end.endpoint.handle(&mut frame, self.now, &mut end.memory);
        }
        true
    }
}
