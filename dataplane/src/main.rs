//! `genie-dataplane`: see `--help`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser as _;
use genie_dataplane::cli::{CertsCommand, Cli, Command, ConfigCommand};
use genie_dataplane::config::{Config, ConfigError, Settings};
use genie_dataplane::daemon::Reload;
use genie_dataplane::{certs, daemon};
use genie_server::logging::Log;
use genie_server::status;

/// Exit status where nothing was started.
const REFUSED: u8 = 2;
/// How long what was logged has to leave at the end.
const LAST_LINES: Duration = Duration::from_millis(300);
/// Threads of the control side. The data path has its own.
const WORKERS: usize = 2;
/// Threads for analysis and for starting executors.
const BLOCKING_MAX: usize = 4;

fn main() -> ExitCode {
    let started = Instant::now();
    let cli = Cli::parse();
    match cli.command {
        None => serve(cli.config, cli.settings, started),
        Some(Command::Status(args)) => match runtime(1) {
            Ok(runtime) => runtime.block_on(status::run(&args)),
            Err(error) => refuse(&error),
        },
        Some(Command::Certs {
            command: CertsCommand::Init { dir, hosts, client },
        }) => match certs::init(&dir, &hosts, &client) {
            Ok(()) => {
                println!("{}", certs::describe(&dir));
                ExitCode::SUCCESS
            }
            Err(error) => refuse(&error),
        },
        Some(Command::Config {
            command: ConfigCommand::Check { file },
        }) => match layers(Some(&file), &Settings::default()).and_then(Settings::into_config) {
            Ok(_) => {
                println!("{}: fine", file.display());
                ExitCode::SUCCESS
            }
            Err(error) => refuse(&error),
        },
    }
}

fn layers(file: Option<&Path>, flags: &Settings) -> Result<Settings, ConfigError> {
    Ok(flags.clone().over_file(file)?)
}

fn serve(file: Option<PathBuf>, flags: Settings, started: Instant) -> ExitCode {
    let read = layers(file.as_deref(), &flags)
        .and_then(|settings| Ok((settings.clone(), settings.into_config()?)));
    let (settings, config) = match read {
        Ok(read) => read,
        Err(error) => return refuse(&error),
    };
    let log = match Log::start("genie-dataplane", &config.log) {
        Ok(log) => log,
        Err(error) => return refuse(&error),
    };
    let reload = Reload {
        read: Box::new(move || layers(file.as_deref(), &flags)),
        settings,
        log: log.control(),
    };
    let code = run(config, reload, started);
    log.finish(LAST_LINES);
    code
}

fn run(config: Config, reload: Reload, started: Instant) -> ExitCode {
    let runtime = match runtime(WORKERS) {
        Ok(runtime) => runtime,
        Err(error) => return refuse(&error),
    };
    let ended = runtime.block_on(daemon::serve(config, reload, started));
    // Nothing that still runs is worth waiting for.
    runtime.shutdown_background();
    ended.unwrap_or_else(|error| refuse(&error))
}

fn runtime(workers: usize) -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers)
        .max_blocking_threads(BLOCKING_MAX)
        .thread_name("control")
        .enable_all()
        .build()
}

fn refuse(error: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("genie-dataplane: {error}");
    ExitCode::from(REFUSED)
}
