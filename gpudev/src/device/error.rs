//! Why a device did not do it.

use super::DeviceKind;

/// Why a device did not do it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// No memory left.
    #[error("{device} has no {bytes} bytes left: free some, or ask for less")]
    OutOfMemory {
        /// Which device.
        device: DeviceKind,
        /// What was asked for.
        bytes: u64,
    },
    /// It can't be used at all.
    #[error("{device} can't be used: {reason}")]
    Absent {
        /// Which device.
        device: DeviceKind,
        /// Why, and what to do.
        reason: String,
    },
    /// Not inside the memory.
    #[error("bytes {offset}..+{len} are outside the {bytes} bytes of memory")]
    Bounds {
        /// First byte.
        offset: u64,
        /// How many.
        len: u64,
        /// Size of the memory.
        bytes: u64,
    },
    /// A size that the memory can't be given.
    #[error("{bytes} bytes: memory that was reserved for {bytes_max} can have {rule}")]
    Size {
        /// What was asked for.
        bytes: u64,
        /// What was reserved.
        bytes_max: u64,
        /// What is possible.
        rule: &'static str,
    },
    /// A piece of a copy lies over its own target.
    #[error("a copy of {len} bytes from {from} to {to} overlaps itself: split it")]
    Overlap {
        /// First byte.
        from: u64,
        /// Where to.
        to: u64,
        /// How many.
        len: u64,
    },
    /// Memory of another device, or of the host and not registered.
    #[error("{device} can't reach memory of {owner}: register it, or copy it through the host")]
    Unreachable {
        /// Who was to use it.
        device: DeviceKind,
        /// Whose it is.
        owner: DeviceKind,
    },
    /// The CPU has no address for it.
    #[error("memory of {0} can't be read by the CPU: copy it into host memory first")]
    NotHost(DeviceKind),
    /// Host memory is registered once.
    #[error("host memory at {address:#x} is registered with {device} already")]
    Registered {
        /// With whom.
        device: DeviceKind,
        /// Where it starts.
        address: u64,
    },
    /// A bound was reached.
    #[error("{what} has room for {max}: wait for an event, then try again")]
    Full {
        /// Which queue or table.
        what: &'static str,
        /// Its bound.
        max: usize,
    },
    /// The table of a gather is in the device's hands.
    #[error("the gather table is still with the device: wait for its event first")]
    Busy,
    /// The driver or the kernel refused. A device that failed so may have lost its memory.
    #[error("{device}: {what} failed: {reason}")]
    Failed {
        /// Which device.
        device: DeviceKind,
        /// Which call.
        what: &'static str,
        /// In its own words.
        reason: String,
    },
}
