//! How a host is configured, and what may be wrong.

use std::net::{Ipv4Addr, SocketAddrV4};

use smoltcp::wire::{EthernetAddress, Ipv4Cidr};

use crate::limits::{
    CONNECTIONS_DEFAULT, CONNECTIONS_MAX, LISTENERS_MAX, MTU_MAX_BYTES, MTU_MIN_BYTES,
};

/// A host on a port.
#[derive(Clone, Debug)]
pub struct HostConfig {
    /// The port's hardware address.
    pub mac: [u8; 6],
    /// The port's IP address.
    pub address: Ipv4Addr,
    /// Bits of the network's prefix, 0 to 32.
    pub prefix: u8,
    /// Who forwards to hosts off the link.
    pub router: Option<Ipv4Addr>,
    /// IP MTU: bytes after the Ethernet header.
    pub mtu: usize,
    /// TCP connections at one time; each takes about 256 KiB when its buffers are full.
    pub tcp_connections_max: usize,
    /// Where initial sequence numbers and ports come from: unpredictable, and new at each start.
    pub seed: u64,
}

impl HostConfig {
    /// A host without a router, with an MTU of 1500.
    #[must_use]
    pub fn new(mac: [u8; 6], address: Ipv4Addr, prefix: u8, seed: u64) -> Self {
        Self {
            mac,
            address,
            prefix,
            router: None,
            mtu: 1500,
            tcp_connections_max: CONNECTIONS_DEFAULT,
            seed,
        }
    }

    /// The address and its network.
    pub(crate) fn check(&self) -> Result<Ipv4Cidr, HostError> {
        if !is_hardware_address(&self.mac) {
            return Err(HostError::Mac { mac: self.mac });
        }
        if self.prefix > 32 {
            return Err(HostError::Prefix {
                prefix: self.prefix,
            });
        }
        let network = Ipv4Cidr::new(self.address, self.prefix);
        if !is_host(self.address, network) {
            return Err(HostError::Address {
                address: self.address,
                prefix: self.prefix,
            });
        }
        if let Some(router) = self.router
            && (router == self.address
                || !is_host(router, network)
                || !network.contains_addr(&router))
        {
            return Err(HostError::Router { router, network });
        }
        if !(MTU_MIN_BYTES..=MTU_MAX_BYTES).contains(&self.mtu) {
            return Err(HostError::Mtu { mtu: self.mtu });
        }
        if !(1..=CONNECTIONS_MAX).contains(&self.tcp_connections_max) {
            return Err(HostError::ConnectionsMax {
                given: self.tcp_connections_max,
            });
        }
        Ok(network)
    }
}

/// Whether a host may have this hardware address.
pub(crate) fn is_hardware_address(mac: &[u8; 6]) -> bool {
    EthernetAddress(*mac).is_unicast() && *mac != [0; 6]
}

/// Whether a host may have this address, seen from `network`.
pub(crate) fn is_host(address: Ipv4Addr, network: Ipv4Cidr) -> bool {
    let special = address.is_unspecified()
        || address.is_loopback()
        || address.is_multicast()
        || address.octets()[0] == 0
        || address.octets()[0] >= 240;
    // In a network of one or two addresses both are hosts (RFC 3021).
    let named = network.prefix_len() <= 30
        && (network.broadcast() == Some(address) || network.network().address() == address);
    !special && !named
}

/// Why a host did not do what it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// Not an address of one port.
    #[error("{} is no port's hardware address; give a unicast one", EthernetAddress(*mac))]
    Mac {
        /// Which.
        mac: [u8; 6],
    },
    /// Not a prefix.
    #[error("a prefix of {prefix} bits; IPv4 has 0 to 32")]
    Prefix {
        /// How long.
        prefix: u8,
    },
    /// Not an address of one host.
    #[error("no host can have the address {address}/{prefix}; give a unicast one")]
    Address {
        /// Which.
        address: Ipv4Addr,
        /// Its prefix.
        prefix: u8,
    },
    /// Nobody can reach it.
    #[error("the router {router} is not another host of {network}")]
    Router {
        /// Which.
        router: Ipv4Addr,
        /// The port's network.
        network: Ipv4Cidr,
    },
    /// Too small for IPv4, or too great for a buffer.
    #[error("an IP MTU of {mtu} bytes; give {MTU_MIN_BYTES} to {MTU_MAX_BYTES}")]
    Mtu {
        /// How many bytes.
        mtu: usize,
    },
    /// None, or more than is sensible.
    #[error("{given} TCP connections; give 1 to {CONNECTIONS_MAX}")]
    ConnectionsMax {
        /// How many.
        given: usize,
    },
    /// Close one first.
    #[error("{max} TCP connections are open, as many as tcp_connections_max says")]
    Full {
        /// How many.
        max: usize,
    },
    /// Off the link, without a router.
    #[error("no route to {to}: it is off the link, and no router is configured")]
    NoRoute {
        /// To whom.
        to: Ipv4Addr,
    },
    /// Not an address that can be connected to.
    #[error("{to} is not an address of another host's port")]
    Peer {
        /// Which.
        to: SocketAddrV4,
    },
    /// Every port is in use.
    #[error("no local port is free; close a connection")]
    NoPort,
    /// Somebody listens there.
    #[error("port {port} is listened on already")]
    PortTaken {
        /// Which.
        port: u16,
    },
    /// Not a port, or room for nobody.
    #[error("can't listen on port {port} with a backlog of {backlog}; both must be above 0")]
    Listen {
        /// On which.
        port: u16,
        /// How many may wait.
        backlog: usize,
    },
    /// Too many listeners.
    #[error("{LISTENERS_MAX} ports are listened on, as many as may")]
    Listeners,
}
