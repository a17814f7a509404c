//! The daemon as a process of its own: what a client, an operator and an attacker see.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends where it can't go on"
)]

mod bad_input;
mod client;
mod command_line;
mod door;
mod executors;
mod fake;
mod lists;
mod log;
mod memory;
mod peers;
mod places;
mod plane;
mod process;
mod sessions;
mod tls;
mod watch;
mod zygotes;
