//! Two ends whose cores are shared: each is away now and then, for far longer than a round trip.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends where it can't go on"
)]

mod sim;

use genie_transport::{Counters, Event};
use sim::{Link, Pair, Random};

const MS: u64 = 1_000_000;

struct Outcome {
    /// Bytes a nanosecond of the time in which both run.
    rate: f64,
    counters: Counters,
    stalls: u32,
}

/// 400 ms of a 40 Gbit/s link with `delay_ns` one way; each end in `stalled` is away for 1 to 10 ms
/// after every 5 to 20 ms.
fn run(delay_ns: u64, stalled: &[usize], seed: u64) -> Outcome {
    let link = Link {
        bytes_per_second: 5_000_000_000,
        delay_ns,
        jitter_ns: 1_000,
        // A ring of 1024 descriptors.
        queue_bytes: 8 << 20,
        ..Link::perfect()
    };
    let mut pair = Pair::busy(link, Random(seed));
    let mut random = Random(seed + 1000);
    let start = pair.now.0;
    let mut next = [0, 1].map(|_| start + 20 * MS + random.below(10 * MS));
    let (mut away, mut stalls) = (0, 0);
    let mut measured = None;
    while pair.now.0 < start + 420 * MS {
        for &end in stalled {
            if pair.now.0 >= next[end] {
                let until = pair.now.0 + MS + random.below(9 * MS);
                let other = pair.ends[1 - end].stalled_until;
                away += until - pair.now.0.max(other.min(until));
                pair.ends[end].stalled_until = until;
                next[end] = until + 5 * MS + random.below(15 * MS);
                stalls += 1;
            }
        }
        assert!(pair.step());
        for event in pair.events(1) {
            assert!(matches!(event, Event::Received(_)), "{event:?}");
            pair.send_mib();
        }
        pair.events(0);
        if pair.now.0 >= start + 20 * MS && measured.is_none() {
            measured = Some(pair.connection(1).counters().bytes_placed);
        }
    }
    let placed = pair.connection(1).counters().bytes_placed - measured.unwrap();
    let counters = pair.connection(0).counters();
    let rate = placed as f64 / (400 * MS - away) as f64;
    println!(
        "{delay_ns} ns, {stalled:?} away {} us in {stalls}: {:.1} Gbit/s while both run, {counters:?} {:?}",
        away / 1000,
        rate * 8.0,
        pair.connection(0).status()
    );
    Outcome {
        rate,
        counters,
        stalls,
    }
}

#[test]
fn a_peer_that_is_away_for_milliseconds_costs_only_that_time() {
    for delay_ns in [5_000, 15_000] {
        let steady = run(delay_ns, &[], 1);
        assert!(steady.rate * 8.0 > 35.0, "{}", steady.rate * 8.0);
        for (stalled, seed) in [(vec![1], 1), (vec![1], 2), (vec![0], 3), (vec![0, 1], 4)] {
            let shared = run(delay_ns, &stalled, seed);
            assert!(
                shared.rate >= 0.9 * steady.rate,
                "{} of {}",
                shared.rate,
                steady.rate
            );
            let (sent, frames) = (shared.counters.bytes_sent, shared.counters.frames_sent);
            assert!(
                sent / frames > 7000,
                "frames stay large: {:?}",
                shared.counters
            );
            // A handful of probes for each time away.
            let most = u64::from(shared.stalls) * 10 * 8192;
            assert!(
                shared.counters.bytes_repeated <= most,
                "{:?}",
                shared.counters
            );
        }
    }
}
