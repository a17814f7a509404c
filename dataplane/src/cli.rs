//! The command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use genie_server::status::StatusArgs;

use crate::config::Settings;

/// Serves this machine's accelerators to PyTorch programs elsewhere.
#[derive(Debug, Parser)]
#[command(name = "genie-dataplane", version, subcommand_negates_reqs = true)]
pub struct Cli {
    /// What to do instead of serving.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// A TOML file with the keys of `genie-dataplane.example.toml`
    #[arg(long, env = "GENIE_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Keys on the command line.
    #[command(flatten)]
    pub settings: Settings,
}

/// What to do instead of serving.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Certificates for development
    Certs {
        /// What to do.
        #[command(subcommand)]
        command: CertsCommand,
    },
    /// Prints what a node has and does: exit status 0 when ready, 1 when not, 2 when unreachable
    Status(StatusArgs),
    /// Looks at configuration files
    Config {
        /// What to do.
        #[command(subcommand)]
        command: ConfigCommand,
    },
}

/// `certs`.
#[derive(Debug, Subcommand)]
pub enum CertsCommand {
    /// Makes an authority, a server certificate and a client certificate
    Init {
        /// Where to. Nothing that is there is overwritten
        dir: PathBuf,
        /// A name or address that clients reach the server by, besides loopback; repeat it for more
        #[arg(long = "host", value_name = "NAME")]
        hosts: Vec<String>,
        /// The client's name: whose sessions they are
        #[arg(long, value_name = "NAME", default_value = "client")]
        client: String,
    },
}

/// `config`.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Says what is wrong with a file
    Check {
        /// The file
        file: PathBuf,
    },
}
