//! Two engines joined by a link in memory, and programs on them.
#![allow(
    dead_code,
    reason = "each test binary that has this module uses some of it"
)]

use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use genie_channel::{AppHalf, Command, Doorbell, FromLoop, LoopHalf, Sizes, local};
use genie_gpudev::device::{Device as _, HostDevice, Memory};
use genie_poll::direct::Direct;
use genie_poll::wire::{Packet, Wire, Written};
use genie_poll::{Channel, Engine, EngineConfig, PeerPlace};
use genie_shm::Mapping;
use genie_transport::{Config, ConnectionId, Epoch, Protection, Role, Secret};

pub type Queue = Rc<RefCell<VecDeque<Vec<u8>>>>;

pub const FRAME_MAX: usize = 9014;
/// Packets that a device's memory holds.
pub const BUFFERS: u64 = 256;
/// Frames that the link holds; more are lost, as on any link.
const QUEUE_MAX: usize = 1024;
const LIMIT: Duration = Duration::from_secs(20);
/// A peer that has been silent for so long is dead: SPECIFICATION.md says so.
pub const DEATH_MAX: Duration = Duration::from_secs(2);

/// One end of the link. Every `lose`th frame that leaves is lost.
pub struct Ends {
    pub out: Queue,
    pub back: Queue,
    pub room: Vec<u8>,
    pub lose: usize,
    /// Every such frame that arrives has a bit of its last byte flipped; 0 for none.
    pub flip: usize,
    pub count: usize,
    /// It takes no frame, as a port whose link is down.
    pub is_down: bool,
    /// Where packets are kept, if anybody keeps them.
    pub buffers: Option<Buffers>,
}

/// Buffers in a device's memory.
#[derive(Clone)]
pub struct Buffers {
    pub memory: Memory,
    pub free: Rc<RefCell<Vec<u64>>>,
}

impl Buffers {
    pub fn new(device: &HostDevice) -> Self {
        let bytes = BUFFERS * FRAME_MAX.next_multiple_of(4096) as u64;
        let places = (0..BUFFERS).map(|at| at * (bytes / BUFFERS));
        Self {
            memory: device.allocate(bytes).unwrap(),
            free: Rc::new(RefCell::new(places.collect())),
        }
    }
}

/// A frame in one of them, which is free again when it is dropped.
pub struct Buffer {
    buffers: Buffers,
    place: u64,
    len: usize,
}

impl Packet for Buffer {
    fn bytes(&mut self) -> &mut [u8] {
        let start = self.buffers.memory.host_at(self.place, self.len as u64);
        // SAFETY: the place is this packet's alone, and inside the memory.
        unsafe { std::slice::from_raw_parts_mut(start.unwrap().as_ptr(), self.len) }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.buffers.free.borrow_mut().push(self.place);
    }
}

impl Wire for Ends {
    type Packet = Buffer;

    fn receive_kept(&mut self, mut take: impl FnMut(Buffer)) -> usize {
        let buffers = self.buffers.clone().unwrap();
        let (flip, mut arrived) = (self.flip, 0);
        self.receive(|frame| {
            arrived += 1;
            let Some(place) = buffers.free.borrow_mut().pop() else {
                return;
            };
            let (buffers, len) = (buffers.clone(), frame.len());
            buffers.memory.write(place, frame).unwrap();
            let mut packet = Buffer {
                buffers,
                place,
                len,
            };
            if flip > 0 && arrived % flip == 0 {
                packet.bytes()[len - 1] ^= 0x10;
            }
            take(packet);
        })
    }

    fn receive(&mut self, mut take: impl FnMut(&mut [u8])) -> usize {
        let mut count = 0;
        while count < 32
            && let Some(mut frame) = self.back.borrow_mut().pop_front()
        {
            take(&mut frame);
            count += 1;
        }
        count
    }

    fn transmit(&mut self, mut write: impl FnMut(&mut [u8]) -> Option<Written>) -> usize {
        let mut sent = 0;
        if self.is_down {
            return sent;
        }
        while let Some(Written { len, data }) = write(&mut self.room) {
            assert!(
                data.is_none_or(|data| data.data().is_empty()),
                "it was not asked for"
            );
            sent += 1;
            self.count += 1;
            let lost = self.lose > 0 && self.count.is_multiple_of(self.lose);
            let mut out = self.out.borrow_mut();
            if !lost && out.len() < QUEUE_MAX {
                out.push_back(self.room[..len].to_vec());
            }
        }
        sent
    }

    fn is_backlogged(&self) -> bool {
        false
    }

    fn frame_max(&self) -> usize {
        FRAME_MAX
    }
}

pub fn address(host: u8) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::new(10, 77, 0, host), 7700)
}

/// A host of the link, by its number.
pub fn engine_config(host: u8) -> EngineConfig {
    EngineConfig {
        mac: [2, 0, 0, 0, 0, host],
        address: address(host),
        prefix: 24,
        router: None,
        mtu: 9000,
        seed: 1,
    }
}

pub struct Pair {
    pub a: Engine<Ends>,
    pub b: Engine<Ends>,
}

impl Pair {
    pub fn new(lose: usize) -> Self {
        let (one, two) = (Queue::default(), Queue::default());
        let engine = |host: u8, out: &Queue, back: &Queue| {
            let ends = Ends {
                out: Rc::clone(out),
                back: Rc::clone(back),
                room: vec![0; FRAME_MAX],
                lose,
                flip: 0,
                count: 0,
                is_down: false,
                buffers: None,
            };
            Engine::new(ends, &engine_config(host), Arc::new(|| ())).unwrap()
        };
        Self {
            a: engine(1, &one, &two),
            b: engine(2, &two, &one),
        }
    }

    /// What arrives at `b` is in a device's memory from now on.
    pub fn set_direct(&mut self) -> Buffers {
        let device = HostDevice::new(0);
        let buffers = Buffers::new(&device);
        self.b.wire().buffers = Some(buffers.clone());
        self.b.set_direct(Direct {
            device: Arc::new(device),
            payload: Arc::clone(&buffers.memory),
        });
        buffers
    }

    /// A connection with a program at each end: the initiator's, and the responder's.
    pub fn connect(&mut self, id: u64, seal: bool) -> [Program; 2] {
        let protection = if seal {
            Protection::Sealed(Secret([7; 32]))
        } else {
            Protection::Checksummed
        };
        let config = |role| Config::new(ConnectionId(id), Epoch(1), role, protection.clone());
        let (initiator, half) = Program::new();
        let channel = initiator.channel(config(Role::Initiator), PeerPlace::At(address(2)), half);
        self.a.open_channel(channel).unwrap();
        let (responder, half) = Program::new();
        let channel = responder.channel(config(Role::Responder), PeerPlace::Learned, half);
        self.b.open_channel(channel).unwrap();
        [initiator, responder]
    }

    pub fn turn(&mut self) {
        self.a.turn();
        self.b.turn();
    }

    /// Turns until `done`.
    pub fn until(&mut self, mut done: impl FnMut() -> bool) {
        let deadline = Instant::now() + LIMIT;
        while !done() {
            assert!(Instant::now() < deadline, "nothing more happens");
            self.turn();
        }
    }
}

/// A program: what it heard.
pub struct Program {
    pub app: Option<AppHalf>,
    pub memory: Arc<Mapping>,
    pub heard: Vec<u8>,
    pub sent: usize,
    pub received: usize,
    pub failed: usize,
    pub ended: Option<u8>,
}

impl Program {
    pub fn new() -> (Self, LoopHalf) {
        Self::with_doorbell(Doorbell::new().unwrap())
    }

    pub fn with_doorbell(doorbell: Doorbell) -> (Self, LoopHalf) {
        let (app, half) = local(Sizes::LOCAL, doorbell).unwrap();
        let program = Self {
            app: Some(app),
            memory: Arc::new(Mapping::create(64 << 20).unwrap()),
            heard: Vec::new(),
            sent: 0,
            received: 0,
            failed: 0,
            ended: None,
        };
        (program, half)
    }

    pub fn channel(&self, config: Config, peer: PeerPlace, half: LoopHalf) -> Channel {
        Channel {
            config,
            peer,
            half,
            source: Some(Arc::clone(&self.memory)),
            sink: Some(Arc::clone(&self.memory)),
        }
    }

    pub fn say(&mut self, bytes: &[u8]) -> usize {
        self.app.as_mut().unwrap().sender.try_stream(bytes).unwrap()
    }

    pub fn put(&mut self, command: Command) {
        assert!(self.app.as_mut().unwrap().sender.try_put(command).unwrap());
    }

    pub fn listen(&mut self) {
        let Some(app) = &mut self.app else { return };
        while let Ok(Some(message)) = app.receiver.try_next() {
            match message {
                FromLoop::Stream(bytes) => self.heard.extend_from_slice(bytes),
                FromLoop::Sent { .. } => self.sent += 1,
                FromLoop::Received { .. } => self.received += 1,
                FromLoop::BulkFailed { .. } => self.failed += 1,
                FromLoop::Ended { code, .. } => self.ended = Some(code),
            }
        }
    }
}

pub fn pattern(len: usize, seed: u32) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2_654_435_761) | 1;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state as u8
        })
        .collect()
}
