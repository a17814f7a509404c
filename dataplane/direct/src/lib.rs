//! Where device memory and DPDK meet.
//!
//! - [`registration`]: our devices in DPDK's gpudev, so that `rte_gpu_*` sees them.
//! - [`payload`]: mempools whose packets lie in device memory, or in host memory that a device
//!   knows.
//! - [`gathering`]: between the transport and a device that checks and places the data of frames;
//!   [`reception`]: frames of one port into one memory, staged or direct; [`regions`]: which places
//!   these are.
//! - [`check`]: all of it over a software link, and [`gpu_check`]: all that `genie-gpu-check` runs.
//!
//! DPDK has a gpudev library, but no driver in it for the host, and none for recent GPUs: ours is
//! registered from outside, as any driver's would be.

#![warn(missing_docs)]

pub mod check;
pub mod gathering;
pub mod gpu_check;
pub mod payload;
pub mod reception;
pub mod regions;
pub mod registration;

pub use gathering::{Gathering, Ordered, Orders, ReceptionError};
pub use payload::{PayloadError, PayloadPool};
pub use reception::Reception;
pub use regions::DeviceRegions;
pub use registration::{Registration, RegistrationError};
