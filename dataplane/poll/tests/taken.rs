//! Huge pages that go while DPDK starts, with DPDK itself: one start a process, so one test.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends where it can't go on"
)]

#[path = "../../../hugepages/tests/turn/mod.rs"]
mod turn;

use std::sync::atomic::{AtomicBool, Ordering};

use genie_dpdk::EalError;
use genie_hugepages::{MapRequest, Region, Root, map};
use genie_poll::{PortSpec, eal};

const MEMORY_MIB: u32 = 8;
const PAGES: u64 = 6;

/// Takes all the pages that are free once DPDK's thread is there, which is after the last look at
/// them. None if DPDK has started before.
fn take(bytes: usize, is_over: &AtomicBool) -> Option<Region> {
    let is_starting = || {
        let threads = std::fs::read_dir("/proc/self/task").ok()?.flatten();
        let mut names = threads.map(|thread| std::fs::read_to_string(thread.path().join("comm")));
        names
            .any(|name| name.is_ok_and(|name| name.trim() == "genie-eal"))
            .then_some(())
    };
    while is_starting().is_none() {
        if is_over.load(Ordering::Relaxed) {
            return None;
        }
    }
    let request = MapRequest::new(bytes).page(turn::PAGE).huge_only();
    map(&Root::system(), &request).ok()
}

#[test]
fn pages_that_vanish_while_dpdk_starts_are_named_as_the_cause() {
    if genie_dpdk::is_built().is_err() {
        return println!("skipped: built without DPDK");
    }
    let _alone = turn::alone();
    let Some(reservation) = turn::reserved(PAGES, None) else {
        return;
    };
    let pages = turn::inventory().usable(turn::PAGE, None);
    let bytes = usize::try_from(pages * turn::PAGE.bytes()).unwrap();
    let is_over = AtomicBool::new(false);
    let port: PortSpec = "memif:/tmp/nobody,client".parse().unwrap();
    let (started, taken) = std::thread::scope(|scope| {
        let taken = scope.spawn(|| take(bytes, &is_over));
        let started = eal::start(&port.address, MEMORY_MIB, MEMORY_MIB);
        is_over.store(true, Ordering::Relaxed);
        (started, taken.join().unwrap())
    });
    match (started, taken) {
        (Err(EalError::Load(reason)), _) => println!("skipped: {reason}"),
        (Ok((_, None)), None) => println!("skipped: DPDK was faster"),
        (Err(error), Some(_)) => {
            assert_eq!(error, EalError::HugepagesTaken);
            assert!(error.is_final());
            let again = eal::start(&port.address, MEMORY_MIB, 0).map(|(_, pages)| pages);
            assert!(again.is_err_and(|error| error.is_final()), "one start");
        }
        (started, taken) => panic!("{started:?}, taken: {}", taken.is_some()),
    }
    drop(reservation);
}
