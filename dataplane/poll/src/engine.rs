//! One link, everything that runs over it, to completion and on one thread.
//!
//! [`Engine::turn`] takes what has arrived, lets the programs speak, and sends what may be sent. It
//! never waits and takes no lock but those of control channels that have something to say.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use genie_channel::{LoopHalf, ended};
use genie_gpudev::Mapping;
use genie_netstack::{CONNECTIONS_DEFAULT, Host, HostConfig, HostError, PipeStream};
use genie_transport::limits::CONNECTIONS_MAX;
use genie_transport::{
    Config, Connection, ConnectionId, Endpoint, OpenError, PeerId, Protection, Time,
};

use crate::bridge::{Bridge, BridgeError};
use crate::clock::Clock;
use crate::counters::Counters;
use crate::memory::{Memory, MemoryId};
use crate::packet::{self, ETHERNET_BYTES, HEADERS_BYTES, IP_AND_UDP_BYTES, Mac, Place, Received};
use crate::wire::{BURST, Wire, Written};

/// Bursts that one turn receives at most, and frames that it sends: more would keep acknowledgements
/// waiting.
const BURSTS_A_TURN: usize = 2;
const FRAMES_A_TURN: usize = 64;
/// DPDK notes every page of memory that packets may lie in, which takes it a quarter of a
/// microsecond: more than this is not worth the stop.
const SHARED_MAX: u64 = 512 << 20;
/// How often what is slow to see is looked for: programs that died, addresses, ends.
const UPKEEP: Duration = Duration::from_millis(2);
/// How long a connection that ended is kept for a program that has not looked yet.
const KEPT: Duration = Duration::from_secs(1);
/// How long what a program left behind may take to leave.
const DRAIN: Duration = Duration::from_secs(5);
/// How long one is kept whose last frames may still be on their way.
const LINGER: Duration = Duration::from_millis(20);

/// What a host on a link is called.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// Of the port.
    pub mac: Mac,
    /// This host's address on the link, and the UDP port of its transport.
    pub address: SocketAddrV4,
    /// Bits of the address that name the link's network.
    pub prefix: u8,
    /// Who knows the way to other networks.
    pub router: Option<Ipv4Addr>,
    /// Bytes of the longest IP packet.
    pub mtu: u16,
    /// For what must differ between runs: TCP's sequence numbers.
    pub seed: u64,
}

/// Where the peer of a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerPlace {
    /// There. Its Ethernet address is asked for.
    At(SocketAddrV4),
    /// Where its first authentic frame comes from.
    Learned,
}

/// What a channel's connection is to be.
pub struct Channel {
    /// The connection; `peer` and the frame sizes are the engine's to set.
    pub config: Config,
    /// Whom to.
    pub peer: PeerPlace,
    /// The program.
    pub half: LoopHalf,
    /// Where the program's bulk is read from, if not known yet.
    pub source: Option<Arc<Mapping>>,
    /// Where bulk for it is written to.
    pub sink: Option<Arc<Mapping>>,
}

/// Why a connection was not opened.
#[derive(Debug, thiserror::Error)]
pub enum ChannelOpenError {
    /// Close one first.
    #[error("{CONNECTIONS_MAX} connections are open on this link; let some end, or use another")]
    Full,
    /// Connections are named at random; somebody chose a name that is taken.
    #[error("connection {:x} is open already", .0.0)]
    Taken(ConnectionId),
    /// It ended.
    #[error("connection {:x} is not open", .0.0)]
    Gone(ConnectionId),
    /// The memory of the channels is all in use.
    #[error("too many pieces of memory are shared on this link")]
    Memory,
    /// The transport's own reason.
    #[error(transparent)]
    Transport(#[from] OpenError),
}

struct Slot {
    id: ConnectionId,
    address: Option<SocketAddrV4>,
    mac: Option<Mac>,
    /// Waits for the peer's Ethernet address.
    waiting: Option<Box<Config>>,
    bridge: Option<Bridge>,
    /// Since when the program is gone.
    gone_at: Option<Time>,
    /// When it is to be forgotten.
    forget_at: Option<Time>,
}

impl Slot {
    fn place(&self) -> Option<Place> {
        Some(Place {
            mac: self.mac?,
            address: self.address?,
        })
    }
}

/// The poll loop's body, over any link.
pub struct Engine<W> {
    wire: W,
    me: Place,
    frame_bytes_max: usize,
    host: Host,
    endpoint: Endpoint,
    memory: Memory,
    slots: Vec<Option<Slot>>,
    clock: Clock,
    upkeep_at: Time,
    counters: Arc<Counters>,
}

impl<W: Wire> Engine<W> {
    /// Over `wire`. `wake` is called by other threads that have something for a loop that sleeps.
    ///
    /// # Errors
    /// An address that no host can have.
    pub fn new(
        wire: W,
        config: &EngineConfig,
        wake: Arc<dyn Fn() + Send + Sync>,
    ) -> Result<Self, HostError> {
        let mtu = usize::from(config.mtu).min(wire.frame_max() - ETHERNET_BYTES);
        let host = HostConfig {
            mac: config.mac,
            address: *config.address.ip(),
            prefix: config.prefix,
            router: config.router,
            mtu,
            tcp_connections_max: CONNECTIONS_DEFAULT,
            seed: config.seed,
        };
        Ok(Self {
            wire,
            me: Place {
                mac: config.mac,
                address: config.address,
            },
            frame_bytes_max: mtu - IP_AND_UDP_BYTES,
            host: Host::new(host, wake)?,
            endpoint: Endpoint::new(),
            memory: Memory::new(),
            slots: Vec::with_capacity(CONNECTIONS_MAX),
            clock: Clock::start(),
            upkeep_at: Time(0),
            counters: Arc::new(Counters::default()),
        })
    }

    /// The host's own stack.
    pub fn host(&mut self) -> &mut Host {
        &mut self.host
    }

    /// The link.
    pub fn wire(&mut self) -> &mut W {
        &mut self.wire
    }

    /// What was done so far, for other threads to read.
    #[must_use]
    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// This host's place on the link.
    #[must_use]
    pub fn place(&self) -> Place {
        self.me
    }

    /// Bytes of the longest frame of the transport that this link may carry.
    #[must_use]
    pub fn frame_bytes_max(&self) -> usize {
        self.frame_bytes_max
    }

    /// A TCP connection from this host's own stack.
    ///
    /// # Errors
    /// No room for another.
    pub fn connect(&mut self, to: SocketAddrV4) -> Result<PipeStream, HostError> {
        self.host.connect(to)
    }

    /// Opens a connection without a program: the caller drives it, by [`Engine::connection`], and
    /// polls its events.
    ///
    /// # Errors
    /// [`ChannelOpenError`]
    pub fn open(&mut self, config: Config, peer: PeerPlace) -> Result<(), ChannelOpenError> {
        self.insert(config, peer, None)
    }

    /// Opens a connection for a program.
    ///
    /// # Errors
    /// [`ChannelOpenError`]; the channel is closed then.
    pub fn open_channel(&mut self, channel: Channel) -> Result<(), ChannelOpenError> {
        let mut same = None;
        let protection = channel.config.protection.clone();
        let mut known = |mapping: Option<Arc<Mapping>>, engine: &mut Self| match mapping {
            None => Ok(None),
            Some(mapping) => {
                if let Some((known, id)) = &same
                    && Arc::ptr_eq(known, &mapping)
                {
                    return Ok(Some(*id));
                }
                let id = engine.add_memory(&mapping, &protection)?;
                same = Some((mapping, id));
                Ok::<_, ChannelOpenError>(Some(id))
            }
        };
        let source = known(channel.source, self)?;
        let opened = known(channel.sink, self).and_then(|sink| {
            let bridge = Bridge::new(channel.half, source, sink);
            self.insert(channel.config, channel.peer, Some(bridge))
                .inspect_err(|_| self.remove_memories([sink]))
        });
        opened.inspect_err(|_| self.remove_memories([source]))
    }

    /// Makes memory known, to be sent from and received into. `protection` is that of the
    /// connections that will: what is not sealed may be sent without a copy.
    ///
    /// # Errors
    /// Too much is known.
    pub fn add_memory(
        &mut self,
        mapping: &Arc<Mapping>,
        protection: &Protection,
    ) -> Result<MemoryId, ChannelOpenError> {
        let id = self
            .memory
            .add(Arc::clone(mapping))
            .ok_or(ChannelOpenError::Memory)?;
        let plain = matches!(protection, Protection::Checksummed);
        if plain && mapping.capacity() <= SHARED_MAX && self.wire.share(id, mapping) {
            self.memory.set_shared(id);
        }
        Ok(id)
    }

    /// Forgets memory, and every place in it.
    pub fn remove_memory(&mut self, id: MemoryId) {
        self.memory.remove(id);
        self.wire.forget(id);
    }

    fn remove_memories(&mut self, ids: impl IntoIterator<Item = Option<MemoryId>>) {
        for id in ids.into_iter().flatten() {
            self.remove_memory(id);
        }
    }

    /// Gives a connection's program its memory, which it did not have when it was opened.
    ///
    /// # Errors
    /// Too many are shared, or no such connection.
    pub fn share(
        &mut self,
        id: ConnectionId,
        source: Arc<Mapping>,
        sink: Arc<Mapping>,
    ) -> Result<(), ChannelOpenError> {
        let at = self.find(id).ok_or(ChannelOpenError::Gone(id))?;
        let protection = match self.endpoint.connection(id) {
            Some(connection) => connection.config().protection.clone(),
            None => return Err(ChannelOpenError::Gone(id)),
        };
        let source = self.add_memory(&source, &protection)?;
        let sink = self
            .add_memory(&sink, &protection)
            .inspect_err(|_| self.remove_memory(source))?;
        if let Some(bridge) = self.bridge(at) {
            bridge.set_memories(source, sink);
        }
        Ok(())
    }

    /// A connection and the memory of all, for who drives it without a channel.
    pub fn connection(&mut self, id: ConnectionId) -> Option<(&mut Connection, &mut Memory)> {
        Some((self.endpoint.connection(id)?, &mut self.memory))
    }

    /// The memory of all.
    pub fn memory(&mut self) -> &mut Memory {
        &mut self.memory
    }

    /// Closes a connection and forgets it.
    pub fn close(&mut self, id: ConnectionId) {
        if let Some(connection) = self.endpoint.connection(id) {
            connection.close();
        }
        let now = self.clock.now();
        if let Some(at) = self.find(id)
            && let Some(slot) = &mut self.slots[at]
        {
            slot.forget_at = Some(now.after(LINGER));
        }
    }

    /// Connections that are open or about to be.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.slots.iter().flatten().count()
    }

    /// Everything that can be done now. True if something was.
    pub fn turn(&mut self) -> bool {
        let now = self.clock.now();
        let received = self.receive(now);
        let spoke = self.speak();
        let sent = self.transmit(now);
        if now >= self.upkeep_at {
            self.upkeep(now);
        }
        self.counters.count_turn(received, sent);
        received > 0 || sent > 0 || spoke || self.wire.is_backlogged()
    }

    /// Takes what has arrived, and no more. True if something had.
    pub fn listen_once(&mut self) -> bool {
        let now = self.clock.now();
        let received = self.receive(now);
        self.counters.count_turn(received, 0);
        received > 0
    }

    /// How long nothing needs to be done unless something arrives. `None`: for ever.
    #[must_use]
    pub fn timeout(&self) -> Option<Duration> {
        let elapsed = self.clock.elapsed();
        let transport = self
            .endpoint
            .timeout()
            .map(|time| Duration::from_nanos(time.0));
        let next = [transport, self.host.timeout(elapsed)]
            .into_iter()
            .flatten()
            .min();
        next.map(|at| at.saturating_sub(elapsed))
    }

    /// Tells every program that the loop goes to sleep. False if one has spoken meanwhile.
    pub fn arm(&mut self) -> bool {
        for at in 0..self.slots.len() {
            if let Some(bridge) = self.bridge(at)
                && !bridge.half().arm()
            {
                self.disarm();
                return false;
            }
        }
        true
    }

    /// Tells every program that the loop is awake.
    pub fn disarm(&mut self) {
        for at in 0..self.slots.len() {
            if let Some(bridge) = self.bridge(at) {
                bridge.half().disarm();
            }
        }
    }

    /// Ends every connection, for `reason`.
    pub fn end_all(&mut self, reason: &str) {
        for at in 0..self.slots.len() {
            if let Some(bridge) = self.bridge(at) {
                bridge.end(ended::STOPPED, reason.to_owned());
            }
        }
        let ids: Vec<_> = self.slots.iter().flatten().map(|slot| slot.id).collect();
        for id in ids {
            self.close(id);
        }
    }

    fn bridge(&mut self, at: usize) -> Option<&mut Bridge> {
        self.slots.get_mut(at)?.as_mut()?.bridge.as_mut()
    }

    fn find(&self, id: ConnectionId) -> Option<usize> {
        self.slots
            .iter()
            .position(|slot| slot.as_ref().is_some_and(|slot| slot.id == id))
    }

    fn insert(
        &mut self,
        mut config: Config,
        peer: PeerPlace,
        bridge: Option<Bridge>,
    ) -> Result<(), ChannelOpenError> {
        if self.find(config.id).is_some() {
            return Err(ChannelOpenError::Taken(config.id));
        }
        let at = match self.slots.iter().position(Option::is_none) {
            Some(at) => at,
            None if self.slots.len() < CONNECTIONS_MAX => {
                self.slots.push(None);
                self.slots.len() - 1
            }
            None => return Err(ChannelOpenError::Full),
        };
        config.peer = PeerId(at as u64);
        config.mtu_max = config.mtu_max.min(self.frame_bytes_max);
        config.mtu = config.mtu.min(config.mtu_max);
        let mut slot = Slot {
            id: config.id,
            address: None,
            mac: None,
            waiting: None,
            bridge,
            gone_at: None,
            forget_at: None,
        };
        match peer {
            PeerPlace::Learned => {
                self.endpoint.open(config, self.clock.now())?;
            }
            PeerPlace::At(address) => {
                slot.address = Some(address);
                slot.waiting = Some(Box::new(config));
            }
        }
        self.slots[at] = Some(slot);
        self.counters.open(self.connections());
        self.resolve(at);
        Ok(())
    }

    /// Opens a connection that waits for its peer's Ethernet address, once that is known.
    fn resolve(&mut self, at: usize) {
        let elapsed = self.clock.elapsed();
        let Some(slot) = self.slots.get_mut(at).and_then(Option::as_mut) else {
            return;
        };
        let (Some(address), true) = (slot.address, slot.waiting.is_some()) else {
            return;
        };
        let Some(mac) = self.host.resolve(*address.ip(), elapsed) else {
            return;
        };
        slot.mac = Some(mac);
        if let Some(config) = slot.waiting.take()
            && let Err(error) = self.endpoint.open(*config, self.clock.now())
            && let Some(bridge) = &mut slot.bridge
        {
            bridge.end(ended::LOST, error.to_string());
        }
    }

    fn receive(&mut self, now: Time) -> usize {
        let Self {
            wire,
            me,
            host,
            endpoint,
            memory,
            slots,
            counters,
            ..
        } = self;
        // One look at the clock a turn: it costs as much as a frame of the host's.
        let elapsed = Duration::from_nanos(now.0);
        let mut received = 0;
        for _ in 0..BURSTS_A_TURN {
            let count = wire.receive(|frame| match packet::sort(frame, me.address) {
                Received::Transport(from, range) => {
                    let frame = &mut frame[range];
                    match endpoint.handle(frame, now, memory) {
                        Ok(id) => learn(slots, endpoint, id, from),
                        Err(_counted) => counters.dropped(),
                    }
                }
                Received::Host => host.handle(frame, elapsed),
                Received::Damaged => counters.damaged(),
            });
            received += count;
            if count < BURST {
                break;
            }
        }
        received
    }

    /// Programs to connections, and back.
    fn speak(&mut self) -> bool {
        let Self {
            endpoint,
            memory,
            slots,
            ..
        } = self;
        let mut busy = false;
        for slot in slots.iter_mut().flatten() {
            let Some(bridge) = &mut slot.bridge else {
                continue;
            };
            let Some(connection) = endpoint.connection(slot.id) else {
                continue;
            };
            match exchange(bridge, connection, memory) {
                Ok(spoke) => busy |= spoke,
                Err(error) => {
                    let code = match error {
                        BridgeError::App(_) => ended::LOST,
                        BridgeError::Peer(_) => ended::PROTOCOL,
                    };
                    tracing::warn!("connection {:x}: {error}", slot.id.0);
                    bridge.end(code, error.to_string());
                    connection.close();
                }
            }
        }
        busy
    }

    fn transmit(&mut self, now: Time) -> usize {
        let Self {
            wire,
            me,
            host,
            endpoint,
            memory,
            slots,
            counters,
            frame_bytes_max,
            ..
        } = self;
        let elapsed = Duration::from_nanos(now.0);
        let mut sent = 0;
        let mut transport = true;
        wire.transmit(|room| {
            if sent >= FRAMES_A_TURN {
                return None;
            }
            sent += 1;
            while transport {
                let (head, body) = room.split_first_chunk_mut::<HEADERS_BYTES>()?;
                let body = body.get_mut(..*frame_bytes_max)?;
                let Some(frame) = endpoint.poll_transmit_split(now, memory, body) else {
                    transport = false;
                    break;
                };
                let to = usize::try_from(frame.peer.0)
                    .ok()
                    .and_then(|at| slots.get(at)?.as_ref()?.place());
                let Some(to) = to else {
                    // It counts as lost, and is sent again when the peer is known.
                    counters.unroutable();
                    continue;
                };
                packet::write(head, *me, to, frame.frame_len());
                return Some(Written {
                    len: HEADERS_BYTES + frame.head_len,
                    data: Some(frame),
                });
            }
            host.poll_transmit(elapsed, room).map(Written::whole)
        })
    }

    /// What need not be looked at in every turn.
    fn upkeep(&mut self, now: Time) {
        self.upkeep_at = now.after(UPKEEP);
        self.counters.open(self.connections());
        self.counters.dropped_by_wire(self.wire.drops());
        for at in 0..self.slots.len() {
            self.resolve(at);
            if self.is_to_be_forgotten(at, now) {
                self.forget(at);
            }
        }
    }

    fn is_to_be_forgotten(&mut self, at: usize, now: Time) -> bool {
        let Self {
            endpoint, slots, ..
        } = self;
        let Some(slot) = &mut slots[at] else {
            return false;
        };
        if let Some(forget_at) = slot.forget_at {
            return now >= forget_at;
        }
        let Some(bridge) = &mut slot.bridge else {
            return false;
        };
        if bridge.half().is_gone() || bridge.is_deaf() {
            slot.gone_at = slot.gone_at.or(Some(now));
        }
        let gone = slot.gone_at.is_some();
        let waited = now.since(slot.gone_at.unwrap_or(now));
        let resolving = slot.waiting.is_some();
        match endpoint.connection(slot.id) {
            Some(connection) if gone && (bridge.is_done(connection) || waited >= DRAIN) => {
                connection.close();
                slot.forget_at = Some(now.after(LINGER));
            }
            // The program is given time to see it.
            Some(_) if bridge.is_over() => slot.forget_at = Some(now.after(KEPT)),
            Some(_) => {}
            None if resolving && waited < DRAIN => {}
            None if gone || bridge.is_over() => slot.forget_at = Some(now),
            None => {}
        }
        false
    }

    fn forget(&mut self, at: usize) {
        let Some(mut slot) = self.slots[at].take() else {
            return;
        };
        if let Some(bridge) = &mut slot.bridge {
            bridge.forget_regions(&mut self.memory);
            let memories = bridge.memories();
            self.remove_memories(memories);
        }
        if let Some(connection) = self.endpoint.remove(slot.id) {
            self.counters.ended(&connection.counters());
        }
    }
}

/// Where a peer's authentic frames come from is where it is.
fn learn(slots: &mut [Option<Slot>], endpoint: &mut Endpoint, id: ConnectionId, from: Place) {
    let Some(peer) = endpoint.connection(id).map(|found| found.config().peer) else {
        return;
    };
    if let Some(Some(slot)) = slots.get_mut(peer.0 as usize) {
        slot.mac = Some(from.mac);
        slot.address = Some(from.address);
    }
}

fn exchange(
    bridge: &mut Bridge,
    connection: &mut Connection,
    memory: &mut Memory,
) -> Result<bool, BridgeError> {
    let mut busy = false;
    while let Some(event) = connection.poll_event() {
        bridge.on_event(event, connection, memory)?;
        busy = true;
    }
    busy |= bridge.push(connection)?;
    if !bridge.is_over() {
        busy |= bridge.pull(connection, memory)?;
    }
    Ok(busy)
}
