//! Tries, from inside, what must not work. A part that is said to hold and lets one of these through
//! ends the executor before it reads a byte of its client.

use caps::CapSet;
use genie_gpudev::sandbox::{Part, Sandbox};
use nix::errno::Errno;

use super::process::Origin;
use super::{Unconfined, trap};

/// Exists everywhere, and anybody may read it.
const FILE: &std::ffi::CStr = c"/etc/passwd";
/// Of `socket`, `connect` and `ptrace`, below.
const TRAPPED: u32 = 3;

/// What the kernel itself refuses, before calls are filtered.
///
/// # Errors
/// What it lets through.
pub fn kernel(sandbox: &Sandbox, origin: &Origin) -> Result<(), Unconfined> {
    for (part, holds) in [
        (Part::User, (|_| !can_be_root()) as fn(&Origin) -> bool),
        (Part::Capabilities, |_| !has_capabilities()),
        (Part::Privileges, |_| {
            nix::sys::prctl::get_no_new_privs() == Ok(true)
        }),
        (Part::Files, |_| !can_open()),
        (Part::Network, |_| !can_connect()),
        (Part::Processes, |origin| !sees(origin)),
    ] {
        if sandbox.has(part) && !holds(origin) {
            return Err(Unconfined::let_through(part));
        }
    }
    Ok(())
}

/// That calls which nobody needs are trapped.
///
/// # Errors
/// One is not.
pub fn calls(origin: &Origin) -> Result<(), Unconfined> {
    let mut opened = false;
    let trapped = trap::probe(|| {
        opened = can_open();
        // Each gives an error, whatever the filter did; what counts is that it was asked.
        let _ = tcp_socket();
        let _ = connect(-1);
        let _ = trace(origin);
    });
    match trapped {
        TRAPPED if !opened => Ok(()),
        _ => Err(Unconfined::let_through(Part::Calls)),
    }
}

fn can_be_root() -> bool {
    nix::unistd::setresuid(0.into(), 0.into(), 0.into()).is_ok()
}

fn has_capabilities() -> bool {
    [CapSet::Effective, CapSet::Permitted, CapSet::Inheritable]
        .into_iter()
        .any(|set| caps::read(None, set).map_or(true, |held| !held.is_empty()))
}

fn can_open() -> bool {
    // SAFETY: a C string; a descriptor that comes of it is closed below.
    let raw = unsafe { libc::open(FILE.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) };
    close(raw);
    raw >= 0
}

/// Whether the machine itself can be reached: nobody has to listen there.
fn can_connect() -> bool {
    let Ok(socket) = tcp_socket() else {
        return false;
    };
    let result = connect(socket);
    close(socket);
    !matches!(
        result,
        Err(Errno::ENETUNREACH | Errno::ENETDOWN | Errno::EACCES | Errno::EPERM)
    )
}

fn tcp_socket() -> nix::Result<libc::c_int> {
    let kind = libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: a plain system call; who asks closes what comes of it.
    Errno::result(unsafe { libc::socket(libc::AF_INET, kind, 0) })
}

/// To port 9 (discard) of this machine.
fn connect(socket: libc::c_int) -> nix::Result<()> {
    let address = libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: 9_u16.to_be(),
        sin_addr: libc::in_addr {
            s_addr: u32::from_ne_bytes([127, 0, 0, 1]),
        },
        sin_zero: [0; 8],
    };
    // SAFETY: the address is one, of the length that is given.
    let result = unsafe {
        libc::connect(
            socket,
            (&raw const address).cast(),
            size_of::<libc::sockaddr_in>() as libc::socklen_t,
        )
    };
    Errno::result(result).map(drop)
}

/// Whether it can reach the zygote's process.
fn sees(origin: &Origin) -> bool {
    // SAFETY: a plain system call, which sends nothing.
    let signals = unsafe { libc::kill(origin.pid, 0) } == 0;
    // The first process of all may have the same number as the first in here.
    (signals && origin.pid != 1) || trace(origin).is_ok()
}

fn trace(origin: &Origin) -> nix::Result<()> {
    let nothing = std::ptr::null_mut::<libc::c_void>();
    // SAFETY: a plain system call, which reads and writes no memory.
    let result = unsafe { libc::ptrace(libc::PTRACE_SEIZE, origin.pid, nothing, nothing) };
    Errno::result(result).map(drop)
}

fn close(raw: libc::c_int) {
    if raw >= 0 {
        // SAFETY: opened by whoever calls this, and not used afterwards.
        unsafe { libc::close(raw) };
    }
}
