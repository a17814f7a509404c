//! The node's daemon: moves bytes and runs sequences.
//!
//! - [`daemon`]: from the configuration to ready, and to the end.
//! - [`server`]: what is behind the one port, shared by gRPC, metrics and tensors.
//! - [`node`]: sessions and devices, as the control plane sees them; the data path of a session,
//!   and the processes that run operators.
//! - [`fallback`]: which transport there is, and why; [`gateway`]: for clients on this host.
//! - [`config`], [`cli`], [`certs`], [`metrics`]: around it; and the crate `genie-server`.

#![warn(missing_docs)]

pub mod certs;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod fallback;
pub mod gateway;
pub mod metrics;
pub mod node;
mod process;
pub mod server;
