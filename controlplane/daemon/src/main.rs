//! `genie-controlplane`: one door to many nodes. See `--help`.

mod config;
mod explain;
mod fleet;
mod handler;
mod remote;
mod serve;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::{Parser, Subcommand};
use config::Settings;
use genie_server::program::Program;
use genie_server::status::StatusArgs;

const PROGRAM: Program = Program("genie-controlplane");

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
    /// Tells what a program was taken for, of a graph that `genie.export_srg` wrote: exit status 0, or 1
    /// where the file is no graph
    Explain {
        /// The file: JSON if its name ends in .json, else protobuf
        file: PathBuf,
        /// How to tell it
        #[arg(long, value_enum, default_value_t = explain::Format::Text)]
        format: explain::Format,
    },
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
        None => {
            let (file, flags) = (cli.config, cli.settings);
            let read = move || config::read(flags.clone(), file.as_deref());
            PROGRAM.serve(
                Box::new(read),
                |config| &config.log,
                |config, reload| serve::serve(config, reload, started),
            )
        }
        Some(Command::Status(args)) => PROGRAM.status(&args),
        Some(Command::Explain { file, format }) => explain::explain(&file, format),
        Some(Command::Config {
            command: ConfigCommand::Check { file },
        }) => PROGRAM.checked(&file, config::read(Settings::default(), Some(&file))),
    }
}
