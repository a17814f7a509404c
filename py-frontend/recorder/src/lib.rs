//! The parts of the recorder that know neither Python nor a node: the numbers of operators, memory
//! for large results, what is logged.

#![warn(missing_docs)]

pub mod host_cache;
pub mod log_filter;
pub mod names;
