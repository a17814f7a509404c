//! What a daemon needs around what it is for: one port that strangers reach, keys, and a log.
//!
//! - [`program`]: from the first line to the last; [`listen`]: where.
//! - [`server`]: who connects, what they speak; [`door`] and [`seats`]: who may stay; [`handler`]: what is
//!   behind.
//! - [`tls`]: certificates, and whom they name. [`channel`]: a way to another daemon.
//! - [`settings`] and [`values`]: keys, from a file, the environment and flags.
//! - [`logging`]: lines that never hold anybody up; [`signals`] and [`status`]: what an operator asks.

#![warn(missing_docs)]

pub mod channel;
pub mod door;
mod first;
pub mod handler;
mod http;
pub mod listen;
pub mod logging;
pub mod pace;
pub mod program;
mod rejected;
pub mod seats;
pub mod server;
pub mod settings;
pub mod signals;
pub mod status;
mod stream;
pub mod tls;
pub mod values;
