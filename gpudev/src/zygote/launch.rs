//! Starting the zygote's program, and ending it.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::ZygoteProgram;
use crate::device::DeviceKind;
use crate::message::Exit;
use crate::sandbox::SandboxMode;

/// What a zygote inherits of this process's environment: what an operator may want to tell libtorch,
/// its libraries and its loader. Nothing else, since whoever reads outside of a tensor reads that.
const INHERITED: [&str; 3] = ["RUST_LOG", "GENIE_SIMULATED_CUDA", "LD_PRELOAD"];
/// The same, by how the names begin: OpenMP's, the maths libraries', CUDA's and the allocator's.
const INHERITED_PREFIXES: [&str; 12] = [
    "OMP_",
    "GOMP_",
    "KMP_",
    "MKL_",
    "ATEN_",
    "DNNL_",
    "ONEDNN_",
    "OPENBLAS_",
    "CUDA_",
    "NVIDIA_",
    "MALLOC_",
    "GLIBC_",
];

/// Ends the zygote for sure and says how it ended.
pub(super) fn bury(child: &mut Child) -> String {
    // It ends by itself at the end of its socket; what does not is killed.
    for _ in 0..100 {
        match child.try_wait() {
            Ok(Some(status)) => return describe(status),
            Ok(None) => std::thread::sleep(Duration::from_millis(5)),
            Err(error) => return error.to_string(),
        }
    }
    drop(child.kill());
    child
        .wait()
        .map_or_else(|error| error.to_string(), describe)
}

fn describe(status: std::process::ExitStatus) -> String {
    match status.signal() {
        Some(signal) => format!("it ended by {}", Exit::Signal(signal)),
        None => format!("it ended with {status}"),
    }
}

/// How to start it.
pub(super) fn command(program: &ZygoteProgram, socket: &OwnedFd) -> Command {
    let mut command = Command::new(&program.executable);
    command
        .arg("zygote")
        .arg("--socket")
        .arg(socket.as_raw_fd().to_string())
        .arg("--sandbox")
        .arg(match (program.sandbox, program.device) {
            (SandboxMode::Off, _) => "off",
            (SandboxMode::Auto, DeviceKind::Host(_)) => "host",
            (SandboxMode::Auto, DeviceKind::Cuda(_)) => "accelerator",
        })
        .args(&program.operator_libraries)
        .env_clear()
        .envs(std::env::vars_os().filter(|(name, _)| is_inherited(name)))
        .env("LD_LIBRARY_PATH", library_path(&program.libtorch))
        .stdin(Stdio::null())
        // Ctrl-C at the terminal is for the daemon, which drains first.
        .process_group(0);
    // OpenMP threads without work spin for a fraction of a millisecond, then sleep. Sleeping at
    // once makes every parallel operator up to 80 us slower, spinning on (GNU's default is some
    // milliseconds) takes the cores from the client and the daemon.
    if std::env::var_os("GOMP_SPINCOUNT").is_none() {
        command.env("GOMP_SPINCOUNT", "10000");
    }
    let (raw, daemon) = (socket.as_raw_fd(), std::process::id());
    // SAFETY: the closure runs between fork and exec and makes plain system calls only.
    unsafe {
        command.pre_exec(move || {
            if libc::fcntl(raw, libc::F_SETFD, 0) < 0
                || libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) < 0
            {
                return Err(io::Error::last_os_error());
            }
            // The daemon may have died before the line above.
            if libc::getppid() as u32 != daemon {
                return Err(io::ErrorKind::NotFound.into());
            }
            Ok(())
        });
    }
    command
}

fn is_inherited(name: &OsStr) -> bool {
    name.to_str().is_some_and(|name| {
        INHERITED.contains(&name)
            || INHERITED_PREFIXES
                .iter()
                .any(|prefix| name.starts_with(prefix))
    })
}

/// libtorch's own folder, and those of the vendor packages beside it that a Python installation
/// has (`nvidia/*/lib`), before what is set already.
fn library_path(libtorch_dir: &Path) -> std::ffi::OsString {
    let mut folders = vec![libtorch_dir.join("lib")];
    let real = libtorch_dir
        .canonicalize()
        .unwrap_or_else(|_| libtorch_dir.to_path_buf());
    if let Some(packages) = real.parent()
        && let Ok(entries) = std::fs::read_dir(packages.join("nvidia"))
    {
        folders.extend(entries.flatten().map(|entry| entry.path().join("lib")));
        folders[1..].sort();
    }
    folders.retain(|folder| folder.is_dir());
    if let Some(present) = std::env::var_os("LD_LIBRARY_PATH") {
        folders.extend(std::env::split_paths(&present));
    }
    std::env::join_paths(folders).unwrap_or_default()
}
