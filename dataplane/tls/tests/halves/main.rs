//! The two halves against those of a peer in the same process, over pipes in memory.

mod ends;
mod pair;
mod pipe;
mod ticks;
mod traffic;
