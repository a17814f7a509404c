//! CUDA devices over a simulated driver (`driver.cpp`): all of `genie_gpudev::device::cuda` runs,
//! and each of its calls is checked against the driver's documentation. No GPU takes part.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends where it can't go on"
)]

mod devices;
mod driver;
mod failures;
mod processes;
mod strictness;
