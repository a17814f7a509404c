//! Who may stay connected: a table of seats, with bounds for strangers and for those who have shown
//! who they are, in all and for one address each. It knows neither sockets nor a clock.
//!
//! A newcomer is not refused for what others hold idly. Where a bound is reached, the oldest
//! stranger gives way, or who is known and has asked for nothing for longest, of the address that
//! has the most.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use genie_controlplane::identity::Peer;

/// Seats for this machine besides the others: its operator gets in when all are taken.
const LOOPBACK_RESERVE: usize = 8;
/// A request that takes so long protects its connection no longer.
const BUSY_MAX: Duration = Duration::from_secs(10);

/// How many seats there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// For who has not shown who it is.
    pub strangers_max: usize,
    /// Of them, of one address.
    pub strangers_per_peer: usize,
    /// For who has.
    pub known_max: usize,
    /// Of them, of one address.
    pub known_per_peer: usize,
}

/// A seat's name. Never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SeatId(u64);

/// All seats are taken by those who use them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("all connections are in use")]
pub struct Full;

#[derive(Debug)]
struct Seat<T> {
    peer: Peer,
    known: Option<Known>,
    holder: T,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    requests: u32,
    /// Since when it has as many.
    since: Instant,
    /// It has opened a session: it gives way after those that have not.
    keeps: bool,
}

impl Known {
    fn is_idle(&self, now: Instant) -> bool {
        self.requests == 0 || now.saturating_duration_since(self.since) > BUSY_MAX
    }
}

/// The table. `T` is how a seat's holder is told that it is to go.
#[derive(Debug)]
pub struct Seats<T> {
    bounds: Bounds,
    seats: HashMap<SeatId, Seat<T>>,
    next: u64,
}

impl<T> Seats<T> {
    /// An empty one.
    #[must_use]
    pub fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            seats: HashMap::new(),
            next: 0,
        }
    }

    /// Other bounds, for who comes from now on.
    pub fn set_bounds(&mut self, bounds: Bounds) {
        self.bounds = bounds;
    }

    /// A seat for a stranger, and who gives way for it.
    pub fn enter(&mut self, peer: Peer, holder: T) -> (SeatId, Option<T>) {
        let of_peer = self.count(|seat| seat.known.is_none() && seat.peer == peer);
        let all = self.count(|seat| seat.known.is_none());
        let goes = if of_peer >= self.bounds.strangers_per_peer {
            self.oldest_stranger(|seat| seat.peer == peer)
        } else if all >= self.bounds.strangers_max {
            let most = self.peer_with_most(|seat| seat.known.is_none());
            self.oldest_stranger(|seat| Some(seat.peer) == most)
        } else {
            None
        };
        let goes = goes.and_then(|id| self.leave(id));
        let id = SeatId(self.next);
        self.next += 1;
        let seat = Seat {
            peer,
            known: None,
            holder,
        };
        self.seats.insert(id, seat);
        (id, goes)
    }

    /// It has shown who it is. Who gives way for it, if somebody has to.
    ///
    /// # Errors
    /// Nobody does.
    pub fn admit(&mut self, id: SeatId, now: Instant) -> Result<Option<T>, Full> {
        let Some(seat) = self.seats.get(&id) else {
            // It had to go meanwhile.
            return Err(Full);
        };
        if seat.known.is_some() {
            return Ok(None);
        }
        let peer = seat.peer;
        let of_peer = self.count(|seat| seat.known.is_some() && seat.peer == peer);
        let all = self.count(|seat| seat.known.is_some());
        let reserve = if peer.is_loopback() {
            LOOPBACK_RESERVE
        } else {
            0
        };
        let goes = if of_peer >= self.bounds.known_per_peer {
            Some(self.idlest(now, |seat| seat.peer == peer).ok_or(Full)?)
        } else if all >= self.bounds.known_max {
            let idle = |seat: &Seat<T>| seat.known.is_some_and(|known| known.is_idle(now));
            let most = self.peer_with_most(idle);
            match self.idlest(now, |seat| Some(seat.peer) == most) {
                None if all < self.bounds.known_max + reserve => None,
                goes => Some(goes.ok_or(Full)?),
            }
        } else {
            None
        };
        let goes = goes.and_then(|id| self.leave(id));
        if let Some(seat) = self.seats.get_mut(&id) {
            seat.known = Some(Known {
                requests: 0,
                since: now,
                keeps: false,
            });
        }
        Ok(goes)
    }

    /// It asks for something.
    pub fn begin(&mut self, id: SeatId, now: Instant) {
        self.change(id, |known| {
            known.requests += 1;
            known.since = now;
        });
    }

    /// It has its answer; `keeps`: which is a session.
    pub fn done(&mut self, id: SeatId, now: Instant, keeps: bool) {
        self.change(id, |known| {
            known.requests = known.requests.saturating_sub(1);
            known.since = now;
            known.keeps |= keeps;
        });
    }

    /// How long it has asked for nothing, unless it has a session.
    #[must_use]
    pub fn idle(&self, id: SeatId, now: Instant) -> Option<Duration> {
        let known = self.seats.get(&id)?.known?;
        (known.requests == 0 && !known.keeps).then(|| now.saturating_duration_since(known.since))
    }

    /// It is gone.
    pub fn leave(&mut self, id: SeatId) -> Option<T> {
        self.seats.remove(&id).map(|seat| seat.holder)
    }

    /// The oldest stranger goes, whoever it is: the system has run out of something.
    pub fn relieve(&mut self) -> Option<T> {
        let id = self.oldest_stranger(|_| true)?;
        self.leave(id)
    }

    fn change(&mut self, id: SeatId, change: impl FnOnce(&mut Known)) {
        if let Some(known) = self.seats.get_mut(&id).and_then(|seat| seat.known.as_mut()) {
            change(known);
        }
    }

    fn count(&self, of: impl Fn(&Seat<T>) -> bool) -> usize {
        self.seats.values().filter(|seat| of(seat)).count()
    }

    fn peer_with_most(&self, of: impl Fn(&Seat<T>) -> bool) -> Option<Peer> {
        let mut counts = HashMap::<Peer, usize>::new();
        for seat in self.seats.values().filter(|seat| of(seat)) {
            *counts.entry(seat.peer).or_default() += 1;
        }
        counts
            .into_iter()
            .max_by_key(|&(peer, count)| (count, peer))
            .map(|(peer, _)| peer)
    }

    fn oldest_stranger(&self, of: impl Fn(&Seat<T>) -> bool) -> Option<SeatId> {
        let fits = |seat: &Seat<T>| seat.known.is_none() && of(seat);
        let strangers = self.seats.iter().filter(|(_, seat)| fits(seat));
        strangers.map(|(id, _)| *id).min()
    }

    fn idlest(&self, now: Instant, of: impl Fn(&Seat<T>) -> bool) -> Option<SeatId> {
        self.seats
            .iter()
            .filter(|(_, seat)| of(seat))
            .filter_map(|(id, seat)| Some((*id, seat.known.filter(|known| known.is_idle(now))?)))
            .min_by_key(|(id, known)| (known.keeps, known.since, *id))
            .map(|(id, _)| id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds {
        strangers_max: 6,
        strangers_per_peer: 4,
        known_max: 6,
        known_per_peer: 4,
    };

    fn peer(last: u8) -> Peer {
        Peer::of([192, 0, 2, last].into())
    }

    #[test]
    fn a_flood_of_one_address_costs_that_address_its_oldest() {
        let mut seats = Seats::new(BOUNDS);
        for n in 0..4 {
            assert_eq!(seats.enter(peer(1), n).1, None);
        }
        assert_eq!(seats.enter(peer(1), 4).1, Some(0));
        assert_eq!(seats.enter(peer(2), 5).1, None);
        assert_eq!(seats.enter(peer(2), 6).1, None);
        // All are taken: the address that has the most gives way, whoever comes.
        assert_eq!(seats.enter(peer(3), 7).1, Some(1));
        assert_eq!(seats.enter(peer(3), 8).1, Some(2));
        assert_eq!(seats.seats.len(), 6);
    }

    #[test]
    fn who_is_known_gives_way_when_idle_and_not_otherwise() {
        let now = Instant::now();
        let mut seats = Seats::new(BOUNDS);
        let known = |seats: &mut Seats<u32>, last, n| {
            let (id, _) = seats.enter(peer(last), n);
            seats
                .admit(id, now + Duration::from_millis(n.into()))
                .map(|goes| (id, goes))
        };
        let first: Vec<_> = (0..4).map(|n| known(&mut seats, 1, n).unwrap().0).collect();
        // The first has a session, the second is asking.
        seats.begin(first[0], now);
        seats.done(first[0], now, true);
        seats.begin(first[1], now);
        assert_eq!(known(&mut seats, 1, 4).unwrap().1, Some(2));
        assert_eq!(known(&mut seats, 1, 5).unwrap().1, Some(3));
        for n in 6..8 {
            assert_eq!(known(&mut seats, 2, n).unwrap().1, None);
        }
        assert_eq!(known(&mut seats, 3, 8).unwrap().1, Some(4));
        assert_eq!(seats.idle(first[0], now), None);
    }

    #[test]
    fn where_all_are_busy_a_newcomer_is_refused_but_not_this_machine_s_operator() {
        let now = Instant::now();
        let mut seats = Seats::new(BOUNDS);
        for n in 0..6 {
            let (id, _) = seats.enter(peer(n), ());
            seats.admit(id, now).unwrap();
            seats.begin(id, now);
        }
        let (id, _) = seats.enter(peer(9), ());
        assert_eq!(seats.admit(id, now), Err(Full));
        let (id, _) = seats.enter(Peer::of([127, 0, 0, 1].into()), ());
        assert_eq!(seats.admit(id, now), Ok(None));
        // A request without end protects nobody.
        let (id, _) = seats.enter(peer(9), ());
        let later = now + BUSY_MAX + Duration::from_secs(1);
        assert_eq!(seats.admit(id, later), Ok(Some(())));
    }

    #[test]
    fn who_had_to_go_is_not_admitted() {
        let mut seats = Seats::new(BOUNDS);
        let (id, _) = seats.enter(peer(1), ());
        assert_eq!(seats.relieve(), Some(()));
        assert_eq!(seats.admit(id, Instant::now()), Err(Full));
        assert_eq!(seats.leave(id), None);
    }
}
