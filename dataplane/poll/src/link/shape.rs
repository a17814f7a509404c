//! How long the packets of a port may be, and the memory that they need.

use genie_dpdk::{AfXdp, Mtu, PortAddress, PortError, Vdev};

use crate::spec::PortSpec;

/// Bytes of an IP packet on an ordinary link.
pub(super) const ETHERNET_MTU: u16 = 1500;
/// Bytes of a packet's buffer where frames are jumbo.
const JUMBO_BYTES: u16 = 9216;
const FRAME_BYTES: u16 = 2048;

/// A port, as it is opened.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Shape {
    /// As DPDK is asked for it.
    pub(super) address: PortAddress,
    /// Bytes of the longest IP packet; what the port says itself where `asked` says something.
    pub(super) mtu: u16,
    /// What the port is told of it.
    pub(super) asked: Mtu,
    /// Bytes of a packet's buffer.
    pub(super) data_bytes: u16,
}

impl Shape {
    /// Of `port`. An interface that belongs to the kernel has an MTU already: `mtu_of` says which.
    pub(super) fn of(
        port: &PortSpec,
        mtu_of: impl Fn(&str) -> Result<u16, PortError>,
    ) -> Result<Self, PortError> {
        let mut shape = Self {
            address: port.address.clone(),
            mtu: port.mtu,
            asked: Mtu::Default,
            data_bytes: FRAME_BYTES,
        };
        match &mut shape.address {
            PortAddress::Pci(_) => {
                shape.asked = Mtu::AtMost(port.mtu);
                shape.data_bytes = JUMBO_BYTES;
            }
            PortAddress::Vdev(Vdev::Memif(memif)) => shape.data_bytes = memif.data_bytes(),
            PortAddress::Vdev(Vdev::AfPacket(packet)) => {
                shape.mtu = mtu_of(&packet.interface)?.min(port.mtu);
                *packet = packet.clone().with_mtu(shape.mtu);
                shape.data_bytes = packet.data_bytes();
            }
            PortAddress::Vdev(Vdev::AfXdp(xdp)) => {
                let most = AfXdp::mtu_max().min(port.mtu);
                shape.mtu = mtu_of(&xdp.interface)?.min(most);
                shape.data_bytes = AfXdp::data_bytes(shape.mtu);
            }
            PortAddress::Vdev(Vdev::Ring | Vdev::Null(_)) => shape.mtu = ETHERNET_MTU,
        }
        Ok(shape)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(text: &str, interface: u16) -> Shape {
        Shape::of(&text.parse().unwrap(), |name| {
            assert_eq!(name, "eth0");
            Ok(interface)
        })
        .unwrap()
    }

    #[test]
    fn a_kernels_interface_has_its_own_mtu() {
        for (interface, packet, xdp) in [
            (1400, 1400, 1400),
            (1500, 1500, 1500),
            (3000, 3000, 3000),
            (9000, 9000, AfXdp::mtu_max()),
            (65535, 9000, AfXdp::mtu_max()),
        ] {
            for (driver, expected) in [("af_packet:eth0", packet), ("af_xdp:eth0", xdp)] {
                let shape = shape(driver, interface);
                assert_eq!(shape.mtu, expected, "{driver}");
                assert!(shape.data_bytes >= expected + 14, "{driver}");
                assert_eq!(shape.asked, Mtu::Default, "it is the kernel's to set");
            }
        }
        let gone = |_: &str| {
            Err(PortError::NoInterface {
                interface: "eth0".to_owned(),
            })
        };
        assert!(Shape::of(&"af_packet:eth0".parse().unwrap(), gone).is_err());
    }

    #[test]
    fn a_ring_is_made_for_the_frames_of_its_interface() {
        let frame_bytes = |interface| match shape("af_packet:eth0", interface).address {
            PortAddress::Vdev(Vdev::AfPacket(packet)) => packet.frame_bytes,
            other => panic!("{other:?}"),
        };
        assert_eq!(frame_bytes(1500), 2048);
        assert!(frame_bytes(9000) > 9000);
    }

    #[test]
    fn a_card_is_asked_for_jumbo_frames_and_may_have_less() {
        let card = shape("pci:03:00.0", 0);
        assert_eq!((card.asked, card.mtu), (Mtu::AtMost(9000), 9000));
        assert!(card.data_bytes >= 9018);
        let memif = shape("memif:/a,server", 0);
        assert_eq!((memif.asked, memif.mtu), (Mtu::Default, 9000));
    }
}
