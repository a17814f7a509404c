//! Which device a port is.

use std::fmt;
use std::str::FromStr;

use super::vdev::Vdev;

/// A PCI function: domain, bus, device, function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PciAddress {
    domain: u16,
    bus: u8,
    device: u8,
    function: u8,
}

/// The text is no PCI address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no PCI address; write it as 0000:03:00.0")]
pub struct PciAddressError(String);

impl FromStr for PciAddress {
    type Err = PciAddressError;

    /// Reads `domain:bus:device.function` in hexadecimal; the domain may be left out.
    fn from_str(text: &str) -> Result<Self, PciAddressError> {
        parse(text).ok_or_else(|| PciAddressError(text.to_owned()))
    }
}

fn parse(text: &str) -> Option<PciAddress> {
    let hex = |text: &str, digits: usize| {
        let plain = text.len() == digits && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        plain.then(|| u16::from_str_radix(text, 16).ok()).flatten()
    };
    let (rest, function) = text.rsplit_once('.')?;
    let (rest, device) = rest.rsplit_once(':')?;
    let (domain, bus) = rest.split_once(':').unwrap_or(("0000", rest));
    let (device, function) = (hex(device, 2)?, hex(function, 1)?);
    (device < 32 && function < 8).then_some(PciAddress {
        domain: hex(domain, 4)?,
        bus: hex(bus, 2)? as u8,
        device: device as u8,
        function: function as u8,
    })
}

impl fmt::Display for PciAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            domain,
            bus,
            device,
            function,
        } = self;
        write!(f, "{domain:04x}:{bus:02x}:{device:02x}.{function:x}")
    }
}

/// Which device a port is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PortAddress {
    /// A NIC, bound to a user-space driver (or to mlx5's own).
    Pci(PciAddress),
    /// A device that a driver makes up.
    Vdev(Vdev),
}

impl fmt::Display for PortAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pci(address) => address.fmt(f),
            Self::Vdev(vdev) => f.write_str(vdev.driver()),
        }
    }
}

impl From<PciAddress> for PortAddress {
    fn from(address: PciAddress) -> Self {
        Self::Pci(address)
    }
}

impl From<Vdev> for PortAddress {
    fn from(vdev: Vdev) -> Self {
        Self::Vdev(vdev)
    }
}

#[cfg(test)]
mod tests {
    use super::PciAddress;

    #[test]
    fn addresses_are_read_and_written() {
        for (text, full) in [
            ("03:00.0", "0000:03:00.0"),
            ("00a1:Fe:1f.7", "00a1:fe:1f.7"),
        ] {
            let address: PciAddress = text.parse().unwrap();
            assert_eq!(address.to_string(), full);
            assert_eq!(full.parse(), Ok(address));
        }
        for text in [
            "",
            "eth0",
            "03:00",
            "03:20.0",
            "03:00.8",
            "0:03:00.0",
            "+3:00.0",
            "1:2:3:4.5",
        ] {
            assert!(text.parse::<PciAddress>().is_err(), "{text}");
        }
    }
}
