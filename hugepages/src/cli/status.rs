//! `genie-hugepages status`.

use std::fmt::Write as _;

use genie_hugepages::{ByteSize, HugeMount, Inventory, NodeId, Pool, Root};
use serde::Serialize;

use super::options::Status;
use crate::{Failure, Outcome};

/// The pool that Genie's dataplane likes to have.
const WANTED: ByteSize = ByteSize::GIB;

/// The JSON: `schema_version` grows when a field changes its meaning or goes.
#[derive(Debug, Serialize)]
struct Report {
    schema_version: u32,
    /// None if the kernel has no huge pages.
    default_page_bytes: Option<u64>,
    /// By node and page size.
    pools: Vec<PoolReport>,
    mounts: Vec<MountReport>,
}

#[derive(Debug, Serialize)]
struct PoolReport {
    /// None on a kernel without NUMA.
    node: Option<u16>,
    page_bytes: u64,
    total_pages: u64,
    free_pages: u64,
    surplus_pages: u64,
    /// What this pool lacks to hold 1 GiB by itself.
    missing_pages_for_1gib: u64,
}

#[derive(Debug, Serialize)]
struct MountReport {
    path: String,
    page_bytes: Option<u64>,
    read_only: bool,
}

pub fn run(root: &Root, options: &Status) -> Result<Outcome, Failure> {
    let found = Inventory::read(root)?;
    let text = match options.json {
        true => serde_json::to_string_pretty(&report(&found))? + "\n",
        false => table(&found)?,
    };
    Ok(Outcome { text, status: 0 })
}

fn report(found: &Inventory) -> Report {
    let pool = |pool: &Pool| PoolReport {
        node: pool.node.map(NodeId::number),
        page_bytes: pool.page.bytes(),
        total_pages: pool.total,
        free_pages: pool.free,
        surplus_pages: pool.surplus,
        missing_pages_for_1gib: found.missing(pool.page, pool.node, WANTED),
    };
    let mount = |mount: &HugeMount| MountReport {
        path: mount.path.to_string_lossy().into_owned(),
        page_bytes: mount.page.map(|page| page.bytes()),
        read_only: mount.read_only,
    };
    Report {
        schema_version: 1,
        default_page_bytes: found.default_page.map(|page| page.bytes()),
        pools: found.pools.iter().map(pool).collect(),
        mounts: found.mounts.iter().map(mount).collect(),
    }
}

fn table(found: &Inventory) -> Result<String, std::fmt::Error> {
    let mut text = String::new();
    if found.sizes.is_empty() {
        writeln!(text, "This kernel has no huge pages (CONFIG_HUGETLBFS).")?;
        return Ok(text);
    }
    writeln!(
        text,
        "{:<5} {:>7} {:>9} {:>9}  for a {WANTED} pool",
        "node", "page", "total", "free"
    )?;
    for pool in &found.pools {
        let node = pool.node.map_or("-".to_owned(), |node| node.to_string());
        let missing = match found.missing(pool.page, pool.node, WANTED) {
            0 => "enough".to_owned(),
            missing => format!("{missing} missing"),
        };
        writeln!(
            text,
            "{node:<5} {:>7} {:>9} {:>9}  {missing}",
            pool.page, pool.total, pool.free
        )?;
    }
    writeln!(text)?;
    for mount in &found.mounts {
        let page = mount.page.map_or("?".to_owned(), |page| page.to_string());
        let access = if mount.read_only { ", read-only" } else { "" };
        writeln!(
            text,
            "mount: {} (pages of {page}{access})",
            mount.path.display()
        )?;
    }
    if found.mounts.is_empty() {
        writeln!(text, "mounts: none; Genie needs none")?;
    }
    let enough = |size: &genie_hugepages::SizeTotals| found.missing(size.page, None, WANTED) == 0;
    if let Some(size) = found.sizes.iter().find(|size| enough(size)) {
        writeln!(text, "A {WANTED} pool fits on pages of {}.", size.page)?;
    } else {
        for size in &found.sizes {
            let (page, missing) = (size.page, found.missing(size.page, None, WANTED));
            let plural = if missing == 1 { "" } else { "s" };
            writeln!(
                text,
                "A {WANTED} pool misses {missing} page{plural} of {page}; as root: \
                 genie-hugepages reserve {WANTED} --page {page}"
            )?;
        }
    }
    Ok(text)
}
