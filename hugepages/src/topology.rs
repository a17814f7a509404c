//! Which cores a node has, how far it is from another, and which node a device is on.
//!
//! After `ABI/stable/sysfs-devices-node` and `ABI/testing/sysfs-bus-pci`. Hints for placing: where a
//! file is absent or makes no sense, nothing is known, and that is no error.

use std::path::Path;

use crate::find::node_folder;
use crate::numa::NodeId;
use crate::root::Root;

/// The kernel's `NR_CPUS` is at most 8192.
const CORES_MAX: usize = 8192;

/// The cores of a node that are online, in order. None on a kernel without NUMA, on a node that is
/// offline, and on one that has memory only.
#[must_use]
pub fn cores_of(root: &Root, node: NodeId) -> Vec<usize> {
    let list = Root::text(&node_folder(root, node).join("cpulist"));
    list.ok()
        .and_then(|text| parse_cores(&text))
        .unwrap_or_default()
}

/// The node of a core, by the link to it that a core's folder has.
#[must_use]
pub fn node_of_core(root: &Root, core: usize) -> Option<NodeId> {
    let folder = root.path(format!("sys/devices/system/cpu/cpu{core}"));
    let names = std::fs::read_dir(folder).ok()?.flatten();
    names
        .filter_map(|entry| NodeId::from_folder(&entry.file_name().to_string_lossy()))
        .next()
}

/// How much farther than its own the memory of `to` is from the cores of `from`, in tenths: 10 is as
/// near. What the firmware says, and not measured.
#[must_use]
pub fn distance(root: &Root, from: NodeId, to: NodeId) -> Option<u32> {
    // A row has a number for each node that is online, in their order.
    let online = Root::text(&root.path("sys/devices/system/node/online")).ok()?;
    let at = parse_cores(&online)?
        .iter()
        .position(|&node| node == usize::from(to.number()))?;
    let row = Root::text(&node_folder(root, from).join("distance")).ok()?;
    row.split_whitespace().nth(at)?.parse().ok()
}

/// The node that the device with this folder in sysfs is on. None where the firmware does not say.
#[must_use]
pub fn node_of_device(folder: &Path) -> Option<NodeId> {
    let text = Root::text(&folder.join("numa_node")).ok()?;
    // -1 where it isn't known.
    NodeId::new(text.trim().parse().ok()?)
}

/// A list such as `0-3,8,10-11`; none if it is no list.
fn parse_cores(text: &str) -> Option<Vec<usize>> {
    let mut cores = Vec::new();
    for part in text.trim().split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let first: usize = first.trim().parse().ok()?;
        let last: usize = last.trim().parse().ok()?;
        if first > last || last >= CORES_MAX {
            return None;
        }
        cores.extend(first..=last);
    }
    Some(cores)
}

/// As the kernel and `taskset` write a list of cores that are in order.
#[must_use]
pub fn list(cores: &[usize]) -> String {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for &core in cores {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == core => *last = core,
            _ => runs.push((core, core)),
        }
    }
    let runs = runs.iter().map(|(first, last)| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    });
    runs.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Fake;

    fn node(number: u16) -> NodeId {
        NodeId::new(number).unwrap()
    }

    #[test]
    fn lists_are_read_as_the_kernel_writes_them_and_written_so() {
        for (text, cores) in [
            ("0\n", vec![0]),
            ("0-3\n", vec![0, 1, 2, 3]),
            ("0-1,8,10-11\n", vec![0, 1, 8, 10, 11]),
            ("\n", vec![]),
        ] {
            assert_eq!(parse_cores(text), Some(cores.clone()), "{text:?}");
            assert_eq!(list(&cores), text.trim());
        }
        for text in ["a", "3-1", "1-", "-1", "0-4294967295", "1;2"] {
            assert_eq!(parse_cores(text), None, "{text:?}");
        }
    }

    #[test]
    fn two_nodes_have_their_cores_and_a_distance() {
        let fake = Fake::new();
        fake.file("sys/devices/system/node/online", "0,2\n");
        fake.file("sys/devices/system/node/node0/cpulist", "0-3,8-11\n");
        fake.file("sys/devices/system/node/node0/distance", "10 21\n");
        fake.file("sys/devices/system/node/node2/cpulist", "4-7\n");
        fake.file("sys/devices/system/node/node2/distance", "32 10\n");
        fake.file("sys/devices/system/cpu/cpu4/node2/cpulist", "4-7\n");
        fake.file("sys/devices/system/cpu/cpu4/online", "1\n");
        let root = fake.root();
        assert_eq!(cores_of(&root, node(2)), [4, 5, 6, 7]);
        assert_eq!(cores_of(&root, node(0)).len(), 8);
        // Node 2 is the second of a row, since there is no node 1.
        assert_eq!(distance(&root, node(0), node(2)), Some(21));
        assert_eq!(distance(&root, node(2), node(0)), Some(32));
        assert_eq!(distance(&root, node(2), node(2)), Some(10));
        assert_eq!(distance(&root, node(0), node(1)), None);
        assert_eq!(node_of_core(&root, 4), Some(node(2)));
        assert_eq!(node_of_core(&root, 5), None);
    }

    #[test]
    fn what_is_not_there_is_not_known() {
        let fake = Fake::new();
        let root = fake.root();
        assert!(cores_of(&root, node(0)).is_empty());
        assert_eq!(node_of_core(&root, 0), None);
        assert_eq!(distance(&root, node(0), node(0)), None);
        // A node that is offline, and one of memory only.
        fake.file("sys/devices/system/node/node1/cpulist", "\n");
        assert!(cores_of(&root, node(1)).is_empty());
        fake.file("sys/devices/system/node/node1/cpulist", "many\n");
        assert!(cores_of(&root, node(1)).is_empty());
    }

    #[test]
    fn a_device_is_on_the_node_that_its_folder_names() {
        let fake = Fake::new();
        let device = |text: &str| {
            fake.file("sys/class/net/eth0/device/numa_node", text);
            node_of_device(&fake.folder().join("sys/class/net/eth0/device"))
        };
        assert_eq!(device("1\n"), Some(node(1)));
        for text in ["-1\n", "", "one\n", "99999\n"] {
            assert_eq!(device(text), None, "{text:?}");
        }
        // A virtual interface has no device.
        let veth = fake.folder().join("sys/class/net/veth0/device");
        assert_eq!(node_of_device(&veth), None);
    }

    #[test]
    fn this_machine_makes_sense() {
        let root = Root::system();
        let first = node(0);
        let cores = cores_of(&root, first);
        if cores.is_empty() {
            return println!("skipped: this kernel shows no cores of node 0");
        }
        assert_eq!(node_of_core(&root, cores[0]), Some(first));
        assert_eq!(distance(&root, first, first), Some(10));
    }
}
