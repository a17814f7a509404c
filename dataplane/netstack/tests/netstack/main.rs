//! Hosts on a simulated link, with time and chance in the test's hands.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends where it can't go on"
)]

mod arp;
mod close;
mod frames;
mod hostile;
mod limits;
mod loss;
mod ping;
mod sim;
mod streams;
mod threads;
mod throughput;
