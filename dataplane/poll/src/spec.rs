//! Which device a link is, as an operator writes it.

use std::fmt;
use std::str::FromStr;

use genie_dpdk::{AfPacket, AfXdp, Memif, MemifRole, PciAddress, PortAddress, Vdev};

/// Bytes of a jumbo frame's IP packet, where the link allows.
const JUMBO_MTU: u16 = 9000;

/// A device, as it is written: `memif:PATH,server`, `memif:PATH,client`, `af_xdp:INTERFACE`,
/// `af_packet:INTERFACE`, or `pci:0000:03:00.0`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortSpec {
    text: String,
    /// As DPDK is asked for it.
    pub address: PortAddress,
    /// Bytes of the longest IP packet that is wanted. The device, or the kernel whose interface it
    /// is, may have less.
    pub mtu: u16,
}

/// The text names no device.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} names no port: {reason}; write memif:PATH,server or memif:PATH,client, \
     af_xdp:INTERFACE, af_packet:INTERFACE, or pci:0000:03:00.0"
)]
pub struct PortSpecError {
    text: String,
    reason: String,
}

impl FromStr for PortSpec {
    type Err = PortSpecError;

    fn from_str(text: &str) -> Result<Self, PortSpecError> {
        let wrong = |reason: String| PortSpecError {
            text: text.to_owned(),
            reason,
        };
        let (kind, rest) = text
            .split_once(':')
            .ok_or_else(|| wrong("it has no kind".to_owned()))?;
        if rest.is_empty() {
            return Err(wrong("it names no device".to_owned()));
        }
        let address: PortAddress = match kind {
            "memif" => Vdev::Memif(memif(rest).map_err(wrong)?).into(),
            "af_xdp" => Vdev::AfXdp(AfXdp::new(rest)).into(),
            "af_packet" => Vdev::AfPacket(AfPacket::new(rest)).into(),
            "pci" => {
                let address: PciAddress =
                    rest.parse().map_err(|error| wrong(format!("{error}")))?;
                address.into()
            }
            other => return Err(wrong(format!("{other:?} is no kind that is known"))),
        };
        Ok(Self {
            text: text.to_owned(),
            address,
            mtu: JUMBO_MTU,
        })
    }
}

fn memif(text: &str) -> Result<Memif, String> {
    let (path, role) = text
        .rsplit_once(',')
        .ok_or("it does not say whether it is the server or the client of the socket")?;
    let role = match role {
        "server" => MemifRole::Server,
        "client" => MemifRole::Client,
        other => return Err(format!("{other:?} is neither server nor client")),
    };
    if path.is_empty() {
        return Err("it has no socket".to_owned());
    }
    Ok(Memif::new(role, path).jumbo())
}

impl fmt::Display for PortSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read() {
        for good in [
            "memif:/run/genie/link.sock,server",
            "memif:a,b,client",
            "af_xdp:eth0",
            "af_packet:veth-a",
            "pci:0000:03:00.0",
            "pci:03:00.0",
        ] {
            let spec: PortSpec = good.parse().unwrap();
            assert_eq!(spec.to_string(), good);
        }
    }

    #[test]
    fn what_is_no_port_is_refused_with_a_reason() {
        for (bad, reason) in [
            ("eth0", "no kind"),
            ("memif:/a", "whether"),
            ("memif:/a,both", "neither"),
            ("memif:,server", "no socket"),
            ("pci:eth0", "no PCI address"),
            ("tap:a", "no kind that is known"),
            ("af_xdp:", "no device"),
        ] {
            let error = bad.parse::<PortSpec>().unwrap_err().to_string();
            assert!(error.contains(reason), "{bad}: {error}");
        }
    }
}
