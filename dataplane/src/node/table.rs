//! The sessions of a node. Those that wait for their data connection have bounds of their own: the
//! oldest gives way to a newcomer, of the address that has the most.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use genie_controlplane::identity::Peer;
use parking_lot::Mutex;

use super::data::Session;

/// Sessions that wait for their data connection.
pub const WAITING_MAX: usize = 256;
/// Of them, of one address.
const WAITING_PER_PEER: usize = 64;
/// Of them, with a connection of the transport each, which are few.
const ON_LINK_PER_PEER: usize = 16;

/// All sessions.
#[derive(Default)]
pub struct Table(Mutex<HashMap<u64, Arc<Session>>>);

impl Table {
    /// Puts a session in; gives the one that gives way for it.
    #[must_use]
    pub fn insert(&self, session: &Arc<Session>) -> Option<Arc<Session>> {
        let mut sessions = self.0.lock();
        let waiting: Vec<_> = waiting(&sessions)
            .map(|session| (session.spec().peer, session.age(), session.id()))
            .collect();
        let goes = gives_way(&waiting, session.spec().peer).and_then(|id| sessions.remove(&id));
        sessions.insert(session.id(), Arc::clone(session));
        goes
    }

    /// Whether another session of `peer` may wait on the link.
    #[must_use]
    pub fn has_room_on_link(&self, peer: Option<Peer>) -> bool {
        let sessions = self.0.lock();
        let of_peer = |session: &&Arc<Session>| {
            session.spec().peer == peer && session.spec().transport_wanted
        };
        waiting(&sessions).filter(of_peer).count() <= ON_LINK_PER_PEER
    }

    /// The session `id`.
    #[must_use]
    pub fn find(&self, id: u64) -> Option<Arc<Session>> {
        self.0.lock().get(&id).cloned()
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Session>> {
        self.0.lock().values().cloned().collect()
    }

    /// Takes one out. False where there is none.
    pub fn remove(&self, id: u64) -> bool {
        self.0.lock().remove(&id).is_some()
    }
}

fn waiting(sessions: &HashMap<u64, Arc<Session>>) -> impl Iterator<Item = &Arc<Session>> {
    sessions.values().filter(|session| !session.is_connected())
}

/// Which of those that wait, each with its age, gives way to a newcomer of `peer`.
fn gives_way<P: Copy + Eq + Hash, A: Copy + Ord>(waiting: &[(P, A, u64)], peer: P) -> Option<u64> {
    let mut counts = HashMap::<P, usize>::new();
    for (of, _, _) in waiting {
        *counts.entry(*of).or_default() += 1;
    }
    let of = if counts
        .get(&peer)
        .is_some_and(|&count| count >= WAITING_PER_PEER)
    {
        peer
    } else if waiting.len() >= WAITING_MAX {
        counts.into_iter().max_by_key(|&(_, count)| count)?.0
    } else {
        return None;
    };
    let of_one = waiting.iter().filter(|(peer, _, _)| *peer == of);
    of_one.max_by_key(|(_, age, _)| *age).map(|(_, _, id)| *id)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Session `n` is older than `n + 1`.
    fn of(peer: u8, count: usize, from: u64) -> impl Iterator<Item = (u8, u64, u64)> {
        (from..).take(count).map(move |n| (peer, 1000 - n, n))
    }

    #[test]
    fn one_address_displaces_its_own() {
        let waiting: Vec<_> = of(1, WAITING_PER_PEER, 0).chain(of(2, 3, 100)).collect();
        assert_eq!(gives_way(&waiting, 1), Some(0));
        assert_eq!(gives_way(&waiting, 2), None);
        assert_eq!(gives_way(&waiting, 3), None);
    }

    #[test]
    fn when_all_wait_the_address_that_has_the_most_loses_its_oldest() {
        let others = (2..).zip([60, 60, 60]).zip([100, 200, 300]);
        let others = others.flat_map(|((peer, count), from)| of(peer, count, from));
        let waiting: Vec<_> = others.chain(of(1, WAITING_PER_PEER, 400)).collect();
        let waiting: Vec<_> = waiting.into_iter().chain(of(9, 12, 600)).collect();
        assert_eq!(waiting.len(), WAITING_MAX);
        assert_eq!(gives_way(&waiting, 9), Some(400));
    }
}
