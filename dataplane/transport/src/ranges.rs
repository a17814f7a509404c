//! A bounded set of numbers, kept as sorted runs.

/// More runs than the set was made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Full;

/// Runs `low..end`, sorted, apart from each other, at most `max` of them; never allocates again.
#[derive(Debug)]
pub(crate) struct RangeSet {
    runs: Vec<(u64, u64)>,
    max: usize,
}

impl RangeSet {
    pub(crate) fn new(max: usize) -> Self {
        Self {
            runs: Vec::with_capacity(max),
            max,
        }
    }

    pub(crate) fn clear(&mut self) {
        self.runs.clear();
    }

    pub(crate) fn len(&self) -> usize {
        self.runs.len()
    }

    /// The largest run, if there is any.
    pub(crate) fn last(&self) -> Option<(u64, u64)> {
        self.runs.last().copied()
    }

    /// From the largest downwards.
    pub(crate) fn descending(&self) -> impl Iterator<Item = (u64, u64)> + Clone {
        self.runs.iter().rev().copied()
    }

    /// Forgets the lowest run and returns it.
    pub(crate) fn remove_lowest(&mut self) -> Option<(u64, u64)> {
        (!self.runs.is_empty()).then(|| self.runs.remove(0))
    }

    pub(crate) fn contains(&self, number: u64) -> bool {
        let at = self.first_ending_after(number);
        self.runs.get(at).is_some_and(|&(low, _)| low <= number)
    }

    /// The first part of `from..end` that is not in the set.
    pub(crate) fn missing(&self, from: u64, end: u64) -> Option<(u64, u64)> {
        let mut at = self.first_ending_after(from);
        let mut low = from;
        if let Some(&(run_low, run_end)) = self.runs.get(at)
            && run_low <= low
        {
            low = run_end;
            at += 1;
        }
        let high = self
            .runs
            .get(at)
            .map_or(end, |&(run_low, _)| run_low.min(end));
        (low < high).then_some((low, high))
    }

    /// Adds `low..end` and says how many numbers are new.
    pub(crate) fn insert(&mut self, low: u64, end: u64) -> Result<u64, Full> {
        if low >= end {
            return Ok(0);
        }
        // Runs that overlap or touch: they end at `low` or later and begin at `end` or earlier.
        let first = self.runs.partition_point(|&(_, run_end)| run_end < low);
        let touching = self.runs.get(first..).unwrap_or(&[]);
        let touched = touching
            .iter()
            .take_while(|&&(run_low, _)| run_low <= end)
            .count();
        if touched == 0 {
            if self.runs.len() == self.max {
                return Err(Full);
            }
            self.runs.insert(first, (low, end));
            return Ok(end - low);
        }
        let (mut joined, mut had) = ((low, end), 0);
        for &(run_low, run_end) in touching.iter().take(touched) {
            joined = (joined.0.min(run_low), joined.1.max(run_end));
            had += run_end - run_low;
        }
        if let Some(run) = self.runs.get_mut(first) {
            *run = joined;
        }
        self.runs.drain(first + 1..first + touched);
        Ok(joined.1 - joined.0 - had)
    }

    /// Takes `low..end` out, which is in the set.
    pub(crate) fn remove(&mut self, low: u64, end: u64) -> Result<(), Full> {
        let at = self.first_ending_after(low);
        let full = self.runs.len() == self.max;
        let Some(run) = self.runs.get_mut(at) else {
            return Ok(());
        };
        let (run_low, run_end) = *run;
        match (run_low < low, end < run_end) {
            (true, true) => {
                if full {
                    return Err(Full);
                }
                run.1 = low;
                self.runs.insert(at + 1, (end, run_end));
            }
            (true, false) => run.1 = low,
            (false, true) => run.0 = end,
            (false, false) => {
                self.runs.remove(at);
            }
        }
        Ok(())
    }

    fn first_ending_after(&self, number: u64) -> usize {
        self.runs.partition_point(|&(_, end)| end <= number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn agrees_with_a_plain_set(ops in proptest::collection::vec((0u64..60, 0u64..9), 0..40)) {
            let mut set = RangeSet::new(64);
            let mut plain = BTreeSet::new();
            for (low, len) in ops {
                let before = plain.len();
                let gap = set.missing(low, low + len);
                let first = (low..low + len).find(|number| !plain.contains(number));
                prop_assert_eq!(gap.map(|gap| gap.0), first);
                if let Some((from, to)) = gap {
                    prop_assert!((from..to).all(|number| !plain.contains(&number)));
                    prop_assert!(to == low + len || plain.contains(&to));
                }
                plain.extend(low..low + len);
                let new = set.insert(low, low + len).unwrap();
                prop_assert_eq!(new as usize, plain.len() - before);
                prop_assert!((0..80).all(|number| set.contains(number) == plain.contains(&number)));
                let first = *plain.range(low..).next().unwrap_or(&low);
                if let Some((_, end)) = set.runs.iter().find(|run| run.0 <= first && first < run.1) {
                    let end = first + 1 + (end - first - 1) / 2;
                    set.remove(first, end).unwrap();
                    plain.retain(|number| !(first..end).contains(number));
                    prop_assert!((0..80).all(|number| set.contains(number) == plain.contains(&number)));
                }
                let apart = set.runs.windows(2).all(|pair| pair[0].1 < pair[1].0);
                prop_assert!(apart);
            }
        }
    }

    #[test]
    fn a_full_set_still_takes_what_closes_a_hole() {
        let mut set = RangeSet::new(2);
        assert_eq!(set.insert(0, 2), Ok(2));
        assert_eq!(set.insert(4, 6), Ok(2));
        assert_eq!(set.insert(8, 9), Err(Full));
        assert_eq!(set.insert(2, 4), Ok(2));
        assert_eq!(set.insert(8, 9), Ok(1));
        assert_eq!(set.remove_lowest(), Some((0, 6)));
        assert_eq!(set.len(), 1);
    }
}
