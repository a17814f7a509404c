//! Why memory is not of huge pages, and what to do about it.

use std::path::PathBuf;
use std::time::Duration;

use nix::errno::Errno;

use crate::numa::NodeId;
use crate::page::{ByteSize, PageSize};
use crate::root::FindError;

/// Why there are no huge pages.
#[derive(Debug, thiserror::Error)]
pub enum NoHugePages {
    /// What is there can't be told.
    #[error(transparent)]
    Find(#[from] FindError),
    /// The kernel has none.
    #[error("{path}: no huge pages in this kernel; boot one with CONFIG_HUGETLBFS")]
    NotSupported {
        /// Where they would be.
        path: PathBuf,
    },
    /// Not of this size.
    #[error("{path}: no pages of {page} on this machine; `genie-hugepages status` lists the sizes")]
    NoSuchPage {
        /// Where they would be.
        path: PathBuf,
        /// The size asked for.
        page: PageSize,
    },
    /// No such node.
    #[error("{path}: there is no node {node}; `genie-hugepages status` lists them")]
    NoSuchNode {
        /// Where it would be.
        path: PathBuf,
        /// The node asked for.
        node: NodeId,
    },
    /// Too few are free.
    #[error(
        "{path}: {needed} pages of {page} are needed and {free} are free; \
         as root: genie-hugepages reserve {}{}",
        size_of(*.needed, *.page), on_node(*.node)
    )]
    TooFew {
        /// The pool.
        path: PathBuf,
        /// The size of each page.
        page: PageSize,
        /// The node asked for.
        node: Option<NodeId>,
        /// How many are needed.
        needed: u64,
        /// How many are free.
        free: u64,
    },
    /// They are there, and do not come in time.
    #[error(
        "{needed} pages of {page}: only {came} were cleared within {time:?}; this machine is busy, \
         or its host gives it memory slowly"
    )]
    Slow {
        /// How many are needed.
        needed: u64,
        /// The size of each page.
        page: PageSize,
        /// How many came.
        came: u64,
        /// The time that there was.
        time: Duration,
    },
    /// The folder is no hugetlbfs with pages of this size.
    #[error(
        "{path}: not a writable hugetlbfs with pages of {page}; \
         as root: mount -t hugetlbfs -o pagesize={size} none {path}",
        size = .page.kernel_name()
    )]
    NotMounted {
        /// The folder.
        path: PathBuf,
        /// The size asked for.
        page: PageSize,
    },
    /// The kernel refused.
    #[error(
        "{needed} pages of {page}: {call} failed: {errno}; look at `genie-hugepages status`, \
         and at the limits of this cgroup (hugetlb.*.max) and of its seccomp filter"
    )]
    Refused {
        /// How many are needed.
        needed: u64,
        /// The size of each page.
        page: PageSize,
        /// The call.
        call: &'static str,
        /// What it said.
        errno: Errno,
    },
}

fn size_of(pages: u64, page: PageSize) -> String {
    let size = ByteSize::new(pages.saturating_mul(page.bytes()));
    size.map_or_else(String::new, |size| format!("{size} --page {page}"))
}

fn on_node(node: Option<NodeId>) -> String {
    node.map_or_else(String::new, |node| format!(" --node {node}"))
}
