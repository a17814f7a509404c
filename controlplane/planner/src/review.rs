//! What became of a plan, beside what was expected of it: whether it stays.

/// Times that a structure came before anything is said of it: one step may be slow for any reason.
const STEPS_MIN: u64 = 8;
/// What may move more than was predicted: sizes differ a little from step to step.
const SLACK_BYTES: u64 = 64 << 10;
/// A plan that is asked for again so often without becoming true is no use.
const TRIES_MAX: u32 = 2;

/// What was seen of a structure since it was looked at last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// How often it came, from end to end.
    pub steps: u64,
    /// Bytes that moved between devices meanwhile.
    pub moved_bytes: u64,
    /// What it used from before it, in bytes, the last time.
    pub used_bytes: u64,
    /// How long its steps took, in nanoseconds, in all.
    pub ns: u64,
}

/// What is to be done with a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It stays.
    Keep,
    /// What it was made for has changed: another is to be asked for.
    Again,
    /// It is worse than none.
    Drop,
}

/// A structure that was asked about, and what was seen of it since.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Book {
    /// What it was predicted to move each time; `None` where there was nothing to decide.
    pub predicted_bytes: Option<u64>,
    /// What it used from before it, in bytes, when it was asked about.
    pub used_bytes: u64,
    /// How often it was asked about before, because of what was seen.
    pub tries: u32,
    /// Nanoseconds of a step before there was a plan for it.
    pub unplanned_ns: Option<u64>,
    seen: Seen,
}

impl Book {
    /// Of a structure that takes the place of `before`.
    #[must_use]
    pub fn after(before: &Self) -> Self {
        let is_measured = before.predicted_bytes.is_none() && before.seen.steps >= STEPS_MIN;
        Self {
            tries: before.tries + 1,
            unplanned_ns: match is_measured {
                true => Some(before.seen.ns / before.seen.steps),
                false => before.unplanned_ns,
            },
            ..Self::default()
        }
    }

    /// All that was seen of it.
    #[must_use]
    pub fn seen(&self) -> Seen {
        self.seen
    }

    /// Takes in what was seen, and judges.
    pub fn review(&mut self, seen: Seen) -> Verdict {
        self.seen = Seen {
            steps: self.seen.steps.saturating_add(seen.steps),
            moved_bytes: self.seen.moved_bytes.saturating_add(seen.moved_bytes),
            used_bytes: seen.used_bytes,
            ns: self.seen.ns.saturating_add(seen.ns),
        };
        if self.seen.steps < STEPS_MIN {
            return Verdict::Keep;
        }
        let (was, is) = (self.used_bytes, seen.used_bytes);
        let is_other = is > was.saturating_mul(2) || is < was / 2;
        let Some(predicted) = self.predicted_bytes else {
            // Sizes may have told nothing yet: a cache that is as long as what is added to it.
            return if is_other {
                Verdict::Again
            } else {
                Verdict::Keep
            };
        };
        if is_other {
            return Verdict::Again;
        }
        let moved = self.seen.moved_bytes / self.seen.steps;
        let is_untrue = moved > predicted.saturating_mul(2).saturating_add(SLACK_BYTES);
        let is_slow = self.unplanned_ns.is_some_and(|before| {
            let now = self.seen.ns / self.seen.steps;
            now > before.saturating_add(before / 2)
        });
        match (is_untrue || is_slow, self.tries) {
            (false, _) => Verdict::Keep,
            (true, tries) if tries < TRIES_MAX => Verdict::Again,
            (true, _) => Verdict::Drop,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(count: u64, moved_each: u64, used_bytes: u64) -> Seen {
        Seen {
            steps: count,
            moved_bytes: count * moved_each,
            used_bytes,
            ns: count * 1000,
        }
    }

    fn planned(predicted: u64) -> Book {
        Book {
            predicted_bytes: Some(predicted),
            used_bytes: 1 << 20,
            ..Book::default()
        }
    }

    #[test]
    fn a_plan_that_does_what_was_predicted_stays() {
        let mut book = planned(1000);
        for _ in 0..100 {
            assert_eq!(book.review(steps(50, 1500, 1 << 20)), Verdict::Keep);
        }
        assert_eq!(book.seen().steps, 5000);
    }

    #[test]
    fn one_slow_step_says_nothing() {
        let mut book = planned(0);
        assert_eq!(book.review(steps(7, 1 << 30, 1 << 20)), Verdict::Keep);
        assert_eq!(book.review(steps(1, 0, 1 << 20)), Verdict::Again);
    }

    #[test]
    fn what_moves_more_is_asked_about_again_and_dropped_in_the_end() {
        let mut book = planned(1000);
        for _ in 0..TRIES_MAX {
            assert_eq!(book.review(steps(8, 1 << 20, 1 << 20)), Verdict::Again);
            book = Book {
                predicted_bytes: Some(1000),
                used_bytes: 1 << 20,
                ..Book::after(&book)
            };
        }
        assert_eq!(book.review(steps(8, 1 << 20, 1 << 20)), Verdict::Drop);
    }

    #[test]
    fn other_sizes_are_another_question() {
        assert_eq!(planned(0).review(steps(8, 0, 3 << 20)), Verdict::Again);
        assert_eq!(planned(0).review(steps(8, 0, 1 << 10)), Verdict::Again);
        let mut undecided = Book {
            used_bytes: 100,
            ..Book::default()
        };
        assert_eq!(undecided.review(steps(8, 1 << 30, 150)), Verdict::Keep);
        assert_eq!(undecided.review(steps(1, 0, 250)), Verdict::Again);
    }

    #[test]
    fn a_plan_that_is_slower_than_none_goes() {
        let mut none = Book {
            used_bytes: 100,
            ..Book::default()
        };
        assert_eq!(none.review(steps(20, 0, 300)), Verdict::Again);
        let slower = Seen {
            ns: 20 * 1600,
            ..steps(20, 0, 300)
        };
        let mut book = Book {
            predicted_bytes: Some(0),
            used_bytes: 300,
            ..Book::after(&none)
        };
        assert_eq!(book.unplanned_ns, Some(1000));
        assert_eq!(book.review(steps(20, 0, 300)), Verdict::Keep);
        let mut again = book;
        again.seen = Seen::default();
        assert_eq!(again.review(slower), Verdict::Again);
        again.tries = TRIES_MAX;
        assert_eq!(again.review(steps(0, 0, 300)), Verdict::Drop);
    }
}
