//! Bytes that are asked for before the program looks at them: of what it is going to look at next,
//! by its own word ([`Session::expect`]) or by its last steps. They are good until anything but a
//! look is recorded, so what a look gives, and the failures that it tells of, are what they would be
//! without.

use std::collections::{HashMap, VecDeque};

use genie_session::client::Draft;
use genie_session::record::Kind;

use super::append::SiteId;
use super::bytes::Bytes;
use super::seen::Ticket;
use super::slots::{Destination, Key};
use super::{Append, Error, Lane, Session};

/// Bytes that are under way or lie here unseen.
const BYTES_MAX: u64 = 16 << 20;
/// Values, likewise.
const VALUES_MAX: usize = 256;
/// Series that the program has told of and that are remembered, and the values in each.
const SERIES_MAX: usize = 4;
const EXPECTED_MAX: usize = 1 << 14;

/// What the program will look at next, by its last steps.
#[derive(Clone, Copy)]
pub struct Next<'a> {
    /// What that would be.
    pub values: &'a [Bytes],
    /// Whether these are still there. What this denies once it denies from before the storage is
    /// freed ([`Session::free`]).
    pub is_there: &'a dyn Fn(&Bytes) -> bool,
}

/// Values that the program looks at one after the other.
struct Series {
    lane: usize,
    values: Vec<Bytes>,
    at: HashMap<u64, usize>,
    /// Of all its storages.
    low: u64,
    high: u64,
    /// The next one to be asked for.
    next: usize,
}

/// What was asked for.
pub(super) struct Asked {
    lane: usize,
    bytes: Bytes,
    key: Key,
    memory: Vec<u8>,
}

/// Under the append lock.
#[derive(Default)]
pub(super) struct Ahead {
    asked: Vec<Asked>,
    /// Their bytes.
    total: u64,
    /// No longer good; their answers may still be on their way into their memory.
    stale: Vec<Asked>,
    series: VecDeque<Series>,
}

impl Ahead {
    /// A record was appended.
    pub(super) fn recorded(&mut self, lane: usize, kind: Kind, storages: &[u64]) {
        if matches!(kind, Kind::Fetch | Kind::Barrier | Kind::Alloc) {
            return;
        }
        self.end();
        if let (Kind::Resize, &[storage]) = (kind, storages) {
            self.gone(lane, storage);
        }
    }

    /// What was asked for is no longer good.
    fn end(&mut self) {
        if self.asked.is_empty() {
            return;
        }
        self.stale.append(&mut self.asked);
        self.total = 0;
        for series in &mut self.series {
            series.next = series.values.len();
        }
    }

    /// A storage is no longer there, or not as it was: nobody may ask for it.
    pub(super) fn gone(&mut self, lane: usize, storage: u64) {
        for series in &mut self.series {
            if series.lane == lane
                && (series.low..=series.high).contains(&storage)
                && let Some(&at) = series.at.get(&storage)
            {
                series.values[at].len = 0;
            }
        }
    }

    fn expect(&mut self, lane: usize, mut values: Vec<Bytes>) {
        values.truncate(EXPECTED_MAX);
        let at = values.iter().enumerate().map(|(i, one)| (one.storage, i));
        let storages = || values.iter().map(|one| one.storage);
        let series = Series {
            lane,
            at: at.collect(),
            low: storages().min().unwrap_or(0),
            high: storages().max().unwrap_or(0),
            next: values.len(),
            values,
        };
        self.series.truncate(SERIES_MAX - 1);
        self.series.push_front(series);
    }

    /// The program looks at these; tells whether it has told of what comes next.
    fn looked(&mut self, lane: usize, bytes: &Bytes) -> bool {
        let is_in = |one: &Series| one.lane == lane && one.at.contains_key(&bytes.storage);
        let Some(found) = self.series.iter().position(is_in) else {
            return false;
        };
        self.series.swap(0, found);
        let series = &mut self.series[0];
        let at = series.at[&bytes.storage];
        // What lies between is under way already.
        if series.next == series.values.len() || at >= series.next {
            series.next = at + 1;
        }
        true
    }

    fn is_asked(&self, lane: usize, bytes: &Bytes) -> bool {
        let mut asked = self.asked.iter();
        asked.any(|one| one.lane == lane && one.bytes == *bytes)
    }

    fn has_room(&self, len: u64) -> bool {
        self.asked.len() < VALUES_MAX && self.total + len <= BYTES_MAX
    }

    /// What comes next in the series that the program is in, if there is room for it now.
    fn wanted(&mut self) -> Option<Bytes> {
        loop {
            let series = self.series.front()?;
            let bytes = *series.values.get(series.next)?;
            let is_of_use = bytes.len > 0 && bytes.len <= BYTES_MAX;
            if is_of_use && !self.is_asked(series.lane, &bytes) {
                return self.has_room(bytes.len).then_some(bytes);
            }
            self.series[0].next += 1;
        }
    }

    fn add(&mut self, asked: Asked) {
        self.total += asked.bytes.len;
        self.asked.push(asked);
    }

    pub(super) fn take(&mut self, lane: usize, bytes: &Bytes) -> Option<(Asked, usize)> {
        let found = self
            .asked
            .iter()
            .position(|one| one.lane == lane && one.bytes.position_of(bytes).is_some())?;
        let asked = self.asked.swap_remove(found);
        self.total -= asked.bytes.len;
        let at = asked.bytes.position_of(bytes)?;
        Some((asked, at))
    }
}

impl Session {
    /// The program is going to look at these, each of the device at an index, in this order; nothing is
    /// asked before it begins to. Those of each device are a series.
    pub fn expect(&self, values: impl Iterator<Item = (usize, Bytes)>) {
        let append = &mut *self.append.lock();
        let mut series = vec![Vec::new(); self.lanes.len()];
        for (index, bytes) in values {
            let found = match append.pool.as_deref() {
                Some(pool) => self.placed(pool, &bytes),
                None => Some((index, bytes)),
            };
            if let Some((lane, bytes)) = found
                && let Some(of_lane) = series.get_mut(lane)
            {
                of_lane.push(bytes);
            }
        }
        for (lane, values) in series.into_iter().enumerate() {
            if values.len() > 1 {
                append.ahead.expect(lane, values);
            }
        }
    }

    /// As [`Session::fetch`], of bytes that may have been asked for, or seen; asks for those that come next,
    /// `next` before others. `whole` are the bytes of its storage.
    ///
    /// # Errors
    /// As there.
    pub fn fetch_ahead(
        &self,
        lane: &Lane,
        draft: &Draft<'_>,
        into: &mut [u8],
        whole: u64,
        next: Next<'_>,
        site: SiteId,
    ) -> Result<(), Error> {
        let Some(bytes) = Bytes::of(draft, into.len()) else {
            return self.fetch(lane, draft, into, site);
        };
        let (index, storage, len) = (lane.index, bytes.storage, bytes.len);
        tracing::trace!(target: "values", lane = index, storage, bytes = len, "look");
        self.forget_stale();
        lane.check()?;
        let (taken, ticket, position) = {
            let append = &mut *self.append.lock();
            let seen = &mut append.logs[lane.index].seen;
            if let Some(found) = seen.find(&bytes) {
                into.copy_from_slice(found);
                self.counters.fetched_ahead();
                return Ok(());
            }
            let taken = append.ahead.take(lane.index, &bytes);
            let ticket = match &taken {
                Some(_) => None,
                None => seen.ask(&bytes, whole),
            };
            (taken, ticket, seen.position())
        };
        if let Some(ticket) = ticket {
            return self.fetch_part(lane, draft, (&bytes, into), &ticket, next, site);
        }
        let Some(taken) = taken else {
            // SAFETY: `wait` returns once the answer was taken or nobody waits for it any more.
            let destination = unsafe { Destination::new(into.as_mut_ptr(), into.len()) };
            self.ask_and_wait(lane, draft, destination, (&bytes, next), site)?;
            self.append.lock().logs[index].seen.is_good(position);
            return Ok(());
        };
        self.take_asked(lane, &taken, into, next)?;
        self.append.lock().logs[index].seen.is_good(position);
        Ok(())
    }

    /// Waits for what was asked for, of which the program looks at the bytes from there on.
    pub(super) fn take_asked(
        &self,
        lane: &Lane,
        (asked, at): &(Asked, usize),
        into: &mut [u8],
        next: Next<'_>,
    ) -> Result<(), Error> {
        self.ask_ahead(lane, &asked.bytes, next);
        let answer = self.answer_asked(lane, asked.key)?;
        answer.map_err(|fault| self.explain(lane, &fault))?;
        into.copy_from_slice(&asked.memory[*at..*at + into.len()]);
        self.counters.fetched_ahead();
        Ok(())
    }

    /// Fetches what the ticket says, and remembers it: more than the program looks at now, or just that.
    fn fetch_part(
        &self,
        lane: &Lane,
        draft: &Draft<'_>,
        (wanted, into): (&Bytes, &mut [u8]),
        ticket: &Ticket,
        next: Next<'_>,
        site: SiteId,
    ) -> Result<(), Error> {
        let part = ticket.bytes();
        let mut memory = vec![0; part.len as usize];
        // SAFETY: `wait` returns once the answer was taken or nobody waits for it any more.
        let destination = unsafe { Destination::new(memory.as_mut_ptr(), memory.len()) };
        let params = part.params();
        let whole = part.fetch(&params);
        // What is looked at as a whole is looked at as ever: plans know it so.
        let draft = if part == *wanted { draft } else { &whole };
        let asked = self.ask_and_wait(lane, draft, destination, (wanted, next), site);
        let at = part.position_of(wanted).filter(|_| asked.is_ok());
        if let Some(at) = at {
            into.copy_from_slice(&memory[at..at + into.len()]);
        }
        let seen = &mut self.append.lock().logs[lane.index].seen;
        seen.answered(ticket, asked.is_ok().then_some(memory));
        asked
    }

    /// Asks, and for what comes after what is looked at with it, and waits.
    fn ask_and_wait(
        &self,
        lane: &Lane,
        draft: &Draft<'_>,
        destination: Destination,
        (looked, next): (&Bytes, Next<'_>),
        site: SiteId,
    ) -> Result<(), Error> {
        let key = self.ask(lane, draft, destination, site)?;
        self.ask_ahead(lane, looked, next);
        self.wait(lane, key).map(|_| ())
    }

    /// Asks for what comes next on the same device, as far as there is room for it now.
    pub(super) fn ask_ahead(&self, lane: &Lane, looked: &Bytes, next: Next<'_>) {
        let append = &mut *self.append.lock();
        let mut is_asked = false;
        for value in next.values {
            let found = match append.pool.as_deref() {
                Some(pool) => self.placed(pool, value),
                None => Some((lane.index, *value)),
            };
            let Some((_, bytes)) = found.filter(|(at, _)| *at == lane.index) else {
                continue;
            };
            let ahead = &append.ahead;
            let is_wanted = ahead.has_room(bytes.len) && !ahead.is_asked(lane.index, &bytes);
            // Under the lock under which it would be freed.
            if is_wanted && (next.is_there)(value) {
                is_asked |= self.ask_for(lane, append, bytes);
            }
        }
        if append.ahead.looked(lane.index, looked) {
            while let Some(bytes) = append.ahead.wanted() {
                if !self.ask_for(lane, append, bytes) {
                    break;
                }
                is_asked = true;
            }
        }
        if is_asked {
            self.flush_into_outbox(lane, append);
        }
    }

    fn ask_for(&self, lane: &Lane, append: &mut Append, bytes: Bytes) -> bool {
        if !append.logs[lane.index].log.has_room(0) {
            return false;
        }
        let mut memory = vec![0; bytes.len as usize];
        // SAFETY: `Ahead` owns the memory, which stays where it is when the vector is moved, until
        // the answer was taken (`fetch_ahead`) or the key forgotten (`forget_stale`).
        let destination = unsafe { Destination::new(memory.as_mut_ptr(), memory.len()) };
        let params = bytes.params();
        let draft = bytes.fetch(&params);
        let Ok(key) = self.append_question(lane, append, &draft, destination, 0) else {
            return false;
        };
        append.ahead.add(Asked {
            lane: lane.index,
            bytes,
            key,
            memory,
        });
        true
    }

    /// Lets go of what was asked for and is no longer good.
    pub(super) fn forget_stale(&self) {
        let stale = std::mem::take(&mut self.append.lock().ahead.stale);
        for asked in stale {
            self.lanes[asked.lane].slots.forget(asked.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(storage: u64, len: u64) -> Bytes {
        Bytes {
            storage,
            offset: 0,
            len,
        }
    }

    /// Looks at a storage; gives those that are asked for then.
    fn look(ahead: &mut Ahead, storage: u64) -> Vec<u64> {
        let mut found = Vec::new();
        if !ahead.looked(0, &bytes(storage, 1)) {
            return found;
        }
        while let Some(bytes) = ahead.wanted() {
            found.push(bytes.storage);
            ahead.add(Asked {
                lane: 0,
                bytes,
                key: Key::Wait(bytes.storage),
                memory: Vec::new(),
            });
        }
        found
    }

    #[test]
    fn a_series_is_asked_for_once_the_program_is_in_it() {
        let mut ahead = Ahead::default();
        ahead.expect(0, (1..=5).map(|id| bytes(id, 8)).collect());
        assert_eq!(look(&mut ahead, 9), [0; 0]);
        assert_eq!(look(&mut ahead, 2), [3, 4, 5]);
        let (asked, at) = ahead.take(0, &bytes(4, 4)).expect("asked for");
        assert_eq!((asked.bytes.storage, at), (4, 0));
        assert!(ahead.take(1, &bytes(3, 8)).is_none(), "another device's");
        assert_eq!(look(&mut ahead, 4), [0; 0], "each once");
    }

    #[test]
    fn bytes_and_values_are_bounded_and_the_series_goes_on() {
        let mut ahead = Ahead::default();
        ahead.expect(0, (1..=5).map(|id| bytes(id, BYTES_MAX / 2)).collect());
        assert_eq!(look(&mut ahead, 1), [2, 3]);
        assert!(ahead.take(0, &bytes(2, 8)).is_some());
        assert_eq!(look(&mut ahead, 2), [4]);
        assert_eq!(look(&mut ahead, 9), [0; 0], "of another series, or of none");

        ahead.end();
        ahead.expect(0, (1..=1000).map(|id| bytes(id, 8)).collect());
        assert_eq!(look(&mut ahead, 1).len(), VALUES_MAX);
        // What is too long to gain anything is left out.
        ahead.end();
        let lengths = [1, BYTES_MAX + 1, 8];
        ahead.expect(
            0,
            (1..).zip(lengths).map(|(id, len)| bytes(id, len)).collect(),
        );
        assert_eq!(look(&mut ahead, 1), [3]);
    }

    #[test]
    fn nothing_is_good_after_a_record() {
        let mut ahead = Ahead::default();
        ahead.expect(0, (1..=4).map(|id| bytes(id, 8)).collect());
        assert_eq!(look(&mut ahead, 1), [2, 3, 4]);
        ahead.end();
        assert!(ahead.take(0, &bytes(2, 8)).is_none());
        assert_eq!(ahead.stale.len(), 3);
        assert_eq!(
            look(&mut ahead, 2),
            [3, 4],
            "it goes on where the program is"
        );
    }

    #[test]
    fn what_is_gone_is_not_asked_for() {
        let mut ahead = Ahead::default();
        ahead.expect(0, (1..=5).map(|id| bytes(id, 8)).collect());
        for (lane, storage) in [(0, 3), (1, 4), (0, 99)] {
            ahead.gone(lane, storage);
        }
        assert_eq!(look(&mut ahead, 1), [2, 4, 5]);
        ahead.end();
        ahead.gone(0, 5);
        assert_eq!(look(&mut ahead, 2), [4]);
    }

    #[test]
    fn few_series_are_remembered() {
        let mut ahead = Ahead::default();
        for first in 0..10 {
            ahead.expect(0, (0..2).map(|id| bytes(100 * first + id, 8)).collect());
        }
        assert_eq!(ahead.series.len(), SERIES_MAX);
        assert_eq!(look(&mut ahead, 0), [0; 0]);
        assert_eq!(look(&mut ahead, 900), [901]);
    }
}
