//! How a client reaches a node: addresses and certificates, the control channel, the data link.

#![warn(missing_docs)]

pub mod address;
pub mod bare;
pub mod control;
pub mod handshake;
pub mod link;
