//! Genie's transport over a DPDK port as a path. Each end is one thread, which drives the poll
//! loop's engine itself.
//!
//! The receiving end grants its regions and says so in messages; a transfer goes into the grant of
//! its slot, and a region that was filled is granted again at once.

mod open;
mod slots;

use std::collections::VecDeque;
use std::os::fd::RawFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use genie_dpdk::{Eal, Lcore, Port};
use genie_poll::engine::Engine;
use genie_poll::packet::IP_AND_UDP_BYTES;
use genie_poll::port::PortWire;
use genie_poll::{ChannelOpenError, PeerPlace};
use genie_transport::limits::MESSAGE_BYTES_MAX;
use genie_transport::{
    Config, Connection, Event as Told, Grant, MessageError, Priority, Role, SendError, Transfer,
    TransferId,
};

pub use self::open::{Ends, open};
use self::slots::Slots;
use crate::interrupt;
use crate::path::{Event, Facts, Kind, Part, Path, Plan, Wait};
use crate::spin::Spin;

/// Before a message: what it is, and of which test.
const HEAD_BYTES: usize = 2;
/// The program's own.
const MESSAGE: u8 = 0;
/// Grants of slots: what follows are slot (u32), region and generation (u64).
const GRANTS: u8 = 1;
/// Bytes of a grant in a message.
const GRANT_BYTES: usize = 4 + 8 + 8;
/// Grants of one message.
const GRANTS_A_MESSAGE: usize = (MESSAGE_BYTES_MAX - HEAD_BYTES) / GRANT_BYTES;
/// How long the link may take to come up.
const LINK_TIMEOUT: Duration = Duration::from_secs(10);

/// One end of a connection over a DPDK port. Fields are dropped in this order.
pub struct Dpdk {
    engine: Engine<PortWire>,
    _port: Port,
    _lcore: Option<Lcore>,
    _eal: Eal,
    config: Config,
    peer: PeerPlace,
    what: String,
    is_open: bool,
    spin: Spin,
    /// Counts tests, so that what an old one left is told apart.
    test: u8,
    plan: Option<Plan>,
    sources: Option<Slots>,
    regions: Option<Slots>,
    /// By slot: where the other end wants it.
    granted: Vec<Option<Grant>>,
    /// Slots whose region was granted, and nobody told yet.
    untold: VecDeque<(u32, Grant)>,
    under_way: VecDeque<(TransferId, u32)>,
    message: [u8; MESSAGE_BYTES_MAX],
    message_len: usize,
}

impl Dpdk {
    fn connection(&mut self) -> Result<&mut Connection> {
        let found = self.engine.connection(self.config.id);
        Ok(found.context("the connection is gone")?.0)
    }

    fn is_initiator(&self) -> bool {
        self.config.role == Role::Initiator
    }

    /// The connection, as soon as the other end is found on the link.
    fn connect(&mut self) -> Result<()> {
        if self.is_open {
            return Ok(());
        }
        match self.engine.open(self.config.clone(), self.peer) {
            Ok(()) => {}
            Err(error @ ChannelOpenError::Transport(_)) => return Err(error.into()),
            Err(error) => return Err(error).context("no connection over the port"),
        }
        let began = Instant::now();
        while self.engine.connection(self.config.id).is_none() {
            self.engine.turn();
            if began.elapsed() > LINK_TIMEOUT || interrupt::asked() {
                bail!("the other end was not found on the link within {LINK_TIMEOUT:?}");
            }
        }
        self.is_open = true;
        Ok(())
    }

    /// Grants a slot's region.
    fn grant(&mut self, slot: u32) -> Result<()> {
        let Some(regions) = &self.regions else {
            return Ok(());
        };
        let (region, bytes) = (
            regions.region(slot).context("no such slot")?,
            regions.bytes(),
        );
        let grant = self.connection()?.grant(region, bytes)?;
        if let Some(regions) = &mut self.regions {
            regions.set_grant(slot, Some(grant));
        }
        self.untold.push_back((slot, grant));
        Ok(())
    }

    /// Tells the other end of grants. What finds no room waits.
    fn tell(&mut self) -> Result<()> {
        while !self.untold.is_empty() {
            let mut message = [0; MESSAGE_BYTES_MAX];
            (message[0], message[1]) = (GRANTS, self.test);
            let count = self.untold.len().min(GRANTS_A_MESSAGE);
            let places = message[HEAD_BYTES..].chunks_exact_mut(GRANT_BYTES);
            for ((slot, grant), place) in self.untold.iter().zip(places) {
                place[..4].copy_from_slice(&slot.to_le_bytes());
                place[4..12].copy_from_slice(&grant.region.0.to_le_bytes());
                place[12..].copy_from_slice(&grant.generation.to_le_bytes());
            }
            let len = HEAD_BYTES + count * GRANT_BYTES;
            match self.connection()?.send_message(&message[..len]) {
                Ok(()) => drop(self.untold.drain(..count)),
                Err(MessageError::Full) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Takes what a message of grants says. A hostile word only misleads the transfer that uses it.
    fn take_grants(&mut self) {
        for place in self.message[HEAD_BYTES..self.message_len].chunks_exact(GRANT_BYTES) {
            let word = |at: usize| {
                let mut raw = [0; 8];
                raw.copy_from_slice(&place[at..at + 8]);
                u64::from_le_bytes(raw)
            };
            let slot = u32::from_le_bytes([place[0], place[1], place[2], place[3]]);
            if let Some(granted) = self.granted.get_mut(slot as usize) {
                *granted = Some(Grant {
                    region: genie_transport::RegionId(word(4)),
                    generation: word(12),
                });
            }
        }
    }

    fn on_event(&mut self, event: Told) -> Result<Option<Event>> {
        match event {
            Told::Sent(id) => {
                let at = self.under_way.iter().position(|(sent, _)| *sent == id);
                let found = at.and_then(|at| self.under_way.remove(at));
                Ok(found.map(|(_, slot)| Event::Sent(slot)))
            }
            Told::Received(grant) => {
                let Some(slot) = self.slot_of(grant) else {
                    return Ok(None);
                };
                self.grant(slot)?;
                Ok(Some(Event::Filled(slot)))
            }
            // Those of a test that is over were taken back.
            Told::ReceiveFailed(grant, _) if self.slot_of(grant).is_none() => Ok(None),
            Told::ReceiveFailed(_, error) => Err(error).context("a transfer to here failed"),
            Told::SendFailed(_, error) => Err(error).context("a transfer from here failed"),
            Told::Ended(error) => Err(error).context("the connection ended"),
        }
    }

    fn slot_of(&self, grant: Grant) -> Option<u32> {
        self.regions.as_ref()?.slot_of(grant)
    }
}

impl Path for Dpdk {
    fn facts(&self) -> Facts {
        Facts {
            transport: "dpdk",
            path: self.what.clone(),
            mtu_bytes: (self.engine.frame_bytes_max() + IP_AND_UDP_BYTES) as u64,
            seal: match self.config.protection {
                genie_transport::Protection::Sealed(_) => "aes-128-gcm",
                genie_transport::Protection::Checksummed => "crc32c",
            },
        }
    }

    fn message_max(&self) -> usize {
        MESSAGE_BYTES_MAX - HEAD_BYTES
    }

    fn begin(&mut self, plan: &Plan) -> Result<()> {
        self.test = self.test.wrapping_add(1);
        let old = self.regions.as_ref().map(Slots::open_grants);
        for grant in old.into_iter().flatten() {
            self.connection()?.revoke(grant);
        }
        if self.is_open {
            // All of it is about the old test.
            while self.connection()?.poll_event().is_some() {}
        }
        for slots in [self.sources.take(), self.regions.take()]
            .into_iter()
            .flatten()
        {
            slots.forget(&mut self.engine);
        }
        self.untold.clear();
        self.under_way.clear();
        let (sends, receives) = match (plan.kind, self.is_initiator()) {
            (Kind::Transfers, initiator) => (initiator, !initiator),
            (Kind::EchoTransfers, initiator) => (initiator, true),
            _ => (false, false),
        };
        if sends {
            self.sources = Some(Slots::new(
                &mut self.engine,
                plan,
                false,
                &self.config.protection,
            )?);
        }
        if receives {
            self.regions = Some(Slots::new(
                &mut self.engine,
                plan,
                true,
                &self.config.protection,
            )?);
        }
        self.granted = vec![None; plan.slots as usize];
        self.plan = Some(plan.clone());
        // Only now: from here on the other end counts on an answer.
        self.connect()?;
        if receives {
            for slot in 0..plan.slots {
                self.grant(slot)?;
            }
        }
        self.tell()
    }

    fn memory(&mut self, part: Part, slot: u32) -> &mut [u8] {
        let slots = match part {
            Part::Source => &mut self.sources,
            Part::Region => &mut self.regions,
        };
        slots.as_mut().map_or(&mut [], |slots| slots.memory(slot))
    }

    fn send(&mut self, slot: u32, part: Part) -> Result<bool> {
        let Some(grant) = self.granted.get(slot as usize).copied().flatten() else {
            return Ok(false);
        };
        let slots = match part {
            Part::Source => &self.sources,
            Part::Region => &self.regions,
        };
        let slots = slots
            .as_ref()
            .context("nothing to send from in this test")?;
        let transfer = Transfer {
            grant,
            offset: 0,
            source: slots.source(),
            source_offset: slots.offset(slot),
            len: slots.bytes(),
            priority: Priority::Normal,
        };
        match self.connection()?.send(transfer) {
            Ok(id) => {
                self.granted[slot as usize] = None;
                self.under_way.push_back((id, slot));
                Ok(true)
            }
            Err(SendError::Full) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn message(&mut self, bytes: &[u8]) -> Result<bool> {
        let mut message = [0; MESSAGE_BYTES_MAX];
        (message[0], message[1]) = (MESSAGE, self.test);
        let len = HEAD_BYTES + bytes.len();
        message
            .get_mut(HEAD_BYTES..len)
            .context("a message past the transport's bound")?
            .copy_from_slice(bytes);
        match self.connection()?.send_message(&message[..len]) {
            Ok(()) => Ok(true),
            Err(MessageError::Full) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn next(&mut self) -> Result<Option<Event>> {
        loop {
            let id = self.config.id;
            let Some((connection, _)) = self.engine.connection(id) else {
                return Ok(None);
            };
            if let Some(event) = connection.poll_event() {
                match self.on_event(event)? {
                    Some(event) => return Ok(Some(event)),
                    None => continue,
                }
            }
            let message = &mut self.message;
            let read = connection.read_message(|bytes| {
                message[..bytes.len()].copy_from_slice(bytes);
                bytes.len()
            });
            let Some(len) = read else {
                return Ok(None);
            };
            self.message_len = len;
            match (self.message[0], self.message[1] == self.test) {
                (MESSAGE, true) => return Ok(Some(Event::Message)),
                (GRANTS, true) => self.take_grants(),
                // Of an old test, or nonsense.
                _ => {}
            }
        }
    }

    fn message_bytes(&self) -> &[u8] {
        self.message
            .get(HEAD_BYTES..self.message_len)
            .unwrap_or_default()
    }

    fn wait(&mut self, _: Wait) -> Result<bool> {
        if self.is_open {
            self.tell()?;
        }
        if self.engine.turn() {
            self.spin.busy();
        } else {
            self.spin.idle();
        }
        Ok(false)
    }

    fn nudge(&mut self) -> Result<()> {
        // It polls.
        Ok(())
    }

    fn breathe(&mut self) {
        self.engine.turn();
    }

    fn watch(&mut self, _: RawFd) {}

    fn retransmissions(&mut self) -> u64 {
        let id = self.config.id;
        let connection = self.engine.connection(id);
        connection.map_or(0, |(connection, _)| connection.counters().frames_lost)
    }
}
