//! Whether the node lives: a silent one is asked, and given up when it does not answer.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Silence after which the node is asked whether it lives.
pub(super) const PING_AFTER: Duration = Duration::from_millis(400);
/// Silence after a ping that means it does not.
const DEAD_AFTER: Duration = Duration::from_millis(1500);
/// The same where a gateway looks after the node and says that it is gone: then this is only for a
/// gateway that hangs. A part of a bulk may take seconds on a slow link.
const DEAD_AFTER_WATCHED: Duration = Duration::from_secs(15);

/// Times in milliseconds since the session began.
pub(super) struct Heartbeat {
    started: Instant,
    dead_after: Duration,
    heard_ms: AtomicU64,
    asked_ms: AtomicU64,
    moved: AtomicU64,
    is_asking: AtomicBool,
}

/// What is to be done about a node.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Well,
    /// Ask it; the number goes with the question.
    Ask(u64),
    /// Silent for so long though it was asked.
    Dead(Duration),
}

impl Heartbeat {
    pub(super) fn new(is_watched: bool) -> Self {
        Self {
            started: Instant::now(),
            dead_after: match is_watched {
                true => DEAD_AFTER_WATCHED,
                false => DEAD_AFTER,
            },
            heard_ms: AtomicU64::new(0),
            asked_ms: AtomicU64::new(0),
            moved: AtomicU64::new(0),
            is_asking: AtomicBool::new(false),
        }
    }

    fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    /// Bytes came from the node.
    pub(super) fn heard(&self) {
        self.heard_ms.store(self.now_ms(), Ordering::Relaxed);
    }

    /// The question leaves now.
    pub(super) fn asking(&self) {
        let heard = self.heard_ms.load(Ordering::Relaxed);
        self.asked_ms
            .store(self.now_ms().max(heard + 1), Ordering::Relaxed);
        self.is_asking.store(false, Ordering::Relaxed);
    }

    /// Whether nothing moved for so long that the node is gone, with a writer that got nowhere for
    /// `stalled`.
    pub(super) fn is_stuck(&self, stalled: Duration) -> bool {
        let heard = self.heard_ms.load(Ordering::Relaxed);
        let silent = Duration::from_millis(self.now_ms().saturating_sub(heard));
        stalled.min(silent) > self.dead_after
    }

    /// Looks at a node that may be silent for `quiet`; `moved` counts bulk that moved apart from the
    /// stream.
    pub(super) fn look(&self, quiet: Duration, moved: u64) -> Verdict {
        if self.moved.swap(moved, Ordering::Relaxed) != moved {
            self.heard();
        }
        let now = self.now_ms();
        let heard = self.heard_ms.load(Ordering::Relaxed);
        let asked = self.asked_ms.load(Ordering::Relaxed);
        let silent = Duration::from_millis(now.saturating_sub(heard));
        let unanswered = Duration::from_millis(now.saturating_sub(asked));
        if asked > heard && unanswered > self.dead_after {
            return Verdict::Dead(silent);
        }
        if silent > quiet && asked <= heard && !self.is_asking.swap(true, Ordering::Relaxed) {
            return Verdict::Ask(now);
        }
        Verdict::Well
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_node_is_asked_once_and_then_given_up() {
        let heart = Heartbeat::new(false);
        assert_eq!(heart.look(PING_AFTER, 0), Verdict::Well);
        std::thread::sleep(Duration::from_millis(3));
        assert!(matches!(heart.look(Duration::ZERO, 0), Verdict::Ask(_)));
        assert_eq!(
            heart.look(Duration::ZERO, 0),
            Verdict::Well,
            "it is being asked"
        );
        heart.asking();
        std::thread::sleep(DEAD_AFTER + Duration::from_millis(50));
        assert!(matches!(heart.look(PING_AFTER, 0), Verdict::Dead(_)));
        assert!(heart.is_stuck(2 * DEAD_AFTER));
        assert_eq!(heart.look(PING_AFTER, 1), Verdict::Well, "bulk moved");
        assert!(!heart.is_stuck(2 * DEAD_AFTER));
    }
}
