//! What a session's plans were predicted to do, and what became of them.

use std::collections::{HashMap, VecDeque};

use genie_control_api::v1;
use genie_planner::review::{Book, Seen, Verdict};

/// Structures of a session that are remembered. The oldest goes.
const BOOKS_MAX: usize = 512;

/// What became of all plans of a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Steps whose records went where a plan said.
    pub steps: u64,
    /// Bytes that moved between devices in them.
    pub moved_bytes: u64,
    /// Plans that were to be asked for again.
    pub again: u64,
    /// Plans that were given up.
    pub dropped: u64,
}

/// The structures that a session asked about, by the names that it gave them.
#[derive(Debug, Default)]
pub struct Books {
    books: HashMap<u64, Book>,
    order: VecDeque<u64>,
    totals: Totals,
    devices: Vec<v1::DeviceState>,
}

impl Books {
    /// What became of all of them.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// The session's devices, as they were told of last: what each holds of it.
    #[must_use]
    pub fn devices(&self) -> &[v1::DeviceState] {
        &self.devices
    }

    /// What the session's devices hold now.
    pub fn observe_devices(&mut self, devices: Vec<v1::DeviceState>) {
        self.devices = devices;
    }

    /// Structure `plan`, which was `before` if that was known, is planned to move so much; `None`: there was
    /// nothing to decide. It used `used_bytes` from before it.
    pub fn open(&mut self, plan: u64, before: u64, predicted_bytes: Option<u64>, used_bytes: u64) {
        let mut book = match self.books.remove(&before) {
            Some(known) => Book::after(&known),
            None => Book::default(),
        };
        self.order.retain(|&other| other != before && other != plan);
        if self.order.len() >= BOOKS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.books.remove(&oldest);
        }
        self.order.push_back(plan);
        (book.predicted_bytes, book.used_bytes) = (predicted_bytes, used_bytes);
        self.books.insert(plan, book);
    }

    /// What was seen of `plan`; `placed`: its records went where a plan said. What is to be done with it.
    pub fn observe(&mut self, plan: u64, placed: bool, seen: Seen) -> Verdict {
        if placed {
            self.totals.steps = self.totals.steps.saturating_add(seen.steps);
            self.totals.moved_bytes = self.totals.moved_bytes.saturating_add(seen.moved_bytes);
        }
        let Some(book) = self.books.get_mut(&plan) else {
            // It is forgotten here: nothing is said of it.
            return Verdict::Keep;
        };
        // Before its plan came, or after it was given up.
        if placed != book.predicted_bytes.is_some() {
            return Verdict::Keep;
        }
        let verdict = book.review(seen);
        match verdict {
            Verdict::Keep => {}
            Verdict::Again => self.totals.again += 1,
            Verdict::Drop => {
                self.totals.dropped += 1;
                book.predicted_bytes = None;
                book.used_bytes = seen.used_bytes;
            }
        }
        verdict
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(steps: u64, moved_each: u64) -> Seen {
        Seen {
            steps,
            moved_bytes: steps * moved_each,
            used_bytes: 1000,
            ns: steps,
        }
    }

    #[test]
    fn what_is_observed_belongs_to_the_plan_and_is_judged_once_it_holds() {
        let mut books = Books::default();
        books.open(1, 0, Some(100), 1000);
        assert_eq!(books.observe(1, false, seen(50, 1 << 30)), Verdict::Keep);
        assert_eq!(books.observe(1, true, seen(50, 50)), Verdict::Keep);
        assert_eq!(books.observe(1, true, seen(50, 1 << 20)), Verdict::Again);
        let mut last = 1;
        for plan in 2..4 {
            books.open(plan, last, Some(100), 1000);
            last = plan;
            let verdict = books.observe(plan, true, seen(50, 1 << 20));
            assert_eq!(verdict == Verdict::Drop, plan == 3, "{plan}: {verdict:?}");
        }
        // It is nobody's any more.
        assert_eq!(books.observe(3, false, seen(50, 1 << 30)), Verdict::Keep);
        let totals = books.totals();
        assert_eq!((totals.steps, totals.again, totals.dropped), (200, 2, 1));
        assert_eq!(books.books.len(), 1);
    }

    #[test]
    fn books_are_bounded() {
        let mut books = Books::default();
        for plan in 1..=2 * BOOKS_MAX as u64 {
            books.open(plan, 0, None, 0);
        }
        assert_eq!(
            (books.books.len(), books.order.len()),
            (BOOKS_MAX, BOOKS_MAX)
        );
        assert_eq!(books.observe(1, true, seen(50, 1 << 40)), Verdict::Keep);
    }
}
