//! The client's log, on standard error: nothing unless `GENIE_LOG` asks for it.

use std::io::IsTerminal as _;

use genie_client::engine::Host as _;
use genie_recorder::log_filter;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::host::Python;

/// Starts it, once a process.
pub fn start() {
    let Ok(text) = std::env::var("GENIE_LOG") else {
        return;
    };
    let found = log_filter::parse(&text);
    if !found.unknown.is_empty() {
        Python.warn(&log_filter::complaint(&found.unknown));
    }
    let levels = found.levels.iter();
    let targets: Targets = levels
        .map(|(name, level)| (*name, level.parse().unwrap_or(LevelFilter::OFF)))
        .collect();
    let lines = tracing_subscriber::fmt::layer()
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    // Somebody has set another, and has the lines.
    let _ = tracing_subscriber::registry()
        .with(targets)
        .with(lines)
        .try_init();
}
