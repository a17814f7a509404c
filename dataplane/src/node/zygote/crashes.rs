//! How often a zygote's executors crash. Who crashes them on purpose may be guessing where things lie,
//! and all executors of a zygote have their things at the same places.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// So many in [`WINDOW`] are too many.
pub const CRASHES_MAX: usize = 5;
/// See [`CRASHES_MAX`].
pub const WINDOW: Duration = Duration::from_secs(60);

/// The last crashes.
#[derive(Debug, Default)]
pub struct Crashes(VecDeque<Instant>);

impl Crashes {
    /// Notes one; whether there are too many now.
    pub fn note(&mut self, now: Instant) -> bool {
        self.0.push_back(now);
        while self
            .0
            .front()
            .is_some_and(|first| now.saturating_duration_since(*first) > WINDOW)
        {
            self.0.pop_front();
        }
        self.0.len() >= CRASHES_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_crashes_within_the_window_count() {
        let start = Instant::now();
        let mut crashes = Crashes::default();
        for turn in 0..20 {
            // Four a minute.
            assert!(!crashes.note(start + Duration::from_secs(16) * turn));
        }
        let mut crashes = Crashes::default();
        let noted: Vec<bool> = (0..6)
            .map(|turn| crashes.note(start + Duration::from_secs(10) * turn))
            .collect();
        assert_eq!(noted, [false, false, false, false, true, true]);
    }
}
