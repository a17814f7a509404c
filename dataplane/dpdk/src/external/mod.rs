//! Packet data in memory that is not the EAL's.

pub(crate) mod memory;
pub(crate) mod slab;
