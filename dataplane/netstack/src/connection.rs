//! One TCP connection: a smoltcp socket on one side, a pipe on the other, and when to give up.

use std::net::SocketAddrV4;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp::{RecvError, Socket, State};

use crate::limits::{
    ABORT_TIMEOUT, CONNECT_TIMEOUT, FIN_WAIT_TIMEOUT, HALF_OPEN_TIMEOUT, KEEP_ALIVE,
    LINGER_TIMEOUT, PEER_TIMEOUT, RESEND_AFTER, RESEND_DOUBLINGS_MAX,
};
use crate::pipe::{End, Pipe, Shared};
use crate::segment::Segment;

/// How far a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// A peer began it.
    HalfOpen,
    /// We began it.
    Connecting,
    /// The handshake has ended.
    Open,
    /// Given up; the reset is still to be sent.
    Aborted,
}

/// What became of a connection when it was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It goes on.
    Stays,
    /// The handshake ended just now.
    Established,
    /// A peer's handshake failed.
    Abandoned,
    /// It ended as both wished, or it was given up.
    Ended,
    /// The peer reset it, or refused it.
    Reset,
}

/// What a connection's clock asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// Nothing.
    Nothing,
    /// A question to a silent peer.
    Probe,
    /// What was not acknowledged is to be sent again.
    Resend,
    /// To be removed: a peer's handshake took too long.
    HalfOpenExpired,
    /// To be removed: our handshake got no answer.
    ConnectTimedOut,
    /// The peer is dead; it was aborted.
    PeerTimedOut,
    /// To be removed.
    Gone,
}

/// What we sent, by the frames that left.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sent {
    /// The sequence number of our SYN; none before our first segment.
    pub(crate) first: Option<u32>,
    /// The sequence number after all that was sent.
    next: u32,
    /// Our last acknowledgement; none before there was one.
    pub(crate) ack: Option<u32>,
    /// Our last window.
    pub(crate) window: u16,
}

/// One TCP connection.
pub(crate) struct Connection {
    pub(crate) handle: SocketHandle,
    pub(crate) local_port: u16,
    pub(crate) peer: SocketAddrV4,
    pub(crate) pipe: Arc<Pipe>,
    pub(crate) stage: Stage,
    pub(crate) sent: Sent,
    /// The peer's window as it last said, before scaling; none before it said one that scales.
    pub(crate) peer_window: Option<u16>,
    /// Bytes given to smoltcp, modulo 2^32.
    written: u32,
    /// What was acknowledged when that last changed, when it did, and how often we sent again since.
    stalled: (u32, Option<Duration>, u32),
    /// When the stage began; none until the clock is known.
    since: Option<Duration>,
    heard_at: Option<Duration>,
    probed_at: Option<Duration>,
    /// When the application's end was seen to be gone.
    orphan_since: Option<Duration>,
    /// When an orphan's peer had acknowledged our end.
    fin_wait_since: Option<Duration>,
    /// Our end was given to smoltcp.
    closed: bool,
}

impl Connection {
    pub(crate) fn new(
        handle: SocketHandle,
        stage: Stage,
        local_port: u16,
        peer: SocketAddrV4,
        pipe: Arc<Pipe>,
    ) -> Self {
        Self {
            handle,
            local_port,
            peer,
            pipe,
            stage,
            sent: Sent::default(),
            peer_window: None,
            written: 0,
            stalled: (0, None, 0),
            since: None,
            heard_at: None,
            probed_at: None,
            orphan_since: None,
            fin_wait_since: None,
            closed: false,
        }
    }

    /// How long the stage has lasted.
    pub(crate) fn age(&self, now: Duration) -> Duration {
        self.since
            .map_or(Duration::ZERO, |since| now.saturating_sub(since))
    }

    /// Notes a segment of the peer's. A forged one can keep a dead connection for longer, no more.
    pub(crate) fn heard(&mut self, segment: &Segment, now: Duration) {
        self.heard_at = Some(now);
        if !segment.syn && !segment.resets {
            self.peer_window = Some(segment.window);
        }
    }

    /// The number that a segment of ours without data should have, if it has an older one. What
    /// comes from before the oldest byte does so on purpose.
    pub(crate) fn next_number(&self, segment: &Segment, socket: &Socket<'_>) -> Option<u32> {
        let oldest = self.acknowledged(socket)?;
        let bare = segment.len == 0 && !segment.resets;
        let late = is_after(self.sent.next, segment.seq) && !is_after(oldest, segment.seq);
        (bare && late).then_some(self.sent.next)
    }

    /// Notes a segment of ours.
    pub(crate) fn spoke(&mut self, segment: &Segment, now: Duration) {
        if segment.resets {
            return;
        }
        let sent = &mut self.sent;
        if segment.syn {
            sent.first = Some(segment.seq);
        }
        let next = segment.seq.wrapping_add(segment.len);
        if segment.syn || is_after(next, sent.next) {
            sent.next = next;
        }
        sent.ack = segment.ack.or(sent.ack);
        sent.window = segment.window;
        if segment.len > 0 && self.stalled.1.is_none() {
            self.stalled.1 = Some(now);
        }
    }

    /// The sequence number up to which the peer has acknowledged, as smoltcp found.
    pub(crate) fn acknowledged(&self, socket: &Socket<'_>) -> Option<u32> {
        let queued = u32::try_from(socket.send_queue()).unwrap_or(0);
        let bytes = self.written.wrapping_sub(queued);
        Some(self.sent.first?.wrapping_add(1).wrapping_add(bytes))
    }

    /// Moves bytes between socket and pipe, as far as the socket's state and the pipe allow.
    pub(crate) fn serve(&mut self, socket: &mut Socket<'_>, now: Duration) -> Outcome {
        let state = socket.state();
        match (self.stage, state) {
            (Stage::Aborted, _) if socket.remote_endpoint().is_none() => return Outcome::Ended,
            (Stage::Aborted, _) | (Stage::HalfOpen, State::SynReceived) => return Outcome::Stays,
            (Stage::HalfOpen, State::Listen | State::Closed) => return Outcome::Abandoned,
            (Stage::Connecting, State::Closed) => {
                self.pipe.fail(End::Refused(self.peer));
                return Outcome::Reset;
            }
            _ => {}
        }
        let pipe = Arc::clone(&self.pipe);
        let Some(mut shared) = pipe.try_lock() else {
            return Outcome::Stays;
        };
        if matches!(state, State::SynSent | State::SynReceived) {
            if shared.dropped {
                drop(shared);
                self.abort(socket, now);
            }
            return Outcome::Stays;
        }
        let established = self.stage != Stage::Open;
        self.stage = Stage::Open;
        shared.ready = true;

        let discarded = receive(socket, &mut shared);
        self.written = self.written.wrapping_add(send(socket, &mut shared));
        if shared.shut && shared.outbound.is_empty() && !self.closed {
            self.closed = true;
            socket.close();
        }
        let dropped = shared.dropped;
        let over = socket.state() == State::Closed;
        let clean = shared.inbound_ended && self.closed;
        if over && !clean {
            shared.end.get_or_insert(End::Reset(self.peer));
        }
        let wakers = shared.wakers();
        drop(shared);
        wakers.into_iter().flatten().for_each(Waker::wake);

        if over {
            return if clean {
                Outcome::Ended
            } else {
                Outcome::Reset
            };
        }
        if dropped {
            self.orphan_since.get_or_insert(now);
            if socket.state() == State::FinWait2 {
                self.fin_wait_since.get_or_insert(now);
                // Nobody will read it, and the peer should know.
                if discarded {
                    self.abort(socket, now);
                }
            }
        }
        if established {
            Outcome::Established
        } else {
            Outcome::Stays
        }
    }

    /// What is due at `now`.
    pub(crate) fn tick(&mut self, socket: &mut Socket<'_>, reachable: bool, now: Duration) -> Due {
        let since = *self.since.get_or_insert(now);
        let heard_at = *self.heard_at.get_or_insert(now);
        match self.stage {
            Stage::Aborted => {
                if now >= since + ABORT_TIMEOUT {
                    return Due::Gone;
                }
            }
            Stage::HalfOpen => {
                if now >= since + HALF_OPEN_TIMEOUT {
                    return Due::HalfOpenExpired;
                }
            }
            Stage::Connecting => {
                if now >= since + CONNECT_TIMEOUT {
                    let end = if reachable {
                        End::TimedOut(self.peer)
                    } else {
                        End::Unreachable(self.peer)
                    };
                    self.pipe.fail(end);
                    return Due::ConnectTimedOut;
                }
            }
            Stage::Open => return self.tick_open(socket, heard_at, now),
        }
        Due::Nothing
    }

    fn tick_open(&mut self, socket: &mut Socket<'_>, heard_at: Duration, now: Duration) -> Due {
        if matches!(socket.state(), State::Closed | State::TimeWait) {
            return Due::Nothing;
        }
        let overdue = |since: Option<Duration>, most| since.is_some_and(|at| now >= at + most);
        if overdue(self.orphan_since, LINGER_TIMEOUT)
            || overdue(self.fin_wait_since, FIN_WAIT_TIMEOUT)
        {
            self.abort(socket, now);
            return Due::Nothing;
        }
        if now >= heard_at + PEER_TIMEOUT {
            self.pipe.fail(End::TimedOut(self.peer));
            self.abort(socket, now);
            return Due::PeerTimedOut;
        }
        if now >= self.probe_at(heard_at) {
            self.probed_at = Some(now);
            return Due::Probe;
        }
        let resend_at = self.resend_at(socket);
        if resend_at.is_some_and(|at| now >= at) {
            self.stalled.2 += 1;
            self.stalled.1 = Some(now);
            return Due::Resend;
        }
        Due::Nothing
    }

    /// Looks whether the peer acknowledged more.
    pub(crate) fn note_progress(&mut self, socket: &Socket<'_>, now: Duration) {
        let Some(acknowledged) = self.acknowledged(socket) else {
            return;
        };
        if acknowledged != self.stalled.0 {
            self.stalled = (acknowledged, Some(now), 0);
        }
        if !self.is_outstanding(socket) {
            self.stalled.1 = None;
        }
    }

    /// Whether bytes were sent and not acknowledged.
    fn is_outstanding(&self, socket: &Socket<'_>) -> bool {
        let acknowledged = self.acknowledged(socket);
        socket.send_queue() > 0 && acknowledged.is_some_and(|ack| is_after(self.sent.next, ack))
    }

    /// When what is outstanding is to be sent again. Not while the peer's window is closed: it is
    /// asked then, and what it has no room for it can't take.
    fn resend_at(&self, socket: &Socket<'_>) -> Option<Duration> {
        if self.peer_window.unwrap_or(0) == 0 || !self.is_outstanding(socket) {
            return None;
        }
        let doublings = self.stalled.2.min(RESEND_DOUBLINGS_MAX);
        Some(self.stalled.1? + RESEND_AFTER * (1 << doublings))
    }

    /// When [`Connection::tick`] will have something to do; at once if it never ran.
    pub(crate) fn tick_at(&self, socket: &Socket<'_>) -> Option<Duration> {
        let (Some(since), Some(heard_at)) = (self.since, self.heard_at) else {
            return Some(Duration::ZERO);
        };
        match self.stage {
            Stage::Aborted => Some(since + ABORT_TIMEOUT),
            Stage::HalfOpen => Some(since + HALF_OPEN_TIMEOUT),
            Stage::Connecting => Some(since + CONNECT_TIMEOUT),
            Stage::Open if matches!(socket.state(), State::Closed | State::TimeWait) => None,
            Stage::Open => {
                let linger = self.orphan_since.map(|at| at + LINGER_TIMEOUT);
                let fin_wait = self.fin_wait_since.map(|at| at + FIN_WAIT_TIMEOUT);
                let silence = (heard_at + PEER_TIMEOUT).min(self.probe_at(heard_at));
                let all = [linger, fin_wait, self.resend_at(socket), Some(silence)];
                all.into_iter().flatten().min()
            }
        }
    }

    fn probe_at(&self, heard_at: Duration) -> Duration {
        self.probed_at.unwrap_or(heard_at).max(heard_at) + KEEP_ALIVE
    }

    fn abort(&mut self, socket: &mut Socket<'_>, now: Duration) {
        socket.abort();
        self.stage = Stage::Aborted;
        self.since = Some(now);
    }
}

/// Whether a sequence number comes after another (RFC 9293, 3.4).
fn is_after(one: u32, other: u32) -> bool {
    one.wrapping_sub(other).cast_signed() > 0
}

/// Moves received bytes to the application; true if some were thrown away.
fn receive(socket: &mut Socket<'_>, shared: &mut Shared) -> bool {
    // What an ended socket still holds would be lost with it: one buffer more than the bound.
    let last = matches!(socket.state(), State::TimeWait | State::Closed);
    let mut discarded = false;
    while socket.can_recv() {
        let room = match (shared.dropped, last) {
            (true, _) | (_, true) => usize::MAX,
            _ => shared.inbound_room(),
        };
        let moved = socket.recv(|bytes| {
            let fits = bytes.len().min(room);
            if shared.dropped {
                discarded = true;
            } else {
                shared.inbound.extend(&bytes[..fits]);
            }
            (fits, fits)
        });
        if !matches!(moved, Ok(bytes) if bytes > 0) {
            break;
        }
    }
    shared.inbound_starved = socket.can_recv();
    if !socket.can_recv() && matches!(socket.peek(1), Err(RecvError::Finished)) {
        shared.inbound_ended = true;
    }
    discarded
}

/// Moves the application's bytes to the socket, and says how many.
fn send(socket: &mut Socket<'_>, shared: &mut Shared) -> u32 {
    let mut sum = 0;
    while socket.can_send() && !shared.outbound.is_empty() {
        let (bytes, _) = shared.outbound.as_slices();
        match socket.send_slice(bytes) {
            Ok(moved) if moved > 0 => {
                shared.outbound.drain(..moved);
                sum += u32::try_from(moved).unwrap_or(0);
            }
            _ => break,
        }
    }
    sum
}
