//! `genie-controlplane`: one door to many nodes. See `--help`.

mod config;
mod fleet;
mod handler;
mod remote;
mod serve;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Parser, Subcommand};
use config::{ConfigError, Settings};
use genie_server::logging::Log;
use genie_server::status::{self, StatusArgs};
use serve::Reload;

/// Exit status where nothing was started.
const REFUSED: u8 = 2;
/// How long what was logged has to leave at the end.
const LAST_LINES: Duration = Duration::from_millis(300);
const WORKERS: usize = 2;
/// Threads for analysis.
const BLOCKING_MAX: usize = 4;

/// One door to many nodes: lets clients in, and says where their programs run. Tensors go between
/// clients and nodes, never through it
#[derive(Debug, Parser)]
#[command(name = "genie-controlplane", version, subcommand_negates_reqs = true)]
struct Cli {
    /// What to do instead of serving.
    #[command(subcommand)]
    command: Option<Command>,
    /// A TOML file with the keys of `genie-controlplane.example.toml`
    #[arg(long, env = "GENIE_CONTROLPLANE_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Keys on the command line.
    #[command(flatten)]
    settings: Settings,
}

/// What to do instead of serving.
#[derive(Debug, Subcommand)]
enum Command {
    /// Prints its nodes and sessions: exit status 0 when a node is there, 1 when none is, 2 when it
    /// is unreachable itself
    Status(StatusArgs),
    /// Looks at configuration files
    Config {
        /// What to do.
        #[command(subcommand)]
        command: ConfigCommand,
    },
}

/// `config`.
#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Says what is wrong with a file
    Check {
        /// The file
        file: PathBuf,
    },
}

fn main() -> ExitCode {
    let started = Instant::now();
    let cli = Cli::parse();
    match cli.command {
        None => serve(cli.config, cli.settings, started),
        Some(Command::Status(args)) => match runtime(1) {
            Ok(runtime) => runtime.block_on(status::run(&args)),
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
    let log = match Log::start("genie-controlplane", &config.log) {
        Ok(log) => log,
        Err(error) => return refuse(&error),
    };
    let reload = Reload {
        read: Box::new(move || layers(file.as_deref(), &flags)),
        settings,
        log: log.control(),
    };
    let code = match runtime(WORKERS) {
        Ok(runtime) => {
            let ended = runtime.block_on(serve::serve(config, reload, started));
            // Nothing that still runs is worth waiting for.
            runtime.shutdown_background();
            ended.unwrap_or_else(|error| refuse(&error))
        }
        Err(error) => refuse(&error),
    };
    log.finish(LAST_LINES);
    code
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
    eprintln!("genie-controlplane: {error}");
    ExitCode::from(REFUSED)
}
