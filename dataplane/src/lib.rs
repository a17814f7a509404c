//! The node's daemon: moves bytes and runs sequences.
//!
//! - [`daemon`]: from the configuration to ready, and to the end.
//! - [`server`]: the one port, shared by gRPC, metrics and tensors.
//! - [`node`]: sessions and devices, as the control plane sees them; the data path of a session,
//!   and the processes that run operators.
//! - [`fallback`]: which transport there is, and why; [`gateway`]: for clients on this host.
//! - [`config`], [`cli`], [`certs`], [`tls`], [`logging`], [`metrics`], [`status`]: around it.

#![warn(missing_docs)]

pub mod certs;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod fallback;
pub mod gateway;
pub mod logging;
pub mod metrics;
pub mod node;
mod pace;
mod process;
pub mod server;
pub mod status;
pub mod tls;
