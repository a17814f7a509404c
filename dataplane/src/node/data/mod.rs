//! The data path of a session: two plain threads between a socket and an executor's rings.
//!
//! - [`session`]: what a session is, and how it ends.
//! - [`reader`]: socket to executor; uploads go straight into the session's memory.
//! - [`writer`]: executor to socket; replies go straight out of it.
//! - [`inbox`] and [`outgoing`]: the two ends, where other threads may leave a frame.
//! - [`memory`] and [`staging`]: where a session's tensors are, and the way to them on a device.
//! - [`counters`] and [`installs`]: what it has done, and plans on their way.
//! - [`stream`]: the connection's two halves: of a [`socket`], in the clear or under TLS, or of a
//!   [`channel`] to the poll loop.

pub mod channel;
pub mod counters;
pub mod inbox;
pub mod installs;
pub mod memory;
pub mod outgoing;
pub mod reader;
pub mod session;
pub mod socket;
pub mod staging;
pub mod stream;
pub mod writer;

pub use session::{End, Session};
