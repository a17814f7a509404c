//! The connections of a link: how they open, are found, and end.

use std::net::SocketAddrV4;
use std::sync::Arc;
use std::time::Duration;

use genie_channel::ended;
use genie_shm::Mapping;
use genie_transport::limits::CONNECTIONS_MAX;
use genie_transport::{Config, ConnectionId, PeerId, Protection, Time};

use super::{Channel, ChannelOpenError, Engine, PeerPlace};
use crate::bridge::Bridge;
use crate::direct::Gather;
use crate::memory::MemoryId;
use crate::packet::{Mac, Place};
use crate::wire::Wire;

/// How often what is slow to see is looked for: programs that died, addresses, ends.
const UPKEEP: Duration = Duration::from_millis(2);
/// How long a connection that ended is kept for a program that has not looked yet.
const KEPT: Duration = Duration::from_secs(1);
/// How long what a program left behind may take to leave.
const DRAIN: Duration = Duration::from_secs(5);
/// How long one is kept whose last frames may still be on their way.
const LINGER: Duration = Duration::from_millis(20);

/// A connection of the link, and the program behind it.
pub(super) struct Slot<P> {
    pub(super) id: ConnectionId,
    address: Option<SocketAddrV4>,
    mac: Option<Mac>,
    /// Waits for the peer's Ethernet address.
    waiting: Option<Box<Config>>,
    pub(super) bridge: Option<Bridge>,
    /// What arrives for it is checked and placed by the device.
    pub(super) gather: Option<Box<Gather<P>>>,
    /// Since when the program is gone.
    gone_at: Option<Time>,
    /// When it is to be forgotten.
    forget_at: Option<Time>,
}

impl<P> Slot<P> {
    /// Where a peer's authentic frames come from is where it is.
    pub(super) fn learn(&mut self, from: Place) {
        (self.mac, self.address) = (Some(from.mac), Some(from.address));
    }

    /// Whether its program's next word would be taken.
    pub(super) fn listens(&self) -> bool {
        let bridge = self.bridge.as_ref();
        self.waiting.is_none() && bridge.is_some_and(Bridge::listens)
    }

    pub(super) fn place(&self) -> Option<Place> {
        Some(Place {
            mac: self.mac?,
            address: self.address?,
        })
    }
}

impl<W: Wire> Engine<W> {
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
        let (id, sink) = (channel.config.id, channel.sink.clone());
        let source = known(channel.source, self)?;
        let opened = known(channel.sink, self).and_then(|sink| {
            let bridge = Bridge::new(channel.half, source, sink);
            self.insert(channel.config, channel.peer, Some(bridge))
                .inspect_err(|_| self.remove_memories([sink]))?;
            Ok(sink)
        });
        let memory = opened.inspect_err(|_| self.remove_memories([source]))?;
        if let (Some(at), Some(sink), Some(memory)) = (self.find(id), sink, memory) {
            self.receive_by_device(at, &sink, memory, &protection);
        }
        Ok(())
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
        // Nothing is sent from there.
        let memory = self.memory.add(Arc::clone(&sink));
        let memory = memory
            .ok_or(ChannelOpenError::Memory)
            .inspect_err(|_| self.remove_memory(source))?;
        if let Some(bridge) = self.bridge(at) {
            bridge.set_memories(source, memory);
        }
        self.receive_by_device(at, &sink, memory, &protection);
        Ok(())
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

    /// What arrives for a connection is checked and placed by the device, where packets arrive in its
    /// memory and are not sealed. Else, and where the device refuses, the CPU does it.
    fn receive_by_device(
        &mut self,
        at: usize,
        sink: &Arc<Mapping>,
        memory: MemoryId,
        protection: &Protection,
    ) {
        let (Some(direct), Protection::Checksummed) = (&self.direct, protection) else {
            return;
        };
        let gather = match Gather::new(direct, sink, memory) {
            Ok(gather) => Box::new(gather),
            Err(error) => {
                tracing::warn!("data are placed by the CPU: {error}");
                return;
            }
        };
        if let Some(Some(slot)) = self.slots.get_mut(at)
            && let Some(mut old) = slot.gather.replace(gather)
        {
            old.finish(&mut self.endpoint, self.clock.now());
        }
    }

    pub(super) fn find(&self, id: ConnectionId) -> Option<usize> {
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
            gather: None,
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

    /// What need not be looked at in every turn.
    pub(super) fn upkeep(&mut self, now: Time) {
        self.upkeep_at = now.after(UPKEEP);
        self.counters.open(self.connections());
        self.counters.dropped_by_wire(self.wire.drops());
        self.counters.host(&self.host.counters());
        self.endpoint.look_after_peers(now);
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
        if let Some(gather) = &mut slot.gather {
            gather.finish(&mut self.endpoint, self.clock.now());
        }
        if let Some(bridge) = &mut slot.bridge {
            bridge.forget_regions(&mut self.memory);
            let memories = bridge.memories();
            self.remove_memories(memories);
        }
        if let Some(connection) = self.endpoint.remove(slot.id) {
            self.counters
                .ended(&connection.counters(), &connection.status());
        }
    }
}
