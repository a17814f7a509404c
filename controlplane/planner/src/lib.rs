//! What runs where. Pure: facts, sizes and places in, places out.

#![warn(missing_docs)]

mod fill;
mod policy;

pub use policy::{Choice, Device, Input, NAMES, Policy, Step, UnknownPolicy, policy};
