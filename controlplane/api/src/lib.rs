//! The contract between a client and the control plane: gRPC, generated from
//! `proto/genie/control/v1/control.proto`.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod error;
mod unanswered;

pub use error::{ERROR_KEY, ErrorCode};
pub use unanswered::Unanswered;

/// Messages, client and server of version 1.
#[allow(missing_docs, clippy::all, clippy::pedantic)]
pub mod v1 {
    tonic::include_proto!("genie.control.v1");
}
