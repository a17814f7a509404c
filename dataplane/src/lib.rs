//! The node's daemon: moves bytes and runs sequences.
//!
//! - [`daemon`]: from the configuration to ready, and to the end.
//! - [`server`]: the one port, shared by gRPC, metrics and tensors.
//! - [`data`]: the data path of a session.
//! - [`node`]: sessions and devices, as the control plane sees them.
//! - [`zygote`] and [`executor`]: the processes that run operators; [`libtorch`]: what they need.
//! - [`fallback`]: which transport there is, and why; [`gateway`]: for clients on this host.
//! - [`config`], [`cli`], [`certs`], [`tls`], [`metrics`], [`status`]: around it.

#![warn(missing_docs)]

pub mod certs;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod data;
pub mod executor;
pub mod fallback;
pub mod gateway;
pub mod libtorch;
pub mod metrics;
pub mod node;
mod process;
pub mod server;
pub mod status;
pub mod tls;
pub mod zygote;
