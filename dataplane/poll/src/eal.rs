//! Starting DPDK in this process: with huge pages if there are enough, else with ordinary ones.

use genie_dpdk::{Eal, EalError, EalOptions, IovaMode, PciAccess, PortAddress};
use genie_hugepages::{Inventory, Root};

/// Starts it for `port`, with `memory_mib` of memory; from huge pages where `free_mib` of them are
/// free. The words say which pages it has, if those are not the best.
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
    let pages = huge_pages(free_mib);
    let options = EalOptions {
        hugepages: pages.is_ok(),
        memory_mib: Some(memory_mib),
        pci,
        // A device that is not real needs no physical addresses.
        iova: is_virtual.then_some(IovaMode::Virtual),
        ..EalOptions::default()
    };
    let args = options.validate().map_err(|error| EalError::Arguments {
        arguments: error.to_string(),
    })?;
    Ok((Eal::start(args)?, pages.err()))
}

/// Whether so many MiB of huge pages are free, or why not.
fn huge_pages(wanted_mib: u32) -> Result<(), String> {
    let inventory = Inventory::read(&Root::default()).map_err(|error| error.to_string())?;
    let free = inventory.default_page.map_or(0, |page| {
        inventory.usable(page, None).saturating_mul(page.bytes())
    });
    if free < u64::from(wanted_mib) << 20 {
        return Err(format!(
            "ordinary pages: {} MiB of huge pages are free and {wanted_mib} are wanted \
             (`genie-hugepages reserve` makes some)",
            free >> 20
        ));
    }
    Ok(())
}
