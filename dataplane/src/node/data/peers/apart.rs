//! Over a DPDK link the bytes of a longer transfer travel apart from the stream: the poll loop sends them
//! from the sender's memory, and puts them into the receiver's.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use genie_channel::INLINE_MAX;
use parking_lot::{Condvar, Mutex};

use super::super::link::Carrier;
use super::super::memory::SessionMemory;
use super::super::running::Running;
use super::super::staging::Land;

/// In a frame, after how long a transfer is: its bytes travel apart.
pub(super) const APART: u8 = 1;
/// Chunks that are on their way at a time: of more none could be held back for what is urgent.
const OUT_MAX: usize = 2;
/// How often one who waits looks whether that makes sense.
const TICK: Duration = Duration::from_millis(100);

/// The connection of the transport that a way goes by.
#[derive(Clone)]
pub struct Apart {
    carrier: Carrier,
    leaving: Arc<Leaving>,
}

impl Apart {
    /// By `carrier`, whose reading side tells `leaving` what has left.
    #[must_use]
    pub fn new(carrier: Carrier, leaving: Arc<Leaving>) -> Self {
        Self { carrier, leaving }
    }

    /// The books of what leaves.
    pub(super) fn leaving(&self) -> &Leaving {
        &self.leaving
    }

    /// Whether a transfer of `total` bytes from this memory travels apart. That of a device leaves by
    /// staging memory, in the stream.
    pub(super) fn takes(running: &Running, total: u64) -> bool {
        matches!(running.memory, SessionMemory::Shared(_)) && total > INLINE_MAX
    }

    /// The poll loop may reach the session's memory.
    pub(super) fn share(&self, running: &Running) -> io::Result<()> {
        share(&self.carrier, running)
    }
}

/// The poll loop that drives `carrier` may reach a session's memory.
pub(super) fn share(carrier: &Carrier, running: &Running) -> io::Result<()> {
    let (source, sink) = (running.memory.source(), running.memory.sink());
    let shared = (carrier.poll).share(carrier.connection, Arc::clone(source), Arc::clone(sink));
    shared.map_err(io::Error::other)
}

/// What a poll loop is sending, by its places.
#[derive(Debug, Default)]
pub struct Leaving {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// The oldest first.
    leavers: Vec<Leaver>,
    next: u64,
    out: usize,
    over: bool,
}

/// Names what was begun, whatever else is begun in its midst.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ticket(u64);

#[derive(Debug)]
struct Leaver {
    ticket: Ticket,
    place: Range<u64>,
    out: usize,
    /// No more of it will be sent.
    whole: bool,
}

impl State {
    fn find(&self, ticket: Ticket) -> Option<usize> {
        self.leavers
            .iter()
            .position(|leaver| leaver.ticket == ticket)
    }

    /// The place of a leaver of which everything has left.
    fn gone(&mut self, at: usize) -> Option<u64> {
        let leaver = &self.leavers[at];
        let is_gone = leaver.whole && leaver.out == 0;
        is_gone.then(|| self.leavers.remove(at).place.start)
    }
}

impl Leaving {
    /// Chunks of what is at `place` follow.
    pub(super) fn begin(&self, place: Range<u64>) -> Ticket {
        let mut state = self.state.lock();
        let ticket = Ticket(state.next);
        state.next += 1;
        state.leavers.push(Leaver {
            ticket,
            place,
            out: 0,
            whole: false,
        });
        ticket
    }

    /// One more chunk of it is on its way, once there is room for that.
    ///
    /// # Errors
    /// The connection is over; nothing left for `patience`.
    pub(super) fn chunk(
        &self,
        ticket: Ticket,
        patience: Duration,
        is_over: impl Fn() -> bool,
    ) -> io::Result<()> {
        let began = Instant::now();
        let mut state = self.state.lock();
        while state.out >= OUT_MAX && !state.over {
            let left = state.out;
            self.changed.wait_for(&mut state, TICK);
            if state.out == left && (is_over() || began.elapsed() > patience) {
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
        let at = state.find(ticket).filter(|_| !state.over);
        let at = at.ok_or(io::ErrorKind::UnexpectedEof)?;
        state.out += 1;
        state.leavers[at].out += 1;
        Ok(())
    }

    /// No more of it follows. Its place, if all of it has left.
    pub(super) fn end(&self, ticket: Ticket) -> Option<u64> {
        let mut state = self.state.lock();
        let at = state.find(ticket)?;
        state.leavers[at].whole = true;
        state.gone(at)
    }

    /// The chunk at `chunk` has left. The place that it was the last of.
    pub fn left(&self, chunk: u64) -> Option<u64> {
        let mut state = self.state.lock();
        // A tensor that is sent twice lies at one place: what was sent first leaves first.
        let its = |leaver: &Leaver| leaver.out > 0 && leaver.place.contains(&chunk);
        let at = state.leavers.iter().position(its)?;
        state.out -= 1;
        state.leavers[at].out -= 1;
        self.changed.notify_all();
        state.gone(at)
    }

    /// The connection is over: the places that have not left, and never will.
    pub(super) fn close(&self) -> Vec<u64> {
        let mut state = self.state.lock();
        state.over = true;
        self.changed.notify_all();
        let leavers = state.leavers.drain(..);
        leavers.map(|leaver| leaver.place.start).collect()
    }
}

/// A part of what lands, as if it were the whole.
pub(super) struct Within<'a> {
    pub(super) land: &'a mut dyn Land,
    /// Where it begins.
    pub(super) start: u64,
}

impl Land for Within<'_> {
    fn place(&mut self, part: &Range<u64>) -> io::Result<Option<u64>> {
        let part = self.start + part.start..self.start + part.end;
        self.land.place(&part)
    }

    fn arrived(&mut self, place: u64) -> io::Result<()> {
        self.land.arrived(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(leaving: &Leaving, ticket: Ticket) -> io::Result<()> {
        leaving.chunk(ticket, Duration::ZERO, || false)
    }

    #[test]
    fn a_place_goes_back_when_all_of_it_has_left_and_no_more_of_it_follows() {
        let leaving = Leaving::default();
        let first = leaving.begin(100..300);
        chunk(&leaving, first).unwrap();
        chunk(&leaving, first).unwrap();
        // Two are on their way.
        assert!(chunk(&leaving, first).is_err());
        assert_eq!(leaving.left(100), None);
        chunk(&leaving, first).unwrap();
        assert_eq!(leaving.end(first), None);
        assert_eq!(leaving.left(200), None);
        assert_eq!(leaving.left(280), Some(100));
        assert_eq!(leaving.left(280), None);
        // What has left before it is said that no more follows goes back then.
        let second = leaving.begin(500..600);
        chunk(&leaving, second).unwrap();
        assert_eq!(leaving.left(500), None);
        assert_eq!(leaving.end(second), Some(500));
    }

    #[test]
    fn what_goes_ahead_in_the_midst_of_another_is_not_taken_for_it() {
        let leaving = Leaving::default();
        let long = leaving.begin(100..300);
        chunk(&leaving, long).unwrap();
        let urgent = leaving.begin(700..800);
        chunk(&leaving, urgent).unwrap();
        assert_eq!(leaving.end(urgent), None);
        // The long one goes on while the other is still on its way.
        assert_eq!(leaving.left(100), None);
        chunk(&leaving, long).unwrap();
        assert_eq!(leaving.end(long), None);
        assert_eq!(leaving.left(700), Some(700));
        assert_eq!(leaving.left(200), Some(100));
    }

    #[test]
    fn what_lies_at_one_place_twice_goes_back_twice() {
        let leaving = Leaving::default();
        let both = [leaving.begin(100..200), leaving.begin(100..200)];
        for ticket in both {
            chunk(&leaving, ticket).unwrap();
            assert_eq!(leaving.end(ticket), None);
        }
        assert_eq!([leaving.left(100), leaving.left(100)], [Some(100); 2]);
    }

    #[test]
    fn what_has_not_left_goes_back_when_the_connection_ends() {
        let leaving = Leaving::default();
        let ticket = leaving.begin(100..300);
        chunk(&leaving, ticket).unwrap();
        assert_eq!(leaving.close(), [100]);
        assert!(chunk(&leaving, ticket).is_err());
        assert_eq!(leaving.left(100), None);
        assert_eq!(leaving.end(ticket), None);
    }
}
