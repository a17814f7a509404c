//! One link, everything that runs over it, to completion and on one thread.
//!
//! [`Engine::turn`] takes what has arrived, lets the programs speak, and sends what may be sent. It
//! never waits and takes no lock but those of control channels that have something to say.

mod intake;
mod sleep;
mod slots;

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use genie_channel::{LoopHalf, ended};
use genie_netstack::{CONNECTIONS_DEFAULT, Host, HostConfig, HostError, PipeStream};
use genie_shm::Mapping;
use genie_transport::limits::CONNECTIONS_MAX;
use genie_transport::{Config, Connection, ConnectionId, Endpoint, OpenError, Protection, Time};

use crate::bridge::{Bridge, BridgeError};
use crate::clock::Clock;
use crate::counters::Counters;
use crate::direct::Direct;
use crate::memory::{Memory, MemoryId};
use crate::packet::{self, ETHERNET_BYTES, HEADERS_BYTES, IP_AND_UDP_BYTES, Mac, Place};
use crate::wire::{Wire, Written};
use slots::Slot;

/// Frames that one turn sends at most: more would keep acknowledgements waiting.
const FRAMES_A_TURN: usize = 64;

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

/// The poll loop's body, over any link.
pub struct Engine<W: Wire> {
    wire: W,
    me: Place,
    frame_bytes_max: usize,
    host: Host,
    endpoint: Endpoint,
    memory: Memory,
    slots: Vec<Option<Slot<W::Packet>>>,
    /// Where packets arrive, if in a device's memory.
    direct: Option<Direct>,
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
        Self::with_clock(wire, config, wake, Clock::start())
    }

    /// As [`Engine::new`], by a clock of the caller's.
    ///
    /// # Errors
    /// An address that no host can have.
    pub fn with_clock(
        wire: W,
        config: &EngineConfig,
        wake: Arc<dyn Fn() + Send + Sync>,
        clock: Clock,
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
            direct: None,
            clock,
            upkeep_at: Time(0),
            counters: Arc::new(Counters::default()),
        })
    }

    /// From now on packets arrive in the memory of a device, which checks and places their data
    /// where they are not sealed.
    pub fn set_direct(&mut self, direct: Direct) {
        self.direct = Some(direct);
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
        if plain && self.wire.share(id, mapping) {
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

    /// A connection and the memory of all, for who drives it without a channel.
    pub fn connection(&mut self, id: ConnectionId) -> Option<(&mut Connection, &mut Memory)> {
        Some((self.endpoint.connection(id)?, &mut self.memory))
    }

    /// The memory of all.
    pub fn memory(&mut self) -> &mut Memory {
        &mut self.memory
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
        received > 0 || sent > 0 || spoke || self.wire.is_backlogged() || self.is_gathering()
    }

    /// A device is at work.
    fn is_gathering(&self) -> bool {
        let mut gathers = self
            .slots
            .iter()
            .flatten()
            .filter_map(|slot| slot.gather.as_ref());
        self.direct.is_some() && gathers.any(|gather| gather.is_under_way())
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
                if !frame.data().is_empty() {
                    counters.by_reference();
                }
                return Some(Written {
                    len: HEADERS_BYTES + frame.head_len,
                    data: Some(frame),
                });
            }
            host.poll_transmit(elapsed, room).map(Written::whole)
        })
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
