//! The parts of the recorder that know neither Python nor a node: the numbers of operators, memory
//! for large results.

#![warn(missing_docs)]

pub mod host_cache;
pub mod names;
