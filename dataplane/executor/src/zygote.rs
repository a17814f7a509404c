//! The zygote: libtorch loaded, no operator run, one thread. It forks an executor when the
//! daemon asks, buries it, and ends with the daemon.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use genie_gpudev::message::{Exit, FromZygote, MESSAGE_MAX, Tensors, ToZygote};
use genie_gpudev::{DeviceKind, Limits};
use genie_shm::seqpacket;

use crate::{executor, ffi, lean};

struct Child {
    session: u64,
    pid: libc::pid_t,
}

struct Zygote {
    socket: OwnedFd,
    signals: OwnedFd,
    children: Vec<Child>,
}

/// Serves the daemon at the other end of `socket` until it is gone; gives the exit status.
pub fn run(socket: OwnedFd) -> i32 {
    match start(socket).and_then(|mut zygote| zygote.serve()) {
        Ok(()) => 0,
        Err(error) => {
            tracing::error!(%error, "the zygote ends");
            1
        }
    }
}

fn start(socket: OwnedFd) -> io::Result<Zygote> {
    let signals = child_signals()?;
    let hello = FromZygote::Hello {
        pid: std::process::id(),
        torch_version: ffi::torch_version(),
        schema_hash: ffi::schema_hash(),
    };
    ffi::watch_cores();
    lean::forget_clean_pages();
    seqpacket::send(socket.as_fd(), &hello.encode(), &[])?;
    Ok(Zygote {
        socket,
        signals,
        children: Vec::new(),
    })
}

/// A descriptor that becomes readable when a child ends.
fn child_signals() -> io::Result<OwnedFd> {
    let mask = child_mask();
    // SAFETY: `mask` is an initialised signal set; the process has one thread.
    let raw = unsafe {
        if libc::sigprocmask(libc::SIG_BLOCK, &mask, std::ptr::null_mut()) < 0 {
            return Err(io::Error::last_os_error());
        }
        libc::signalfd(-1, &mask, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK)
    };
    if raw < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: just opened, nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

fn child_mask() -> libc::sigset_t {
    // SAFETY: sigemptyset initialises the set that sigaddset changes.
    unsafe {
        let mut mask = std::mem::zeroed();
        libc::sigemptyset(&mut mask);
        libc::sigaddset(&mut mask, libc::SIGCHLD);
        mask
    }
}

impl Zygote {
    fn serve(&mut self) -> io::Result<()> {
        let mut bytes = vec![0; MESSAGE_MAX];
        loop {
            let (asked, ended) = wait(self.socket.as_fd(), self.signals.as_fd())?;
            if ended {
                self.bury()?;
            }
            if !asked {
                continue;
            }
            let (len, files) = match seqpacket::receive(self.socket.as_fd(), &mut bytes) {
                Ok((0, _)) => return Ok(()),
                // The daemon went without reading what was said last.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(()),
                other => other?,
            };
            let message = ToZygote::decode(&bytes[..len])
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            match message {
                ToZygote::Fork {
                    session,
                    device,
                    tensors,
                    limits,
                } => {
                    self.fork(session, device, tensors, &limits, files)?;
                }
                ToZygote::Kill { session } => self.kill(session),
            }
        }
    }

    fn say(&self, message: &FromZygote) -> io::Result<()> {
        seqpacket::send(self.socket.as_fd(), &message.encode(), &[])
    }

    fn fork(
        &mut self,
        session: u64,
        device: DeviceKind,
        tensors: Tensors,
        limits: &Limits,
        files: Vec<OwnedFd>,
    ) -> io::Result<()> {
        let zygote = std::process::id();
        // SAFETY: this process has one thread, so the child may do anything.
        match unsafe { libc::fork() } {
            -1 => {
                let message = io::Error::last_os_error().to_string();
                self.say(&FromZygote::ForkFailed { session, message })
            }
            0 => {
                let status = if become_executor(zygote, self).is_ok() {
                    executor::run(files, device, tensors, limits)
                } else {
                    3
                };
                // SAFETY: ends the process without the exit handlers of libraries, which belong
                // to the zygote.
                unsafe { libc::_exit(status) }
            }
            pid => {
                self.children.push(Child { session, pid });
                self.say(&FromZygote::Forked {
                    session,
                    pid: pid as u32,
                })
            }
        }
    }

    fn kill(&self, session: u64) {
        // A child that was not buried yet keeps its number, so this hits nobody else.
        if let Some(child) = self.children.iter().find(|child| child.session == session) {
            // SAFETY: a plain system call.
            unsafe { libc::kill(child.pid, libc::SIGKILL) };
        }
    }

    fn bury(&mut self) -> io::Result<()> {
        // One signal may stand for several children; its contents don't matter.
        let mut info = [0_u8; size_of::<libc::signalfd_siginfo>()];
        // SAFETY: the buffer has room for one record; the descriptor does not block.
        unsafe {
            libc::read(
                self.signals.as_raw_fd(),
                info.as_mut_ptr().cast(),
                info.len(),
            )
        };
        loop {
            let mut status = 0;
            // SAFETY: `status` is a valid place.
            let pid = unsafe { libc::waitpid(-1, &mut status, libc::WNOHANG) };
            if pid <= 0 {
                return Ok(());
            }
            let exit = if libc::WIFSIGNALED(status) {
                Exit::Signal(libc::WTERMSIG(status))
            } else {
                Exit::Status(libc::WEXITSTATUS(status))
            };
            if let Some(at) = self.children.iter().position(|child| child.pid == pid) {
                let Child { session, pid } = self.children.swap_remove(at);
                self.say(&FromZygote::Exited {
                    session,
                    pid: pid as u32,
                    exit,
                })?;
            }
        }
    }
}

/// Waits; tells whether the daemon said something and whether a child ended.
fn wait(socket: BorrowedFd<'_>, signals: BorrowedFd<'_>) -> io::Result<(bool, bool)> {
    let entry = |fd: BorrowedFd<'_>| libc::pollfd {
        fd: fd.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    let mut polled = [entry(socket), entry(signals)];
    // SAFETY: `polled` has two entries of open descriptors.
    let ready = unsafe { libc::poll(polled.as_mut_ptr(), 2, -1) };
    if ready < 0 {
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    Ok((polled[0].revents != 0, polled[1].revents != 0))
}

/// In the child: lets go of what is the zygote's, and dies with it.
fn become_executor(zygote: u32, parent: &Zygote) -> io::Result<()> {
    let mask = child_mask();
    let no_core = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: plain system calls in a process of one thread. The two descriptors are closed
    // here and never used again: this copy of `parent` is not dropped (the process ends by
    // _exit).
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        libc::prctl(libc::PR_SET_NAME, c"genie-session".as_ptr());
        // The zygote may have died before the line above.
        if libc::getppid() as u32 != zygote {
            return Err(io::ErrorKind::NotFound.into());
        }
        libc::close(parent.socket.as_raw_fd());
        libc::close(parent.signals.as_raw_fd());
        libc::sigprocmask(libc::SIG_UNBLOCK, &mask, std::ptr::null_mut());
        libc::setrlimit(libc::RLIMIT_CORE, &no_core);
    }
    Ok(())
}
