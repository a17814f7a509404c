//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Measures Genie's data path.
#[derive(Debug, Parser)]
#[command(version, about, long_about = None)]
pub struct Options {
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Measure against a node that runs (genie-dataplane).
    Client(Client),
}

/// What to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Test {
    /// A message written to the node's memory and read back, one at a time, through the session's
    /// executor.
    Lat,
    /// Transfers to the node, and from the node, as many bytes as possible.
    Bw,
}

/// Options of `client`.
#[derive(Debug, Args)]
pub struct Client {
    /// The node, HOST:PORT.
    pub address: String,
    /// What to measure.
    #[arg(value_enum)]
    pub test: Test,
    /// Sizes of a message or transfer, with KiB, MiB or GiB: a list. Default: 64 bytes for lat,
    /// 1 MiB and 64 MiB for bw.
    #[arg(long, value_delimiter = ',', value_parser = parse_size)]
    pub size: Vec<u64>,
    /// Seconds to measure each size.
    #[arg(long, default_value = "2", value_parser = parse_seconds)]
    pub time: Duration,
    /// Seconds before that, not counted.
    #[arg(long, default_value = "0.3", value_parser = parse_seconds)]
    pub warmup: Duration,
    /// Transfers under way at a time (bw).
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub batch: u32,
    /// Compare every byte that comes back; exit status 1 on a difference.
    #[arg(long)]
    pub verify: bool,
    /// Write the results as JSON to FILE, or to standard output for `-` (then no table).
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// The authority's certificate (TLS).
    #[arg(long, env = "GENIE_CA")]
    pub ca: Option<String>,
    /// This client's certificate (TLS).
    #[arg(long, env = "GENIE_CERT")]
    pub cert: Option<String>,
    /// Its key (TLS).
    #[arg(long, env = "GENIE_KEY")]
    pub key: Option<String>,
}

/// Largest message or transfer.
const SIZE_MAX: u64 = 4 << 30;

fn parse_size(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let scale = match text[digits.len()..].trim() {
        "" | "B" => 1,
        "KiB" | "K" | "k" => 1 << 10,
        "MiB" | "M" => 1 << 20,
        "GiB" | "G" => 1 << 30,
        other => return Err(format!("unknown unit {other:?}: use KiB, MiB or GiB")),
    };
    let count: u64 = digits
        .parse()
        .map_err(|_| format!("{text:?} is not a size"))?;
    count
        .checked_mul(scale)
        .filter(|bytes| (1..=SIZE_MAX).contains(bytes))
        .ok_or_else(|| format!("{text:?} is not between 1 byte and 4 GiB"))
}

fn parse_seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text
        .parse()
        .map_err(|_| format!("{text:?} is not a number of seconds"))?;
    if !(0.0..=3600.0).contains(&seconds) {
        return Err(format!("{text:?} is not between 0 and 3600 seconds"));
    }
    Ok(Duration::from_secs_f64(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_parse() {
        assert_eq!(parse_size("64"), Ok(64));
        assert_eq!(parse_size("64KiB"), Ok(64 << 10));
        assert_eq!(parse_size("4 MiB"), Ok(4 << 20));
        for bad in ["", "x", "0", "5TiB", "8GiB", "-1"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Options::command().debug_assert();
    }
}
