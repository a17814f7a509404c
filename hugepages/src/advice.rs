//! What to write down so that a reservation is there after the next boot.
//!
//! After `admin-guide/kernel-parameters.txt` (`hugepagesz=`, `hugepages=`),
//! `admin-guide/sysctl/vm.rst` (`nr_hugepages`) and tmpfiles.d(5).

use crate::find::{self, Inventory};
use crate::numa::NodeId;
use crate::page::PageSize;
use crate::root::Root;

/// Lines for an operator's files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advice {
    /// Boot parameters: the surest way, before memory is fragmented, and for 1 GiB pages often
    /// the only one.
    pub boot: String,
    /// A line for a file in `/etc/sysctl.d`; none where sysctl can't say it, since it counts pages
    /// of the default size on all nodes together.
    pub sysctl: Option<String>,
    /// Lines for a file in `/etc/tmpfiles.d`, which reach each node and size.
    pub tmpfiles: Vec<String>,
}

impl Advice {
    /// To have `pools` (a node and its pages each) of one page size. `by_node` keeps them where
    /// they are; otherwise the kernel spreads their sum.
    pub fn new(
        found: &Inventory,
        page: PageSize,
        pools: &[(Option<NodeId>, u64)],
        by_node: bool,
    ) -> Self {
        let sum: u64 = pools.iter().map(|(_, pages)| pages).sum();
        let numbered: Vec<String> = pools
            .iter()
            .filter(|(_, pages)| *pages > 0)
            .filter_map(|(node, pages)| node.map(|node| format!("{node}:{pages}")))
            .collect();
        let count = match by_node && !numbered.is_empty() {
            true => numbered.join(","),
            false => sum.to_string(),
        };
        let sysctl = found.default_page == Some(page) && !by_node;
        let system = Root::system();
        Self {
            boot: format!("hugepagesz={} hugepages={count}", page.kernel_name()),
            sysctl: sysctl.then(|| format!("vm.nr_hugepages = {sum}")),
            tmpfiles: pools
                .iter()
                .filter(|(_, pages)| *pages > 0)
                .map(|(node, pages)| {
                    let file = find::pool_folder(&system, *node, page).join("nr_hugepages");
                    format!("w {} - - - - {pages}", file.display())
                })
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_place_gets_what_it_can_say() {
        let found = Inventory {
            default_page: Some(PageSize::MIB_2),
            ..Inventory::default()
        };
        let pools = [(NodeId::new(0), 0), (NodeId::new(1), 4)];
        let spread = Advice::new(&found, PageSize::MIB_2, &pools, false);
        assert_eq!(spread.boot, "hugepagesz=2M hugepages=4");
        assert_eq!(spread.sysctl.as_deref(), Some("vm.nr_hugepages = 4"));
        let large = Advice::new(&found, PageSize::GIB_1, &pools, true);
        assert_eq!(large.boot, "hugepagesz=1G hugepages=1:4");
        assert_eq!(large.sysctl, None);
        assert_eq!(
            large.tmpfiles,
            [
                "w /sys/devices/system/node/node1/hugepages/hugepages-1048576kB/nr_hugepages \
              - - - - 4"
            ]
        );
    }
}
