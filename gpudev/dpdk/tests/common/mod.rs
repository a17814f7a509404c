//! What the tests share. DPDK bears one EAL a process, so each test file starts one and its tests
//! take turns.

#![allow(dead_code, reason = "each test file uses its part")]

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
/// missing. Any other failure is the test's.
pub fn eal() -> Option<Turn> {
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let start = || Eal::start(EalOptions::anywhere(256).validate().unwrap());
    match EAL.get_or_init(start) {
        Ok(eal) => Some(Turn {
            eal: eal.clone(),
            _turn: turn,
        }),
        Err(EalError::Load(reason)) => {
            eprintln!("skipped: {reason}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}
