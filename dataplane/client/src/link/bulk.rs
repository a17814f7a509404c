//! Bulk over a channel: it lies in the memory that is shared with the gateway, and is copied once.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use genie_channel::{BULK_PART_MAX, Command};

use super::TICK;
use super::channel::{ChannelLink, Patience};
use super::inbound::Coming;
use super::unsent::Unsent;

/// Parts of a bulk that are asked for ahead.
const AHEAD: usize = 4;
/// How long a writer waits for memory before it looks who else reads.
const MEMORY_WAIT: Duration = Duration::from_millis(5);

/// Bulk that the stream announced, on its way in.
#[derive(Debug)]
pub struct Bulk {
    /// Bytes that nobody has asked for yet.
    left: u64,
    /// Place and length of the parts that were asked for.
    asked: VecDeque<(u64, u64)>,
    /// The first of them is here.
    here: bool,
    failed: Option<String>,
}

/// What [`super::Link::bulk_part`] found.
#[derive(Debug)]
pub enum Part {
    /// The next part is here, so many bytes.
    Here(usize),
    /// None yet; whether the node was heard.
    Nothing {
        /// Something came.
        heard: bool,
    },
    /// That was all; why these bytes will never come.
    Over(Result<(), String>),
}

impl Bulk {
    /// Of `len` bytes.
    #[must_use]
    pub fn new(len: u64) -> Self {
        Self {
            left: len,
            asked: VecDeque::with_capacity(AHEAD),
            here: false,
            failed: None,
        }
    }
}

/// A writer that can wait as well as not.
fn not_now() -> io::Result<()> {
    Err(io::ErrorKind::WouldBlock.into())
}

fn is_not_now<T>(result: &io::Result<T>) -> bool {
    matches!(result, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}

impl ChannelLink {
    /// Has what is apart, which is too long for the stream, follow what was sent.
    pub(super) fn send_apart(
        &self,
        unsent: &mut Unsent<'_>,
        go_on: &mut dyn FnMut(usize) -> io::Result<()>,
    ) -> io::Result<()> {
        while !unsent.apart().is_empty() {
            let left = unsent.apart().len();
            let part = &unsent.apart()[..left.min(BULK_PART_MAX as usize)];
            let len = part.len() as u64;
            let place = self.room_for(len, &mut || go_on(left))?;
            self.memory.write(place, part)?;
            let announced = self.put(Command::Send { place, len }, &mut || go_on(left));
            if announced.is_err() {
                // The gateway never heard of it.
                self.memory.left(place);
            }
            announced?;
            unsent.apart_left(part.len());
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

    /// See [`super::Link::bulk_part`].
    pub(super) fn bulk_part(&self, bulk: &mut Bulk, wanted: bool) -> io::Result<Part> {
        if bulk.here
            && let Some(&(_, len)) = bulk.asked.front()
        {
            return Ok(Part::Here(len as usize));
        }
        while bulk.left > 0 && bulk.asked.len() < AHEAD {
            let asked = self.ask(bulk, wanted);
            if is_not_now(&asked) {
                return Ok(Part::Nothing { heard: false });
            }
            if !asked? {
                break;
            }
        }
        let Some(&(place, len)) = bulk.asked.front() else {
            if bulk.left > 0 {
                // Memory that others use comes back.
                std::thread::sleep(MEMORY_WAIT);
                return Ok(Part::Nothing { heard: false });
            }
            return Ok(Part::Over(bulk.failed.take().map_or(Ok(()), Err)));
        };
        let heard = {
            let inbound = &mut *self.inbound.lock();
            match inbound.outcome_of(place) {
                Some(Ok(())) => {
                    bulk.here = true;
                    return Ok(Part::Here(len as usize));
                }
                Some(Err(text)) => {
                    bulk.asked.pop_front();
                    self.memory.taken(place);
                    bulk.failed = Some(text);
                    return Ok(Part::Nothing { heard: true });
                }
                None => {}
            }
            self.check()?;
            self.take_in(inbound, TICK)?
        };
        Ok(Part::Nothing { heard })
    }

    /// Asks for the next part, or has it dropped. False if there is no memory for it.
    fn ask(&self, bulk: &mut Bulk, wanted: bool) -> io::Result<bool> {
        let len = bulk.left.min(BULK_PART_MAX);
        if !wanted || bulk.failed.is_some() {
            self.put(Command::Refuse { len }, &mut not_now)?;
            bulk.left -= len;
            return Ok(true);
        }
        let Some(place) = self.memory.for_coming(len) else {
            return Ok(false);
        };
        self.inbound.lock().coming.push_back(Coming {
            place,
            outcome: None,
        });
        let told = self.put(Command::Receive { place, len }, &mut not_now);
        if told.is_err() {
            // The gateway never heard of it.
            self.inbound
                .lock()
                .coming
                .retain(|part| part.place != place);
            self.memory.taken(place);
        }
        told?;
        bulk.left -= len;
        bulk.asked.push_back((place, len));
        Ok(true)
    }

    /// See [`super::Link::land`].
    pub(super) fn land(&self, bulk: &mut Bulk, into: Option<&mut [u8]>) -> io::Result<()> {
        let landed = match (bulk.asked.pop_front(), bulk.here) {
            (Some((place, _)), true) => {
                let read = into.map_or(Ok(()), |into| self.memory.read(place, into));
                self.memory.taken(place);
                read
            }
            _ => Err(io::ErrorKind::InvalidInput.into()),
        };
        bulk.here = false;
        landed
    }
}
