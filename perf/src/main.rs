//! `genie-perf`: measures Genie's data path.

mod measure;
mod options;
mod peer;
mod report;

use std::io::Write;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;

use crate::options::{Command, Options};

fn main() -> ExitCode {
    let Options {
        command: Command::Client(options),
    } = Options::parse();
    match run(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            eprintln!("genie-perf: bytes came back other than they went");
            ExitCode::from(1)
        }
        Err(error) => {
            eprintln!("genie-perf: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(options: &options::Client) -> Result<bool> {
    let report = measure::run(options)?;
    let json = serde_json::to_string_pretty(&report)?;
    match options.json.as_deref() {
        Some(path) if path.as_os_str() == "-" => writeln!(std::io::stdout(), "{json}")?,
        Some(path) => {
            std::fs::write(path, json).with_context(|| format!("{}", path.display()))?;
            print!("{}", report.table());
        }
        None => print!("{}", report.table()),
    }
    Ok(report.results.iter().all(|one| one.verify_errors == 0))
}
