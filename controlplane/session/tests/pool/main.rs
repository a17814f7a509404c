//! A program that chooses no device, over three logs at nodes of their own that run when they like: each
//! record goes to a device drawn by lot, and what it takes is brought there. Every answer is what one
//! machine gives that runs the records in their order; frees reach every copy; nothing waits in a
//! circle, though connections break and what was under way is sent again; and a receiver without memory costs nobody a value. Seeds as in `devices`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends where it can't go on"
)]

#[path = "../devices/cluster.rs"]
mod cluster;
#[path = "../devices/node.rs"]
mod node;
#[path = "../simulation/rng.rs"]
mod rng;
#[path = "../simulation/seeds.rs"]
mod seeds;

mod session;

use session::{Memory, Session, Totals};

fn run(name: &str, memory: Memory, count: u64) -> Totals {
    let mut totals = Totals::default();
    let one = |rng| {
        let mut session = Session::start(rng, memory);
        session.run();
        session.finish()
    };
    seeds::each(name, count, one, |one| totals.add(one));
    totals
}

#[test]
fn three_devices_drawn_by_lot_give_what_one_gives() {
    let totals = run("pool", Memory::Enough, 200);
    assert!(totals.sent > 3000, "{totals:?}");
    assert!(totals.ended > 500, "no write ended a copy: {totals:?}");
    assert!(totals.read_from_copy > 500, "{totals:?}");
    assert!(totals.fetched > 1000, "{totals:?}");
    assert!(totals.waited > 100, "{totals:?}");
    assert!(totals.cuts > 300, "{totals:?}");
    assert!(totals.frames_lost > 50, "{totals:?}");
    assert!(totals.repeated > 100, "{totals:?}");
}

#[test]
fn a_receiver_without_memory_costs_nobody_a_value() {
    let totals = run("no memory", Memory::Tight, 200);
    assert!(totals.raised > 300, "{totals:?}");
    assert!(totals.back > 30, "nothing was taken back: {totals:?}");
    assert!(totals.fetched > 1000, "{totals:?}");
}
