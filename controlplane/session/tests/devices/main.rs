//! Three logs of one session, each at a node of its own that runs when it likes, with values moving
//! between them: every answer is what one machine that runs the records in their order gives, and
//! nothing waits in a circle. Every run has a seed; `GENIE_SEED=n` replays one, `GENIE_SEEDS=n` sets how
//! many run.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends where it can't go on"
)]

#[path = "../simulation/rng.rs"]
mod rng;
#[path = "../simulation/seeds.rs"]
mod seeds;

mod cluster;
mod node;
mod session;

use session::{Kinds, Session, Totals};

fn run(name: &str, kinds: Kinds, count: u64) -> Totals {
    let mut totals = Totals::default();
    let one = |rng| {
        let mut session = Session::start(rng, kinds);
        session.run();
        session.finish()
    };
    seeds::each(name, count, one, |one| totals.add(one));
    totals
}

#[test]
fn three_devices_give_what_one_gives() {
    let totals = run("moves", Kinds::InPlace, 150);
    assert!(totals.moves > 1500, "{totals:?}");
    assert!(
        totals.waited > 100,
        "nobody ever waited for a value: {totals:?}"
    );
    assert!(totals.early > 100, "no value ever came early: {totals:?}");
    assert!(totals.plan_hits > 100, "{totals:?}");
    assert!(totals.freed_early > 10, "{totals:?}");
    assert!(totals.cuts > 200, "{totals:?}");
    assert!(totals.frames_lost > 50, "{totals:?}");
    assert!(totals.repeated > 100, "{totals:?}");
}

#[test]
fn a_failure_goes_where_its_value_goes_and_nowhere_else() {
    let totals = run("failures", Kinds::Failures, 150);
    assert!(totals.moves > 1500, "{totals:?}");
    assert!(totals.failed_elsewhere > 50, "{totals:?}");
    assert!(totals.fetched > 500, "{totals:?}");
}

#[test]
fn a_device_that_dies_fails_what_it_was_to_send_and_nothing_else() {
    let totals = run("deaths", Kinds::Death, 100);
    assert!(totals.lost > 50, "{totals:?}");
    assert!(totals.fetched > 300, "{totals:?}");
}
