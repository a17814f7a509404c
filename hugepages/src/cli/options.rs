//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use genie_hugepages::{ByteSize, NodeId, PageSize};

/// Finds and reserves huge pages: memory that network cards and accelerators may reach.
#[derive(Debug, Parser)]
#[command(name = "genie-hugepages", version)]
pub struct Options {
    /// Reads and writes `sys` and `proc` below this folder instead of `/` (for tests)
    #[arg(long, global = true, hide = true, value_name = "FOLDER")]
    pub root: Option<PathBuf>,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Shows pages by node and size, mounts, and what a 1 GiB pool still needs
    Status(Status),
    /// Makes sure that so much memory is free on huge pages, and says how to keep it
    ///
    /// Pages that are free already count. Exit status: 0 all is there; 1 not all of it could be
    /// had; 2 usage, permission, or no such node or page size.
    Reserve(Reserve),
}

#[derive(Debug, Args)]
pub struct Status {
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct Reserve {
    /// How much is to be free, as 512MiB or 2GiB
    pub size: ByteSize,
    /// The size of each page, as 2MiB or 1GiB; the kernel's default if not given
    #[arg(long)]
    pub page: Option<PageSize>,
    /// On this NUMA node; spread over all if not given
    #[arg(long, value_parser = node)]
    pub node: Option<NodeId>,
    /// Says what would be done and changes nothing
    #[arg(long)]
    pub dry_run: bool,
}

fn node(text: &str) -> Result<NodeId, String> {
    let number = text.parse().ok();
    number
        .and_then(NodeId::new)
        .ok_or_else(|| format!("a node is a number from 0 to {}", NodeId::COUNT_MAX - 1))
}
