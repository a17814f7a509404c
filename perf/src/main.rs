//! `genie-perf`: measures Genie's data path.

mod bare;
mod client;
mod control;
mod device;
mod dpdk;
mod ending;
mod hex;
mod interrupt;
mod local;
mod machine;
mod measure;
mod memory;
mod meter;
mod netns;
mod node;
mod options;
mod path;
mod pattern;
mod pool;
mod report;
mod run;
mod serve;
mod server;
mod shm;
mod spin;
mod staged;
mod tcp;
mod way;
mod workload;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

use crate::options::{Command, Options, Output};
use crate::report::Report;

/// Measured, and bytes differed.
const WRONG: u8 = 1;
/// Not measured: bad usage, or nobody there. What clap exits with, too.
const FAILED: u8 = 2;

fn main() -> ExitCode {
    match run(&Options::parse().command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            eprintln!("genie-perf: {}", wrong(&Options::parse().command));
            ExitCode::from(WRONG)
        }
        Err(error) => {
            eprintln!("genie-perf: {}", causes(&error));
            ExitCode::from(FAILED)
        }
    }
}

/// What differed.
fn wrong(command: &Command) -> &'static str {
    match command {
        Command::Workload(_) => "a program's results were not those of one device",
        _ => "bytes came back other than they went",
    }
}

/// Whether nothing differed.
fn run(command: &Command) -> Result<bool> {
    interrupt::listen()?;
    match command {
        Command::Server(options) => server::run(options).map(|()| true),
        Command::End(options) => local::run_child(options).map(|()| true),
        Command::Client(options) => write(&client::run(options)?, &options.how.output),
        Command::Local(options) => write(&local::run(options)?, &options.how.output),
        Command::BareTcp(options) => write(&bare::run(&options.how)?, &options.how.output),
        Command::Pool(options) => write(&pool::run(options)?, &options.output),
        Command::Device(options) => write(&device::run(options)?, &options.output),
        Command::Workload(options) => workload::run(options),
    }
}

/// An error and its causes, each once: some say their cause's words themselves.
fn causes(error: &anyhow::Error) -> String {
    let mut said = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if said.contains(&cause) {
            continue;
        }
        if !said.is_empty() {
            said += ": ";
        }
        said += &cause;
    }
    said
}

fn write(report: &Report, output: &Output) -> Result<bool> {
    report.write(output)?;
    Ok(report.is_right())
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[test]
    fn causes_are_told_once() {
        let error = anyhow!("no such file").context("no gateway: no such file");
        assert_eq!(
            causes(&error.context("nobody answers")),
            "nobody answers: no gateway: no such file"
        );
        assert_eq!(causes(&anyhow!("a").context("b")), "b: a");
    }
}
