//! Starting DPDK in this process: with huge pages if there are enough, else with ordinary ones.

use genie_dpdk::{Eal, EalError, EalOptions, IovaMode, PciAccess, PortAddress};
use genie_poll::LINK_MEMORY_MIB;

use crate::config::DpdkConfig;

/// Starts it. The words say which pages it has, if those are not the best.
///
/// # Errors
/// Why DPDK can't be used, and what to do.
pub fn start(config: &DpdkConfig) -> Result<(Eal, Option<String>), EalError> {
    let pci = match &config.port.address {
        PortAddress::Pci(address) => PciAccess::Only(vec![*address]),
        PortAddress::Vdev(_) => PciAccess::None,
    };
    let is_virtual = pci == PciAccess::None;
    let pages = huge_pages();
    let options = EalOptions {
        hugepages: pages.is_ok(),
        memory_mib: Some(LINK_MEMORY_MIB),
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

/// Whether there are huge pages for a link, or why not.
fn huge_pages() -> Result<(), String> {
    let wanted = u64::from(LINK_MEMORY_MIB) << 20;
    let inventory = genie_hugepages::Inventory::read(&genie_hugepages::Root::default())
        .map_err(|error| error.to_string())?;
    let free = inventory.default_page.map_or(0, |page| {
        inventory.usable(page, None).saturating_mul(page.bytes())
    });
    if free < wanted {
        return Err(format!(
            "ordinary pages: {} MiB of huge pages are free and {LINK_MEMORY_MIB} are wanted \
             (`genie-hugepages reserve` makes some)",
            free >> 20
        ));
    }
    Ok(())
}
