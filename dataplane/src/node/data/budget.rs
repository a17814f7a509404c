//! The node's memory: what all sessions together may take. What arrives is charged when it arrives,
//! what an executor holds when it says so; each executor is told what it may come to, so that a
//! session that finds none left is out of memory, and neither another nor the daemon.

use std::collections::HashMap;
use std::sync::Arc;

use genie_shm::Word;
use parking_lot::Mutex;

/// What a session takes besides its tensors: rings, buffers, threads, an executor's own.
pub const SESSION_BYTES: u64 = 8 << 20;
/// Executors are told of smaller changes only when their own share changes.
const TOLD_BYTES: u64 = 1 << 20;

/// The books.
pub struct Budget(Mutex<Books>);

struct Books {
    all: u64,
    /// What the system could still give when it was last asked.
    there: u64,
    shares: HashMap<u64, Share>,
    charged: u64,
    /// What was left when executors were last told.
    told: u64,
}

struct Share {
    /// What its executor says that it holds.
    held: u64,
    /// What has arrived for it and is not free again; an executor holds it too, once it uses it.
    arrived: u64,
    /// What its executor may come to.
    word: Option<Arc<Word>>,
}

impl Share {
    fn bytes(&self) -> u64 {
        self.held.max(self.arrived)
    }

    fn charge(&self) -> u64 {
        self.bytes().saturating_add(SESSION_BYTES)
    }
}

impl Budget {
    /// One of `bytes`.
    #[must_use]
    pub fn new(bytes: u64) -> Self {
        Self(Mutex::new(Books {
            all: bytes,
            there: u64::MAX,
            shares: HashMap::new(),
            charged: 0,
            told: bytes,
        }))
    }

    /// All of it.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.0.lock().all
    }

    /// What is charged.
    #[must_use]
    pub fn charged(&self) -> u64 {
        self.0.lock().charged
    }

    /// A session's share from now on. False: there is no room for it.
    #[must_use]
    pub fn enter(&self, session: u64) -> bool {
        let mut books = self.0.lock();
        if books.left() < SESSION_BYTES {
            return false;
        }
        let share = Share {
            held: 0,
            arrived: 0,
            word: None,
        };
        books.charged = books.charged.saturating_add(share.charge());
        books.shares.insert(session, share);
        books.tell();
        true
    }

    /// Its executor reads at `word` what it may come to.
    pub fn tell(&self, session: u64, word: Arc<Word>) {
        let mut books = self.0.lock();
        let left = books.left();
        if let Some(share) = books.shares.get_mut(&session) {
            word.set(share.bytes().saturating_add(left));
            share.word = Some(word);
        }
    }

    /// The session is over, and what it had is free.
    pub fn leave(&self, session: u64) {
        let mut books = self.0.lock();
        if let Some(share) = books.shares.remove(&session) {
            books.charged = books.charged.saturating_sub(share.charge());
            books.tell();
        }
    }

    /// Whether `bytes` more may arrive.
    #[must_use]
    pub fn has(&self, bytes: u64) -> bool {
        self.0.lock().left() >= bytes
    }

    /// So much of a session has arrived and is not free again.
    /// `bytes` is asked in turn, so that the last answer is the newest.
    pub fn arrived(&self, session: u64, bytes: impl FnOnce() -> u64) {
        self.0
            .lock()
            .change(session, |share| share.arrived = bytes());
    }

    /// A session's executor says what it holds.
    pub fn held(&self, session: u64, bytes: u64) {
        let mut books = self.0.lock();
        // It may say anything.
        let bytes = bytes.min(books.all);
        books.change(session, |share| share.held = bytes);
    }

    /// What the system can still give, whoever has the rest.
    pub fn there(&self, bytes: u64) {
        let mut books = self.0.lock();
        books.there = bytes;
        books.tell();
    }
}

impl Books {
    fn left(&self) -> u64 {
        self.all.saturating_sub(self.charged).min(self.there)
    }

    fn change(&mut self, session: u64, change: impl FnOnce(&mut Share)) {
        let Some(share) = self.shares.get_mut(&session) else {
            return;
        };
        let before = share.charge();
        change(share);
        let after = share.charge();
        self.charged = self.charged.saturating_sub(before).saturating_add(after);
        let left = self.left();
        if let Some(share) = self.shares.get(&session)
            && let Some(word) = &share.word
        {
            word.set(share.bytes().saturating_add(left));
        }
        self.tell();
    }

    /// Tells all executors, if there is much more or less than they know.
    fn tell(&mut self) {
        let left = self.left();
        if left.abs_diff(self.told) < TOLD_BYTES {
            return;
        }
        self.told = left;
        for share in self.shares.values() {
            if let Some(word) = &share.word {
                word.set(share.bytes().saturating_add(left));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn entered(budget: &Budget, session: u64) -> Arc<Word> {
        assert!(budget.enter(session));
        let word = Arc::new(Word::create(0).unwrap());
        budget.tell(session, Arc::clone(&word));
        word
    }

    #[test]
    fn sessions_share_what_there_is() {
        let budget = Budget::new(100 * MIB);
        let [a, b] = [1, 2].map(|id| entered(&budget, id));
        assert_eq!(b.get(), 84 * MIB);
        // What arrived is charged before its executor knows of it, and once.
        assert!(budget.has(60 * MIB));
        budget.arrived(1, || 60 * MIB);
        assert_eq!((a.get(), b.get()), (84 * MIB, 24 * MIB));
        budget.held(1, 60 * MIB);
        assert_eq!((a.get(), b.get()), (84 * MIB, 24 * MIB));
        assert!(!budget.has(25 * MIB) && budget.has(24 * MIB));
        budget.held(2, 24 * MIB);
        assert_eq!((a.get(), b.get()), (60 * MIB, 24 * MIB));
        assert!(!budget.enter(3));
        budget.leave(1);
        assert_eq!(b.get(), 92 * MIB);
        assert_eq!(budget.charged(), 32 * MIB);
        budget.leave(2);
        assert_eq!(budget.charged(), 0);
    }

    #[test]
    fn what_others_took_is_not_there() {
        let budget = Budget::new(100 * MIB);
        let word = entered(&budget, 1);
        budget.there(10 * MIB);
        assert_eq!(word.get(), 10 * MIB);
        assert!(!budget.has(11 * MIB));
        budget.there(u64::MAX);
        assert_eq!(word.get(), 92 * MIB);
    }

    #[test]
    fn what_a_hostile_executor_says_overflows_nothing() {
        let budget = Budget::new(100 * MIB);
        let (a, b) = (entered(&budget, 1), entered(&budget, 2));
        budget.held(1, u64::MAX);
        assert_eq!((a.get(), b.get()), (100 * MIB, 0));
        budget.held(1, 0);
        budget.leave(1);
        assert_eq!(b.get(), 92 * MIB);
    }
}
