//! Who reads for whom, in every order that threads can take (loom): a wait for something that is
//! never told is a deadlock here, however short the client's own patience is.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends where it can't go on"
)]

use std::time::Duration;

mod link {
    pub const TICK: std::time::Duration = std::time::Duration::from_millis(100);
}

#[path = "handover"]
mod engine {
    pub mod sync;

    #[path = "../../src/engine/slots.rs"]
    #[allow(dead_code, reason = "a part of it is what is tried here")]
    pub mod slots;

    mod models;
}

const PATIENCE: Duration = Duration::from_millis(5);
