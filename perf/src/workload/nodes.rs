//! The nodes of a run: `genie-dataplane` processes of one thread each on loopback, and where there are
//! enough cores each on a core of its own, so that two programs on one node share what it has.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::prctl;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::{ending, interrupt};

/// How long a node may take to be ready.
const READY_MAX: Duration = Duration::from_secs(30);
/// How long it may take to end.
const END_MAX: Duration = Duration::from_secs(5);
const TICK: Duration = Duration::from_millis(20);

/// A process that ends with this one, or when it is dropped.
pub struct Owned(Child);

impl Owned {
    /// Starts `command`; it and all that it starts run on core `core`, if that is given.
    ///
    /// # Errors
    /// The system's.
    pub fn start(command: &mut Command, core: Option<usize>) -> std::io::Result<Self> {
        let mut cores = CpuSet::new();
        core.map_or(Ok(()), |core| cores.set(core))?;
        let set = move || {
            if core.is_some() {
                sched_setaffinity(Pid::from_raw(0), &cores)?;
            }
            Ok(prctl::set_pdeathsig(Signal::SIGTERM)?)
        };
        // SAFETY: between fork and exec only system calls are made.
        unsafe { command.pre_exec(set) };
        command.spawn().map(Self)
    }

    /// The process.
    pub fn child(&mut self) -> &mut Child {
        &mut self.0
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        if let Ok(pid) = i32::try_from(self.0.id()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        ending::within(&mut self.0, END_MAX);
    }
}

/// A node.
pub struct Node {
    /// Where it listens.
    pub address: SocketAddr,
    _process: Owned,
}

/// The daemon's program: as asked for, beside this one, or in the search path.
#[must_use]
pub fn daemon(asked: Option<&Path>) -> PathBuf {
    let name = "genie-dataplane";
    let beside = std::env::current_exe().ok();
    let beside = beside.map(|path| path.with_file_name(name));
    let found = beside.filter(|path| path.exists());
    asked.map_or_else(|| found.unwrap_or_else(|| name.into()), Path::to_path_buf)
}

impl Node {
    /// Starts one, with its log in `folder`, on core `core` if that is given.
    ///
    /// # Errors
    /// It can't be started, or is not ready in time.
    pub fn start(daemon: &Path, folder: &Path, number: usize, core: Option<usize>) -> Result<Self> {
        let address = free()?;
        let path = folder.join(format!("node{number}.log"));
        let log = std::fs::File::create(&path)?;
        let mut command = Command::new(daemon);
        command
            .args(["--listen", &address.to_string()])
            .args(["--device", "host:0?threads=1"])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let mut process = Owned::start(&mut command, core).with_context(|| {
            format!("can't start {}: name it with --dataplane", daemon.display())
        })?;
        let deadline = Instant::now() + READY_MAX;
        loop {
            let said = std::fs::read_to_string(&path).unwrap_or_default();
            if said.contains(&format!("ready on {address}")) {
                return Ok(Self {
                    address,
                    _process: process,
                });
            }
            let ended = process.child().try_wait()?;
            if ended.is_some() || Instant::now() > deadline || interrupt::asked() {
                bail!("a node is not ready; it said:\n{said}");
            }
            std::thread::sleep(TICK);
        }
    }
}

/// A port that nobody uses now.
fn free() -> Result<SocketAddr> {
    let probe = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    Ok(probe.local_addr()?)
}
