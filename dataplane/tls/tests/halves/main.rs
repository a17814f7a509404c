//! The two halves against those of a peer in the same process, over pipes in memory.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends where it can't go on"
)]

mod ends;
mod pair;
mod pipe;
mod ticks;
mod traffic;
