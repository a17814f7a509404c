//! `genie-controlplane explain`: what a graph in a file says.

use std::io::{ErrorKind, Read as _, Write as _};
use std::path::Path;
use std::process::ExitCode;

use clap::ValueEnum;
use genie_analysis::explain::Explanation;
use genie_srg::{ValidSrg, decode_json, decode_protobuf, limits};

/// How to tell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// To read
    Text,
    /// For tools
    Json,
    /// A page to look at
    Html,
}

/// Prints what the graph in `file` says.
pub fn explain(file: &Path, format: Format) -> ExitCode {
    let said = read(file).and_then(|srg| {
        let explanation = Explanation::of(srg.as_srg());
        Ok(match format {
            Format::Text => explanation.to_string(),
            Format::Json => {
                serde_json::to_string(&explanation).map_err(|error| error.to_string())?
            }
            Format::Html => explanation.page(),
        })
    });
    match said {
        Ok(text) => match std::io::stdout().write_all(text.as_bytes()) {
            Err(error) if error.kind() != ErrorKind::BrokenPipe => failed(file, &error.to_string()),
            _ => ExitCode::SUCCESS,
        },
        Err(error) => failed(file, &error),
    }
}

#[allow(clippy::print_stderr, reason = "a command says why it failed")]
fn failed(file: &Path, why: &str) -> ExitCode {
    eprintln!("genie-controlplane: {}: {why}", file.display());
    ExitCode::FAILURE
}

fn read(file: &Path) -> Result<ValidSrg, String> {
    let most = limits::MAX_PROTOBUF_BYTES.max(limits::MAX_JSON_BYTES) as u64;
    let opened = std::fs::File::open(file).map_err(|error| error.to_string())?;
    let mut bytes = Vec::new();
    let mut opened = opened.take(most + 1);
    opened
        .read_to_end(&mut bytes)
        .map_err(|error| error.to_string())?;
    let is_json = file
        .extension()
        .is_some_and(|extension| extension == "json");
    let srg = match is_json {
        true => decode_json(&bytes),
        false => decode_protobuf(&bytes),
    };
    srg.map_err(|error| format!("{error} (genie.export_srg writes what this reads)"))
}
