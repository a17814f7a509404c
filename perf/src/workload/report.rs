//! What came of a workload: a line a case, as a table and as JSON.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

use super::program::Done;
use super::{Case, has_cores};
use crate::machine;
use crate::options::workload::Workload;
use crate::report::Host;

/// What each policy does, so that nobody has to guess what was compared.
const RULES: [(&str, &str); 5] = [
    ("single", "everything on the first node"),
    (
        "random",
        "each operator and each upload on a node drawn by lot, by a seed",
    ),
    (
        "blind",
        "each segment on the node that computed least in the last second, as nodes said at most 0.1 s \
         before; differences under 1 ms are ties, and ties stay; what was copied to a node stays there \
         until it is written, so weights are where they have been",
    ),
    (
        "locality",
        "each operator where most of the bytes lie that it writes, then of those that it reads; weights \
         fill one node to 80%, then the next",
    ),
    (
        "semantic",
        "state that returns in every step (a cache that grows or is written row by row) stays where it \
         is, and what uses it runs there, by plans made from the graph; else as locality; a session \
         begins on the node that has least to do",
    ),
];

/// A distribution.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Latency {
    /// Half are faster.
    pub p50: f64,
    /// One in twenty is slower.
    pub p95: f64,
}

/// What came of a case.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// Always `llm`.
    pub workload: &'static str,
    /// Which model.
    pub model: String,
    /// How it was placed.
    pub policy: String,
    /// Programs at once.
    pub clients: usize,
    /// Tokens in each cache when it was measured.
    pub context_tokens: usize,
    /// Tokens that were measured, of all programs.
    pub tokens: usize,
    /// Bytes on all links.
    pub bytes_total: u64,
    /// By link: from node to node, and between all programs and all nodes.
    pub bytes_by_link: BTreeMap<String, u64>,
    /// Values from node to node.
    pub transfers: u64,
    /// Answers that programs waited for.
    pub round_trips: u64,
    /// Segments that a plan placed from end to end.
    pub placement_hits: u64,
    /// Of a token, in milliseconds.
    pub latency_ms: Latency,
    /// Tokens a second, of all programs.
    pub throughput_per_s: f64,
    /// Tokens a second in `generate`, with a cache of 32 tokens.
    pub generate_per_s: f64,
    /// Every token was that of one device.
    pub same_result: bool,
}

impl Outcome {
    /// Of what programs did.
    pub fn new(case: &Case, done: &[Done], same_result: bool) -> Self {
        let mut bytes_by_link = BTreeMap::new();
        for (link, bytes) in done.iter().flat_map(|one| &one.links) {
            *bytes_by_link.entry(link.clone()).or_default() += bytes;
        }
        let mut times: Vec<f64> = done.iter().flat_map(|one| one.latency_ms.clone()).collect();
        times.sort_by(f64::total_cmp);
        let tokens = times.len();
        let at = |share: f64| {
            let index = (share * tokens as f64) as usize;
            times
                .get(index.min(tokens.saturating_sub(1)))
                .copied()
                .unwrap_or(f64::NAN)
        };
        let longest = |of: fn(&Done) -> f64| done.iter().map(of).fold(0.0, f64::max);
        let generated: usize = done
            .iter()
            .map(|one| one.generated.len().saturating_sub(32))
            .sum();
        Self {
            workload: "llm",
            model: case.model.clone(),
            policy: case.policy.clone(),
            clients: case.clients,
            context_tokens: case.context,
            tokens,
            bytes_total: bytes_by_link.values().sum(),
            bytes_by_link,
            transfers: done.iter().map(|one| one.transfers).sum(),
            round_trips: done.iter().map(|one| one.round_trips).sum(),
            placement_hits: done.iter().map(|one| one.placement_hits).sum(),
            latency_ms: Latency {
                p50: at(0.5),
                p95: at(0.95),
            },
            throughput_per_s: tokens as f64 / longest(|one| one.seconds),
            generate_per_s: generated as f64 / longest(|one| one.generate_seconds),
            same_result,
        }
    }
}

#[derive(Debug, Serialize)]
struct Emulated {
    rate_bits_per_s: f64,
    delay_us: f64,
}

/// All cases.
#[derive(Debug, Serialize)]
pub struct Report {
    genie_perf: &'static str,
    host: Host,
    nodes: u16,
    /// Each on a core of its own; else they share what cores there are.
    cores_apart: bool,
    link: String,
    /// The links of these figures are no cables: what passed was slowed down so.
    emulated: Option<Emulated>,
    /// What each policy does.
    rules: BTreeMap<&'static str, &'static str>,
    results: Vec<Outcome>,
}

impl Report {
    /// Without a case.
    pub fn new(options: &Workload) -> Self {
        let kind = |policy: &String| policy.split(':').next().unwrap_or_default().to_owned();
        let used: Vec<String> = options.policy.iter().map(kind).collect();
        let is_used = |(name, _): &(&str, &str)| used.iter().any(|one| one == name);
        Self {
            genie_perf: env!("CARGO_PKG_VERSION"),
            host: machine::host(),
            nodes: options.nodes,
            cores_apart: has_cores(options),
            link: options.link.clone(),
            emulated: options.emulate.map(|shape| Emulated {
                rate_bits_per_s: shape.rate,
                delay_us: shape.delay.as_secs_f64() * 1e6,
            }),
            rules: RULES.into_iter().filter(is_used).collect(),
            results: Vec::new(),
        }
    }

    /// One more.
    pub fn add(&mut self, outcome: Outcome) {
        self.results.push(outcome);
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.results.is_empty()
    }

    /// Whether every result was the same.
    pub fn is_right(&self) -> bool {
        self.results.iter().all(|result| result.same_result)
    }

    /// To a file, to standard output as JSON for `-`, or as a table.
    ///
    /// # Errors
    /// The file's.
    pub fn write(&self, json: Option<&Path>) -> Result<()> {
        let text = || serde_json::to_string_pretty(self).context("no JSON");
        match json {
            Some(path) if path == Path::new("-") => println!("{}", text()?),
            Some(path) => {
                std::fs::write(path, text()?)
                    .with_context(|| format!("can't write {}", path.display()))?;
                print!("{}", self.table());
            }
            None => print!("{}", self.table()),
        }
        Ok(())
    }

    fn table(&self) -> String {
        let links = match &self.emulated {
            Some(emulated) => format!(
                "EMULATED links of {:.3} Gbit/s and {:.0} us",
                emulated.rate_bits_per_s / 1e9,
                emulated.delay_us
            ),
            None => format!("{} over loopback", self.link),
        };
        let cores = match self.cores_apart {
            true => "each on a core of its own",
            false => "which share fewer cores",
        };
        let mut out = format!("{} nodes of one thread, {cores}, {links}\n\n", self.nodes);
        out += "model       context programs policy         KiB a token   transfers    p50 ms    \
                p95 ms  tokens/s  same\n";
        for result in &self.results {
            let tokens = result.tokens.max(1) as f64;
            out += &format!(
                "{:11} {:7} {:8} {:12} {:13.1} {:11.1} {:9.1} {:9.1} {:9.1}  {}\n",
                result.model,
                result.context_tokens,
                result.clients,
                result.policy,
                result.bytes_total as f64 / 1024.0 / tokens,
                result.transfers as f64 / tokens,
                result.latency_ms.p50,
                result.latency_ms.p95,
                result.throughput_per_s,
                if result.same_result { "yes" } else { "NO" },
            );
        }
        out += "\n";
        for (policy, rule) in &self.rules {
            out += &format!("{policy}: {rule}\n");
        }
        out
    }
}
