//! What an executor does when it makes a call that is forbidden: it leaves the call's number behind and
//! ends. The same for abort(): the first process of a pid namespace does not die by a signal that it
//! sends itself.

use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, Ordering};

use genie_gpudev::sandbox::Part;

use super::Unconfined;
use super::report::{Page, Report};

/// Of an executor that ended itself in a handler; the report says why.
const STATUS: libc::c_int = 70;
/// In siginfo_t of a SIGSYS, in bytes: the number of the call (after three ints, padding and the
/// address of the instruction).
const CALL_AT: usize = 24;

static PAGE: AtomicPtr<Page> = AtomicPtr::new(std::ptr::null_mut());
/// While it is proved that calls are trapped, they give an error instead.
static PROBING: AtomicBool = AtomicBool::new(false);
static TRAPPED: AtomicU32 = AtomicU32::new(0);

/// Handles both signals from here on. The report's page must stay mapped.
///
/// # Errors
/// What the kernel says.
pub fn install(report: &Report) -> Result<(), Unconfined> {
    PAGE.store(
        std::ptr::from_ref(report.page()).cast_mut(),
        Ordering::Release,
    );
    let on_forbidden = forbidden as extern "C" fn(_, _, _);
    let on_abort = aborted as extern "C" fn(_);
    for (signal, handler, flags) in [
        (
            libc::SIGSYS,
            on_forbidden as *const () as usize,
            libc::SA_SIGINFO,
        ),
        (libc::SIGABRT, on_abort as *const () as usize, 0),
    ] {
        // SAFETY: all-zero is a valid value; the handlers have the form that `flags` says, and make
        // only calls that are allowed in handlers.
        let installed = unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = handler;
            action.sa_flags = flags;
            libc::sigaction(signal, &raw const action, std::ptr::null_mut())
        };
        nix::errno::Errno::result(installed)
            .map_err(|error| Unconfined::refused(Part::Calls, error))?;
    }
    Ok(())
}

/// How many calls of `attempts` were trapped.
pub fn probe(attempts: impl FnOnce()) -> u32 {
    TRAPPED.store(0, Ordering::SeqCst);
    PROBING.store(true, Ordering::SeqCst);
    attempts();
    PROBING.store(false, Ordering::SeqCst);
    TRAPPED.load(Ordering::SeqCst)
}

fn page() -> Option<&'static Page> {
    // SAFETY: null, or the page of the report, which stays mapped for the process's life.
    unsafe { PAGE.load(Ordering::Acquire).as_ref() }
}

extern "C" fn forbidden(_: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    if PROBING.load(Ordering::SeqCst) {
        TRAPPED.fetch_add(1, Ordering::SeqCst);
        // SAFETY: the kernel gives the interrupted thread's context, which is ours until we return.
        unsafe { set_result(context.cast(), -i64::from(libc::EPERM)) };
        return;
    }
    if let Some(page) = page() {
        // SAFETY: the kernel gives a siginfo_t of 128 bytes, and for this signal a u32 is there.
        page.forbidden(unsafe { info.cast::<u8>().add(CALL_AT).cast::<u32>().read() });
    }
    // SAFETY: it does not return, and is allowed in handlers.
    unsafe { libc::_exit(STATUS) }
}

extern "C" fn aborted(_: libc::c_int) {
    if let Some(page) = page() {
        page.aborted();
    }
    // SAFETY: it does not return, and is allowed in handlers.
    unsafe { libc::_exit(STATUS) }
}

/// What the call that was trapped gives.
///
/// # Safety
/// `context` is that of a signal's handler.
#[cfg(target_arch = "x86_64")]
unsafe fn set_result(context: *mut libc::ucontext_t, result: i64) {
    // SAFETY: the caller vouches for it; the register is inside the array.
    unsafe { (*context).uc_mcontext.gregs[libc::REG_RAX as usize] = result };
}

/// What the call that was trapped gives.
///
/// # Safety
/// `context` is that of a signal's handler.
#[cfg(target_arch = "aarch64")]
unsafe fn set_result(context: *mut libc::ucontext_t, result: i64) {
    // SAFETY: the caller vouches for it.
    unsafe { (*context).uc_mcontext.regs[0] = result.cast_unsigned() };
}
