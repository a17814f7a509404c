//! The loop's end, which polls as a gateway's loop does, and has no engine behind it.

use std::collections::VecDeque;
use std::os::fd::RawFd;

use anyhow::{Result, bail};
use genie_channel::{Doorbell, FromApp, LoopHalf, ToApp};

use super::arena::{Places, Way};
use super::{Behind, MESSAGE_MAX};
use crate::path::{Event, Facts, Part, Path, Plan, Wait};
use crate::spin::Spin;

/// What the program is told about a place.
#[derive(Clone, Copy, Debug)]
enum Tell {
    Sent(u64),
    Received(u64),
}

/// The loop's end of a channel.
pub struct Looping {
    half: LoopHalf,
    /// Rung by the program when the loop sleeps, which this one never does.
    _doorbell: Doorbell,
    places: Places,
    tells: VecDeque<Tell>,
    size: usize,
    message: Vec<u8>,
    taken: bool,
    spin: Spin,
}

impl Looping {
    /// Over its half.
    pub fn new(half: LoopHalf, doorbell: Doorbell) -> Result<Self> {
        Ok(Self {
            places: Places::new(half.arena().cloned())?,
            half,
            _doorbell: doorbell,
            tells: VecDeque::new(),
            size: 0,
            message: Vec::with_capacity(MESSAGE_MAX),
            taken: false,
            spin: Spin::new(),
        })
    }

    fn flush(&mut self) -> Result<bool> {
        while let Some(tell) = self.tells.front() {
            let told = match *tell {
                Tell::Sent(place) => self.half.try_tell(ToApp::Sent { place })?,
                Tell::Received(place) => self.half.try_tell(ToApp::Received { place })?,
            };
            if !told {
                return Ok(false);
            }
            self.tells.pop_front();
        }
        Ok(true)
    }
}

impl Path for Looping {
    fn facts(&mut self) -> Facts {
        Behind::Nothing.facts()
    }

    fn message_max(&self) -> usize {
        MESSAGE_MAX
    }

    fn begin(&mut self, plan: &Plan) -> Result<()> {
        self.places.cut(plan)?;
        self.size = usize::try_from(plan.size)?;
        self.message.clear();
        self.taken = false;
        Ok(())
    }

    fn memory(&mut self, part: Part, slot: u32) -> &mut [u8] {
        match part {
            // What it sends is what it was sent.
            Part::Source => &mut [],
            Part::Region => self.places.memory(Way::Out, slot),
        }
    }

    fn send(&mut self, slot: u32, _: Part) -> Result<bool> {
        self.places.copy_back(slot)?;
        let parts = self.places.parts(Way::Back, slot);
        self.tells
            .extend(parts.map(|part| Tell::Received(part.start)));
        self.flush()?;
        Ok(true)
    }

    fn message(&mut self, bytes: &[u8]) -> Result<bool> {
        Ok(self.flush()? && self.half.try_tell(ToApp::Stream(bytes))?)
    }

    fn next(&mut self) -> Result<Option<Event>> {
        if std::mem::take(&mut self.taken) {
            self.message.clear();
            self.spin.busy();
        }
        loop {
            let place = match self.half.try_next()? {
                None => return Ok(None),
                Some(FromApp::Stream(bytes)) => {
                    if self.message.len() + bytes.len() > self.size {
                        bail!("the program sent more than a message");
                    }
                    self.message.extend_from_slice(bytes);
                    if self.message.len() == self.size {
                        self.taken = true;
                        return Ok(Some(Event::Message));
                    }
                    continue;
                }
                Some(FromApp::Send { place, .. }) => place,
                // Where an echo goes is known from the plan.
                Some(FromApp::Receive { .. }) => continue,
                Some(FromApp::Refuse { .. }) => continue,
                Some(FromApp::Finish) => bail!("the program ended its stream"),
            };
            self.tells.push_back(Tell::Sent(place));
            let ended = self.places.ended(Way::Out, place);
            if let Some(slot) = ended {
                self.flush()?;
                return Ok(Some(Event::Filled(slot)));
            }
        }
    }

    fn message_bytes(&self) -> &[u8] {
        &self.message
    }

    fn wait(&mut self, _: Wait) -> Result<bool> {
        self.flush()?;
        self.spin.idle();
        Ok(false)
    }

    fn nudge(&mut self) -> Result<()> {
        Ok(())
    }

    fn watch(&mut self, _: RawFd) {}

    fn retransmissions(&mut self) -> u64 {
        0
    }
}
