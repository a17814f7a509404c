//! The machine's own huge pages, for one test at a time. The tests of other crates take their turn
//! here, too.
#![allow(
    dead_code,
    reason = "each test binary that has this module uses some of it"
)]

use std::fs::File;
use std::sync::{Mutex, MutexGuard, PoisonError};

use genie_hugepages::{Inventory, NodeId, PageSize, Reservation, ReserveRequest, Root, reserve};
use nix::fcntl::{Flock, FlockArg};

pub const PAGE: PageSize = PageSize::MIB_2;

/// The pool is the machine's: one test at a time, also where each runs in a process of its own.
pub fn alone() -> (MutexGuard<'static, ()>, Flock<File>) {
    static TURN: Mutex<()> = Mutex::new(());
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let path = std::env::temp_dir().join("genie-hugepages-tests.lock");
    let mine = File::options().create(true).append(true).open(&path);
    // It may be another user's.
    let file = mine.or_else(|_| File::open(&path)).unwrap();
    let lock = Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, error)| error);
    (turn, lock.unwrap())
}

pub fn inventory() -> Inventory {
    Inventory::read(&Root::system()).unwrap()
}

/// So many free pages more than there are now, given back when dropped; or none, with the reason
/// printed.
pub fn reserved(pages: u64, node: Option<NodeId>) -> Option<Reservation> {
    let request = ReserveRequest {
        page: PAGE,
        // More than are free now, so that the pool has to grow.
        pages: inventory().usable(PAGE, node) + pages,
        node,
    };
    match reserve(&Root::system(), &request) {
        Ok(reservation) if reservation.short() == 0 => Some(reservation),
        Ok(reservation) => {
            println!("skipped: {} pages could not be had", reservation.short());
            None
        }
        Err(error) => {
            println!("skipped: {error}");
            None
        }
    }
}
