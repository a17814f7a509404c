//! CUDA devices, by cudarc, which opens the driver at run time.
//!
//! Device memory is made by the virtual memory calls (`cuMemCreate` with a POSIX descriptor), so it
//! grows without moving and an executor can map it. Host memory is registered as it is allocated.
//!
//! This was written without a GPU at hand, and none of it has run on one yet: `scripts/gpu-check`
//! is what does that. What has run is all of it over a simulated driver, which checks each call
//! against the documentation and lets each one fail (`tests/simulated_cuda`); NVRTC compiles the
//! kernel's source to PTX, and a CPU runs it.
//!
//! Followed: <https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__VA.html>,
//! <https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__MEM.html>.

pub mod kernel;
mod memory;
mod pinned;
mod queue;

use std::ptr::NonNull;
use std::sync::Arc;

use cudarc::driver::sys::{self, CUdevice_attribute as Attribute};
use cudarc::driver::{CudaContext, DriverError};

use self::kernel::LazyKernel;
use self::memory::CudaMemory;
use self::pinned::{Foreign, Pinned};
use self::queue::CudaQueue;
use super::{Device, DeviceError, DeviceInfo, DeviceKind, Memory, Queue, Share};

/// A CUDA device's primary context, which libtorch in the same process would share.
pub struct CudaDevice {
    driver: Driver,
    name: String,
    processors: u32,
    kernel: LazyKernel,
}

/// What every part of the device needs.
#[derive(Clone)]
struct Driver {
    context: Arc<CudaContext>,
    kind: DeviceKind,
    page_bytes: u64,
    /// Network cards may reach memory of the virtual memory calls.
    nic_reach: bool,
}

impl CudaDevice {
    /// Opens the device `cuda:index`.
    ///
    /// # Errors
    /// No driver, no such device, or one that can't do what Genie needs.
    pub fn open(index: u8) -> Result<Self, DeviceError> {
        let kind = DeviceKind::Cuda(index);
        let absent = |reason: String| DeviceError::Absent {
            device: kind,
            reason,
        };
        // Without the library, any other call of cudarc would panic.
        // SAFETY: the driver's library has no constructor that harms a process which uses no CUDA.
        if !unsafe { sys::is_culib_present() } {
            let reason = "there is no libcuda.so.1: install NVIDIA's driver, or use host:0";
            return Err(absent(reason.into()));
        }
        let told = |error: DriverError| absent(words(error));
        let context = CudaContext::new(index.into()).map_err(told)?;
        let attribute = |attribute| context.attribute(attribute).map_err(told);
        for (needed, what) in [
            (
                Attribute::CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED,
                "virtual memory management",
            ),
            (
                Attribute::CU_DEVICE_ATTRIBUTE_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR_SUPPORTED,
                "memory shared by a descriptor",
            ),
            (
                Attribute::CU_DEVICE_ATTRIBUTE_CAN_USE_HOST_POINTER_FOR_REGISTERED_MEM,
                "registered host memory at the host's own addresses",
            ),
        ] {
            if attribute(needed)? == 0 {
                return Err(absent(format!("it has no {what}")));
            }
        }
        let rdma = Attribute::CU_DEVICE_ATTRIBUTE_GPU_DIRECT_RDMA_WITH_CUDA_VMM_SUPPORTED;
        let processors = attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?;
        let nic_reach = attribute(rdma)? != 0;
        let page_bytes = memory::granularity(index, nic_reach).map_err(told)?;
        let name = context.name().map_err(told)?;
        let driver = Driver {
            context,
            kind,
            page_bytes,
            nic_reach,
        };
        Ok(Self {
            driver,
            name,
            processors: u32::try_from(processors).unwrap_or(0),
            kernel: LazyKernel::default(),
        })
    }
}

impl Driver {
    /// Makes the context the calling thread's, which CUDA's calls refer to.
    fn bind(&self) -> Result<(), DeviceError> {
        // What went wrong when something was given back is not this call's failure.
        if let Err(error) = self.told("giving something back", self.context.check_err()) {
            tracing::warn!(%error);
        }
        self.told("cuCtxSetCurrent", self.context.bind_to_thread())
    }

    /// Waits for all that the device was told to do.
    fn settle(&self) -> Result<(), DeviceError> {
        self.bind()?;
        self.told("cuCtxSynchronize", self.context.synchronize())
    }

    /// A driver's answer as ours.
    fn told<T>(
        &self,
        what: &'static str,
        answer: Result<T, DriverError>,
    ) -> Result<T, DeviceError> {
        answer.map_err(|error| DeviceError::Failed {
            device: self.kind,
            what,
            reason: words(error),
        })
    }
}

fn words(error: DriverError) -> String {
    error.error_string().map_or_else(
        |_| format!("CUDA error {}", error.0 as u32),
        |text| text.to_string_lossy().into_owned(),
    )
}

impl Device for CudaDevice {
    fn info(&self) -> DeviceInfo {
        let driver = &self.driver;
        let bound = driver.bind().is_ok();
        let (free, total) = bound
            .then(|| driver.context.mem_get_info().ok())
            .flatten()
            .unwrap_or((0, 0));
        DeviceInfo {
            kind: driver.kind,
            name: self.name.clone(),
            memory_bytes: total as u64,
            free_bytes: free as u64,
            page_bytes: driver.page_bytes,
            processors: self.processors,
            nic_reach: driver.nic_reach,
        }
    }

    fn reserve(&self, bytes: u64, bytes_max: u64) -> Result<Memory, DeviceError> {
        let memory = CudaMemory::new(self.driver.clone(), bytes, bytes_max)?;
        Ok(Arc::new(memory))
    }

    fn reserve_host(&self, bytes: u64, bytes_max: u64) -> Result<Memory, DeviceError> {
        let memory = Pinned::new(self.driver.clone(), bytes, bytes_max)?;
        Ok(Arc::new(memory))
    }

    unsafe fn register(&self, address: NonNull<u8>, bytes: u64) -> Result<Memory, DeviceError> {
        // SAFETY: the caller's promise is the one that is asked for.
        let memory = unsafe { Foreign::new(self.driver.clone(), address, bytes) }?;
        Ok(Arc::new(memory))
    }

    fn attach(&self, parts: Vec<Share>) -> Result<Memory, DeviceError> {
        let memory = CudaMemory::attach(self.driver.clone(), parts)?;
        Ok(Arc::new(memory))
    }

    fn queue(&self) -> Result<Box<dyn Queue>, DeviceError> {
        let queue = CudaQueue::new(self.driver.clone(), Arc::clone(&self.kernel))?;
        Ok(Box::new(queue))
    }
}

#[cfg(test)]
mod tests;
