//! CUDA devices over a simulated driver (`driver.cpp`): all of `genie_gpudev::device::cuda` runs,
//! and each of its calls is checked against the driver's documentation. No GPU takes part.

mod devices;
mod driver;
mod failures;
mod processes;
mod strictness;
