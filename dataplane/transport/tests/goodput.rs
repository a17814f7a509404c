//! Goodput over a simulated 10 Gbit/s link with 100 us round trips. Simulated, so the same on any
//! machine. `cargo test --release -p genie-transport --test goodput -- --nocapture` prints it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends where it can't go on"
)]

mod sim;

use sim::{Link, Pair, Random};

/// Gbit/s of tensor bytes placed in 100 ms, after 20 ms of start.
fn goodput(link: Link) -> f64 {
    let loss = link.loss;
    let mut pair = Pair::busy(link, Random(1));
    let start = pair.now.0;
    let mut at_start = None;
    loop {
        assert!(pair.step());
        for _ in pair.events(1) {
            pair.send_mib();
        }
        pair.events(0);
        let placed = pair.connection(1).counters().bytes_placed;
        let spent = pair.now.0 - start;
        let (from, bytes) = *at_start.get_or_insert((spent, placed));
        if from < 20_000_000 && spent >= 20_000_000 {
            at_start = Some((spent, placed));
        }
        if spent >= 120_000_000 {
            let counters = pair.connection(0).counters();
            println!(
                "loss {loss}: {counters:?} {:?}",
                pair.connection(0).status()
            );
            return (placed - bytes) as f64 * 8.0 / (spent - from) as f64;
        }
    }
}

#[test]
fn loss_costs_little_goodput() {
    let [lossless, one, five] = [0.0, 0.01, 0.05].map(|loss| {
        goodput(Link {
            loss,
            ..Link::perfect()
        })
    });
    println!("simulated 10 Gbit/s, 100 us: {lossless:.2} Gbit/s lossless");
    println!(
        "1% loss {one:.2} ({:.0}%), 5% loss {five:.2} ({:.0}%)",
        100.0 * one / lossless,
        100.0 * five / lossless
    );
    assert!(lossless > 8.5, "{lossless}");
    assert!(one >= 0.8 * lossless, "{one} of {lossless}");
    assert!(five >= 0.5 * lossless, "{five} of {lossless}");
}

/// What the defaults of credit and flight are for.
#[test]
fn a_fast_and_long_path_is_filled() {
    for delay_ns in [10_000, 500_000] {
        let filled = goodput(Link {
            bytes_per_second: 5_000_000_000,
            delay_ns,
            queue_bytes: 8 << 20,
            ..Link::perfect()
        });
        println!("simulated 40 Gbit/s, {} us: {filled:.1}", delay_ns / 500);
        assert!(filled > 36.0, "{filled}");
    }
}
