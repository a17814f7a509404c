//! How a client reaches a node: addresses and certificates, the control channel, the data link;
//! and its side of a session.

#![warn(missing_docs)]

pub mod address;
pub mod bare;
pub mod control;
pub mod engine;
pub mod handshake;
pub mod link;
pub mod opening;
mod wire;
