//! `genie-dataplane`: see `--help`.

use std::process::ExitCode;
use std::time::Instant;

use clap::Parser as _;
use genie_dataplane::cli::{CertsCommand, Cli, Command, ConfigCommand};
use genie_dataplane::config::{self, Settings};
use genie_dataplane::{certs, daemon};
use genie_server::program::Program;

const PROGRAM: Program = Program("genie-dataplane");

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
                |config, reload| daemon::serve(config, reload, started),
            )
        }
        Some(Command::Status(args)) => PROGRAM.status(&args),
        Some(Command::Certs {
            command: CertsCommand::Init { dir, hosts, client },
        }) => match certs::init(&dir, &hosts, &client) {
            Ok(()) => {
                println!("{}", certs::describe(&dir));
                ExitCode::SUCCESS
            }
            Err(error) => PROGRAM.refuse(&error),
        },
        Some(Command::Config {
            command: ConfigCommand::Check { file },
        }) => PROGRAM.checked(&file, config::read(Settings::default(), Some(&file))),
    }
}
