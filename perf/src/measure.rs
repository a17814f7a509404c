//! The tests.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use anyhow::Result;
use hdrhistogram::Histogram;

use crate::options::{Client, Test};
use crate::peer::Peer;
use crate::report::{Latency, Measurement, Report, SCHEMA_VERSION};

/// Runs what `options` ask for.
pub fn run(options: &Client) -> Result<Report> {
    let mut peer = Peer::open(options)?;
    let sizes = match (options.size.is_empty(), options.test) {
        (false, _) => options.size.clone(),
        (true, Test::Lat) => vec![64],
        (true, Test::Bw) => vec![1 << 20, 64 << 20],
    };
    let mut results = Vec::new();
    for size in sizes {
        match options.test {
            Test::Lat => results.push(latency(&mut peer, options, size)?),
            Test::Bw => {
                results.push(put(&mut peer, options, size)?);
                results.push(get(&mut peer, options, size)?);
            }
        }
    }
    let transport = peer
        .opened
        .transports
        .first()
        .cloned()
        .unwrap_or_else(|| "tcp".to_owned());
    peer.close();
    Ok(Report {
        schema_version: SCHEMA_VERSION,
        version: env!("CARGO_PKG_VERSION"),
        transport,
        path: "to and from the session's arena, shared with its executor",
        tls: options.ca.is_some(),
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        verified: options.verify,
        results,
    })
}

/// Counts what happens after the warm-up.
struct Meter {
    histogram: Histogram<u64>,
    warm_at: Instant,
    end_at: Instant,
    began: Option<(Instant, Duration)>,
    transfers: u64,
    verify_errors: u64,
}

impl Meter {
    fn new(options: &Client) -> Result<Self> {
        let warm_at = Instant::now() + options.warmup;
        Ok(Self {
            // Nanoseconds, up to a minute, three digits.
            histogram: Histogram::new_with_bounds(1, 60_000_000_000, 3)?,
            warm_at,
            end_at: warm_at + options.time,
            began: None,
            transfers: 0,
            verify_errors: 0,
        })
    }

    fn goes_on(&self) -> bool {
        // At least one transfer is counted, however long it takes.
        Instant::now() < self.end_at || self.transfers == 0
    }

    fn done(&mut self, began: Instant) {
        let now = Instant::now();
        if began < self.warm_at {
            return;
        }
        let since = self.began.get_or_insert_with(|| (began, cpu_time()));
        debug_assert!(since.0 <= began);
        self.transfers += 1;
        self.histogram
            .saturating_record((now - began).as_nanos() as u64);
    }

    fn finish(self, test: &'static str, size_bytes: u64, batch: u32) -> Measurement {
        let (began, cpu_before) = self.began.unwrap_or((self.warm_at, Duration::ZERO));
        let seconds = began.elapsed().as_secs_f64();
        let cpu = (cpu_time().saturating_sub(cpu_before)).as_secs_f64();
        // There and back counts twice.
        let ways = if test == "lat" { 2.0 } else { 1.0 };
        let gbit = self.transfers as f64 * size_bytes as f64 * 8.0 * ways / 1e9;
        let micros = |quantile: f64| self.histogram.value_at_quantile(quantile) as f64 / 1e3;
        Measurement {
            test,
            size_bytes,
            batch,
            transfers: self.transfers,
            seconds,
            gbit_per_s: gbit / seconds,
            gbit_per_s_per_client_core: if cpu > 0.0 { gbit / cpu } else { 0.0 },
            messages_per_s: self.transfers as f64 / seconds,
            latency_us: Latency {
                p50: micros(0.5),
                p90: micros(0.9),
                p99: micros(0.99),
                p999: micros(0.999),
                max: self.histogram.max() as f64 / 1e3,
            },
            verify_errors: self.verify_errors,
        }
    }
}

/// CPU time of this process.
fn cpu_time() -> Duration {
    // From /proc, in clock ticks of 10 ms: fine for runs of seconds.
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat
        .rsplit_once(')')
        .map_or("", |(_, rest)| rest)
        .split_whitespace()
        .collect();
    let ticks = |at: usize| {
        fields
            .get(at)
            .and_then(|f| f.parse::<u64>().ok())
            .unwrap_or(0)
    };
    Duration::from_millis((ticks(11) + ticks(12)) * 10)
}

/// Bytes that differ from run to run and place to place.
fn pattern(bytes: &mut [u8], turn: u64) {
    let mut state = turn.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    for chunk in bytes.chunks_mut(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        chunk.copy_from_slice(&state.to_le_bytes()[..chunk.len()]);
    }
}

fn differences(a: &[u8], b: &[u8]) -> u64 {
    if a == b {
        0
    } else {
        a.iter().zip(b).filter(|(a, b)| a != b).count() as u64
    }
}

fn latency(peer: &mut Peer, options: &Client, size: u64) -> Result<Measurement> {
    let mut sent = vec![0; usize::try_from(size)?];
    let mut received = sent.clone();
    let storage = peer.alloc(size)?;
    let mut meter = Meter::new(options)?;
    let mut turn = 0;
    pattern(&mut sent, turn);
    while meter.goes_on() {
        if options.verify {
            turn += 1;
            pattern(&mut sent, turn);
        }
        let began = Instant::now();
        peer.put(storage, &sent)?;
        let question = peer.ask(storage, size)?;
        peer.answer(question, &mut received)?;
        meter.done(began);
        if options.verify {
            meter.verify_errors += differences(&sent, &received);
        }
    }
    Ok(meter.finish("lat", size, 1))
}

fn put(peer: &mut Peer, options: &Client, size: u64) -> Result<Measurement> {
    let mut bytes = vec![0; usize::try_from(size)?];
    pattern(&mut bytes, size);
    let mut storages = VecDeque::new();
    for _ in 0..options.batch {
        storages.push_back(peer.alloc(size)?);
    }
    let mut under_way: VecDeque<(Instant, u64)> = VecDeque::new();
    let mut meter = Meter::new(options)?;
    while meter.goes_on() || !under_way.is_empty() {
        if meter.goes_on() && under_way.len() < options.batch as usize {
            let began = Instant::now();
            if let Some(storage) = storages.pop_front() {
                peer.put(storage, &bytes)?;
                storages.push_back(storage);
            }
            under_way.push_back((began, peer.barrier()?));
        } else if let Some((began, question)) = under_way.pop_front() {
            peer.answer(question, &mut [])?;
            meter.done(began);
        }
    }
    if options.verify {
        let mut received = vec![0; bytes.len()];
        for storage in storages {
            let question = peer.ask(storage, size)?;
            peer.answer(question, &mut received)?;
            meter.verify_errors += differences(&bytes, &received);
        }
    }
    Ok(meter.finish("bw_put", size, options.batch))
}

fn get(peer: &mut Peer, options: &Client, size: u64) -> Result<Measurement> {
    let mut bytes = vec![0; usize::try_from(size)?];
    pattern(&mut bytes, size + 1);
    let storage = peer.alloc(size)?;
    peer.put(storage, &bytes)?;
    let mut received = vec![0; bytes.len()];
    let mut under_way: VecDeque<(Instant, u64)> = VecDeque::new();
    let mut meter = Meter::new(options)?;
    while meter.goes_on() || !under_way.is_empty() {
        if meter.goes_on() && under_way.len() < options.batch as usize {
            let began = Instant::now();
            under_way.push_back((began, peer.ask(storage, size)?));
        } else if let Some((began, question)) = under_way.pop_front() {
            peer.answer(question, &mut received)?;
            meter.done(began);
            if options.verify {
                meter.verify_errors += differences(&bytes, &received);
                received.fill(0);
            }
        }
    }
    Ok(meter.finish("bw_get", size, options.batch))
}
