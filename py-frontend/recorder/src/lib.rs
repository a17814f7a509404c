//! The parts of the recorder that know neither Python nor a node: what calls result in, and the
//! numbers of operators.

#![warn(missing_docs)]

pub mod names;
pub mod shapes;
