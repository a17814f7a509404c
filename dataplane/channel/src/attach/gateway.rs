//! A gateway's side of its socket. All of these block at most for their timeout: for a plain
//! thread, not for a poll loop.

use std::io::ErrorKind;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use genie_shm::{Mapping, RingConsumer, RingProducer, WaitPolicy};
use nix::sys::eventfd::EventFd;

use super::wire::{Deadline, MAPPED, OK, write_answer};
use super::{AttachError, Info, Request, Status};
use crate::Sizes;
use crate::doorbell::{Doorbell, new_event};
use crate::error::ChannelError;
use crate::looping::{LoopHalf, Peer};
use crate::wait::SocketBell;

/// How long a program may take to take an answer, which fits into any socket's buffer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);
/// How long it may take to map what came with one.
const MAPPED_TIMEOUT: Duration = Duration::from_secs(2);

/// What the program at `stream` asks for, within `timeout`. One that speaks otherwise is told so.
///
/// # Errors
/// Bytes that no program of this release sends, none in time, or the program's end.
pub fn read_request(stream: &UnixStream, timeout: Duration) -> Result<Request, AttachError> {
    Request::read(stream, Deadline::after(timeout))
        .inspect_err(|error| answer_nonsense(stream, error))
}

/// Tells a program whose request is none what was wrong with it, if `error` is of that kind.
pub fn answer_nonsense(stream: &UnixStream, error: &AttachError) {
    if let AttachError::Malformed(_) | AttachError::Version { .. } | AttachError::Offer(_) = error {
        // It may be gone already, and is turned away in any case.
        let _ = refuse(stream, Status::Refused, &error.to_string());
    }
}

/// From now on the socket is a pipe to the node's port, which was reached.
///
/// # Errors
/// The program went away.
pub fn answer_relay(stream: &UnixStream) -> Result<(), AttachError> {
    answer(stream, OK, "", &[])
}

/// Says no, and why: what a person can do about it, at most [`crate::TEXT_MAX`] bytes.
///
/// # Errors
/// The program went away.
pub fn refuse(stream: &UnixStream, status: Status, text: &str) -> Result<(), AttachError> {
    answer(stream, status as u8, text, &[])
}

/// Says what the gateway has.
///
/// # Errors
/// The program went away.
pub fn answer_info(stream: &UnixStream, info: &Info) -> Result<(), AttachError> {
    answer(stream, OK, &info.encode(), &[])
}

/// Makes a channel for the program at `stream`, and sends it its half. The loop sleeps on
/// `loop_doorbell`, which the program rings through an eventfd of its own. `link` tells a person what
/// carries it, in at most [`crate::TEXT_MAX`] bytes.
///
/// # Errors
/// No memory or descriptors; the program went away, or does not map what it was sent.
pub fn answer_attach(
    stream: UnixStream,
    sizes: Sizes,
    loop_doorbell: &Doorbell,
    link: &str,
) -> Result<LoopHalf, AttachError> {
    let arena = match sizes.arena_bytes {
        0 => None,
        bytes => Some(Mapping::create(bytes).map_err(ChannelError::from)?),
    };
    Sent::new(stream, sizes, arena)?.settle(loop_doorbell, link)
}

/// A channel that was sent to a program, which has not said yet that it has mapped it. Until then
/// its arena is not to be touched.
#[derive(Debug)]
pub struct Sent {
    stream: UnixStream,
    commands: RingConsumer,
    answers: RingProducer,
    event: EventFd,
    arena: Option<Mapping>,
    deadline: Deadline,
}

/// The program's socket, which is readable once it has said so.
impl AsFd for Sent {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

impl Sent {
    /// Makes a channel for the program at `stream`, with `arena` if there is one, whatever `sizes`
    /// says of it, and sends it its half. An arena of huge pages takes one more seal, and nobody has
    /// touched it through this mapping.
    ///
    /// # Errors
    /// No memory or descriptors; the program went away.
    pub fn new(
        stream: UnixStream,
        sizes: Sizes,
        arena: Option<Mapping>,
    ) -> Result<Self, AttachError> {
        let commands = RingConsumer::create(sizes.ring(), WaitPolicy::SLEEP);
        let commands = commands.map_err(ChannelError::from)?;
        let answers = RingProducer::create(sizes.ring()).map_err(ChannelError::from)?;
        let event = new_event()?;
        let mut files = vec![commands.file(), answers.file(), event.as_fd()];
        files.extend(arena.as_ref().map(Mapping::file));
        answer(&stream, OK, "", &files)?;
        Ok(Self {
            stream,
            commands,
            answers,
            event,
            arena,
            deadline: Deadline::after(MAPPED_TIMEOUT),
        })
    }

    /// How long the program may still take.
    #[must_use]
    pub fn left(&self) -> Duration {
        self.deadline.left().unwrap_or_default()
    }

    /// Waits for the program's word, makes the arena safe to touch, and tells it. `link` says to a
    /// person what carries the channel, in at most [`crate::TEXT_MAX`] bytes.
    ///
    /// # Errors
    /// No word in time, or another; the program went away; it took pages out of the arena, and there
    /// are no others. It is told why.
    pub fn settle(self, loop_doorbell: &Doorbell, link: &str) -> Result<LoopHalf, AttachError> {
        self.freeze().inspect_err(|error| {
            // It may be gone already.
            let _ = refuse(&self.stream, Status::Refused, &error.to_string());
        })?;
        answer(&self.stream, OK, link, &[])?;
        let stream = Arc::new(self.stream);
        let mut answers = self.answers;
        answers.set_bell(Arc::new(SocketBell(Arc::clone(&stream))));
        let peer = Peer {
            stream: loop_doorbell.watch(stream)?,
            _event: loop_doorbell.watch(self.event)?,
        };
        let arena = self.arena.map(Arc::new);
        Ok(LoopHalf::new(self.commands, answers, arena, Some(peer)))
    }

    fn freeze(&self) -> Result<(), AttachError> {
        let mut word = [0];
        let heard = self.deadline.read_exact(&self.stream, &mut word);
        heard.map_err(|error| match error.kind() {
            ErrorKind::TimedOut => AttachError::NotMapped(MAPPED_TIMEOUT),
            _ => error.into(),
        })?;
        if word != [MAPPED] {
            return Err(AttachError::Malformed(
                "a program that was sent memory says something else than that it has mapped it",
            ));
        }
        match &self.arena {
            // Ordinary pages that are taken out come back as zeroes.
            Some(arena) if arena.is_huge() => Ok(arena.freeze().map_err(ChannelError::from)?),
            _ => Ok(()),
        }
    }
}

fn answer(
    stream: &UnixStream,
    status: u8,
    text: &str,
    files: &[BorrowedFd<'_>],
) -> Result<(), AttachError> {
    let deadline = Deadline::after(ANSWER_TIMEOUT);
    Ok(write_answer(stream, status, text, files, deadline)?)
}
