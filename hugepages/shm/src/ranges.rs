//! A set of disjoint ranges of blocks, merged where they touch. Everything is O(log n).

use std::collections::{BTreeMap, BTreeSet};

/// Ranges by start and by length.
#[derive(Clone, Debug, Default)]
pub struct Ranges {
    by_start: BTreeMap<u64, u64>,
    by_len: BTreeSet<(u64, u64)>,
    total: u64,
}

impl Ranges {
    /// Blocks in all ranges.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// How many ranges.
    #[cfg(test)]
    pub fn count(&self) -> usize {
        self.by_start.len()
    }

    /// The longest range's length.
    pub fn longest(&self) -> u64 {
        self.by_len.last().map_or(0, |&(len, _)| len)
    }

    /// Start of the shortest range of at least `len` blocks, the lowest of these.
    pub fn best_fit(&self, len: u64) -> Option<u64> {
        self.by_len
            .range((len, 0)..)
            .next()
            .map(|&(_, start)| start)
    }

    /// The range that starts highest, as (start, length).
    pub fn last(&self) -> Option<(u64, u64)> {
        self.by_start
            .last_key_value()
            .map(|(&start, &len)| (start, len))
    }

    /// The first of the `count` lowest ranges below `limit` that has `len` blocks; each as
    /// (start, length).
    pub fn first_fit(&self, len: u64, limit: u64, count: usize) -> Option<(u64, u64)> {
        let below = self.by_start.range(..limit).take(count);
        below
            .map(|(&start, &has)| (start, has))
            .find(|&(_, has)| has >= len)
    }

    /// The range that ends at `end`.
    pub fn ending_at(&self, end: u64) -> Option<(u64, u64)> {
        let (&start, &len) = self.by_start.range(..end).next_back()?;
        (start + len == end).then_some((start, len))
    }

    /// Adds a range that overlaps none.
    pub fn insert(&mut self, start: u64, len: u64) {
        let (mut start, mut len) = (start, len);
        self.total += len;
        if let Some((&before, &before_len)) = self.by_start.range(..start).next_back()
            && before + before_len == start
        {
            self.forget(before, before_len);
            start = before;
            len += before_len;
        }
        if let Some(&after_len) = self.by_start.get(&(start + len)) {
            self.forget(start + len, after_len);
            len += after_len;
        }
        self.remember(start, len);
    }

    /// Removes whatever lies in `start .. start + len`.
    pub fn remove(&mut self, start: u64, len: u64) {
        let end = start + len;
        if let Some((&before, &before_len)) = self.by_start.range(..start).next_back() {
            let before_end = before + before_len;
            if before_end > start {
                self.forget(before, before_len);
                self.remember(before, start - before);
                if before_end > end {
                    self.remember(end, before_end - end);
                }
                self.total -= before_end.min(end) - start;
            }
        }
        while let Some((&next, &next_len)) = self.by_start.range(start..end).next() {
            let next_end = next + next_len;
            self.forget(next, next_len);
            if next_end > end {
                self.remember(end, next_end - end);
            }
            self.total -= next_end.min(end) - next;
        }
    }

    fn remember(&mut self, start: u64, len: u64) {
        self.by_start.insert(start, len);
        self.by_len.insert((len, start));
    }

    fn forget(&mut self, start: u64, len: u64) {
        self.by_start.remove(&start);
        self.by_len.remove(&(len, start));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn agrees_with_a_bitmap(
            steps in prop::collection::vec((any::<bool>(), 0_u64..64, 1_u64..20), 1..60),
        ) {
            let mut ranges = Ranges::default();
            let mut blocks = [false; 96];
            for (add, start, len) in steps {
                let span = start as usize..(start + len) as usize;
                if add {
                    if blocks[span.clone()].iter().any(|&block| block) {
                        continue;
                    }
                    ranges.insert(start, len);
                    blocks[span].fill(true);
                } else {
                    ranges.remove(start, len);
                    blocks[span].fill(false);
                }
                let mut runs = Vec::new();
                let mut run = 0_u64;
                for (at, &block) in blocks.iter().chain([&false]).enumerate() {
                    if block {
                        run += 1;
                    } else if run > 0 {
                        runs.push((at as u64 - run, run));
                        run = 0;
                    }
                }
                prop_assert_eq!(ranges.total(), runs.iter().map(|run| run.1).sum::<u64>());
                prop_assert_eq!(ranges.count(), runs.len());
                prop_assert_eq!(ranges.last(), runs.last().copied());
                prop_assert_eq!(ranges.longest(), runs.iter().map(|run| run.1).max().unwrap_or(0));
                for wanted in 1..24 {
                    let best = runs.iter().filter(|run| run.1 >= wanted)
                        .min_by_key(|run| (run.1, run.0)).map(|run| run.0);
                    prop_assert_eq!(ranges.best_fit(wanted), best);
                }
            }
        }
    }
}
