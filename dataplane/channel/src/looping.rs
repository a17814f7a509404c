//! A poll loop's half of a channel: it never blocks, and makes a system call only to wake the other
//! side when that said that it sleeps.

use std::os::unix::net::UnixStream;
use std::sync::Arc;

use genie_shm::{Mapping, RingConsumer, RingProducer, RingStats};
use nix::sys::eventfd::EventFd;

use crate::doorbell::Watched;
use crate::error::ChannelError;
use crate::message::{FromApp, STREAM_MAX, ToApp, stream_len};
use crate::wait::is_hung_up;

/// A loop's half. Dropping it ends the channel; what was told before can still be read.
#[derive(Debug)]
pub struct LoopHalf {
    commands: RingConsumer,
    answers: RingProducer,
    arena: Option<Arc<Mapping>>,
    peer: Option<Peer>,
    frame: Vec<u8>,
    /// Length of the message that there was no room for. 0: there was.
    refused_len: u64,
    is_finished: bool,
}

/// What there is of another process.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) stream: Watched<Arc<UnixStream>>,
    /// Kept only because it rings while it is watched.
    pub(crate) _event: Watched<EventFd>,
}

impl LoopHalf {
    pub(crate) fn new(
        commands: RingConsumer,
        answers: RingProducer,
        arena: Option<Arc<Mapping>>,
        peer: Option<Peer>,
    ) -> Self {
        Self {
            commands,
            answers,
            arena,
            peer,
            frame: Vec::with_capacity(stream_len(STREAM_MAX) as usize),
            refused_len: 0,
            is_finished: false,
        }
    }

    /// The next thing from the program, if there is one. Places are inside the arena, if there is
    /// one; in one process the program's word is taken.
    ///
    /// # Errors
    /// The program's half is gone and nothing is left; or it broke the rules, and then the channel
    /// should be dropped.
    pub fn try_next(&mut self) -> Result<Option<FromApp<'_>>, ChannelError> {
        if !self.commands.try_pop(&mut self.frame)? {
            return Ok(None);
        }
        let message = FromApp::decode(&self.frame)?;
        if let FromApp::Send { place, len } | FromApp::Receive { place, len } = message {
            is_inside(self.arena.as_deref(), place, len)?;
        }
        let of_stream = !matches!(message, FromApp::Receive { .. } | FromApp::Refuse { .. });
        if of_stream && self.is_finished {
            return Err(ChannelError::Corrupt("the stream goes on after its end"));
        }
        self.is_finished |= message == FromApp::Finish;
        Ok(Some(message))
    }

    /// Tells the program something. False if there is no room: try again once it took some.
    ///
    /// # Errors
    /// The program's half is gone; it broke the rules; a piece of the stream that is too long.
    pub fn try_tell(&mut self, message: ToApp<'_>) -> Result<bool, ChannelError> {
        let encoded = message.encode()?;
        let taken = self.answers.try_push(&encoded.parts())?;
        self.refused_len = if taken { 0 } else { encoded.len() };
        Ok(taken)
    }

    /// Whether [`LoopHalf::try_tell`] of `bytes` of the stream would find room. True where it would
    /// fail, so that it is asked and says why.
    #[must_use]
    pub fn has_room(&self, bytes: usize) -> bool {
        let wanted = Some(stream_len(bytes));
        self.answers.room().map_or(true, |room| room >= wanted) || self.answers.is_closed()
    }

    /// Says that the loop sleeps, so that the program rings the doorbell at its next command, or
    /// once there is room again if the last [`LoopHalf::try_tell`] found none. False, and nothing
    /// said, if there is something to do already.
    #[must_use]
    pub fn arm(&mut self) -> bool {
        if !self.commands.arm() {
            return false;
        }
        if self.refused_len > 0 && !self.answers.arm(self.refused_len) {
            self.commands.disarm();
            return false;
        }
        true
    }

    /// Takes back [`LoopHalf::arm`], after sleeping.
    pub fn disarm(&mut self) {
        self.commands.disarm();
        self.answers.disarm();
    }

    /// Where bulk lies. Its bytes may change under the loop's hands.
    #[must_use]
    pub fn arena(&self) -> Option<&Arc<Mapping>> {
        self.arena.as_ref()
    }

    /// True once the program's half was dropped or its process died. May be a system call: not for
    /// every turn of the loop. The doorbell rings when it happens.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.commands.is_closed()
            || self.answers.is_closed()
            || self
                .peer
                .as_ref()
                .is_some_and(|peer| is_hung_up(peer.stream.file()))
    }

    /// What was told so far, and how often the program had to be woken.
    #[must_use]
    pub fn stats(&self) -> RingStats {
        self.answers.stats()
    }
}

fn is_inside(arena: Option<&Mapping>, place: u64, len: u64) -> Result<(), ChannelError> {
    match arena.map(|arena| arena.address(place, len)) {
        None | Some(Ok(_)) => Ok(()),
        Some(Err(_)) => Err(ChannelError::Corrupt("a place outside the arena")),
    }
}
