//! Where a loop sits: on a core of its port's NUMA node, near its packets.
//!
//! A packet that passes between nodes is read and written over the link between them. What that
//! costs was not measured: the machines of the tests have one node. So a warning says what the
//! firmware says of distances, and the choice itself is tested on made-up folders of `/sys`.

use genie_dpdk::{PortAddress, Vdev};
use genie_hugepages::topology::{cores_of, distance, list, node_of_core, node_of_device};
use genie_hugepages::{NodeId, Root};

/// The node of a port, as the kernel knows it: of a card, and of the card behind an interface of the
/// kernel's. None where nobody knows it, and for links in memory. `/sys` may be another network
/// namespace's; at worst the wrong node is preferred.
#[must_use]
pub fn node_of(root: &Root, port: &PortAddress) -> Option<NodeId> {
    let folder = match port {
        PortAddress::Pci(address) => format!("sys/bus/pci/devices/{address}"),
        PortAddress::Vdev(Vdev::AfXdp(xdp)) => {
            format!("sys/class/net/{}/device", xdp.interface)
        }
        PortAddress::Vdev(Vdev::AfPacket(packet)) => {
            format!("sys/class/net/{}/device", packet.interface)
        }
        PortAddress::Vdev(_) => return None,
    };
    node_of_device(&root.path(folder))
}

/// Where a loop is to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seat {
    /// The cores that it keeps to. None: those that the process may use.
    pub cores: Option<Vec<usize>>,
    /// Why it is no good one, what that costs, and what to do.
    pub warning: Option<String>,
}

impl Seat {
    /// For a loop of a port on `node`. `configured` is the core that the operator chose, which it
    /// gets; without, it keeps to those of the node's cores that are `allowed`, the process's own.
    #[must_use]
    pub fn choose(
        root: &Root,
        node: Option<NodeId>,
        configured: Option<usize>,
        allowed: &[usize],
    ) -> Self {
        let near = node.map(|node| cores_of(root, node)).unwrap_or_default();
        let usable: Vec<_> = near
            .iter()
            .copied()
            .filter(|core| allowed.contains(core))
            .collect();
        let cores = match configured {
            Some(core) => Some(vec![core]),
            None => Some(usable.clone()).filter(|usable| !usable.is_empty() && usable != allowed),
        };
        // A node that is offline, or has no cores, has no better ones.
        let is_near = match configured {
            Some(core) => near.contains(&core),
            None => !usable.is_empty(),
        };
        let warning = node
            .filter(|_| !near.is_empty() && !is_near)
            .map(|node| far(root, node, configured, allowed, &near, &usable));
        Self { cores, warning }
    }
}

/// What to tell of a loop that is not on its port's node.
fn far(
    root: &Root,
    node: NodeId,
    configured: Option<usize>,
    allowed: &[usize],
    near: &[usize],
    usable: &[usize],
) -> String {
    let place = match configured {
        Some(core) => format!("on core {core}"),
        None => format!("on cores {}, which are all that it may use", list(allowed)),
    };
    let core = configured.or(allowed.first().copied());
    let other = core.and_then(|core| node_of_core(root, core));
    let here = other.map_or_else(
        || "of another NUMA node".to_owned(),
        |other| format!("of NUMA node {other}"),
    );
    let cost = match other.and_then(|other| distance(root, other, node)) {
        Some(tenths) => format!(
            "whose memory is {}.{} times as far as its own, as the firmware says",
            tenths / 10,
            tenths % 10
        ),
        None => "over the link between them".to_owned(),
    };
    let near = list(near);
    let mend = match usable.first() {
        Some(core) => {
            format!("write dpdk_core = {core}, or another of {near}, or leave it out")
        }
        None => format!(
            "let the process use one of {near} (CPUAffinity= of its unit, cpuset, taskset){}",
            match configured {
                Some(_) => " and write it as dpdk_core, or leave that out",
                None => "",
            }
        ),
    };
    format!(
        "the poll loop runs {place}, {here}, and its port is on node {node}: each packet comes from \
         there and goes there, {cost}; {mend}"
    )
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::PortSpec;

    /// A folder that looks like `/sys`. Removed with its value.
    struct Fake(PathBuf);

    impl Fake {
        fn new() -> Self {
            static NEXT: AtomicU32 = AtomicU32::new(0);
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let name = format!("genie-seat-{}-{number}", std::process::id());
            Self(std::env::temp_dir().join(name))
        }

        fn file(&self, path: &str, text: &str) {
            let path = self.0.join("sys").join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }

        fn root(&self) -> Root {
            Root::at(&self.0)
        }

        /// Node 0 has cores 0 to 3, node 1 has 4 to 7.
        fn two_nodes() -> Self {
            let fake = Self::new();
            fake.file("devices/system/node/online", "0-1\n");
            for (node, cores) in [(0, 0..4), (1, 4..8)] {
                let folder = format!("devices/system/node/node{node}");
                let (first, last) = (cores.start, cores.end - 1);
                fake.file(&format!("{folder}/cpulist"), &format!("{first}-{last}\n"));
                let row = if node == 0 { "10 21\n" } else { "21 10\n" };
                fake.file(&format!("{folder}/distance"), row);
                for core in cores {
                    let link = format!("devices/system/cpu/cpu{core}/node{node}/cpulist");
                    fake.file(&link, "");
                }
            }
            fake
        }
    }

    impl Drop for Fake {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    const ALL: [usize; 8] = [0, 1, 2, 3, 4, 5, 6, 7];

    fn node(number: u16) -> Option<NodeId> {
        NodeId::new(number)
    }

    fn quiet(cores: Option<&[usize]>) -> Seat {
        Seat {
            cores: cores.map(<[_]>::to_vec),
            warning: None,
        }
    }

    #[test]
    fn without_a_core_of_its_own_a_loop_keeps_to_its_ports_node() {
        let fake = Fake::two_nodes();
        let choose = |node, allowed: &[usize]| Seat::choose(&fake.root(), node, None, allowed);
        assert_eq!(choose(node(1), &ALL), quiet(Some(&[4, 5, 6, 7])));
        assert_eq!(choose(node(0), &ALL), quiet(Some(&[0, 1, 2, 3])));
        // As far as the process's own mask lets it.
        assert_eq!(choose(node(1), &[2, 3, 4, 6]), quiet(Some(&[4, 6])));
        // It may be nowhere else anyway.
        assert_eq!(choose(node(1), &[4, 5]), quiet(None));
        // Nobody knows where the port is, or it is nowhere.
        assert_eq!(choose(None, &ALL), quiet(None));
    }

    #[test]
    fn a_mask_without_the_node_is_kept_to_and_warned_of() {
        let fake = Fake::two_nodes();
        let seat = Seat::choose(&fake.root(), node(1), None, &[0, 1, 3]);
        assert_eq!(seat.cores, None);
        let warning = seat.warning.unwrap();
        for part in [
            "on cores 0-1,3, which",
            "of NUMA node 0,",
            "on node 1:",
            "2.1 times as far",
            "one of 4-7 (CPUAffinity=",
        ] {
            assert!(warning.contains(part), "{part}: {warning}");
        }
        assert!(!warning.contains("dpdk_core"), "{warning}");
    }

    #[test]
    fn a_core_that_was_chosen_is_taken_and_one_of_another_node_warned_of() {
        let fake = Fake::two_nodes();
        let choose =
            |core, allowed: &[usize]| Seat::choose(&fake.root(), node(1), Some(core), allowed);
        assert_eq!(choose(5, &ALL), quiet(Some(&[5])));
        let seat = choose(2, &[1, 2, 6, 7]);
        assert_eq!(seat.cores, Some(vec![2]));
        let warning = seat.warning.unwrap();
        for part in [
            "on core 2, of NUMA node 0",
            "write dpdk_core = 6, or",
            "4-7",
        ] {
            assert!(warning.contains(part), "{part}: {warning}");
        }
        let warning = choose(2, &[1, 2]).warning.unwrap();
        for part in ["let the process use one of 4-7", "write it as dpdk_core"] {
            assert!(warning.contains(part), "{part}: {warning}");
        }
        let seat = Seat::choose(&fake.root(), None, Some(2), &ALL);
        assert_eq!(seat, quiet(Some(&[2])));
    }

    #[test]
    fn one_node_or_none_or_one_that_is_offline_changes_nothing() {
        let one = Fake::new();
        one.file("devices/system/node/online", "0\n");
        one.file("devices/system/node/node0/cpulist", "0-7\n");
        // A node of memory only, or with all its cores offline.
        one.file("devices/system/node/node1/cpulist", "\n");
        let none = Fake::new();
        for (fake, node) in [
            (&one, node(0)),
            (&one, node(1)),
            (&one, node(7)),
            (&none, node(0)),
        ] {
            let choose = |core| Seat::choose(&fake.root(), node, core, &ALL);
            assert_eq!(choose(None), quiet(None), "{node:?}");
            assert_eq!(choose(Some(3)), quiet(Some(&[3])), "{node:?}");
        }
    }

    #[test]
    fn a_warning_says_no_more_than_is_known() {
        let fake = Fake::new();
        fake.file("devices/system/node/node1/cpulist", "4-7\n");
        let seat = Seat::choose(&fake.root(), node(1), Some(0), &ALL);
        let warning = seat.warning.unwrap();
        assert!(warning.contains("of another NUMA node"), "{warning}");
        assert!(!warning.contains("firmware"), "{warning}");
    }

    #[test]
    fn cards_and_interfaces_have_nodes_and_links_in_memory_have_none() {
        let fake = Fake::new();
        fake.file("bus/pci/devices/0000:03:00.0/numa_node", "1\n");
        fake.file("bus/pci/devices/0000:04:00.0/numa_node", "-1\n");
        fake.file("class/net/eth0/device/numa_node", "0\n");
        fake.file("class/net/veth0/mtu", "1500\n");
        for (port, expected) in [
            ("pci:03:00.0", node(1)),
            ("pci:04:00.0", None),
            ("pci:05:00.0", None),
            ("af_xdp:eth0", node(0)),
            ("af_packet:eth0", node(0)),
            ("af_packet:veth0", None),
            ("memif:/run/a.sock,server", None),
        ] {
            let spec: PortSpec = port.parse().unwrap();
            assert_eq!(node_of(&fake.root(), &spec.address), expected, "{port}");
        }
    }
}
