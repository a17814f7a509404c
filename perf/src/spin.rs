//! How an end that polls shares its core.

use crate::machine;

/// Turns without news after which the core is offered to others, who may be what is waited for.
const TURNS: u32 = 1024;

/// Counts turns without news.
pub struct Spin {
    turns: u32,
    most: u32,
}

impl Spin {
    /// For one of two ends on this machine.
    #[must_use]
    pub fn new() -> Self {
        Self {
            turns: 0,
            // With one core for both, whoever waits is in the way.
            most: if machine::cores() < 2 { 1 } else { TURNS },
        }
    }

    /// There was news.
    pub fn busy(&mut self) {
        self.turns = 0;
    }

    /// There was none.
    pub fn idle(&mut self) {
        self.turns += 1;
        if self.turns >= self.most {
            self.turns = 0;
            std::thread::yield_now();
        }
    }
}
