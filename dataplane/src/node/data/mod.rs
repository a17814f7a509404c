//! The data path of a session: two plain threads between a socket and an executor's rings.
//!
//! - [`session`]: what a session is, and how it [`end`]s; [`host`]: what it needs of its node.
//! - [`link`] and [`running`]: its connection and its executor ([`executor`]: how one is started).
//! - [`path`]: what connects these with the two threads.
//! - [`reader`]: socket to executor; uploads go straight into the session's memory.
//! - [`writer`]: executor to socket; replies go straight out of it.
//! - [`inbox`] and [`outgoing`]: the two ends, where other threads may leave a frame.
//! - [`memory`] and [`staging`]: where a session's tensors are, and the way to them on a device.
//! - [`ways`] and [`peers`]: values to and from other devices of a session; [`landing`]: how they come
//!   into its memory.
//! - [`budget`]: what all sessions together may take.
//! - [`counters`] and [`installs`]: what it has done, and plans on their way.
//! - [`stream`]: the connection's two halves: of a [`socket`], in the clear or under TLS, or of a
//!   [`channel`] to the poll loop.

pub mod budget;
pub mod channel;
pub mod counters;
pub mod end;
pub mod executor;
pub mod host;
pub mod inbox;
pub mod installs;
pub mod landing;
pub mod link;
pub mod memory;
pub mod outgoing;
pub mod path;
pub mod peers;
pub mod reader;
pub mod running;
pub mod session;
pub mod socket;
pub mod staging;
pub mod stream;
pub mod ways;
pub mod writer;

pub use end::End;
pub use session::{Claim, Session};
