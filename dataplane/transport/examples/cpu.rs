//! What a frame costs the CPU: two endpoints joined in memory, no loss, time that is made up.
//! `cargo run --release -p genie-transport --example cpu`
//!
//! Included: the copy from the source into the frame and from the frame into the region, sums or
//! seals, acknowledgements, events. Not included: any driver. A split frame's data are put together
//! outside of the timing, as a NIC would.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends where it can't go on"
)]

use std::time::{Duration, Instant};

use genie_transport::{
    Config, ConnectionId, Endpoint, Epoch, Event, Priority, Protection, RegionGone, RegionId,
    Regions, Role, Secret, SourceId, Time, Transfer, crc32c,
};

const MIB: usize = 1 << 20;
/// More than a core's own cache holds.
const BUFFERS: usize = 16;
const BURST: usize = 32;
const FRAME: usize = 9000;

struct Memory(Vec<Vec<u8>>);

impl Memory {
    fn new() -> Self {
        Self(vec![vec![7; MIB]; BUFFERS])
    }

    fn part(&mut self, index: u64, offset: u64, len: usize) -> Option<&mut [u8]> {
        let offset = offset as usize;
        self.0
            .get_mut(index as usize)?
            .get_mut(offset..offset + len)
    }
}

impl Regions for Memory {
    fn read(&mut self, source: SourceId, offset: u64, into: &mut [u8]) -> Result<(), RegionGone> {
        let from = self.part(source.0, offset, into.len()).ok_or(RegionGone)?;
        into.copy_from_slice(from);
        Ok(())
    }

    fn bytes(
        &mut self,
        source: SourceId,
        offset: u64,
        len: usize,
    ) -> Result<Option<&[u8]>, RegionGone> {
        let from = self.part(source.0, offset, len);
        Ok(Some(from.ok_or(RegionGone)?))
    }

    fn crc(
        &mut self,
        source: SourceId,
        offset: u64,
        len: u64,
        seed: u32,
    ) -> Result<Option<u32>, RegionGone> {
        let from = self.part(source.0, offset, len as usize);
        Ok(Some(crc32c(seed, from.ok_or(RegionGone)?)))
    }

    fn write(&mut self, region: RegionId, offset: u64, bytes: &[u8]) -> Result<(), RegionGone> {
        let into = self.part(region.0, offset, bytes.len()).ok_or(RegionGone)?;
        into.copy_from_slice(bytes);
        Ok(())
    }
}

struct Ends {
    ends: [Endpoint; 2],
    memory: [Memory; 2],
    frames: Vec<Vec<u8>>,
    lens: Vec<usize>,
    now: Time,
    /// CPU time of each end.
    spent: [Duration; 2],
    split: bool,
}

const ID: ConnectionId = ConnectionId(1000);

fn config(id: ConnectionId, role: Role, sealed: bool) -> Config {
    let protection = if sealed {
        Protection::Sealed(Secret([7; 32]))
    } else {
        Protection::Checksummed
    };
    let mut config = Config::new(id, Epoch(1), role, protection);
    config.mtu = config.mtu_max;
    config
}

impl Ends {
    fn new(sealed: bool, split: bool, idle: usize) -> Self {
        let now = Time(1);
        let ends = [Role::Initiator, Role::Responder].map(|role| {
            let mut end = Endpoint::new();
            let opened = end.open(config(ID, role, sealed), now);
            opened.expect("a sound configuration");
            for id in 0..idle as u64 {
                // On both sides of the busy one.
                let id = ConnectionId(970 + id + u64::from(id >= 30));
                let opened = end.open(config(id, role, sealed), now);
                opened.expect("a sound configuration");
            }
            end
        });
        Self {
            ends,
            memory: [Memory::new(), Memory::new()],
            frames: vec![vec![0; FRAME]; BURST],
            lens: Vec::with_capacity(BURST),
            now,
            spent: [Duration::ZERO; 2],
            split,
        }
    }

    /// One end sends a burst, the other takes it. Returns the frames.
    fn pass(&mut self, from: usize) -> usize {
        self.lens.clear();
        let (end, memory) = (&mut self.ends[from], &mut self.memory[from]);
        let (mut spans, mut started) = (Vec::new(), Instant::now());
        for frame in &mut self.frames {
            let len = if self.split {
                let sent = end.poll_transmit_split(self.now, memory, frame);
                if let Some(sent) = &sent {
                    self.spent[from] += started.elapsed();
                    spans.push((sent.head_len, sent.data().to_vec()));
                    started = Instant::now();
                }
                sent.map(|sent| sent.frame_len())
            } else {
                let sent = end.poll_transmit(self.now, memory, frame);
                sent.map(|sent| sent.len)
            };
            let Some(len) = len else { break };
            self.lens.push(len);
        }
        self.spent[from] += started.elapsed();
        for (frame, (mut at, data)) in self.frames.iter_mut().zip(spans) {
            for span in data {
                let end = at + span.len as usize;
                let read = memory.read(span.source, span.offset, &mut frame[at..end]);
                read.expect("a source of ours");
                at = end;
            }
        }
        let (end, memory) = (&mut self.ends[1 - from], &mut self.memory[1 - from]);
        let started = Instant::now();
        for (frame, len) in self.frames.iter_mut().zip(&self.lens) {
            let handled = end.handle(&mut frame[..*len], self.now, memory);
            handled.expect("a good frame");
        }
        self.spent[1 - from] += started.elapsed();
        self.lens.len()
    }

    fn turn(&mut self) -> usize {
        let frames = self.pass(0);
        self.now = Time(self.now.0 + 10_000);
        self.pass(1);
        self.now = Time(self.now.0 + 10_000);
        frames
    }

    /// Starts a transfer of `len` bytes.
    fn start(&mut self, number: u64, len: u64) {
        let at = number % BUFFERS as u64;
        let started = Instant::now();
        let receiver = self.ends[1].connection(ID).expect("open");
        let grant = receiver.grant(RegionId(at), len).expect("few are open");
        self.spent[1] += started.elapsed();
        let started = Instant::now();
        let transfer = Transfer {
            grant,
            offset: 0,
            source: SourceId(at),
            source_offset: 0,
            len,
            priority: Priority::Normal,
        };
        let sender = self.ends[0].connection(ID).expect("open");
        sender.send(transfer).expect("few are open");
        self.spent[0] += started.elapsed();
    }

    fn received(&mut self) -> usize {
        for end in 0..2 {
            let started = Instant::now();
            let connection = self.ends[end].connection(ID).expect("open");
            let mut received = 0;
            while let Some(event) = connection.poll_event() {
                received += usize::from(matches!(event, Event::Received(_)));
            }
            self.spent[end] += started.elapsed();
            if end == 1 {
                return received;
            }
        }
        0
    }
}

fn bulk(name: &str, sealed: bool, split: bool, idle: usize) {
    let mut best = [f64::MAX; 2];
    for _ in 0..5 {
        let mut ends = Ends::new(sealed, split, idle);
        let (mut number, mut frames) = (0, 0);
        let mut open = 0;
        while number < 2000 {
            if number == 200 {
                // Warm, and the window is open.
                (frames, ends.spent) = (0, [Duration::ZERO; 2]);
            }
            while open < 8 {
                ends.start(number, MIB as u64);
                (number, open) = (number + 1, open + 1);
            }
            frames += ends.turn();
            open -= ends.received();
        }
        for (best, spent) in best.iter_mut().zip(ends.spent) {
            *best = best.min(spent.as_nanos() as f64 / frames as f64);
        }
    }
    let gbit = best.map(|ns| 8192.0 * 8.0 / ns);
    println!(
        "{name:24} sender {:5.0} ns/frame {:6.1} Gbit/s, receiver {:5.0} ns/frame {:6.1} Gbit/s",
        best[0], gbit[0], best[1], gbit[1]
    );
}

/// From grant and send to the first frame, of 64 bytes: both ends' calls, and the frame.
fn set_up() {
    let mut best = [f64::MAX; 2];
    let mut ends = Ends::new(false, false, 0);
    for _ in 0..20 {
        ends.spent = [Duration::ZERO; 2];
        let mut whole = Duration::ZERO;
        for number in 0..1000 {
            ends.start(number, 64);
            let started = Instant::now();
            let sent =
                ends.ends[0].poll_transmit(ends.now, &mut ends.memory[0], &mut ends.frames[0]);
            whole += started.elapsed();
            let len = sent.expect("a frame").len;
            let frame = &mut ends.frames[0][..len];
            let handled = ends.ends[1].handle(frame, ends.now, &mut ends.memory[1]);
            handled.expect("a good frame");
            ends.turn();
            ends.turn();
            ends.received();
        }
        best[0] = best[0].min(whole.as_nanos() as f64 / 1000.0);
    }
    for _ in 0..20 {
        // The calls alone, without the turns in between.
        let started = Instant::now();
        for number in 0..500 {
            ends.start(number, 64);
        }
        best[1] = best[1].min(started.elapsed().as_nanos() as f64 / 500.0);
        let mut left = 500;
        while left > 0 {
            ends.turn();
            left -= ends.received();
        }
    }
    println!(
        "set-up: grant and send {:.0} ns, first frame {:.0} ns",
        best[1], best[0]
    );
}

fn ping(sealed: bool) {
    let mut ends = Ends::new(sealed, false, 0);
    let mut best = f64::MAX;
    for _ in 0..20 {
        let started = Instant::now();
        for _ in 0..1000 {
            for from in 0..2 {
                let connection = ends.ends[from].connection(ID).expect("open");
                connection.send_message(&[5; 64]).expect("one at a time");
                let frame = &mut ends.frames[0];
                let sent = ends.ends[from].poll_transmit(ends.now, &mut ends.memory[from], frame);
                let frame = &mut frame[..sent.expect("a frame").len];
                let to = 1 - from;
                let handled = ends.ends[to].handle(frame, ends.now, &mut ends.memory[to]);
                handled.expect("a good frame");
                let connection = ends.ends[to].connection(ID).expect("open");
                let len = connection.read_message(<[u8]>::len);
                assert_eq!(len, Some(64));
                ends.now = Time(ends.now.0 + 2_000);
            }
        }
        best = best.min(started.elapsed().as_nanos() as f64 / 1000.0);
    }
    println!("64 bytes there and back, sealed {sealed}: {best:.0} ns of both ends together");
}

fn idle(connections: usize) {
    let mut ends = Ends::new(false, false, connections - 1);
    for _ in 0..10 {
        ends.turn();
    }
    let (mut best, rounds) = (f64::MAX, 100_000);
    let mut now = ends.now;
    for _ in 0..10 {
        let started = Instant::now();
        for _ in 0..rounds {
            now = Time(now.0 + 10);
            let sent = ends.ends[0].poll_transmit(now, &mut ends.memory[0], &mut ends.frames[0]);
            std::hint::black_box((sent, ends.ends[0].timeout()));
        }
        best = best.min(started.elapsed().as_nanos() as f64 / f64::from(rounds));
    }
    println!("{connections} idle connections: {best:.1} ns for poll_transmit and timeout");
}

fn main() {
    let only = std::env::args().nth(1);
    let wanted = |name: &str| only.as_deref().is_none_or(|only| only == name);
    let bulks = [
        ("checksummed", false, false, 0),
        ("checksummed-split", false, true, 0),
        ("sealed", true, false, 0),
        ("checksummed-64", false, false, 63),
    ];
    for (name, sealed, split, idle) in bulks {
        if wanted(name) {
            bulk(name, sealed, split, idle);
        }
    }
    if wanted("small") {
        set_up();
        ping(false);
        ping(true);
        idle(1);
        idle(64);
    }
}
