//! The control plane: what runs where and when. It is never in the way of a repeated request.
//!
//! - [`service`]: what clients see, over gRPC.
//! - [`sessions`] and [`negotiate`]: who may talk to a node, and whether they understand another.
//! - [`analysis`], [`plan_cache`] and [`sequence`]: from a captured segment to a node's plan.
//! - [`node`]: the one trait through which a node is seen.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod analysis;
pub mod negotiate;
pub mod node;
pub mod plan_cache;
pub mod sequence;
pub mod service;
pub mod sessions;
