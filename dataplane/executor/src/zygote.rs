//! The zygote: libtorch loaded, no operator run, one thread. It holds itself in as far as all of its
//! executors are to be, forks one when the daemon asks, buries it, and ends with the daemon.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use genie_gpudev::message::{Exit, FromZygote, MESSAGE_MAX, Tensors, ToZygote};
use genie_gpudev::{DeviceKind, Limits};
use genie_shm::seqpacket;

use crate::sandbox::{Enclosure, Origin, Profile, Report, Unconfined};
use crate::{executor, ffi, lean, libraries, sandbox};

struct Child {
    session: u64,
    pid: libc::pid_t,
    report: Report,
}

struct Zygote {
    socket: OwnedFd,
    signals: OwnedFd,
    children: Vec<Child>,
    origin: Origin,
    enclosure: Enclosure,
}

/// Serves the daemon at the other end of `socket` until it is gone; gives the exit status.
pub fn run(socket: OwnedFd, profile: Profile, operator_libraries: &[&OsStr]) -> i32 {
    let say = |message: &FromZygote| seqpacket::send(socket.as_fd(), &message.encode(), &[]);
    if let Err(message) = libraries::load(operator_libraries, say) {
        // The daemon tells why, or is gone.
        let _ = say(&FromZygote::NotLoaded { message });
        return 1;
    }
    match start(socket, profile).and_then(|mut zygote| zygote.serve()) {
        Ok(()) => 0,
        Err(error) => {
            tracing::error!(%error, "the zygote ends");
            1
        }
    }
}

fn start(socket: OwnedFd, profile: Profile) -> io::Result<Zygote> {
    let daemon = nix::unistd::getppid();
    let schema_hash = ffi::schema_hash();
    // These look into files of the machine, which executors don't have.
    ffi::watch_cores();
    ffi::look_around();
    lean::forget_clean_pages();
    let origin = Origin::this();
    let enclosure = Enclosure::new(profile, &origin);
    // Lost with the user.
    nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;
    if nix::unistd::getppid() != daemon {
        return Err(io::ErrorKind::NotFound.into());
    }
    let signals = child_signals()?;
    let hello = FromZygote::Hello {
        pid: std::process::id(),
        torch_version: ffi::torch_version(),
        schema_hash,
        sandbox: enclosure.summary().clone(),
    };
    seqpacket::send(socket.as_fd(), &hello.encode(), &[])?;
    Ok(Zygote {
        socket,
        signals,
        children: Vec::new(),
        origin,
        enclosure,
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
        let report = Report::new()?;
        // SAFETY: this process has one thread, so the child may do anything; it ends by `leave`.
        match unsafe { sandbox::fork(self.enclosure.own_processes()) } {
            Err(error) => {
                let message = error.desc().to_owned();
                self.say(&FromZygote::ForkFailed { session, message })
            }
            Ok(None) => {
                let status = match self.become_executor(session, &report) {
                    Ok(()) => executor::run(files, device, tensors, limits),
                    Err(error) => {
                        // The daemon is told by the report.
                        if let StartError::Unconfined(unconfined) = error {
                            report.unconfined(unconfined);
                        }
                        3
                    }
                };
                sandbox::leave(status)
            }
            Ok(Some(pid)) => {
                let pid = pid.as_raw();
                self.children.push(Child {
                    session,
                    pid,
                    report,
                });
                self.say(&FromZygote::Forked {
                    session,
                    pid: pid.cast_unsigned(),
                })
            }
        }
    }

    /// In the child: dies with the zygote, is held in, says so, and lets go of what is the zygote's.
    fn become_executor(&mut self, session: u64, report: &Report) -> Result<(), StartError> {
        use nix::sys::{prctl, signal};
        prctl::set_pdeathsig(signal::Signal::SIGKILL)?;
        prctl::set_name(c"genie-session")?;
        if !self.origin.is_alive() {
            return Err(nix::Error::ESRCH.into());
        }
        let signals = signal::SigSet::from_iter([signal::Signal::SIGCHLD]);
        signals.thread_unblock()?;
        // What other executors left for the zygote.
        self.children.clear();
        self.enclosure
            .confine(&self.origin, report)
            .map_err(StartError::Unconfined)?;
        let ready = FromZygote::Ready { session }.encode();
        // Not by sendmsg, which executors have no need of.
        nix::unistd::write(&self.socket, &ready)?;
        // SAFETY: closed here and never used again: this copy of the zygote is not dropped, since
        // the process ends by `leave`.
        unsafe {
            libc::close(self.socket.as_raw_fd());
            libc::close(self.signals.as_raw_fd());
        }
        self.origin.close();
        Ok(())
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
                let child = self.children.swap_remove(at);
                self.say(&FromZygote::Exited {
                    session: child.session,
                    pid: child.pid.cast_unsigned(),
                    exit: child.report.exit(exit),
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

/// Why a child is no executor.
enum StartError {
    Unconfined(Unconfined),
    /// It is alone, or something failed that can't.
    Kernel,
}

impl From<nix::Error> for StartError {
    fn from(_: nix::Error) -> Self {
        Self::Kernel
    }
}
