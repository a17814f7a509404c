//! What is there: page sizes, pages on each node, mounts.
//!
//! After `admin-guide/mm/hugetlbpage.rst`. Read anew at each call: other programs change it.

use std::io;
use std::path::{Path, PathBuf};

use crate::mount::{self, HugeMount};
use crate::numa::NodeId;
use crate::page::{ByteSize, PageSize};
use crate::root::{FindError, Root};

/// The pages of one size on one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pool {
    /// None on a kernel without NUMA.
    pub node: Option<NodeId>,
    /// The size of each page.
    pub page: PageSize,
    /// In the pool, `surplus` ones too.
    pub total: u64,
    /// Not in use; some may be promised to a mapping (see [`SizeTotals::promised`]).
    pub free: u64,
    /// Beyond the reserved ones; they leave the pool with their user.
    pub surplus: u64,
}

impl Pool {
    /// The pages that stay when nobody uses them: what `nr_hugepages` sets.
    pub fn persistent(&self) -> u64 {
        self.total.saturating_sub(self.surplus)
    }
}

/// The pages of one size on the whole machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SizeTotals {
    /// The size of each page.
    pub page: PageSize,
    /// In the pool.
    pub total: u64,
    /// Not in use, promised ones too.
    pub free: u64,
    /// Free, but promised to a mapping that has not touched them. The kernel counts these for the
    /// whole machine only, not for a node.
    pub promised: u64,
    /// How many surplus pages the kernel may still make when asked.
    pub overcommit: u64,
}

/// What was there when it was read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inventory {
    /// A page size each, smallest first. Empty on a kernel without hugetlbfs.
    pub sizes: Vec<SizeTotals>,
    /// A node and page size each, by node and then size. On a kernel without NUMA, one a size.
    pub pools: Vec<Pool>,
    /// Mounts of hugetlbfs.
    pub mounts: Vec<HugeMount>,
    /// What the kernel takes when no size is named, and what `vm.nr_hugepages` counts.
    pub default_page: Option<PageSize>,
}

impl Inventory {
    /// Reads it below `root`.
    ///
    /// # Errors
    /// A file is there that can't be read or makes no sense. What is merely absent (no NUMA, no
    /// huge pages, no mounts) is no error.
    pub fn read(root: &Root) -> Result<Self, FindError> {
        let whole = root.path("sys/kernel/mm/hugepages");
        let mut sizes = Vec::new();
        let mut unnumbered = Vec::new();
        for page in page_folders(&whole)? {
            let folder = whole.join(page.folder());
            let pool = read_pool(&folder, None, page)?;
            let surplus_left = optional(&folder.join("nr_overcommit_hugepages"))?;
            sizes.push(SizeTotals {
                page,
                total: pool.total,
                free: pool.free,
                promised: optional(&folder.join("resv_hugepages"))?,
                overcommit: surplus_left.saturating_sub(pool.surplus),
            });
            unnumbered.push(pool);
        }
        let mut pools = Vec::new();
        for node in nodes(root)? {
            let folder = node_folder(root, node).join("hugepages");
            for page in page_folders(&folder)? {
                pools.push(read_pool(&folder.join(page.folder()), Some(node), page)?);
            }
        }
        if pools.is_empty() {
            pools = unnumbered;
        }
        let default_page =
            Root::meminfo(&root.path("proc/meminfo"), "Hugepagesize").and_then(PageSize::new);
        Ok(Self {
            sizes,
            pools,
            mounts: mount::list(root, default_page)?,
            default_page,
        })
    }

    /// The machine's totals for one page size; none if the kernel doesn't have it.
    pub fn size(&self, page: PageSize) -> Option<&SizeTotals> {
        self.sizes.iter().find(|size| size.page == page)
    }

    /// The pools of one page size: all, or the one of `node`.
    pub fn pools_of(
        &self,
        page: PageSize,
        node: Option<NodeId>,
    ) -> impl Iterator<Item = &Pool> + '_ {
        self.pools.iter().filter(move |pool| {
            pool.page == page && (node.is_none() || pool.node.is_none() || pool.node == node)
        })
    }

    /// Whether there is such a node. On a kernel without NUMA there is node 0.
    pub fn has_node(&self, node: NodeId) -> bool {
        let numbered = self.pools.iter().any(|pool| pool.node == Some(node));
        let no_numa = self.pools.iter().all(|pool| pool.node.is_none());
        numbered || (no_numa && node.number() == 0)
    }

    /// Pages that a new mapping can have now, on `node` or anywhere. For a node this is a lower
    /// bound: promised pages are not counted by node, so all of them are taken off.
    pub fn usable(&self, page: PageSize, node: Option<NodeId>) -> u64 {
        let free: u64 = self.pools_of(page, node).map(|pool| pool.free).sum();
        free.saturating_sub(self.size(page).map_or(0, |size| size.promised))
    }

    /// How many more pages of this size a pool of `bytes` needs, on `node` or anywhere.
    pub fn missing(&self, page: PageSize, node: Option<NodeId>, bytes: ByteSize) -> u64 {
        bytes.in_pages(page).saturating_sub(self.usable(page, node))
    }

    /// A mount that gives pages of this size and can be written to.
    pub fn mount_of(&self, page: PageSize) -> Option<&HugeMount> {
        self.mounts
            .iter()
            .find(|mount| mount.page == Some(page) && !mount.read_only)
    }
}

/// The folder of one node in sysfs.
pub(crate) fn node_folder(root: &Root, node: NodeId) -> PathBuf {
    root.path(format!("sys/devices/system/node/node{node}"))
}

/// The folder of one pool in sysfs: a node's, or the machine's where there are no nodes.
pub(crate) fn pool_folder(root: &Root, node: Option<NodeId>, page: PageSize) -> PathBuf {
    match node {
        Some(node) => node_folder(root, node).join("hugepages"),
        None => root.path("sys/kernel/mm/hugepages"),
    }
    .join(page.folder())
}

/// One pool as it is now.
pub(crate) fn read_pool(
    folder: &Path,
    node: Option<NodeId>,
    page: PageSize,
) -> Result<Pool, FindError> {
    Ok(Pool {
        node,
        page,
        total: Root::number(&folder.join("nr_hugepages"))?,
        free: Root::number(&folder.join("free_hugepages"))?,
        surplus: optional(&folder.join("surplus_hugepages"))?,
    })
}

fn nodes(root: &Root) -> Result<Vec<NodeId>, FindError> {
    let names = names_in(&root.path("sys/devices/system/node"))?;
    let mut nodes: Vec<_> = names
        .iter()
        .filter_map(|name| NodeId::from_folder(name))
        .collect();
    nodes.sort_unstable();
    Ok(nodes)
}

fn page_folders(folder: &Path) -> Result<Vec<PageSize>, FindError> {
    let names = names_in(folder)?;
    let mut pages: Vec<_> = names
        .iter()
        .filter_map(|name| PageSize::from_folder(name))
        .collect();
    pages.sort_unstable();
    Ok(pages)
}

/// The names in a folder; none if there is no such folder.
fn names_in(folder: &Path) -> Result<Vec<String>, FindError> {
    let failed = |source| FindError::Read {
        path: folder.to_owned(),
        source,
    };
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    entries
        .map(|entry| Ok(entry.map_err(failed)?.file_name().to_string_lossy().into()))
        .collect()
}

/// A number that not every kernel shows; zero where it is absent.
fn optional(path: &Path) -> Result<u64, FindError> {
    match Root::number(path) {
        Err(FindError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(0),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Fake;

    fn node(number: u16) -> Option<NodeId> {
        NodeId::new(number)
    }

    #[test]
    fn two_nodes_with_two_sizes_are_found() {
        let fake = Fake::new();
        fake.pool(Some(0), 2048, 10, 6);
        fake.pool(Some(1), 2048, 4, 4);
        fake.pool(Some(1), 1_048_576, 1, 1);
        fake.pool(None, 2048, 14, 10);
        fake.pool(None, 1_048_576, 1, 1);
        fake.file(
            "sys/kernel/mm/hugepages/hugepages-2048kB/resv_hugepages",
            "3\n",
        );
        fake.file("proc/meminfo", "MemTotal: 9 kB\nHugepagesize:    2048 kB\n");
        let found = Inventory::read(&fake.root()).unwrap();
        assert_eq!(found.default_page, Some(PageSize::MIB_2));
        assert_eq!(found.pools.len(), 3);
        assert_eq!(found.usable(PageSize::MIB_2, None), 7);
        assert_eq!(found.usable(PageSize::MIB_2, node(1)), 1);
        assert_eq!(found.usable(PageSize::GIB_1, node(1)), 1);
        assert_eq!(found.missing(PageSize::GIB_1, node(0), ByteSize::GIB), 1);
        assert_eq!(found.missing(PageSize::MIB_2, None, ByteSize::GIB), 505);
        assert!(found.has_node(NodeId::new(1).unwrap()));
        assert!(!found.has_node(NodeId::new(2).unwrap()));
    }

    #[test]
    fn no_numa_and_no_huge_pages_are_no_errors() {
        let fake = Fake::new();
        assert_eq!(Inventory::read(&fake.root()).unwrap(), Inventory::default());
        fake.pool(None, 2048, 5, 5);
        let found = Inventory::read(&fake.root()).unwrap();
        assert_eq!(found.usable(PageSize::MIB_2, node(0)), 5);
        assert!(found.has_node(NodeId::new(0).unwrap()));
    }

    #[test]
    fn a_file_that_makes_no_sense_is_named() {
        let fake = Fake::new();
        fake.pool(None, 2048, 5, 5);
        fake.file(
            "sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages",
            "lots\n",
        );
        let error = Inventory::read(&fake.root()).unwrap_err().to_string();
        assert!(
            error.contains("free_hugepages") && error.contains("lots"),
            "{error}"
        );
    }
}
