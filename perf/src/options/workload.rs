//! Options of `workload`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::workload::link::{Shape, parse};

/// What programs do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// Language models decode: a token at a time, with a cache that grows.
    Llm,
}

/// Options of `workload`.
#[derive(Debug, Args)]
pub struct Workload {
    /// What to run.
    pub kind: Kind,
    /// Policies, with commas between them; each is measured in its turn.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "single,random,blind,locality,semantic"
    )]
    pub policy: Vec<String>,
    /// Nodes of one thread each, which are started on this machine.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=16))]
    pub nodes: u16,
    /// Programs that run at once, with commas between numbers.
    #[arg(long, value_delimiter = ',', default_value = "1,2", value_parser = clap::value_parser!(u16).range(1..=16))]
    pub clients: Vec<u16>,
    /// What carries values and records.
    #[arg(long, default_value = "tcp", value_parser = ["tcp"])]
    pub link: String,
    /// Put an emulated link before each node: rate=10gbit,delay=50us. Its figures are called emulated.
    #[arg(long, value_name = "SHAPE", value_parser = parse)]
    pub emulate: Option<Shape>,
    /// Models: gpt2 (small, 12 layers of width 768), llama (12 layers of width 768, 4 key-value heads of
    /// 12), or gpt2-tiny and llama-tiny to try it. Weights are random.
    #[arg(long, value_delimiter = ',', default_value = "gpt2,llama",
          value_parser = ["gpt2", "llama", "gpt2-tiny", "llama-tiny"])]
    pub model: Vec<String>,
    /// Tokens in the cache when decoding is measured, with commas between numbers.
    #[arg(long, value_delimiter = ',', default_value = "128,1024,2048", value_name = "TOKENS",
          value_parser = clap::value_parser!(u32).range(64..=32768))]
    pub context: Vec<u32>,
    /// Tokens that are measured.
    #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub tokens: u32,
    /// The Python of the programs; it has genie, torch and transformers.
    #[arg(long, default_value = "python3", value_name = "FILE")]
    pub python: PathBuf,
    /// The nodes' program. Default: genie-dataplane beside this one.
    #[arg(long, value_name = "FILE")]
    pub dataplane: Option<PathBuf>,
    /// Write the results as JSON to FILE, or to standard output for `-` (then no table).
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}
