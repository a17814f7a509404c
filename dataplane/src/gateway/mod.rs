//! A gateway: this host's Python processes attach by a unix socket, and share memory with the loop
//! that owns the link.
//!
//! - [`serve`]: who connects, and what they want.
//! - [`seats`]: how many may.
//! - [`arenas`]: the memory that is shared.
//! - [`relay`]: bytes of the control channel, to the node and back.
//!
//! A client's control channel passes through as it is, TLS and all. Its data path ends here: the
//! client hands over the offer that its node made it, and gets rings and an arena. What a client
//! writes there harms nobody but itself; when its socket closes, all of it is gone.

mod arenas;
mod relay;
mod seats;
mod serve;

pub use serve::{GatewayError, serve};
