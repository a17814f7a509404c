//! The program's end.

use std::collections::VecDeque;
use std::os::fd::RawFd;

use anyhow::{Result, bail};
use genie_channel::{AppHalf, Command, FromLoop};

use super::MESSAGE_MAX;
use super::arena::{Places, Way};
use crate::control::readable;
use crate::memory::Memory;
use crate::path::{Event, Facts, Kind, Part, Path, Plan, Wait};
use crate::spin::Spin;

/// The program's end of a channel.
pub struct Program {
    half: AppHalf,
    places: Places,
    /// What a program's tensors are: outside the arena.
    sources: Vec<Memory>,
    /// Commands that found no room.
    commands: VecDeque<Command>,
    /// Bytes of a message that found no room.
    out: VecDeque<u8>,
    /// Bytes of the message that comes.
    expected: usize,
    message: Vec<u8>,
    taken: bool,
    receives: bool,
    /// It answers; the other program measures.
    answers: bool,
    facts: Facts,
    watched: RawFd,
    spin: Spin,
}

impl Program {
    /// The one that measures, over its half.
    pub fn new(half: AppHalf, facts: Facts) -> Result<Self> {
        Ok(Self {
            places: Places::new(half.arena.clone())?,
            half,
            sources: Vec::new(),
            commands: VecDeque::new(),
            out: VecDeque::new(),
            expected: 0,
            message: Vec::with_capacity(MESSAGE_MAX),
            taken: false,
            receives: false,
            answers: false,
            facts,
            watched: -1,
            spin: Spin::new(),
        })
    }

    /// The one that answers another program's messages.
    pub fn answering(half: AppHalf, facts: Facts) -> Result<Self> {
        Ok(Self {
            answers: true,
            ..Self::new(half, facts)?
        })
    }

    /// Puts in what found no room before. True when nothing waits any more.
    fn flush(&mut self) -> Result<bool> {
        while let Some(command) = self.commands.front() {
            if !self.half.sender.try_put(*command)? {
                return Ok(false);
            }
            self.commands.pop_front();
        }
        if !self.out.is_empty() {
            let bytes = self.out.make_contiguous();
            let taken = self.half.sender.try_stream(bytes)?;
            self.out.drain(..taken);
        }
        Ok(self.out.is_empty())
    }
}

impl Path for Program {
    fn facts(&mut self) -> Facts {
        self.facts.clone()
    }

    fn message_max(&self) -> usize {
        MESSAGE_MAX
    }

    fn begin(&mut self, plan: &Plan) -> Result<()> {
        self.places.cut(plan)?;
        self.sources.clear();
        let transfers = matches!(plan.kind, Kind::Transfers | Kind::EchoTransfers);
        self.receives = plan.kind == Kind::EchoTransfers;
        if transfers {
            for slot in 0..plan.slots {
                self.sources.push(Memory::new(usize::try_from(plan.size)?)?);
                self.places.touch(Way::Out, slot);
                if self.receives {
                    self.places.touch(Way::Back, slot);
                }
            }
        }
        self.expected = match plan.kind {
            Kind::EchoMessages => usize::try_from(plan.size)?,
            Kind::Messages if self.answers => usize::try_from(plan.size)?,
            _ => size_of::<u64>(),
        };
        self.message.clear();
        self.taken = false;
        Ok(())
    }

    fn memory(&mut self, part: Part, slot: u32) -> &mut [u8] {
        match part {
            Part::Source => self
                .sources
                .get_mut(slot as usize)
                .map_or(&mut [], Memory::bytes_mut),
            Part::Region if self.receives => self.places.memory(Way::Back, slot),
            Part::Region => &mut [],
        }
    }

    fn send(&mut self, slot: u32, _: Part) -> Result<bool> {
        if !self.flush()? {
            return Ok(false);
        }
        let Some(source) = self.sources.get(slot as usize) else {
            bail!("no slot {slot}");
        };
        self.places
            .memory(Way::Out, slot)
            .copy_from_slice(source.bytes());
        if self.receives {
            let parts = self.places.parts(Way::Back, slot);
            self.commands.extend(parts.map(|part| Command::Receive {
                place: part.start,
                len: part.end - part.start,
            }));
        }
        let parts = self.places.parts(Way::Out, slot);
        self.commands.extend(parts.map(|part| Command::Send {
            place: part.start,
            len: part.end - part.start,
        }));
        self.flush()?;
        Ok(true)
    }

    fn message(&mut self, bytes: &[u8]) -> Result<bool> {
        if !self.flush()? {
            return Ok(false);
        }
        let taken = self.half.sender.try_stream(bytes)?;
        if taken > 0 {
            self.out.extend(&bytes[taken..]);
        }
        Ok(taken > 0)
    }

    fn next(&mut self) -> Result<Option<Event>> {
        if std::mem::take(&mut self.taken) {
            self.message.clear();
            self.spin.busy();
        }
        while let Some(told) = self.half.receiver.try_next()? {
            match told {
                FromLoop::Stream(bytes) => {
                    if self.message.len() + bytes.len() > self.expected {
                        bail!("the other end sent more than a message");
                    }
                    self.message.extend_from_slice(bytes);
                    if self.message.len() == self.expected {
                        self.taken = true;
                        return Ok(Some(Event::Message));
                    }
                }
                FromLoop::Sent { place } => {
                    if let Some(slot) = self.places.ended(Way::Out, place) {
                        return Ok(Some(Event::Sent(slot)));
                    }
                }
                FromLoop::Received { place } => {
                    if let Some(slot) = self.places.ended(Way::Back, place) {
                        return Ok(Some(Event::Filled(slot)));
                    }
                }
                FromLoop::BulkFailed { text, .. } => bail!("a transfer failed: {text}"),
                FromLoop::Ended { text, .. } => bail!("the channel ended: {text}"),
            }
        }
        Ok(None)
    }

    fn message_bytes(&self) -> &[u8] {
        &self.message
    }

    fn wait(&mut self, what: Wait) -> Result<bool> {
        self.flush()?;
        if what == Wait::Control {
            return Ok(readable(
                self.watched,
                std::time::Duration::from_millis(100),
            ));
        }
        self.spin.idle();
        Ok(false)
    }

    fn nudge(&mut self) -> Result<()> {
        // The other end polls.
        Ok(())
    }

    fn watch(&mut self, descriptor: RawFd) {
        self.watched = descriptor;
    }

    fn retransmissions(&mut self) -> u64 {
        0
    }
}
