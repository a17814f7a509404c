//! The gather kernel: finding NVRTC, compiling, launching.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use cudarc::driver::{CudaFunction, CudaStream, LaunchConfig, PushKernelArg as _};
use cudarc::nvrtc::{CompileError, CompileOptions, Ptx, compile_ptx_with_opts};
use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};

use super::Driver;
use crate::device::DeviceError;

/// The kernel in CUDA C++.
const SOURCE: &str = include_str!("gather.cu");
const NAME: &str = "genie_gather";
/// Threads of a block; the source says the same.
const THREADS: u32 = 128;

/// Why there is no PTX.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KernelError {
    /// NVRTC is not installed, or not where it is looked for.
    #[error(
        "NVRTC is not found: install it (it comes with PyPI's torch), or name its folder in \
         GENIE_NVRTC; looked in {0}"
    )]
    NoCompiler(String),
    /// The source does not compile for this device.
    #[error("NVRTC: {0}")]
    Source(String),
}

/// Compiles the kernel for devices of this compute capability, such as (9, 0).
///
/// # Errors
/// NVRTC is missing, or knows no such device.
pub fn compile(major: i32, minor: i32) -> Result<Ptx, KernelError> {
    compiler()?;
    let options = CompileOptions {
        name: Some("gather.cu".into()),
        options: vec![format!("--gpu-architecture=compute_{major}{minor}")],
        ..CompileOptions::default()
    };
    compile_ptx_with_opts(SOURCE, options).map_err(|error| {
        KernelError::Source(match error {
            CompileError::CompileError { log, .. } => log.to_string_lossy().into_owned(),
            other => other.to_string(),
        })
    })
}

/// Brings NVRTC into the process: the system's, or the one beside libtorch.
fn compiler() -> Result<(), KernelError> {
    static FOUND: OnceLock<Result<(), KernelError>> = OnceLock::new();
    FOUND
        .get_or_init(|| {
            let folders = folders();
            // Opened by its path once, it is found by its name from then on.
            let loaded = folders.iter().any(|folder| load_from(folder));
            // SAFETY: NVRTC's constructors only set up NVRTC.
            if loaded || unsafe { cudarc::nvrtc::sys::is_culib_present() } {
                return Ok(());
            }
            Err(KernelError::NoCompiler(format!(
                "{folders:?} and the system's folders"
            )))
        })
        .clone()
}

/// Where PyPI's packages and CUDA's own installer put it.
fn folders() -> Vec<PathBuf> {
    let mut folders = Vec::new();
    if let Some(folder) = std::env::var_os("GENIE_NVRTC") {
        folders.push(PathBuf::from(folder));
    }
    let libtorch = std::env::var_os("LIBTORCH").map(PathBuf::from);
    // .../site-packages/torch has .../site-packages/nvidia beside it.
    let packages =
        libtorch.and_then(|torch| Some(torch.canonicalize().ok()?.parent()?.join("nvidia")));
    for kind in ["cu13", "cuda_nvrtc"] {
        folders.extend(
            packages
                .as_ref()
                .map(|packages| packages.join(kind).join("lib")),
        );
    }
    folders.extend(["/usr/local/cuda/lib64", "/usr/local/cuda/lib"].map(PathBuf::from));
    folders
}

/// Opens the builtins first, which NVRTC would look for in the system's folders only.
fn load_from(folder: &Path) -> bool {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return false;
    };
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    files.sort();
    let open = |prefix: &str| {
        let named = files.iter().filter(|file| {
            let name = file.file_name().and_then(|name| name.to_str());
            name.is_some_and(|name| name.starts_with(prefix) && !name.contains(".alt."))
        });
        let mut opened = named.filter_map(|file| {
            // SAFETY: NVRTC's constructors only set up NVRTC.
            unsafe { Library::open(Some(file), RTLD_NOW | RTLD_GLOBAL) }.ok()
        });
        // Never closed: the compiler is used for the rest of the process.
        opened.next().map(std::mem::forget).is_some()
    };
    open("libnvrtc-builtins.so.") && open("libnvrtc.so.")
}

/// The kernel of a device, compiled when it is asked for first: an executor never does. What failed
/// is tried again.
pub(super) type LazyKernel = Arc<OnceLock<Kernel>>;

/// The kernel, loaded on a device.
#[derive(Clone)]
pub(super) struct Kernel(CudaFunction);

impl Kernel {
    pub(super) fn load(driver: &Driver) -> Result<Self, DeviceError> {
        let absent = |error: KernelError| DeviceError::Failed {
            device: driver.kind,
            what: "compiling the gather kernel",
            reason: error.to_string(),
        };
        let capability = driver.context.compute_capability();
        let (major, minor) = driver.told("cuDeviceGetAttribute", capability)?;
        let ptx = compile(major, minor).map_err(absent)?;
        let module = driver.told("cuModuleLoadData", driver.context.load_module(ptx))?;
        let function = driver.told("cuModuleGetFunction", module.load_function(NAME))?;
        Ok(Self(function))
    }

    /// # Safety
    /// The addresses are a table's with this many frames, which stays busy until the stream has
    /// run the kernel.
    pub(super) unsafe fn launch(
        &self,
        driver: &Driver,
        stream: &CudaStream,
        [table, pieces, verdicts]: [u64; 3],
        frames: u32,
    ) -> Result<(), DeviceError> {
        let shape = LaunchConfig {
            grid_dim: (frames, 1, 1),
            block_dim: (THREADS, 1, 1),
            shared_mem_bytes: 0,
        };
        let mut launch = stream.launch_builder(&self.0);
        launch.arg(&table).arg(&pieces).arg(&verdicts);
        // SAFETY: the kernel takes three pointers, which the caller vouches for.
        let launched = unsafe { launch.launch(shape) };
        driver.told("cuLaunchKernel", launched.map(|_| ()))
    }
}
