//! Another way to wake the other side of a ring than its futex.

use std::fmt::Debug;

/// Rung when the other side of a ring said that it sleeps, and when the ring closes: for a side
/// that waits for many things at once in poll(2), and so can't sleep on a futex. Ringing never
/// blocks and never fails: a bell that can't be rung has nobody behind it.
pub trait Bell: Debug + Send + Sync {
    /// Wakes whoever sleeps at the other end.
    fn ring(&self);
}
