//! What runs where. Pure: facts, sizes and places in, places out.
//!
//! A [`Policy`] answers for one operator at a time, when it comes. [`semantic`] plans a segment that was
//! seen, from what was understood of it; [`review`] judges what became of a plan.

#![warn(missing_docs)]

mod fill;
mod policy;
pub mod review;
pub mod segment;
pub mod semantic;

/// Of a device's memory what values may fill, in percent: the rest is for what is computed there.
const FULL_PERCENT: u64 = 80;

/// Bytes of values with which a device is full.
#[must_use]
pub fn full_bytes(limit_bytes: u64) -> u64 {
    limit_bytes / 100 * FULL_PERCENT
}

pub use policy::{Choice, Device, Input, NAMES, Policy, Step, UnknownPolicy, policy};
