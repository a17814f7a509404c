//! The child process that is the other end. It ends with its parent, however that ends.

use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;

use crate::control::Control;
use crate::ending;
use crate::interrupt;
use crate::machine;
use crate::options::End;
use crate::serve::{Lends, serve};

/// How long it may take to end by itself.
const GRACE: Duration = Duration::from_secs(5);

/// The other end, as its parent sees it.
pub struct Child {
    process: std::process::Child,
}

impl Child {
    /// Starts it, on `core` if there is one.
    pub fn start(core: Option<usize>) -> Result<(Self, Control)> {
        let (here, there) = UnixStream::pair().context("no socket pair")?;
        fcntl(&there, FcntlArg::F_SETFD(FdFlag::empty()))?;
        // Not by its name, which a new build may have taken meanwhile.
        let mut command = Command::new("/proc/self/exe");
        command
            .arg("end")
            .arg(format!("--control={}", there.as_raw_fd()));
        if let Some(core) = core {
            command.arg(format!("--cores={core}"));
        }
        let process = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .context("the other end does not start")?;
        Ok((Self { process }, Control::over_unix(here)))
    }

    /// Waits for its end, which follows from the end of the control socket.
    pub fn end(&mut self) {
        ending::within(&mut self.process, GRACE);
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Nothing to do when it ended: then it was waited for.
        ending::within(&mut self.process, Duration::ZERO);
    }
}

/// The child's own main.
pub fn run(options: &End) -> Result<()> {
    set_pdeathsig(Signal::SIGKILL)?;
    // The end that measures says when it is over.
    interrupt::ignore()?;
    machine::pin(&options.cores)?;
    if options.control < 3 {
        bail!("descriptor {} is no control socket", options.control);
    }
    // SAFETY: the parent passed this descriptor for this purpose, and nothing else here has it.
    let control = unsafe { OwnedFd::from_raw_fd(options.control) };
    let mut control = Control::over_unix(UnixStream::from(control));
    // The end that measures was told why, and tells it.
    let _ = serve(&mut control, options.cores.len(), Lends::Anything);
    Ok(())
}
