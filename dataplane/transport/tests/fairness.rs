//! Flows that share a bottleneck, and a path that changes.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends where it can't go on"
)]

mod sim;

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use genie_transport::{Connection, Event, RegionId, SourceId, Time};
use sim::transfer::{MIB, whole};
use sim::{Link, Nowhere, Pair, Random, configs};

const MS: u64 = 1_000_000;
/// How long the shares are measured, once they had time to settle.
const MEASURED: u64 = 1000 * MS;

/// Arrives when, order, flow, at its end, bytes.
type Flight = (u64, u64, usize, usize, Vec<u8>);

/// Hosts that send to hosts of their own through one queue of 10 Gbit/s; answers don't queue.
struct Shared {
    flows: Vec<[Connection; 2]>,
    delays: Vec<u64>,
    now: Time,
    free_at: u64,
    order: u64,
    wire: BinaryHeap<Reverse<Flight>>,
    dropped: u64,
}

const RATE: u64 = 1_250_000_000;

impl Shared {
    fn join(&mut self, delay: u64) {
        let now = self.now;
        let mut ends = configs(1, false).map(|config| Connection::new(config, now).unwrap());
        for _ in 0..32 {
            let grant = ends[1].grant(RegionId(0), MIB).unwrap();
            ends[0].send(whole(grant, SourceId(0), MIB)).unwrap();
        }
        self.flows.push(ends);
        self.delays.push(delay);
    }

    fn placed(&self) -> Vec<u64> {
        let placed = |ends: &[Connection; 2]| ends[1].counters().bytes_placed;
        self.flows.iter().map(placed).collect()
    }

    fn step(&mut self, queue_bytes: u64) {
        let mut buffer = vec![0; 9000];
        for flow in 0..self.flows.len() {
            for from in 0..2 {
                let end = &mut self.flows[flow][from];
                while let Some(len) = end.poll_transmit(self.now, &mut Nowhere, &mut buffer) {
                    let mut leaves = self.now.0;
                    if from == 0 {
                        let free_at = self.free_at.max(self.now.0);
                        let backlog = (free_at - self.now.0) * RATE / 1_000_000_000;
                        if backlog > queue_bytes {
                            self.dropped += 1;
                            continue;
                        }
                        leaves = free_at + len as u64 * 1_000_000_000 / RATE;
                        self.free_at = leaves;
                    }
                    self.order += 1;
                    let arrives = leaves + self.delays[flow];
                    let frame = buffer[..len].to_vec();
                    let flight = (arrives, self.order, flow, 1 - from, frame);
                    self.wire.push(Reverse(flight));
                }
            }
        }
        let timers = self.flows.iter().flatten().filter_map(Connection::timeout);
        let arrives = self.wire.peek().map(|Reverse(flight)| Time(flight.0));
        let next = timers.chain(arrives).min().expect("something happens");
        self.now = next.max(Time(self.now.0 + 1));
        while self
            .wire
            .peek()
            .is_some_and(|Reverse(flight)| flight.0 <= self.now.0)
        {
            let Some(Reverse((_, _, flow, to, mut frame))) = self.wire.pop() else {
                break;
            };
            let end = &mut self.flows[flow][to];
            end.handle(&mut frame, self.now, &mut Nowhere).unwrap();
            while let Some(event) = end.poll_event() {
                if let Event::Received(_) = event {
                    let grant = end.grant(RegionId(0), MIB).unwrap();
                    self.flows[flow][0]
                        .send(whole(grant, SourceId(0), MIB))
                        .unwrap();
                    break;
                }
            }
        }
    }
}

fn share(delays: &[u64], queue_bytes: u64) {
    let mut shared = Shared {
        flows: Vec::new(),
        delays: Vec::new(),
        now: Time(MS),
        free_at: 0,
        order: 0,
        wire: BinaryHeap::new(),
        dropped: 0,
    };
    // They come one after the other: the later find the queue of the earlier.
    for (at, delay) in delays.iter().enumerate() {
        shared.join(*delay);
        while shared.now.0 < (1 + at as u64) * 30 * MS {
            shared.step(queue_bytes);
        }
    }
    let settled = shared.now.0 + 1200 * MS;
    while shared.now.0 < settled {
        shared.step(queue_bytes);
    }
    let before = shared.placed();
    while shared.now.0 < settled + MEASURED {
        shared.step(queue_bytes);
    }
    let after = shared.placed();
    let rates = before
        .iter()
        .zip(&after)
        .map(|(before, after)| (after - before) as f64 * 8.0 / MEASURED as f64);
    let rates: Vec<f64> = rates.collect();
    let rtts = shared.flows.iter().map(|ends| ends[0].status().rtt);
    let rtts: Vec<_> = rtts.collect();
    println!(
        "{delays:?} ns, queue {queue_bytes}: {rates:.2?} Gbit/s, {rtts:?}, {} dropped",
        shared.dropped
    );
    let (least, most) = rates
        .iter()
        .fold((f64::MAX, 0.0_f64), |(least, most), rate| {
            (least.min(*rate), most.max(*rate))
        });
    assert!(most <= 2.0 * least, "{rates:?}");
    assert!(rates.iter().sum::<f64>() > 8.5, "{rates:?}");
}

#[test]
fn flows_share_a_bottleneck_within_a_factor_of_two() {
    for count in [2, 3, 6] {
        share(&vec![50_000; count], 4 << 20);
    }
}

#[test]
fn a_shallow_queue_is_shared_too() {
    share(&[50_000; 4], 300_000);
}

fn goodput(pair: &mut Pair<Nowhere>, for_ms: u64) -> f64 {
    let (start, placed) = (pair.now.0, pair.connection(1).counters().bytes_placed);
    while pair.now.0 < start + for_ms * MS {
        assert!(pair.step());
        let received = pair.events(1).len();
        pair.events(0);
        for _ in 0..received {
            pair.send_mib();
        }
    }
    let placed = pair.connection(1).counters().bytes_placed - placed;
    placed as f64 * 8.0 / (for_ms * MS) as f64
}

#[test]
fn a_path_that_becomes_longer_is_filled_again() {
    let link = Link {
        queue_bytes: 4 << 20,
        ..Link::perfect()
    };
    let mut pair = Pair::busy(link, Random(1));
    goodput(&mut pair, 20);
    let short = goodput(&mut pair, 50);
    pair.link.delay_ns = 500_000;
    goodput(&mut pair, 2500);
    let long = goodput(&mut pair, 500);
    pair.link.delay_ns = 50_000;
    goodput(&mut pair, 50);
    let again = goodput(&mut pair, 500);
    println!("{short:.2} Gbit/s at 100 us, {long:.2} at 1 ms, {again:.2} at 100 us again");
    assert!(short > 8.5 && long > 8.0 && again > 8.5);
    let status = pair.connection(0).status();
    assert!(
        status.rtt.as_micros() < 400,
        "the queue is short: {status:?}"
    );
}
