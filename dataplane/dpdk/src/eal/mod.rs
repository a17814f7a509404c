//! The environment abstraction layer: DPDK's memory, drivers and threads, one a process.

pub(crate) mod args;
mod preflight;

use std::ffi::{c_char, c_int};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use genie_dpdk_sys::{Api, LoadError};
use nix::errno::Errno as Known;

use self::args::EalArgs;
use crate::Errno;

/// DPDK keeps the EAL in global variables that don't bear a second start.
static STARTED: AtomicBool = AtomicBool::new(false);

/// Why the EAL did not start. Each says what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EalError {
    /// DPDK itself is not there.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// It was started in this process before; it can't be started again.
    #[error("DPDK's EAL was already started in this process")]
    AlreadyStarted,
    /// No hugepage is free.
    #[error("no free hugepages; reserve some (vm.nr_hugepages) or start with --no-huge")]
    NoHugepages,
    /// Fewer are free than are asked for.
    #[error(
        "{free_mib} MiB of hugepages are free and {wanted_mib} are asked for; reserve more \
         (vm.nr_hugepages) or start with --no-huge"
    )]
    FewHugepages {
        /// What there is.
        free_mib: u64,
        /// What was asked for.
        wanted_mib: u32,
    },
    /// There were free ones until it started.
    #[error(
        "the hugepages that were free went to somebody else while DPDK started, which it can only \
         once in a process; reserve more"
    )]
    HugepagesTaken,
    /// Hugepages without a file system to share them by.
    #[error("hugepages are not mounted; mount hugetlbfs or start with --in-memory")]
    HugepagesNotMounted,
    /// The process may not do what was asked.
    #[error("no permission to start the EAL; run as root, or with --no-huge --in-memory --no-pci")]
    NoPermission,
    /// Memory can't be had.
    #[error("no memory for the EAL; ask for less, or reserve more hugepages")]
    NoMemory,
    /// DPDK refuses an argument that looked right, such as a core that is not there.
    #[error("the EAL refuses its arguments {arguments}")]
    Arguments {
        /// As they were handed over.
        arguments: String,
    },
    /// A resource is held by someone else, the lock of another primary process for example.
    #[error("a resource that the EAL needs is busy: {0}")]
    Busy(Errno),
    /// The EAL's thread could not be started.
    #[error("the EAL's thread can't be started: {0}")]
    Thread(Errno),
    /// Anything else.
    #[error("the EAL does not start: {0}")]
    Other(Errno),
}

impl EalError {
    /// Whether DPDK was asked to start, so that this process can't ask again. Else what is missing
    /// may be mended, and the start be tried once more.
    #[must_use]
    pub fn is_final(&self) -> bool {
        !matches!(
            self,
            Self::Load(_)
                | Self::NoHugepages
                | Self::FewHugepages { .. }
                | Self::HugepagesNotMounted
                | Self::Thread(_)
        )
    }

    /// <https://doc.dpdk.org/api/rte__eal_8h.html>, `rte_eal_init`.
    fn of_init(errno: Errno, args: &EalArgs) -> Self {
        match errno.known() {
            // Both are said of pages that are not there, too.
            Known::EACCES | Known::ENOMEM if preflight::check(args).is_err() => {
                Self::HugepagesTaken
            }
            Known::EACCES | Known::EPERM => Self::NoPermission,
            Known::ENOMEM => Self::NoMemory,
            Known::EALREADY => Self::AlreadyStarted,
            Known::EAGAIN | Known::EBUSY => Self::Busy(errno),
            Known::EINVAL => Self::Arguments {
                arguments: format!("{:?}", args.words),
            },
            _ => Self::Other(errno),
        }
    }
}

/// The running EAL. Clones are handles of the same one.
///
/// Invariant: while a handle exists, `rte_eal_init` has succeeded and `rte_eal_cleanup` was not
/// called. Everything that lives in the EAL's memory keeps a handle. The EAL sits on its own thread
/// because it pins the thread that starts it.
#[derive(Debug, Clone)]
pub struct Eal(Arc<Running>);

struct Running {
    api: &'static Api,
    /// Dropped to end the thread.
    stop: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
    /// Numbers virtual devices, so that their names are unique.
    devices: AtomicU32,
    /// Devices come and go one at a time.
    hotplug: Mutex<()>,
    software_only: bool,
}

impl Eal {
    /// Loads DPDK and starts the EAL on a thread of its own.
    ///
    /// Once DPDK has been asked to start, a failure is final for this process
    /// ([`EalError::is_final`]); so what it would stumble over is looked for right before.
    pub fn start(args: EalArgs) -> Result<Self, EalError> {
        // Takes long, so that what is looked at before it is old.
        let api = genie_dpdk_sys::load()?;
        preflight::check(&args)?;
        if STARTED.swap(true, Ordering::AcqRel) {
            return Err(EalError::AlreadyStarted);
        }
        crate::port::control::install(api);
        let software_only = args.software_only;
        let (stop, stopped) = sync_channel::<()>(0);
        let (tell, told) = sync_channel(1);
        let thread = std::thread::Builder::new()
            .name("genie-eal".into())
            .spawn(move || run(api, args, &tell, &stopped))
            .map_err(|error| {
                STARTED.store(false, Ordering::Release);
                EalError::Thread(Errno::of_result(error.raw_os_error().unwrap_or(0)))
            })?;
        // The thread sends exactly once; if it dies before, there is nothing to be told.
        told.recv()
            .unwrap_or(Err(EalError::Other(Errno::of_result(0))))?;
        Ok(Self(Arc::new(Running {
            api,
            stop: Some(stop),
            thread: Some(thread),
            devices: AtomicU32::new(0),
            hotplug: Mutex::new(()),
            software_only,
        })))
    }

    /// DPDK's functions.
    #[inline]
    pub(crate) fn api(&self) -> &'static Api {
        self.0.api
    }

    /// Whether no device can reach its memory: ordinary pages, and no PCI device.
    pub(crate) fn is_software_only(&self) -> bool {
        self.0.software_only
    }

    pub(crate) fn next_device(&self) -> u32 {
        self.0.devices.fetch_add(1, Ordering::Relaxed)
    }

    /// Held while a device is added or removed.
    pub(crate) fn hotplug(&self) -> MutexGuard<'_, ()> {
        self.0
            .hotplug
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The version that was loaded, "DPDK 22.11.11" for example.
    pub fn version(&self) -> String {
        // SAFETY: `rte_version` returns a static C string.
        let version = unsafe { std::ffi::CStr::from_ptr(self.api().rte_version()) };
        version.to_string_lossy().into_owned()
    }
}

/// The EAL's thread: starts it, waits for the last handle to go, cleans up.
fn run(
    api: &'static Api,
    mut args: EalArgs,
    tell: &SyncSender<Result<(), EalError>>,
    stopped: &Receiver<()>,
) {
    if args.main_core.is_none() {
        // DPDK would otherwise start a thread on every core.
        let first = crate::allowed_cores().first().map_or(0, |core| core.raw());
        let core = std::ffi::CString::new(first.to_string()).unwrap_or_default();
        args.words.extend([c"-l".to_owned(), core]);
    }
    // DPDK permutes the array and may keep the strings: both live as long as this thread.
    let mut argv: Vec<*mut c_char> = args
        .words
        .iter()
        .map(|word| word.as_ptr().cast_mut())
        .collect();
    let argc = c_int::try_from(argv.len()).unwrap_or(c_int::MAX);
    argv.push(std::ptr::null_mut());
    // SAFETY: `argv` holds `argc` C strings and a null pointer, which outlive the EAL; `STARTED`
    // makes this the only start of the process.
    let started = unsafe { api.rte_eal_init(argc, argv.as_mut_ptr()) };
    if started < 0 {
        let errno = Errno::last(api);
        let _ = tell.send(Err(EalError::of_init(errno, &args)));
        return;
    }
    let _ = tell.send(Ok(()));
    // Returns when the last handle drops its end.
    let _ = stopped.recv();
    // SAFETY: no handle is left, so no port, pool, packet or registered thread is either.
    unsafe { api.rte_eal_cleanup() };
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Running")
    }
}

#[cfg(test)]
mod tests {
    use genie_dpdk_sys::LoadError;

    use super::EalError;
    use crate::{EalOptions, Errno};

    #[test]
    fn what_was_found_before_dpdk_was_asked_may_be_tried_again() {
        let few = EalError::FewHugepages {
            free_mib: 2,
            wanted_mib: 96,
        };
        let early = [few, EalError::NoHugepages, EalError::HugepagesNotMounted];
        assert!(early.iter().all(|error| !error.is_final()));
        let late = [
            EalError::AlreadyStarted,
            EalError::HugepagesTaken,
            EalError::NoMemory,
            EalError::NoPermission,
            EalError::Busy(Errno::of_result(-16)),
            EalError::Other(Errno::of_result(0)),
        ];
        assert!(late.iter().all(EalError::is_final));
        let reason = "it is a test";
        assert!(!EalError::Load(LoadError::NotBuilt { reason }).is_final());
    }

    /// What DPDK says where pages are missing, and where they are not.
    #[test]
    fn pages_that_went_are_told_from_permissions_and_from_other_memory() {
        let vast = EalOptions {
            memory_mib: Some(16 << 20),
            ..EalOptions::default()
        };
        let (vast, none) = (vast.validate().unwrap(), EalOptions::anywhere(64));
        let none = none.validate().unwrap();
        let said = |errno: i32, args| EalError::of_init(Errno::of_result(-errno), args);
        for errno in [nix::libc::EACCES, nix::libc::ENOMEM] {
            assert_eq!(said(errno, &vast), EalError::HugepagesTaken);
        }
        assert_eq!(said(nix::libc::EACCES, &none), EalError::NoPermission);
        assert_eq!(said(nix::libc::ENOMEM, &none), EalError::NoMemory);
    }
}
