//! A kernel interface's MTU, and what it makes of the devices that reach it through the kernel.

use nix::errno::Errno as Known;
use nix::libc;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use std::os::fd::AsRawFd as _;

use super::error::PortError;
use super::vdev::{AfPacket, AfXdp};
use crate::mempool::headroom;

/// What surrounds an IP packet: Ethernet's header, and a VLAN's tag.
const AROUND_BYTES: u16 = 14 + 4;

/// Bytes of the longest IP packet that a network interface of the kernel carries. Asked of the
/// kernel rather than read in `/sys`, which may show another network namespace.
///
/// # Errors
/// [`PortError::NoInterface`], or that the kernel does not answer.
pub fn mtu(interface: &str) -> Result<u16, PortError> {
    let refused = |errno: Known| match errno {
        Known::ENODEV | Known::EINVAL => PortError::NoInterface {
            interface: interface.to_owned(),
        },
        errno => PortError::NoAnswer {
            interface: interface.to_owned(),
            errno: crate::Errno::of_result(errno as i32),
        },
    };
    // SAFETY: zeros are a request without a name.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // With its NUL.
    if interface.len() >= request.ifr_name.len() || interface.contains('\0') {
        return Err(refused(Known::EINVAL));
    }
    for (to, &from) in request.ifr_name.iter_mut().zip(interface.as_bytes()) {
        *to = from as libc::c_char;
    }
    let any = socket(
        AddressFamily::Inet,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        None,
    )
    .map_err(refused)?;
    // SAFETY: a socket, and a request that lives through the call; the kernel writes the MTU to it.
    let result = unsafe { libc::ioctl(any.as_raw_fd(), libc::SIOCGIFMTU as _, &mut request) };
    Known::result(result).map_err(refused)?;
    // SAFETY: this question is answered by this part.
    let mtu = unsafe { request.ifr_ifru.ifru_mtu };
    Ok(u16::try_from(mtu.max(0)).unwrap_or(u16::MAX))
}

impl AfPacket {
    /// What the kernel puts before a frame in the ring (TPACKET_V2, the frame's own Ethernet header
    /// aligned), and what a driver's mbuf needs less than that of a ring's frame.
    const BEFORE_BYTES: u16 = 80;
    const LESS_BYTES: u16 = 32;
    /// Frames of an ordinary link, and of a jumbo one: four of these are nine pages.
    const FRAME_BYTES: u16 = 2048;
    const JUMBO_BYTES: u16 = 9216;
    const JUMBO_BLOCK_BYTES: u32 = 4 * 9216;
    /// The longest IP packet that fits into the longest frame.
    pub const MTU_MAX: u16 = Self::JUMBO_BYTES - Self::BEFORE_BYTES - AROUND_BYTES;

    /// With frames that hold IP packets of `mtu` bytes; at most [`Self::MTU_MAX`].
    #[must_use]
    pub fn with_mtu(self, mtu: u16) -> Self {
        if mtu <= Self::FRAME_BYTES - Self::BEFORE_BYTES - AROUND_BYTES {
            return self;
        }
        Self {
            frame_bytes: Self::JUMBO_BYTES.into(),
            block_bytes: Self::JUMBO_BLOCK_BYTES,
            ..self
        }
    }

    /// The least [`crate::MempoolConfig::data_bytes`] of a pool for this port: whatever a frame of
    /// its ring may hold.
    #[must_use]
    pub fn data_bytes(&self) -> u16 {
        let bytes = self.frame_bytes.saturating_sub(Self::LESS_BYTES.into());
        u16::try_from(bytes).unwrap_or(u16::MAX)
    }
}

impl AfXdp {
    /// A chunk of the kernel's, which is an mbuf with all that belongs to it: a page at most, and an
    /// odd number of cache lines, since pools add one to an even number.
    const CHUNK_BYTES: u16 = 63 * 64;
    /// What lies before the data there: the pool's header and the mbuf.
    const BEFORE_BYTES: u16 = 64 + 128;
    /// What the kernel keeps free for programs, in what DPDK gives it.
    const KERNEL_BYTES: u16 = 256;
    /// And of an ordinary link.
    const FRAME_BYTES: u16 = 2048;

    /// The longest IP packet that fits into a chunk.
    #[must_use]
    pub fn mtu_max() -> u16 {
        Self::room(Self::most())
    }

    /// [`crate::MempoolConfig::data_bytes`] of a pool for IP packets of `mtu` bytes; at most
    /// [`Self::mtu_max`].
    #[must_use]
    pub fn data_bytes(mtu: u16) -> u16 {
        match mtu <= Self::room(Self::FRAME_BYTES) {
            true => Self::FRAME_BYTES,
            false => Self::most(),
        }
    }

    fn most() -> u16 {
        Self::CHUNK_BYTES - Self::BEFORE_BYTES - headroom()
    }

    fn room(data_bytes: u16) -> u16 {
        data_bytes - Self::KERNEL_BYTES - AROUND_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::mtu;
    use crate::{AfPacket, AfXdp, PortError, Vdev};

    #[test]
    fn the_kernel_says_how_long_packets_are() {
        // Of the network namespace that /sys shows here.
        let told = std::fs::read_to_string("/sys/class/net/lo/mtu").unwrap();
        let told: u32 = told.trim().parse().unwrap();
        assert_eq!(u32::from(mtu("lo").unwrap()), told.min(65535));
        for absent in ["genie-absent0", "", "a-name-of-more-than-15-bytes", "a\0b"] {
            let error = mtu(absent).unwrap_err();
            assert!(matches!(error, PortError::NoInterface { .. }), "{error}");
        }
    }

    #[test]
    fn rings_of_af_packet_hold_the_packets_and_fit_the_mbufs() {
        for mtu in [68, 1500, 1950, 1951, 4000, 9000, AfPacket::MTU_MAX] {
            let packet = AfPacket::new("eth0").with_mtu(mtu);
            assert!(packet.frame_bytes >= u32::from(mtu) + 14 + 4 + 80, "{mtu}");
            assert!(u32::from(packet.data_bytes()) <= packet.frame_bytes);
            assert!(packet.data_bytes() <= 9216, "{mtu}");
            assert!(Vdev::AfPacket(packet).arguments().is_ok(), "{mtu}");
        }
        assert_eq!(AfPacket::new("a").with_mtu(1500), AfPacket::new("a"));
    }

    #[test]
    fn chunks_of_af_xdp_are_a_page_at_most() {
        // DPDK's driver says 3502 itself, and forgets the spreading of pools.
        assert_eq!(AfXdp::mtu_max(), 3438);
        for mtu in [68, 1500, 1774, 1775, 3000, 3438] {
            let data = AfXdp::data_bytes(mtu);
            assert!(data >= mtu + 14 + 4 + 256, "{mtu}");
            let chunk = 64 + 128 + 128 + data;
            assert!(chunk <= 4096 && chunk.div_ceil(64) % 2 == 1, "{mtu}");
        }
        assert_eq!(AfXdp::data_bytes(1500), 2048);
    }
}
