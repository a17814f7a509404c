//! Huge pages that are gone when DPDK starts, with DPDK itself: one start a process, so one test.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends where it can't go on"
)]

#[path = "../../../hugepages/tests/turn/mod.rs"]
mod turn;

use genie_dpdk::{EalError, Mempool, MempoolConfig, allowed_cores};
use genie_poll::{PortSpec, eal};

/// Fewer than DPDK is to have.
const PAGES: u64 = 4;
const MEMORY_MIB: u32 = 64;

/// Some pages are free when the loop's side looks, and fewer than DPDK needs right before it starts:
/// it has ordinary ones, and works.
#[test]
fn pages_that_vanish_before_dpdk_starts_are_done_without() {
    if genie_dpdk::is_built().is_err() {
        return println!("skipped: built without DPDK");
    }
    let _alone = turn::alone();
    let Some(reservation) = turn::reserved(PAGES, None) else {
        return;
    };
    let inventory = turn::inventory();
    let free_mib = inventory.usable(turn::PAGE, None) * 2;
    let overcommit = inventory.size(turn::PAGE).map_or(0, |size| size.overcommit);
    if free_mib >= MEMORY_MIB.into() || overcommit > 0 {
        return println!("skipped: this machine has huge pages enough");
    }
    let port: PortSpec = "memif:/tmp/nobody,client".parse().unwrap();
    let before = allowed_cores();
    let (eal, pages) = match eal::start(&port.address, MEMORY_MIB, 2) {
        Ok(started) => started,
        Err(EalError::Load(reason)) => return println!("skipped: {reason}"),
        Err(error) => panic!("{error}"),
    };
    let pages = pages.expect("it has no huge pages");
    assert!(
        pages.contains(&format!("{free_mib} MiB of huge pages are free")),
        "{pages}"
    );
    assert_eq!(turn::inventory().usable(turn::PAGE, None) * 2, free_mib);
    let pool = Mempool::new(&eal, MempoolConfig::new("works", 1023, 2048)).unwrap();
    assert!(pool.alloc().is_ok());
    assert_eq!(allowed_cores(), before, "the caller was not pinned");
    drop(reservation);
}
