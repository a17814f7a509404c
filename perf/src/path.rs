//! What is measured: a link between two ends, whatever carries it.
//!
//! The thread that measures drives its end itself. Nothing runs behind it unless the path says so.

use std::os::fd::RawFd;

use anyhow::Result;
use serde::{Deserialize, Serialize};

/// What both ends of a test know before it begins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// What is measured.
    pub kind: Kind,
    /// Bytes of a message or transfer.
    pub size: u64,
    /// Messages or transfers under way at a time.
    pub batch: u32,
    /// Regions at the receiving end, and sources at the sending one, each of `size` bytes.
    pub slots: u32,
    /// What arrives is kept until it was compared.
    pub verify: bool,
    /// The receiving end changes one byte, to be found by the comparison.
    pub flip_byte: bool,
}

/// What a test does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// Transfers into the slots of the other end.
    Transfers,
    /// A transfer into a slot of the other end, which sends it back into the same slot here.
    EchoTransfers,
    /// A message, which the other end sends back.
    EchoMessages,
    /// Messages one way, acknowledged now and then by a count.
    Messages,
}

/// The most memory that a plan may ask an end for, in bytes: twice, for sources and regions.
pub const PLAN_BYTES_MAX: u64 = 8 << 30;
/// The most slots of a plan.
pub const SLOTS_MAX: u32 = 1024;

impl Plan {
    /// Refuses what an end could not hold. A plan comes from the other end, who may be anybody.
    pub fn check(&self) -> Result<(), String> {
        let bytes = self.size.checked_mul(u64::from(self.slots));
        if self.size == 0 || self.batch == 0 || self.slots == 0 {
            return Err("a plan without bytes, batch or slots".to_owned());
        }
        if self.slots > SLOTS_MAX || self.batch > SLOTS_MAX {
            return Err(format!(
                "more than {SLOTS_MAX} slots or transfers under way"
            ));
        }
        match bytes {
            Some(bytes) if bytes <= PLAN_BYTES_MAX => Ok(()),
            _ => Err(format!(
                "{} slots of {} bytes are more than {PLAN_BYTES_MAX} bytes: take a smaller --batch",
                self.slots, self.size
            )),
        }
    }

    /// After how many messages the receiving end says how many it has.
    #[must_use]
    pub fn credit_every(&self) -> u64 {
        u64::from(self.batch).div_ceil(2)
    }
}

/// What a path turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// `tcp`, `dpdk`, `shm`.
    pub transport: &'static str,
    /// Where the bytes go, for a person.
    pub path: String,
    /// Bytes of the largest packet, 0 where there are none.
    pub mtu_bytes: u64,
    /// `off`, `crc32c`, `aes-128-gcm`, `tls`.
    pub seal: &'static str,
}

/// What happened at this end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Every byte of a transfer from here is in the other end's region.
    Sent(u32),
    /// Every byte of a transfer to here is in this slot's region.
    Filled(u32),
    /// A message came: see [`Path::message_bytes`].
    Message,
}

/// Which memory of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// What this end sends.
    Source,
    /// What the other end fills.
    Region,
}

/// What an end waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Something on the path.
    Path,
    /// Something on the control socket ([`Path::watch`]).
    Control,
}

/// One end of a link.
pub trait Path {
    /// What it is, as far as it knows by now.
    fn facts(&mut self) -> Facts;

    /// The longest message, in bytes. More goes as a transfer.
    fn message_max(&self) -> usize;

    /// Makes ready for a test; both ends do so before either sends.
    fn begin(&mut self, plan: &Plan) -> Result<()>;

    /// The memory of a slot.
    fn memory(&mut self, part: Part, slot: u32) -> &mut [u8];

    /// Starts a transfer of a whole slot into the same slot at the other end. False when there is
    /// no room for it now.
    fn send(&mut self, slot: u32, part: Part) -> Result<bool>;

    /// Sends a message. False when there is no room for it now.
    fn message(&mut self, bytes: &[u8]) -> Result<bool>;

    /// The next thing that happened, if anything did. Does not wait.
    fn next(&mut self) -> Result<Option<Event>>;

    /// The message of the last [`Event::Message`], until the next call of anything else here.
    fn message_bytes(&self) -> &[u8];

    /// Lets time pass until what is waited for may have happened, or for 100 ms at most. What was
    /// sent leaves now at the latest. True when it is time to look at the control socket.
    fn wait(&mut self, what: Wait) -> Result<bool>;

    /// The caller wrote a slot's source: it goes where it is sent from, unless it is there.
    fn written(&mut self, _slot: u32) -> Result<()> {
        Ok(())
    }

    /// The caller is to read a slot's region: it comes to [`Path::memory`], unless it is there.
    fn fetch(&mut self, _slot: u32) -> Result<()> {
        Ok(())
    }

    /// The caller wrote to a slot's region: it goes back to where it was.
    fn changed(&mut self, _slot: u32) -> Result<()> {
        Ok(())
    }

    /// Called between pieces of long work that is not measured, so that the other end does not take
    /// this one for dead.
    fn breathe(&mut self) {}

    /// Makes the other end look at its control socket soon.
    fn nudge(&mut self) -> Result<()>;

    /// The control socket.
    fn watch(&mut self, descriptor: RawFd);

    /// Packets, or pieces of transfers, that were sent more than once so far.
    fn retransmissions(&mut self) -> u64;

    /// Frames that reached this end and were thrown away so far: damaged, for nobody, or without
    /// room. None where the kernel does that.
    fn dropped(&mut self) -> u64 {
        0
    }
}

/// Bytes of memory to work on before the other end hears of this one again.
const PIECE_BYTES: usize = 8 << 20;

/// Works on a slot's memory piece by piece; `work` is told where in the slot each begins. That is
/// not measured, and the other end does not take this one for dead meanwhile.
pub fn by_pieces(
    path: &mut impl Path,
    part: Part,
    slot: u32,
    mut work: impl FnMut(&mut [u8], usize),
) {
    let mut at = 0;
    loop {
        let memory = path.memory(part, slot);
        let end = memory.len().min(at + PIECE_BYTES);
        if at >= end {
            return;
        }
        work(&mut memory[at..end], at);
        path.breathe();
        at = end;
    }
}
