//! Why nobody is served.

use genie_session::fault::Fault;

use crate::seats::Full;
use crate::tls::IdentityError;

/// Why a connection came to nothing. Nobody else is disturbed by it.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each says it itself")]
pub enum Rejected {
    #[error("it did not say in time what it wants")]
    Slow,
    #[error("it gave way to another")]
    GaveWay,
    #[error("there are too many already: {0}")]
    TooMany(#[from] Full),
    #[error("TLS failed: {0}")]
    Tls(std::io::Error),
    #[error("its certificate names nobody: {0}")]
    Nameless(#[from] IdentityError),
    #[error("it broke off: {0}")]
    Broken(#[from] std::io::Error),
    #[error("{0}")]
    Wire(#[from] genie_session::WireError),
    #[error("{}", .0.message)]
    Refused(Fault),
    #[error("it is not HTTP: {0}")]
    Http(String),
}
