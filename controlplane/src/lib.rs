//! The control plane: what runs where and when. It is never in the way of a repeated request.
//!
//! - [`service`]: what clients see, over gRPC.
//! - [`identity`], [`sessions`] and [`negotiate`]: who calls, who may talk to a node, and whether
//!   they understand another.
//! - [`placing`]: where the records of a segment run, where the program leaves that to Genie; [`books`]: what
//!   became of that.
//! - [`node`]: the one trait through which a node is seen; [`nodes`]: what a node answers to another
//!   control plane, and [`trust`]: to which.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod books;
mod ends;
pub mod identity;
pub mod negotiate;
pub mod node;
pub mod nodes;
pub mod placing;
pub mod service;
pub mod sessions;
pub mod trust;
