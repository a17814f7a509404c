//! A gateway's side of its socket. All of these block at most for their timeout: for a plain
//! thread, not for a poll loop.

use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use genie_gpudev::{Mapping, RingConsumer, RingProducer, WaitPolicy};

use super::wire::{Deadline, OK, write_answer};
use super::{AttachError, Info, Request, Status};
use crate::Sizes;
use crate::doorbell::{Doorbell, new_event};
use crate::error::ChannelError;
use crate::looping::{LoopHalf, Peer};
use crate::wait::SocketBell;

/// How long a program may take to take an answer, which fits into any socket's buffer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

/// What the program at `stream` asks for, within `timeout`. One that speaks otherwise is told so.
///
/// # Errors
/// Bytes that no program of this release sends, none in time, or the program's end.
pub fn read_request(stream: &UnixStream, timeout: Duration) -> Result<Request, AttachError> {
    Request::read(stream, Deadline::after(timeout)).inspect_err(|error| {
        if let AttachError::Malformed(_) | AttachError::Offer(_) = error {
            // It may be gone already, and is turned away in any case.
            let _ = refuse(stream, Status::Refused, &error.to_string());
        }
    })
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
/// No memory or descriptors; the program went away.
pub fn answer_attach(
    stream: UnixStream,
    sizes: Sizes,
    loop_doorbell: &Doorbell,
    link: &str,
) -> Result<LoopHalf, AttachError> {
    let commands = RingConsumer::create(sizes.ring(), WaitPolicy::SLEEP);
    let commands = commands.map_err(ChannelError::from)?;
    let mut answers = RingProducer::create(sizes.ring()).map_err(ChannelError::from)?;
    let arena = match sizes.arena_bytes {
        0 => None,
        bytes => Some(Arc::new(
            Mapping::create(bytes).map_err(ChannelError::from)?,
        )),
    };
    let event = new_event()?;
    let mut files = vec![commands.file(), answers.file(), event.as_fd()];
    files.extend(arena.as_deref().map(Mapping::file));
    answer(&stream, OK, link, &files)?;
    let stream = Arc::new(stream);
    answers.set_bell(Arc::new(SocketBell(Arc::clone(&stream))));
    let peer = Peer {
        stream: loop_doorbell.watch(stream)?,
        _event: loop_doorbell.watch(event)?,
    };
    Ok(LoopHalf::new(commands, answers, arena, Some(peer)))
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
