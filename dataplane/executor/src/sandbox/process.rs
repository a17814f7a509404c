//! Processes of the zygote's: forked, waited for, ended.

use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::wait::WaitStatus;
use nix::unistd::Pid;

/// The zygote, as its children know it.
#[derive(Debug)]
pub struct Origin {
    /// Its number, where it was started.
    pub pid: libc::pid_t,
    /// Becomes readable when it ends. A child that has numbers of its own can't ask for its parent's.
    life: Option<OwnedFd>,
}

impl Origin {
    /// This process.
    pub fn this() -> Self {
        let pid = std::process::id().cast_signed();
        // SAFETY: a plain system call that gives a new descriptor or an error.
        let raw = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        let life = i32::try_from(raw).ok().filter(|&raw| raw >= 0).map(|raw| {
            // SAFETY: just opened, nobody else's.
            unsafe { std::os::fd::FromRawFd::from_raw_fd(raw) }
        });
        Self { pid, life }
    }

    /// In a child that does not ask any more.
    pub fn close(&mut self) {
        self.life = None;
    }

    /// In a child: whether it is still there.
    pub fn is_alive(&self) -> bool {
        match &self.life {
            Some(life) => {
                let mut polled = [PollFd::new(life.as_fd(), PollFlags::POLLIN)];
                matches!(nix::poll::poll(&mut polled, PollTimeout::ZERO), Ok(0))
            }
            // 0: it is in another namespace, and there is no telling.
            None => [0, self.pid].contains(&nix::unistd::getppid().as_raw()),
        }
    }
}

/// As fork(2): the child's number, or `None` in the child. With `own_processes` the child is the first
/// process of a new pid namespace.
///
/// # Errors
/// What the kernel says; `ENOSYS` where it can't tell where this thread's number is kept.
///
/// # Safety
/// The process has one thread. The child must not unwind into what is the parent's.
pub unsafe fn fork(own_processes: bool) -> nix::Result<Option<Pid>> {
    if !own_processes {
        // SAFETY: the caller vouches for it.
        return match unsafe { nix::unistd::fork() }? {
            nix::unistd::ForkResult::Parent { child } => Ok(Some(child)),
            nix::unistd::ForkResult::Child => Ok(None),
        };
    }
    // libc's fork has no flags, and unshare(2) before it works once a process. libc keeps the
    // thread's number in a place that it tells the kernel of; the kernel writes the child's there.
    let mut place = 0_u64;
    // SAFETY: `place` has room for an address.
    Errno::result(unsafe { libc::prctl(libc::PR_GET_TID_ADDRESS, &raw mut place) })
        .map_err(|_| Errno::ENOSYS)?;
    let namespace = u64::from(libc::CLONE_NEWPID.cast_unsigned());
    let tid = libc::CLONE_CHILD_SETTID | libc::CLONE_CHILD_CLEARTID;
    // SAFETY: all-zero is a valid value: no stack, no places but those set here.
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.flags = namespace | u64::from(tid.cast_unsigned());
    arguments.child_tid = place;
    arguments.exit_signal = libc::SIGCHLD as u64;
    // SAFETY: as fork(2), since no memory is shared and no stack given. One thread: there are no
    // locks of others that a child would find taken.
    let pid = unsafe {
        libc::syscall(
            libc::SYS_clone3,
            &raw const arguments,
            size_of::<libc::clone_args>(),
        )
    };
    match Errno::result(pid)? {
        0 => Ok(None),
        pid => Ok(Some(Pid::from_raw(pid as i32))),
    }
}

/// Ends this process without the exit handlers of libraries, which belong to the zygote.
pub fn leave(status: i32) -> ! {
    // SAFETY: it does not return.
    unsafe { libc::_exit(status) }
}

/// Waits for a child; whether it ended by itself with status 0.
pub fn wait(pid: Pid) -> nix::Result<bool> {
    loop {
        match nix::sys::wait::waitpid(pid, None) {
            Err(Errno::EINTR) => {}
            other => return Ok(matches!(other?, WaitStatus::Exited(_, 0))),
        }
    }
}
