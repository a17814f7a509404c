//! A DPDK port, in the words of genie-dataplane.

use std::net::{Ipv4Addr, SocketAddrV4};

use clap::Args;
use genie_poll::{LinkConfig, PortSpec};
use smoltcp::wire::Ipv4Cidr;

/// Where a server is on a link, and a client, if nobody says: in a network for benchmarks
/// (RFC 2544).
pub const SERVER_NETWORK: Ipv4Cidr = Ipv4Cidr::new(Ipv4Addr::new(198, 18, 0, 2), 24);
/// See above.
pub const CLIENT_NETWORK: Ipv4Cidr = Ipv4Cidr::new(Ipv4Addr::new(198, 18, 0, 1), 24);
/// The UDP port of the transport at both ends.
const UDP_PORT: u16 = 7700;

/// The port of an end, if it has one.
#[derive(Clone, Debug, Args)]
pub struct PortOptions {
    /// The port that DPDK is to drive: memif:PATH,server, memif:PATH,client, af_xdp:INTERFACE,
    /// af_packet:INTERFACE or pci:0000:03:00.0.
    #[arg(long, visible_alias = "port", value_name = "PORT")]
    pub dpdk_port: Option<PortSpec>,
    /// This host's address on that port, which the kernel does not know. Default: 198.18.0.2/24 of
    /// a server, 198.18.0.1/24 of a client.
    #[arg(long, value_name = "IP/BITS", value_parser = parse_network)]
    pub dpdk_address: Option<Ipv4Cidr>,
    /// The router to other networks on that port.
    #[arg(long, value_name = "IP")]
    pub dpdk_router: Option<Ipv4Addr>,
}

impl PortOptions {
    /// The link, at `network` unless somebody said where. `None`: no port.
    #[must_use]
    pub fn link(&self, network: Ipv4Cidr) -> Option<LinkConfig> {
        let port = self.dpdk_port.clone()?;
        let network = self.dpdk_address.unwrap_or(network);
        Some(link(port, network, self.dpdk_router))
    }
}

/// A port at an address of its network.
#[must_use]
pub fn link(port: PortSpec, network: Ipv4Cidr, router: Option<Ipv4Addr>) -> LinkConfig {
    LinkConfig {
        port,
        address: SocketAddrV4::new(network.address(), UDP_PORT),
        prefix: network.prefix_len(),
        router,
    }
}

/// An address and its network. Whether a host can have it is the link's to say.
pub fn parse_network(text: &str) -> Result<Ipv4Cidr, String> {
    text.parse()
        .map_err(|()| format!("{text:?} is not IP/BITS, such as \"10.77.0.1/24\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_read_and_shown() {
        let read = parse_network("10.77.0.1/24").unwrap();
        assert_eq!(read.address(), Ipv4Addr::new(10, 77, 0, 1));
        assert_eq!(
            (read.prefix_len(), read.to_string()),
            (24, "10.77.0.1/24".to_owned())
        );
        for bad in [
            "",
            "10.77.0.1",
            "10.77.0.1/33",
            "::1/64",
            "eth0/24",
            "10.77.0.1/24x",
        ] {
            assert!(parse_network(bad).unwrap_err().contains("IP/BITS"), "{bad}");
        }
    }
}
