//! Virtual devices, and the argument strings that their drivers read.

use std::path::{Path, PathBuf};

/// A path of a unix socket, with its NUL.
const SOCKET_PATH_MAX: usize = 108;
/// A network interface's name, with its NUL.
const INTERFACE_MAX: usize = 16;

/// A device that a driver makes up. Its parameters are typed, and checked when the port is opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Vdev {
    /// Shared memory between two processes.
    Memif(Memif),
    /// A kernel interface through AF_XDP sockets.
    AfXdp(AfXdp),
    /// A kernel interface through AF_PACKET sockets.
    AfPacket(AfPacket),
    /// A ring that gives back what was sent.
    Ring,
    /// A sink, and a source of packets without content.
    Null(Null),
}

/// One end of a memif link. The pool that it receives into must hold a whole buffer in each mbuf
/// ([`Memif::data_bytes`]).
///
/// The peer may end, be killed and come back at any time. It must be trusted, though, like another
/// thread: DPDK's driver follows the offsets and lengths that it writes into the shared rings.
///
/// A packet must fit into one buffer. If it has several segments, the mbuf at its head must be of a
/// pool whose mbufs hold more than a buffer, such as [`Memif::data_bytes`]; others are refused
/// ([`crate::TxQueue::refused`]), since the driver mixes them up.
///
/// The driver's own `zero-copy` is not offered. It needs hugepages in single-file segments, loses a
/// ring of mbufs whenever the peer ends, and takes no bytes from [`crate::ExternalMemory`]; it saves
/// the client's copy when it sends, a quarter of the time at best.
///
/// <https://doc.dpdk.org/guides/nics/memif.html>
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Memif {
    /// One end makes the socket, the other connects to it.
    pub role: MemifRole,
    /// The socket, a path in the file system.
    pub socket: PathBuf,
    /// Tells links apart that share a socket; the same at both ends.
    pub id: u32,
    /// Bytes of one packet buffer. A longer packet takes more than one.
    pub buffer_bytes: u16,
    /// Entries of a ring, as a power of two: 10 for 1024. At most 14.
    pub ring_log2: u8,
}

/// Which end of a memif link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemifRole {
    /// Listens.
    Server,
    /// Connects, and owns the shared memory.
    Client,
}

impl Memif {
    /// An end with 1024 buffers of 2048 bytes in each direction.
    pub fn new(role: MemifRole, socket: impl Into<PathBuf>) -> Self {
        Self {
            role,
            socket: socket.into(),
            id: 0,
            buffer_bytes: 2048,
            ring_log2: 10,
        }
    }

    /// The least [`crate::MempoolConfig::data_bytes`] of a pool for this link, with which packets of
    /// several segments can be sent too.
    pub fn data_bytes(&self) -> u16 {
        self.buffer_bytes.saturating_add(64)
    }

    /// With 256 buffers of 9216 bytes, for jumbo frames. Not more of them: a ring that stays in the
    /// cache of a core (2.4 MB here) moves a frame of 8 KiB in a half to a third of the time of one
    /// that does not. `examples/memif_cost` measures it.
    pub fn jumbo(self) -> Self {
        Self {
            buffer_bytes: 9216,
            ring_log2: 8,
            ..self
        }
    }
}

/// A kernel interface by AF_XDP. The driver has no receive interrupt, sends packets of one segment
/// only, and copies what does not lie in the port's own pool, which can't be one over external memory
/// ([`crate::Mempool::over_external`]): the kernel writes into the mbufs' own chunks. When it is
/// closed it keeps the mbufs of its fill ring (2048), and with them their pool. <https://doc.dpdk.org/guides/nics/af_xdp.html>
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AfXdp {
    /// The interface.
    pub interface: String,
    /// Its first queue that is used.
    pub start_queue: u16,
    /// How many queues are used.
    pub queues: u16,
    /// Copy mode, even where the kernel's driver could do without.
    pub force_copy: bool,
}

impl AfXdp {
    /// The first queue of an interface.
    pub fn new(interface: impl Into<String>) -> Self {
        Self {
            interface: interface.into(),
            start_queue: 0,
            queues: 1,
            force_copy: false,
        }
    }
}

/// A kernel interface by AF_PACKET. <https://doc.dpdk.org/guides/nics/af_packet.html>
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AfPacket {
    /// The interface.
    pub interface: String,
    /// Pairs of queues.
    pub queues: u16,
    /// Bytes of a frame in the shared ring, a multiple of 16 that divides the block.
    pub frame_bytes: u32,
    /// Bytes of a block of the ring, a multiple of the page.
    pub block_bytes: u32,
    /// Frames in the ring.
    pub frames: u32,
}

impl AfPacket {
    /// One pair of queues with 512 frames of 2 KiB.
    pub fn new(interface: impl Into<String>) -> Self {
        Self {
            interface: interface.into(),
            queues: 1,
            frame_bytes: 2048,
            block_bytes: 4096,
            frames: 512,
        }
    }
}

/// A sink and source. <https://doc.dpdk.org/guides/nics/null.html>
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Null {
    /// Bytes of each packet received.
    pub packet_bytes: u16,
    /// Receives nothing.
    pub sink_only: bool,
}

/// Why a virtual device's parameters were refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{driver}: {parameter} {value:?} must be {expected}")]
pub struct VdevError {
    /// The driver.
    pub driver: &'static str,
    /// The parameter.
    pub parameter: &'static str,
    /// What was given.
    pub value: String,
    /// What is accepted.
    pub expected: &'static str,
}

impl Vdev {
    /// The driver's name, which every device of it starts with.
    pub fn driver(&self) -> &'static str {
        match self {
            Self::Memif(_) => "net_memif",
            Self::AfXdp(_) => "net_af_xdp",
            Self::AfPacket(_) => "net_af_packet",
            Self::Ring => "net_ring",
            Self::Null(_) => "net_null",
        }
    }

    /// The arguments as the driver reads them.
    pub(crate) fn arguments(&self) -> Result<String, VdevError> {
        match self {
            Self::Memif(memif) => self.memif(memif),
            Self::AfXdp(xdp) => self.af_xdp(xdp),
            Self::AfPacket(packet) => self.af_packet(packet),
            Self::Ring => Ok(String::new()),
            Self::Null(null) => Ok(format!(
                "size={},copy=0,no-rx={}",
                null.packet_bytes,
                u8::from(null.sink_only)
            )),
        }
    }

    fn memif(&self, memif: &Memif) -> Result<String, VdevError> {
        let socket = self.socket(&memif.socket)?;
        self.check(
            "buffer_bytes",
            memif.buffer_bytes,
            memif.buffer_bytes >= 64,
            "64 or more",
        )?;
        let rings = (1..=14).contains(&memif.ring_log2);
        self.check("ring_log2", memif.ring_log2, rings, "1 to 14")?;
        let role = match memif.role {
            MemifRole::Server => "server",
            MemifRole::Client => "client",
        };
        Ok(format!(
            "role={role},id={},bsize={},rsize={},socket={socket},socket-abstract=no",
            memif.id, memif.buffer_bytes, memif.ring_log2
        ))
    }

    fn af_xdp(&self, xdp: &AfXdp) -> Result<String, VdevError> {
        let interface = self.interface(&xdp.interface)?;
        self.check("queues", xdp.queues, xdp.queues > 0, "1 or more")?;
        Ok(format!(
            "iface={interface},start_queue={},queue_count={},force_copy={}",
            xdp.start_queue,
            xdp.queues,
            u8::from(xdp.force_copy)
        ))
    }

    fn af_packet(&self, packet: &AfPacket) -> Result<String, VdevError> {
        let interface = self.interface(&packet.interface)?;
        let &AfPacket {
            queues,
            frame_bytes: frame,
            block_bytes: block,
            frames,
            ..
        } = packet;
        self.check("queues", queues, (1..=16).contains(&queues), "1 to 16")?;
        self.check(
            "block_bytes",
            block,
            block > 0 && block % 4096 == 0,
            "a multiple of 4096",
        )?;
        let fits = frame >= 128 && frame % 16 == 0 && block % frame == 0;
        self.check(
            "frame_bytes",
            frame,
            fits,
            "a multiple of 16 that divides block_bytes",
        )?;
        let whole = frames > 0 && frames % (block / frame) == 0;
        self.check("frames", frames, whole, "a whole number of blocks")?;
        Ok(format!(
            "iface={interface},qpairs={queues},framesz={frame},blocksz={block},framecnt={frames}"
        ))
    }

    fn socket<'a>(&self, path: &'a Path) -> Result<&'a str, VdevError> {
        let text = path.to_str().filter(|text| {
            path.is_absolute() && text.len() < SOCKET_PATH_MAX && text.chars().all(harmless)
        });
        text.ok_or_else(|| {
            let expected = "an absolute path under 108 bytes without , = [ ] or spaces";
            self.refuse("socket", path.display(), expected)
        })
    }

    fn interface<'a>(&self, name: &'a str) -> Result<&'a str, VdevError> {
        let good = !name.is_empty()
            && name.len() < INTERFACE_MAX
            && name.chars().all(|c| harmless(c) && c != '/');
        self.check("interface", name, good, "the name of a network interface")?;
        Ok(name)
    }

    fn check(
        &self,
        parameter: &'static str,
        value: impl std::fmt::Display,
        good: bool,
        expected: &'static str,
    ) -> Result<(), VdevError> {
        match good {
            true => Ok(()),
            false => Err(self.refuse(parameter, value, expected)),
        }
    }

    fn refuse(
        &self,
        parameter: &'static str,
        value: impl std::fmt::Display,
        expected: &'static str,
    ) -> VdevError {
        VdevError {
            driver: self.driver(),
            parameter,
            value: value.to_string(),
            expected,
        }
    }
}

/// Whether a character means nothing to DPDK's parser of device arguments.
fn harmless(c: char) -> bool {
    c.is_ascii_graphic() && !matches!(c, ',' | '=' | '[' | ']' | '"' | '\'' | '\\')
}

#[cfg(test)]
mod tests {
    use super::{AfPacket, AfXdp, Memif, MemifRole, Null, Vdev};

    #[test]
    fn arguments_are_those_that_the_drivers_read() {
        let memif = Vdev::Memif(Memif::new(MemifRole::Client, "/run/x.sock").jumbo());
        let expected = "role=client,id=0,bsize=9216,rsize=8,socket=/run/x.sock,socket-abstract=no";
        assert_eq!(memif.arguments().unwrap(), expected);
        let packet = Vdev::AfPacket(AfPacket::new("veth0"));
        let expected = "iface=veth0,qpairs=1,framesz=2048,blocksz=4096,framecnt=512";
        assert_eq!(packet.arguments().unwrap(), expected);
        let null = Vdev::Null(Null {
            packet_bytes: 64,
            sink_only: true,
        });
        assert_eq!(null.arguments().unwrap(), "size=64,copy=0,no-rx=1");
    }

    #[test]
    fn parameters_cannot_smuggle_others() {
        for socket in ["relative", "/a,zero-copy=yes", "/a b", "/a[1]"] {
            let memif = Vdev::Memif(Memif::new(MemifRole::Server, socket));
            assert_eq!(memif.arguments().unwrap_err().parameter, "socket");
        }
        let long = format!("/{}", "x".repeat(108));
        assert!(
            Vdev::Memif(Memif::new(MemifRole::Server, long))
                .arguments()
                .is_err()
        );
        for interface in ["", "eth0,x=1", "../eth0", "a-name-too-long-0"] {
            let xdp = Vdev::AfXdp(AfXdp::new(interface));
            assert_eq!(xdp.arguments().unwrap_err().parameter, "interface");
        }
    }

    #[test]
    fn rings_that_do_not_add_up_are_refused() {
        let good = AfPacket::new("veth0");
        let refused = |packet| Vdev::AfPacket(packet).arguments().unwrap_err().parameter;
        assert_eq!(
            refused(AfPacket {
                frame_bytes: 1500,
                ..good.clone()
            }),
            "frame_bytes"
        );
        assert_eq!(
            refused(AfPacket {
                frame_bytes: 0,
                ..good.clone()
            }),
            "frame_bytes"
        );
        assert_eq!(
            refused(AfPacket {
                block_bytes: 1000,
                ..good.clone()
            }),
            "block_bytes"
        );
        assert_eq!(
            refused(AfPacket {
                frames: 511,
                ..good
            }),
            "frames"
        );
    }
}
