//! `genie-gpu-check`: whether a device does all that Genie asks of it, as a report in JSON.
//!
//! Exit status: 0 all passed (or were skipped, unless told otherwise), 1 something failed, 77 there
//! is no such device.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Parser;
use genie_direct::gpu_check::{self, Options, Status};
use genie_gpudev::DeviceKind;
use genie_gpudev::device::DeviceError;

/// The exit status of a test that can't run here.
const ABSENT: u8 = 77;

/// Checks copies, pools, the gather kernel, registration in DPDK's gpudev and both receive paths.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The device: host:N or cuda:N.
    #[arg(long, default_value = "cuda:0")]
    device: DeviceKind,
    /// Where the report goes; - for standard output.
    #[arg(long, default_value = "-")]
    json: PathBuf,
    /// A folder with DPDK's drivers, where they are not where DPDK was built for.
    #[arg(long)]
    dpdk_drivers: Option<PathBuf>,
    /// A check that is skipped, for want of DPDK say, is a failure.
    #[arg(long)]
    require_all: bool,
    /// Milliseconds for each measurement.
    #[arg(long, default_value_t = 1000)]
    time_ms: u64,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::WARN)
        .with_writer(std::io::stderr)
        .init();
    match check(&arguments) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("genie-gpu-check: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn check(arguments: &Arguments) -> Result<ExitCode> {
    let options = Options {
        device: arguments.device,
        drivers: arguments.dpdk_drivers.clone(),
        time: Duration::from_millis(arguments.time_ms),
    };
    let report = match gpu_check::run(&options) {
        Ok(report) => report,
        Err(error @ DeviceError::Absent { .. }) => {
            eprintln!("genie-gpu-check: {error}");
            return Ok(ExitCode::from(ABSENT));
        }
        Err(error) => return Err(error.into()),
    };
    for check in &report.checks {
        let status = match check.status {
            Status::Passed => "passed",
            Status::Failed => "FAILED",
            Status::Skipped => "skipped",
        };
        let reason = check.reason.as_deref().unwrap_or_default();
        eprintln!(
            "{status:8} {:20} {:6.2} s  {reason}",
            check.name, check.seconds
        );
    }
    let text = serde_json::to_string_pretty(&report)? + "\n";
    if arguments.json.as_os_str() == "-" {
        print!("{text}");
    } else {
        let place = arguments.json.display();
        std::fs::write(&arguments.json, text).with_context(|| format!("writing {place}"))?;
    }
    let bad = report.any(Status::Failed) || arguments.require_all && report.any(Status::Skipped);
    Ok(if bad {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}
