//! The poll loop: everything that runs over one DPDK port, to completion, on one thread.
//!
//! - [`engine`]: one turn of it, over any [`wire`].
//! - [`bridge`]: between a program's channel and its connection.
//! - [`memory`]: what transfers read and write; [`direct`]: a device that places what arrives.
//! - [`packet`]: Ethernet, IPv4 and UDP around the transport's frames.
//! - [`eal`]: DPDK itself.
//! - [`port`] and [`link`]: a DPDK port as a wire; [`spec`]: how an operator names it.
//! - [`jam`]: a link that takes nothing.
//! - [`idle`] and [`rest()`]: spinning, yielding, napping; [`run`]: the thread, and what others may ask
//!   of it; [`seat`]: the cores that it may have.
//! - [`counters`]: what it did.
//!
//! A client's process and a node's session speak to the loop in the same way, by a
//! [`genie_channel`]. A program may also drive an [`engine::Engine`] itself, as `genie-perf` does.

pub mod bridge;
pub mod clock;
pub mod counters;
pub mod direct;
pub mod eal;
pub mod engine;
pub mod idle;
pub mod jam;
pub mod link;
pub mod memory;
pub mod packet;
pub mod port;
pub mod rest;
pub mod run;
pub mod seat;
pub mod spec;
pub mod wire;

pub use engine::{Channel, ChannelOpenError, Engine, EngineConfig, PeerPlace};
pub use link::{LINK_MEMORY_MIB, Link, LinkConfig, LinkError};
pub use rest::{Rest, rest};
pub use run::{Facts, LoopOptions, PollLoop, RequestError};
pub use spec::{PortSpec, PortSpecError};

// What may be offered is what the transport takes: the channel has the limits without the transport.
const _: () = assert!(
    genie_channel::MTU_MIN == genie_transport::limits::MTU_MIN
        && genie_channel::MTU_MAX == genie_transport::limits::MTU_MAX
);
