//! Bulk over a channel: it lies in the memory that is shared with the gateway, and is copied once.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::time::Duration;

use genie_channel::{Command, parts};

use super::TICK;
use super::channel::{ChannelLink, Patience};
use super::inbound::Coming;

/// Parts of a bulk that are asked for ahead.
const AHEAD: usize = 4;
/// How long a writer waits for memory before it looks who else reads.
const MEMORY_WAIT: Duration = Duration::from_millis(5);

impl ChannelLink {
    /// Has `raw`, which is too long for the stream, follow what was written.
    pub(super) fn write_bulk(
        &self,
        raw: &[u8],
        go_on: &mut dyn FnMut() -> io::Result<()>,
    ) -> io::Result<()> {
        for part in parts(raw.len() as u64) {
            let bytes = &raw[part.start as usize..part.end as usize];
            let place = self.room_for(bytes.len() as u64, go_on)?;
            self.memory.write(place, bytes)?;
            let len = bytes.len() as u64;
            self.put(Command::Send { place, len }, go_on)?;
        }
        Ok(())
    }

    /// A place for a part that leaves, once there is one.
    fn room_for(&self, len: u64, go_on: &mut dyn FnMut() -> io::Result<()>) -> io::Result<u64> {
        let mut patience = Patience::new();
        loop {
            if let Some(place) = self.memory.for_leaving(len) {
                return Ok(place);
            }
            if let Some(mut inbound) = self.inbound.try_lock() {
                self.take_in(&mut inbound, MEMORY_WAIT)?;
            } else if let Some(place) = self.memory.wait_for_leaving(len, MEMORY_WAIT) {
                return Ok(place);
            }
            self.tick(&mut patience, go_on)?;
        }
    }

    /// Gets bulk that the stream announced, part by part.
    pub(super) fn take_bulk(
        &self,
        into: &mut [u8],
        go_on: &mut dyn FnMut(bool) -> io::Result<()>,
    ) -> io::Result<Result<(), String>> {
        let mut wanted = parts(into.len() as u64).peekable();
        let mut asked: VecDeque<(u64, Range<u64>)> = VecDeque::with_capacity(AHEAD);
        let mut failed = None;
        loop {
            while asked.len() < AHEAD
                && let Some(part) = wanted.peek()
            {
                let len = part.end - part.start;
                if failed.is_some() {
                    self.put(Command::Refuse { len }, &mut || go_on(false))?;
                    wanted.next();
                    continue;
                }
                let Some(place) = self.memory.for_coming(len) else {
                    break;
                };
                self.inbound.lock().coming.push_back(Coming {
                    place,
                    outcome: None,
                });
                self.put(Command::Receive { place, len }, &mut || go_on(false))?;
                asked.extend(wanted.next().map(|part| (place, part)));
            }
            if asked.is_empty() && wanted.peek().is_none() {
                return Ok(failed.map_or(Ok(()), Err));
            }
            let Some(outcome) = self.outcome(asked.front(), go_on)? else {
                continue;
            };
            let Some((place, part)) = asked.pop_front() else {
                continue;
            };
            match outcome {
                Ok(()) => {
                    let target = &mut into[part.start as usize..part.end as usize];
                    self.memory.read(place, target)?;
                }
                Err(text) => failed = Some(text),
            }
            self.memory.taken(place);
        }
    }

    /// What became of the part that was asked for first, if that is known after a wait.
    fn outcome(
        &self,
        first: Option<&(u64, Range<u64>)>,
        go_on: &mut dyn FnMut(bool) -> io::Result<()>,
    ) -> io::Result<Option<Result<(), String>>> {
        let came = {
            let inbound = &mut *self.inbound.lock();
            // Another thread may have taken it in.
            if let Some(outcome) = first.and_then(|(place, _)| inbound.outcome_of(*place)) {
                return Ok(Some(outcome));
            }
            self.check()?;
            self.take_in(inbound, TICK)?
        };
        // Not under the lock: it may write.
        go_on(came)?;
        Ok(None)
    }

    /// Has bulk that the stream announced not sent at all.
    pub(super) fn refuse_bulk(
        &self,
        len: u64,
        go_on: &mut dyn FnMut(bool) -> io::Result<()>,
    ) -> io::Result<()> {
        for part in parts(len) {
            let len = part.end - part.start;
            self.put(Command::Refuse { len }, &mut || go_on(false))?;
        }
        Ok(())
    }
}
