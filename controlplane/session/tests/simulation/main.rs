//! Both ends of the log over a link that delays and cuts, with a slow executor, plans that are
//! refused in the middle, and several threads. Every run has a seed; a failing one is printed
//! and replays with `GENIE_SEED=n`. `GENIE_SEEDS=n` sets how many run.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends where it can't go on"
)]

mod machine;
mod oracle;
mod program;
mod rng;
mod seeds;
mod world;

use world::{Faults, World};

fn run(name: &str, faults: Faults, count: u64) -> world::Totals {
    let mut totals = world::Totals::default();
    let one = |rng| {
        let mut world = World::new(rng, faults);
        world.run();
        world.totals()
    };
    seeds::each(name, count, one, |one| totals.add(one));
    totals
}

#[test]
fn a_quiet_link_gives_the_right_answers_and_plans_hit() {
    let totals = run(
        "quiet",
        Faults {
            single: true,
            ..Faults::default()
        },
        200,
    );
    assert!(totals.plan_hits > totals.plan_misses, "{totals:?}");
    assert_eq!(totals.refused, 0);
}

#[test]
fn threads_that_interleave_still_get_the_right_answers() {
    let totals = run("threads", Faults::default(), 200);
    assert!(totals.plan_hits > 1000, "{totals:?}");
    assert!(totals.waits_for_room > 1000, "{totals:?}");
    assert_eq!(totals.refused, 0);
}

#[test]
fn refused_plans_are_repeated_in_full_and_nothing_is_applied_twice() {
    let faults = Faults {
        drop_plans: true,
        ..Faults::default()
    };
    let totals = run("refusals", faults, 300);
    assert!(totals.refused > 50, "{totals:?}");
    assert!(
        totals.stashed > 0,
        "no bulk was under way during any refusal: {totals:?}"
    );
}

#[test]
fn a_cut_link_resumes_and_nothing_is_applied_twice() {
    let faults = Faults {
        cuts: true,
        ..Faults::default()
    };
    let totals = run("cuts", faults, 300);
    assert!(totals.cuts > 100, "{totals:?}");
}

#[test]
fn messages_that_come_twice_are_applied_once() {
    let faults = Faults {
        duplicates: true,
        drop_plans: true,
        ..Faults::default()
    };
    let totals = run("duplicates", faults, 200);
    assert!(totals.duplicates > 1000, "{totals:?}");
}

#[test]
fn a_failure_is_raised_at_the_next_look_and_what_is_older_is_as_it_was() {
    let faults = Faults {
        failures: true,
        ..Faults::default()
    };
    let totals = run("failures", faults, 300);
    assert!(totals.raised > 1000, "{totals:?}");
    assert!(totals.healed > 100, "{totals:?}");
}

#[test]
fn everything_at_once() {
    let faults = Faults {
        cuts: true,
        drop_plans: true,
        slow: true,
        failures: true,
        single: false,
        duplicates: true,
    };
    let totals = run("everything", faults, 300);
    assert!(
        totals.refused > 0 && totals.cuts > 0 && totals.poisoned > 0 && totals.raised > 0,
        "{totals:?}"
    );
}
