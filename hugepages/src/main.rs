//! `genie-hugepages`: what huge pages there are, and more of them.
//!
//! Exit status: 0 done; 1 not all pages could be had; 2 usage, permission, or no such node or
//! page size.

mod cli {
    pub mod options;
    pub mod reserve;
    pub mod status;
}

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::Parser;
use genie_hugepages::Root;

use crate::cli::options::{Command, Options};

/// What a command wants said, and its exit status.
struct Outcome {
    text: String,
    status: u8,
}

/// An error of either command, as a person will read it.
type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    let options = Options::parse();
    let root = options.root.map_or_else(Root::system, Root::at);
    let outcome = match options.command {
        Command::Status(status) => cli::status::run(&root, &status),
        Command::Reserve(reserve) => cli::reserve::run(&root, &reserve),
    };
    match outcome {
        Ok(Outcome { text, status }) => match io::stdout().write_all(text.as_bytes()) {
            // A reader such as `head` that has seen enough is no failure.
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => fail(&error),
            _ => ExitCode::from(status),
        },
        Err(error) => fail(error.as_ref()),
    }
}

fn fail(error: &dyn std::error::Error) -> ExitCode {
    let mut line = format!("genie-hugepages: {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        // A String takes any text.
        let _ = write!(line, ": {error}");
        cause = error.source();
    }
    // Where nobody listens there is nobody to tell.
    let _ = writeln!(io::stderr(), "{line}");
    ExitCode::from(2)
}
