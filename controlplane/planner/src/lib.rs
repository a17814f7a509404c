//! What runs where. Pure: facts, sizes and places in, places out.
//!
//! A [`Policy`] answers for one operator at a time, when it comes. [`semantic`] plans a segment that was
//! seen, from what was understood of it.

#![warn(missing_docs)]

mod fill;
mod policy;
pub mod segment;
pub mod semantic;

pub use policy::{Choice, Device, Input, NAMES, Policy, Step, UnknownPolicy, policy};
