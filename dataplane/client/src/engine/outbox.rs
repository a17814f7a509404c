//! Messages on their way out, in order, sent by whoever is there.
//!
//! Bulk lies in the memory of the thread that uploads it, which waits until it is sent. A thread on
//! which handlers of the program may run does not wait like that: it sends its memory itself, or takes
//! it back as a copy; and it never stays in the midst of a frame: where it does not get on it leaves a
//! copy of the rest, which goes out before anything else.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use genie_session::client::Message;
use genie_session::frame::{Header, Kind};
use parking_lot::{Mutex, MutexGuard};

use crate::link::{Kept, Link, Stall};

/// Most bytes that are copied so that a handler may run; for more it waits.
pub(super) const COPIED_BYTES_MAX: usize = 256 << 20;

/// Names the bulk of one upload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ticket(u64);

/// How the thread waits whose memory is lent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// Until it has the right to send and its bulk is gone: anybody may send it.
    Waits,
    /// Only as long as it likes: nobody else may.
    SendsItself,
}

enum Raw {
    None,
    /// Of the thread that waits in an upload.
    Lent(Ticket, Owner, *const u8, usize),
    Copied(Vec<u8>),
}

struct Outgoing {
    message: Message,
    raw: Raw,
}

// SAFETY: lent memory is read with the right to send in hand, by its owner or while that waits for
// this right.
unsafe impl Send for Outgoing {}

/// Who sends now.
#[derive(Default)]
pub(super) struct Sender {
    /// The rest of a frame whose beginning has left.
    rest: Option<Kept>,
}

#[derive(Default)]
pub(super) struct Outbox {
    queue: Mutex<VecDeque<Outgoing>>,
    sender: Mutex<Sender>,
    /// There is a rest.
    is_half_sent: AtomicBool,
    next_ticket: AtomicU64,
}

/// How far a sender got.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Sent {
    /// Everything has left.
    All,
    /// The next is memory that another thread sends itself.
    TillLent,
    /// It let go in the midst of a frame; its own memory is copied.
    LetGo,
}

/// What a sender asks its session.
pub(super) struct Ask<'a> {
    /// Before a frame.
    pub(super) begin: &'a dyn Fn(&Header) -> io::Result<()>,
    /// At a tick, with how long nothing moved.
    pub(super) go_on: &'a dyn Fn(Duration, usize) -> io::Result<()>,
    /// A frame of so many bytes has left, and its payload can be used again.
    pub(super) sent: &'a dyn Fn(&Header, usize, Vec<u8>),
    /// Whether this thread has to let go.
    pub(super) lets_go: bool,
}

impl Outbox {
    /// Puts a message last.
    pub(super) fn put(&self, message: Message) {
        self.queue.lock().push_back(Outgoing {
            message,
            raw: Raw::None,
        });
    }

    /// Puts an upload last.
    ///
    /// # Safety
    /// `len` bytes at `source` are valid until [`Outbox::is_lent`] is false for the ticket, as the
    /// owner sees it: with the right to send in hand, unless it sends itself.
    pub(super) unsafe fn lend(
        &self,
        message: Message,
        owner: Owner,
        source: *const u8,
        len: usize,
    ) -> Ticket {
        let ticket = Ticket(self.next_ticket.fetch_add(1, Ordering::Relaxed));
        self.queue.lock().push_back(Outgoing {
            message,
            raw: Raw::Lent(ticket, owner, source, len),
        });
        ticket
    }

    /// Whether the memory of `ticket` is still to be sent. Only its own thread may ask.
    pub(super) fn is_lent(&self, ticket: Ticket) -> bool {
        self.queue
            .lock()
            .iter()
            .any(|waiting| waiting.is_of(ticket))
    }

    /// Copies the memory of `ticket`, unless it is longer than `max`: then false.
    pub(super) fn take_back(&self, ticket: Ticket, max: usize) -> bool {
        let mut queue = self.queue.lock();
        let Some(waiting) = queue.iter_mut().find(|waiting| waiting.is_of(ticket)) else {
            return true;
        };
        if let Raw::Lent(_, _, source, len) = waiting.raw
            && len <= max
        {
            // SAFETY: as `lend` was promised.
            let bytes = unsafe { std::slice::from_raw_parts(source, len) };
            waiting.raw = Raw::Copied(bytes.to_vec());
            return true;
        }
        false
    }

    /// The upload of `ticket` will not leave.
    pub(super) fn withdraw(&self, ticket: Ticket) {
        self.queue.lock().retain(|waiting| !waiting.is_of(ticket));
    }

    /// Nothing of it will leave any more.
    pub(super) fn drop_all(&self) {
        self.queue.lock().clear();
    }

    /// Whether something waits that any thread can send.
    pub(super) fn has_work(&self) -> bool {
        self.is_half_sent.load(Ordering::Relaxed)
            || (self.queue.lock().front())
                .is_some_and(|next| !matches!(next.raw, Raw::Lent(_, Owner::SendsItself, ..)))
    }

    /// Whether everything has left.
    pub(super) fn is_empty(&self) -> bool {
        !self.is_half_sent.load(Ordering::Relaxed) && self.queue.lock().is_empty()
    }

    /// The right to send, if nobody has it.
    pub(super) fn try_sender(&self) -> Option<MutexGuard<'_, Sender>> {
        self.sender.try_lock()
    }

    /// The right to send, if it is free within `timeout`.
    pub(super) fn sender_within(&self, timeout: Duration) -> Option<MutexGuard<'_, Sender>> {
        self.sender.try_lock_for(timeout)
    }

    /// Sends what can be sent, `mine` too.
    ///
    /// # Errors
    /// The link's.
    pub(super) fn send(
        &self,
        sender: &mut Sender,
        link: &Link,
        mine: Option<Ticket>,
        ask: &Ask<'_>,
    ) -> io::Result<Sent> {
        if !self.finish(sender, link, ask)? {
            return Ok(Sent::LetGo);
        }
        loop {
            let next = {
                let mut queue = self.queue.lock();
                match queue.front().map(|next| &next.raw) {
                    None => return Ok(Sent::All),
                    Some(Raw::Lent(ticket, Owner::SendsItself, ..)) if Some(*ticket) != mine => {
                        return Ok(Sent::TillLent);
                    }
                    Some(_) => queue.pop_front(),
                }
            };
            let Some(Outgoing { message, raw }) = next else {
                continue;
            };
            (ask.begin)(&message.header)?;
            let header = message.header.encode();
            let raw: &[u8] = match &raw {
                Raw::None => &[],
                // SAFETY: its owner is this thread, or waits until this one gives the right to send
                // away (see `lend`).
                Raw::Lent(_, _, source, len) => unsafe {
                    std::slice::from_raw_parts(*source, *len)
                },
                Raw::Copied(bytes) => bytes,
            };
            let mut unsent = link.frame(&header, &message.payload, raw);
            let bytes = unsent.len();
            let mut tried = Try::new(link, bytes);
            let done = link.send(&mut unsent, &mut |left| tried.go_on(link, left, ask));
            if tried.let_go {
                self.is_half_sent.store(true, Ordering::Relaxed);
                sender.rest = Some(unsent.keep());
                (ask.sent)(&message.header, bytes, message.payload);
                return Ok(Sent::LetGo);
            }
            (ask.sent)(&message.header, bytes, message.payload);
            done?;
        }
    }

    /// Sends the rest of a frame. False if this thread let go of it again.
    fn finish(&self, sender: &mut Sender, link: &Link, ask: &Ask<'_>) -> io::Result<bool> {
        let Some(mut rest) = sender.rest.take() else {
            return Ok(true);
        };
        let mut unsent = rest.unsent();
        let mut tried = Try::new(link, unsent.len());
        let done = link.send(&mut unsent, &mut |left| tried.go_on(link, left, ask));
        if tried.let_go {
            let left = unsent.lens();
            rest.keep_last(left);
            sender.rest = Some(rest);
            return Ok(false);
        }
        self.is_half_sent.store(false, Ordering::Relaxed);
        done.map(|()| true)
    }
}

impl Outgoing {
    fn is_of(&self, ticket: Ticket) -> bool {
        matches!(self.raw, Raw::Lent(of, ..) if of == ticket)
    }
}

/// One frame's way out.
struct Try {
    stall: Stall,
    bytes: usize,
    let_go: bool,
}

impl Try {
    fn new(link: &Link, bytes: usize) -> Self {
        Self {
            stall: Stall::new(Instant::now(), link.moved()),
            bytes,
            let_go: false,
        }
    }

    fn go_on(&mut self, link: &Link, left: usize, ask: &Ask<'_>) -> io::Result<()> {
        let moved = link.moved() + self.bytes.saturating_sub(left) as u64;
        (ask.go_on)(self.stall.tick(Instant::now(), moved), left)?;
        if ask.lets_go && left <= COPIED_BYTES_MAX {
            self.let_go = true;
            return Err(io::ErrorKind::Interrupted.into());
        }
        Ok(())
    }
}

/// Whether a header is a question whether the node lives.
pub(super) fn is_ping(header: &Header) -> bool {
    header.kind == Kind::Ping
}
