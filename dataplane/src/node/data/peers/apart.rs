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
    places: Vec<Leaver>,
    out: usize,
    over: bool,
}

#[derive(Debug)]
struct Leaver {
    place: Range<u64>,
    out: usize,
    /// No more of it will be sent.
    whole: bool,
}

impl Leaving {
    /// Chunks of what is at `place` follow.
    pub(super) fn begin(&self, place: Range<u64>) {
        let leaver = Leaver {
            place,
            out: 0,
            whole: false,
        };
        self.state.lock().places.push(leaver);
    }

    /// One more chunk of the last place is on its way, once there is room for it.
    ///
    /// # Errors
    /// The connection is over; nothing left for `patience`.
    pub(super) fn chunk(&self, patience: Duration, is_over: impl Fn() -> bool) -> io::Result<()> {
        let began = Instant::now();
        let mut state = self.state.lock();
        while state.out >= OUT_MAX && !state.over {
            let left = state.out;
            self.changed.wait_for(&mut state, TICK);
            if state.out == left && (is_over() || began.elapsed() > patience) {
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
        if state.over {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        state.out += 1;
        if let Some(last) = state.places.last_mut() {
            last.out += 1;
        }
        Ok(())
    }

    /// No more of the last place follows. It, if all of it has left.
    pub(super) fn end(&self) -> Option<u64> {
        let mut state = self.state.lock();
        let last = state.places.last_mut()?;
        last.whole = true;
        let is_gone = last.out == 0;
        is_gone.then(|| state.places.pop().map(|last| last.place.start))?
    }

    /// The chunk at `chunk` has left. The place that it was the last of.
    pub fn left(&self, chunk: u64) -> Option<u64> {
        let mut state = self.state.lock();
        // A tensor that is sent twice lies at one place: what was sent first leaves first.
        let its = |leaver: &Leaver| leaver.out > 0 && leaver.place.contains(&chunk);
        let at = state.places.iter().position(its)?;
        state.out -= 1;
        self.changed.notify_all();
        let leaver = &mut state.places[at];
        leaver.out -= 1;
        let is_gone = leaver.whole && leaver.out == 0;
        is_gone.then(|| state.places.swap_remove(at).place.start)
    }

    /// The connection is over: the places that have not left, and never will.
    pub(super) fn close(&self) -> Vec<u64> {
        let mut state = self.state.lock();
        state.over = true;
        self.changed.notify_all();
        let places = state.places.drain(..);
        places.map(|leaver| leaver.place.start).collect()
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

    #[test]
    fn a_place_goes_back_when_all_of_it_has_left_and_no_more_of_it_follows() {
        let leaving = Leaving::default();
        let chunk = || leaving.chunk(Duration::ZERO, || false);
        leaving.begin(100..300);
        chunk().unwrap();
        chunk().unwrap();
        // Two are on their way.
        assert!(chunk().is_err());
        assert_eq!(leaving.left(100), None);
        chunk().unwrap();
        assert_eq!(leaving.end(), None);
        assert_eq!(leaving.left(200), None);
        assert_eq!(leaving.left(280), Some(100));
        assert_eq!(leaving.left(280), None);
        // What has left before it is said that no more follows goes back then.
        leaving.begin(500..600);
        chunk().unwrap();
        assert_eq!(leaving.left(500), None);
        assert_eq!(leaving.end(), Some(500));
    }

    #[test]
    fn what_has_not_left_goes_back_when_the_connection_ends() {
        let leaving = Leaving::default();
        leaving.begin(100..300);
        leaving.chunk(Duration::ZERO, || false).unwrap();
        assert_eq!(leaving.close(), [100]);
        assert!(leaving.chunk(Duration::ZERO, || false).is_err());
        assert_eq!(leaving.left(100), None);
        assert_eq!(leaving.end(), None);
    }
}
