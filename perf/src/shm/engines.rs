//! The loop's end with real engines: the program's channel goes to one, a link in memory joins it to
//! another, and a program behind that one answers. All of it is one thread, which polls.
//!
//! It is a gateway's and a node's way of a message without a network card, and without a second
//! machine to share the work. Messages only.

use std::cell::RefCell;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::RawFd;
use std::rc::Rc;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use genie_channel::{AppHalf, Doorbell, LoopHalf, Offer, Sizes, local};
use genie_poll::wire::{BURST, Wire, Written};
use genie_poll::{Channel, Engine, EngineConfig, PeerPlace};
use genie_transport::{Config, ConnectionId, Epoch, Protection, Role};

use super::MESSAGE_MAX;
use super::program::Program;
use crate::path::{Event, Facts, Kind, Part, Path, Plan, Wait};

/// Bytes of the longest IP packet of the link.
pub const MTU: u16 = 9000;
const FRAME_MAX: usize = MTU as usize + 14;
/// Frames that the link holds in one direction.
const FRAMES_MAX: usize = 256;

/// The loop's end of a channel, and all that is behind it.
pub struct Engines {
    near: Engine<Cable>,
    far: Engine<Cable>,
    connection: ConnectionId,
    answering: Program,
}

impl Engines {
    /// Over the loop's half of the channel of a program that took `offer`.
    pub fn new(half: LoopHalf, offer: &Offer, facts: Facts) -> Result<Self> {
        let (there, back) = (Lane::shared(), Lane::shared());
        let cable = |out: &Shared, into: &Shared| Cable {
            out: Rc::clone(out),
            into: Rc::clone(into),
        };
        let mut near = engine(cable(&there, &back), 1)?;
        let mut far = engine(cable(&back, &there), 2)?;
        let protection = || Protection::agreed(offer.sealed, offer.secret);
        let connection = ConnectionId(offer.connection);
        let config = |role| Config::new(connection, Epoch(offer.epoch), role, protection());
        let peer = PeerPlace::At(address(2));
        near.open_channel(channel(config(Role::Initiator), peer, half))?;
        let (app, half): (AppHalf, _) = local(Sizes::GATEWAY, Doorbell::new()?)?;
        far.open_channel(channel(config(Role::Responder), PeerPlace::Learned, half))?;
        Ok(Self {
            near,
            far,
            connection,
            answering: Program::answering(app, facts)?,
        })
    }
}

fn address(host: u8) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::new(10, 77, 0, host), 7700)
}

fn engine(cable: Cable, host: u8) -> Result<Engine<Cable>> {
    let config = EngineConfig {
        mac: [2, 0, 0, 0, 0, host],
        address: address(host),
        prefix: 24,
        router: None,
        mtu: MTU,
        seed: u64::from(host),
    };
    // Nobody sleeps who would have to be woken.
    Engine::new(cable, &config, Arc::new(|| ())).context("no engine")
}

fn channel(config: Config, peer: PeerPlace, half: LoopHalf) -> Channel {
    Channel {
        config,
        peer,
        source: half.arena().cloned(),
        sink: half.arena().cloned(),
        half,
    }
}

impl Path for Engines {
    fn facts(&mut self) -> Facts {
        self.answering.facts()
    }

    fn message_max(&self) -> usize {
        MESSAGE_MAX
    }

    fn begin(&mut self, plan: &Plan) -> Result<()> {
        if !matches!(plan.kind, Kind::EchoMessages | Kind::Messages) {
            bail!("engines on one machine carry messages only: {MESSAGE_MAX} bytes at most");
        }
        self.answering.begin(plan)
    }

    fn memory(&mut self, _: Part, _: u32) -> &mut [u8] {
        &mut []
    }

    fn send(&mut self, _: u32, _: Part) -> Result<bool> {
        bail!("engines on one machine carry messages only")
    }

    fn message(&mut self, bytes: &[u8]) -> Result<bool> {
        self.answering.message(bytes)
    }

    fn next(&mut self) -> Result<Option<Event>> {
        self.answering.next()
    }

    fn message_bytes(&self) -> &[u8] {
        self.answering.message_bytes()
    }

    fn wait(&mut self, _: Wait) -> Result<bool> {
        self.near.turn();
        self.far.turn();
        // Offers the core to others now and then.
        self.answering.wait(Wait::Path)
    }

    fn nudge(&mut self) -> Result<()> {
        Ok(())
    }

    fn watch(&mut self, _: RawFd) {}

    fn retransmissions(&mut self) -> u64 {
        [&mut self.near, &mut self.far]
            .into_iter()
            .filter_map(|engine| engine.connection(self.connection))
            .map(|(connection, _)| connection.counters().frames_lost)
            .sum()
    }
}

/// Frames on their way in one direction, in memory that was there from the start.
struct Lane {
    frames: Vec<(Box<[u8]>, usize)>,
    first: usize,
    count: usize,
}

type Shared = Rc<RefCell<Lane>>;

impl Lane {
    fn shared() -> Shared {
        let frame = || (vec![0; FRAME_MAX].into_boxed_slice(), 0);
        Rc::new(RefCell::new(Self {
            frames: std::iter::repeat_with(frame).take(FRAMES_MAX).collect(),
            first: 0,
            count: 0,
        }))
    }
}

/// One end of a link in memory.
struct Cable {
    out: Shared,
    into: Shared,
}

impl Wire for Cable {
    type Packet = Vec<u8>;

    fn receive(&mut self, mut take: impl FnMut(&mut [u8])) -> usize {
        let lane = &mut *self.into.borrow_mut();
        let burst = lane.count.min(BURST);
        for _ in 0..burst {
            let (frame, len) = &mut lane.frames[lane.first];
            take(&mut frame[..*len]);
            lane.first = (lane.first + 1) % FRAMES_MAX;
            lane.count -= 1;
        }
        burst
    }

    fn receive_kept(&mut self, mut take: impl FnMut(Vec<u8>)) -> usize {
        self.receive(|frame| take(frame.to_vec()))
    }

    fn transmit(&mut self, mut write: impl FnMut(&mut [u8]) -> Option<Written>) -> usize {
        let lane = &mut *self.out.borrow_mut();
        let before = lane.count;
        while lane.count < FRAMES_MAX {
            let at = (lane.first + lane.count) % FRAMES_MAX;
            let (frame, len) = &mut lane.frames[at];
            let Some(written) = write(frame) else {
                break;
            };
            *len = written.len;
            lane.count += 1;
        }
        lane.count - before
    }

    fn is_backlogged(&self) -> bool {
        false
    }

    fn frame_max(&self) -> usize {
        FRAME_MAX
    }
}
