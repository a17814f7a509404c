//! Genie's transport over a DPDK port as a path. Each end is one thread, which drives the poll
//! loop's engine itself.
//!
//! The receiving end grants its regions and says so in messages; a transfer goes into the grant of
//! its slot, and a region that was filled is granted again at once.

mod grants;
mod meeting;
mod port;
mod slots;

use std::collections::VecDeque;
use std::os::fd::RawFd;

use anyhow::{Context, Result};
use genie_poll::PeerPlace;
use genie_poll::packet::IP_AND_UDP_BYTES;
use genie_transport::limits::MESSAGE_BYTES_MAX;
use genie_transport::{
    Config, Connection, Event as Told, Grant, MessageError, Priority, Protection, Role, SendError,
    Transfer, TransferId,
};

use self::grants::GRANT_BYTES;
pub use self::port::DpdkPort;
use self::slots::Slots;
use crate::path::{Event, Facts, Kind, Part, Path, Plan, Wait};

/// Before a message: what it is, and of which test.
const HEAD_BYTES: usize = 2;
/// The program's own.
const MESSAGE: u8 = 0;
/// Grants of slots.
const GRANTS: u8 = 1;
/// Says that frames pass, before the first test.
const HELLO: u8 = 2;

/// One end of a connection over a DPDK port. The connection ends with the value.
pub struct Dpdk<'a> {
    port: &'a mut DpdkPort,
    config: Config,
    peer: PeerPlace,
    /// The other end has said hello.
    is_met: bool,
    /// Counts tests, so that what an old one left is told apart.
    test: u8,
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

impl<'a> Dpdk<'a> {
    fn new(port: &'a mut DpdkPort, config: Config, peer: PeerPlace) -> Self {
        Self {
            port,
            config,
            peer,
            is_met: false,
            test: 0,
            sources: None,
            regions: None,
            granted: Vec::new(),
            untold: VecDeque::new(),
            under_way: VecDeque::new(),
            message: [0; MESSAGE_BYTES_MAX],
            message_len: 0,
        }
    }

    fn connection(&mut self) -> Result<&mut Connection> {
        let found = self.port.engine().connection(self.config.id);
        Ok(found.context("the connection is gone")?.0)
    }

    fn is_initiator(&self) -> bool {
        self.config.role == Role::Initiator
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
        if self.untold.len() >= self.granted.len() {
            // Somebody filled a region that was not told of yet.
            self.untold.retain(|(known, _)| *known != slot);
        }
        self.untold.push_back((slot, grant));
        Ok(())
    }

    /// Tells the other end of grants. What finds no room waits.
    fn tell(&mut self) -> Result<()> {
        while !self.untold.is_empty() {
            let mut message = [0; MESSAGE_BYTES_MAX];
            (message[0], message[1]) = (GRANTS, self.test);
            let count = grants::write(&self.untold, &mut message[HEAD_BYTES..]);
            let len = HEAD_BYTES + count * GRANT_BYTES;
            match self.connection()?.send_message(&message[..len]) {
                Ok(()) => drop(self.untold.drain(..count)),
                Err(MessageError::Full) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
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

    fn forget_slots(&mut self) {
        let slots = [self.sources.take(), self.regions.take()];
        for slots in slots.into_iter().flatten() {
            slots.forget(self.port.engine());
        }
    }

    fn slot_of(&self, grant: Grant) -> Option<u32> {
        self.regions.as_ref()?.slot_of(grant)
    }
}

/// What a message of `len` bytes says behind its head; it may be shorter than one.
fn said(message: &[u8], len: usize) -> &[u8] {
    message.get(HEAD_BYTES..len).unwrap_or_default()
}

impl Drop for Dpdk<'_> {
    fn drop(&mut self) {
        self.port.close(self.config.id);
        self.forget_slots();
    }
}

impl Path for Dpdk<'_> {
    fn facts(&mut self) -> Facts {
        let found = self.port.engine().connection(self.config.id);
        let frame = found.map(|(connection, _)| connection.status().mtu);
        let frame = frame.unwrap_or_else(|| self.port.engine().frame_bytes_max());
        Facts {
            transport: "dpdk",
            path: format!(
                "{}; frames are copied into their region by the polling thread",
                self.port.driver()
            ),
            mtu_bytes: (frame + IP_AND_UDP_BYTES) as u64,
            seal: match self.config.protection {
                Protection::Sealed(_) => "aes-128-gcm",
                Protection::Checksummed => "crc32c",
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
        // The rest of it is about the old test.
        while let Some(event) = self.connection()?.poll_event() {
            if let Told::Ended(error) = event {
                return Err(error).context("the connection ended");
            }
        }
        self.forget_slots();
        self.untold.clear();
        self.under_way.clear();
        let (sends, receives) = match (plan.kind, self.is_initiator()) {
            (Kind::Transfers, initiator) => (initiator, !initiator),
            (Kind::EchoTransfers, initiator) => (initiator, true),
            _ => (false, false),
        };
        let protection = &self.config.protection;
        let engine = self.port.engine();
        if sends {
            self.sources = Some(Slots::new(engine, plan, false, protection)?);
        }
        if receives {
            self.regions = Some(Slots::new(engine, plan, true, protection)?);
        }
        self.granted = vec![None; plan.slots as usize];
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
            let Some((connection, _)) = self.port.engine().connection(id) else {
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
                (GRANTS, true) => {
                    for (slot, grant) in grants::read(said(&self.message, len)) {
                        if let Some(granted) = self.granted.get_mut(slot as usize) {
                            *granted = Some(grant);
                        }
                    }
                }
                (HELLO, _) => self.is_met = true,
                // Of an old test, or nonsense.
                _ => {}
            }
        }
    }

    fn message_bytes(&self) -> &[u8] {
        said(&self.message, self.message_len)
    }

    fn wait(&mut self, what: Wait) -> Result<bool> {
        if !self.untold.is_empty() {
            self.tell()?;
        }
        if what == Wait::Control {
            self.port.look();
        }
        self.port.turn();
        Ok(false)
    }

    fn nudge(&mut self) -> Result<()> {
        // It polls.
        Ok(())
    }

    fn breathe(&mut self) {
        self.port.engine().turn();
    }

    fn watch(&mut self, _: RawFd) {}

    fn retransmissions(&mut self) -> u64 {
        let connection = self.port.engine().connection(self.config.id);
        connection.map_or(0, |(connection, _)| connection.counters().frames_lost)
    }

    fn dropped(&mut self) -> u64 {
        self.port.dropped()
    }
}
