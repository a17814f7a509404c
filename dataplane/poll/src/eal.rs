//! Starting DPDK in this process: with huge pages if there are enough, else with ordinary ones.
//!
//! DPDK starts once in a process, so what would stop it is looked at right before. What is left to
//! chance is the time between that look and DPDK's own first touch of the pages, in which it loads
//! its drivers: who takes them then leaves a process without DPDK ([`EalError::HugepagesTaken`]).

use genie_dpdk::{Eal, EalError, EalOptions, IovaMode, PciAccess, PortAddress, allowed_cores};
use genie_hugepages::topology::cores_of;
use genie_hugepages::{Inventory, Root};

use crate::seat::node_of;

/// Starts it for `port`, with `memory_mib` of memory; from huge pages where `free_mib` of them are
/// free. The words say which pages it has, if those are not the best. Its memory and its own thread
/// are on the node of the port, as far as there are pages and cores.
///
/// # Errors
/// Why DPDK can't be used, and what to do.
pub fn start(
    port: &PortAddress,
    memory_mib: u32,
    free_mib: u32,
) -> Result<(Eal, Option<String>), EalError> {
    let pci = match port {
        PortAddress::Pci(address) => PciAccess::Only(vec![*address]),
        PortAddress::Vdev(_) => PciAccess::None,
    };
    let is_virtual = pci == PciAccess::None;
    let root = Root::default();
    let main_core = main_core(&root, port);
    // Takes long: what is looked at afterwards is as it is when DPDK starts.
    genie_dpdk::load()?;
    with_pages(
        || huge_pages(&root, free_mib),
        |hugepages| {
            let options = EalOptions {
                hugepages,
                memory_mib: Some(memory_mib),
                pci: pci.clone(),
                main_core,
                // A device that is not real needs no physical addresses.
                iova: is_virtual.then_some(IovaMode::Virtual),
                ..EalOptions::default()
            };
            let args = options.validate().map_err(|error| EalError::Arguments {
                arguments: error.to_string(),
            })?;
            Eal::start(args)
        },
    )
}

/// Starts with huge pages where `look` finds enough. Where they went since, which is seen before
/// DPDK is asked, and where there are none, with ordinary ones.
fn with_pages<T>(
    look: impl FnOnce() -> Result<(), String>,
    mut start: impl FnMut(bool) -> Result<T, EalError>,
) -> Result<(T, Option<String>), EalError> {
    let reason = match look() {
        Ok(()) => match start(true) {
            Err(EalError::NoHugepages) => too_few(0, "some"),
            Err(EalError::FewHugepages {
                free_mib,
                wanted_mib,
            }) => too_few(free_mib, wanted_mib),
            started => return Ok((started?, None)),
        },
        Err(reason) => reason,
    };
    Ok((start(false)?, Some(reason)))
}

/// What DPDK runs on, and why.
fn too_few(free_mib: u64, wanted_mib: impl std::fmt::Display) -> String {
    format!(
        "ordinary pages: {free_mib} MiB of huge pages are free and {wanted_mib} are wanted \
         (`genie-hugepages reserve` makes some)"
    )
}

/// A core of the port's node for the EAL's own thread: DPDK takes its first memory from that one's.
fn main_core(root: &Root, port: &PortAddress) -> Option<u16> {
    let near = cores_of(root, node_of(root, port)?);
    let mut allowed = allowed_cores().into_iter().map(|core| core.raw());
    let core = allowed.find(|core| near.contains(core))?;
    // One of higher numbers than DPDK knows is refused by it.
    let limit = u16::try_from(genie_dpdk::LCORES_MAX).unwrap_or(u16::MAX);
    u16::try_from(core).ok().filter(|&core| core < limit)
}

/// Whether so many MiB of huge pages are free, or why not.
fn huge_pages(root: &Root, wanted_mib: u32) -> Result<(), String> {
    let inventory = Inventory::read(root).map_err(|error| error.to_string())?;
    let free = inventory.default_page.map_or(0, |page| {
        inventory.usable(page, None).saturating_mul(page.bytes())
    });
    if free < u64::from(wanted_mib) << 20 {
        return Err(too_few(free >> 20, wanted_mib));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is started, with what `start` says of huge pages.
    fn started(
        look: Result<(), String>,
        huge: Result<(), EalError>,
    ) -> (Result<Option<String>, EalError>, Vec<bool>) {
        let mut tries = Vec::new();
        let result = with_pages(
            || look,
            |hugepages| {
                tries.push(hugepages);
                if hugepages { huge.clone() } else { Ok(()) }
            },
        );
        (result.map(|((), words)| words), tries)
    }

    #[test]
    fn pages_that_vanish_before_dpdk_is_asked_are_done_without() {
        assert_eq!(started(Ok(()), Ok(())), (Ok(None), vec![true]));
        let few = EalError::FewHugepages {
            free_mib: 4,
            wanted_mib: 96,
        };
        for (gone, words) in [
            (few, "4 MiB of huge"),
            (EalError::NoHugepages, "0 MiB of huge"),
        ] {
            assert!(!gone.is_final(), "the second start would be refused");
            let (result, tries) = started(Ok(()), Err(gone));
            let said = result.unwrap().unwrap();
            assert_eq!(tries, [true, false], "{said}");
            assert!(said.contains(words), "{said}");
        }
        let none = "no pages".to_owned();
        let (result, tries) = started(Err(none.clone()), Ok(()));
        assert_eq!((result, tries), (Ok(Some(none)), vec![false]));
    }

    #[test]
    fn pages_that_vanish_while_dpdk_starts_are_final_and_not_tried_again() {
        for late in [
            EalError::HugepagesTaken,
            EalError::NoMemory,
            EalError::NoPermission,
        ] {
            let (result, tries) = started(Ok(()), Err(late.clone()));
            assert!(late.is_final());
            assert_eq!((result, tries), (Err(late), vec![true]));
        }
    }

    #[test]
    fn the_eals_own_thread_is_near_the_port_where_it_may_be() {
        let folder = std::env::temp_dir().join(format!("genie-eal-near-{}", std::process::id()));
        let file = |path: &str, text: &str| {
            let path = folder.join("sys").join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        let root = Root::at(&folder);
        let near = |port: &str| {
            let spec: crate::PortSpec = port.parse().unwrap();
            main_core(&root, &spec.address)
        };
        let last = allowed_cores().last().unwrap().raw();
        file("bus/pci/devices/0000:03:00.0/numa_node", "1\n");
        assert_eq!(near("pci:03:00.0"), None, "nobody knows the node's cores");
        file("devices/system/node/node1/cpulist", &format!("{last}\n"));
        assert_eq!(near("pci:03:00.0"), u16::try_from(last).ok());
        assert_eq!(near("memif:/a,server"), None);
        // The process may use none of them.
        file("devices/system/node/node1/cpulist", "8000-8001\n");
        assert_eq!(near("pci:03:00.0"), None);
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn pages_are_counted_without_those_that_are_promised() {
        let folder = std::env::temp_dir().join(format!("genie-eal-{}", std::process::id()));
        let file = |path: &str, text: &str| {
            let path = folder.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        file("proc/meminfo", "Hugepagesize:    2048 kB\n");
        let pool = "sys/kernel/mm/hugepages/hugepages-2048kB";
        file(&format!("{pool}/nr_hugepages"), "60\n");
        file(&format!("{pool}/free_hugepages"), "50\n");
        let root = Root::at(&folder);
        assert_eq!(huge_pages(&root, 100), Ok(()));
        let words = huge_pages(&root, 101).unwrap_err();
        assert!(words.contains("100 MiB of huge pages are free"), "{words}");
        file(&format!("{pool}/resv_hugepages"), "10\n");
        assert!(huge_pages(&root, 100).is_err());
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
