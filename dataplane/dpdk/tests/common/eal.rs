//! DPDK bears one EAL a process, so each test file starts one and its tests take turns. Other crates'
//! tests have this file too.

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use genie_dpdk::{Eal, EalError, EalOptions};

static EAL: OnceLock<Result<Eal, EalError>> = OnceLock::new();
static TURN: Mutex<()> = Mutex::new(());

/// The test's turn with the process's EAL.
pub struct Turn {
    pub eal: Eal,
    _turn: MutexGuard<'static, ()>,
}

/// The EAL without hugepages, files or PCI; or nothing, and the reason printed, where DPDK is
/// missing. Any other failure is the test's, and that too where `scripts/dpdk-from-source` runs it.
pub fn eal() -> Option<Turn> {
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let start = || Eal::start(EalOptions::anywhere(256).validate().unwrap());
    match EAL.get_or_init(start) {
        Ok(eal) => {
            if let Ok(release) = std::env::var("GENIE_DPDK_REQUIRED") {
                assert!(eal.version().contains(&release), "{}", eal.version());
            }
            Some(Turn {
                eal: eal.clone(),
                _turn: turn,
            })
        }
        Err(EalError::Load(reason)) => {
            assert!(
                std::env::var_os("GENIE_DPDK_REQUIRED").is_none(),
                "{reason}"
            );
            eprintln!("skipped: {reason}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}
