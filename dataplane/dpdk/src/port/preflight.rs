//! What a driver would stumble over, found before it is asked: its error numbers don't tell these
//! apart, and DPDK would log every try.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use nix::unistd::{AccessFlags, eaccess};

use super::address::{PciAddress, PortAddress};
use super::error::PortError;
use super::interface;
use super::vdev::{AfXdp, Vdev};
use crate::{Errno, libraries};

const READ_AND_WRITE: AccessFlags = AccessFlags::R_OK.union(AccessFlags::W_OK);
/// Kernel drivers that hand a device to user space, as DPDK knows them.
const USER_SPACE: [&str; 3] = [VFIO, "igb_uio", "uio_pci_generic"];
const VFIO: &str = "vfio-pci";
/// Kernel drivers that keep a device and give DPDK queues of it.
const SHARED: [&str; 3] = ["mlx5_core", "mlx4_core", "mana"];

/// What the kernel asks of who opens a kind of socket: any one of each line (capability(7)).
type Needs = &'static [&'static [Capability]];
type Capability = (&'static str, u32);
const ADMIN: Capability = ("CAP_NET_ADMIN", 12);
const RAW: Capability = ("CAP_NET_RAW", 13);
const SYSTEM: Capability = ("CAP_SYS_ADMIN", 21);
const BPF: Capability = ("CAP_BPF", 39);
const AF_PACKET: Needs = &[&[RAW]];
/// The socket, the program on the interface, and loading that.
const AF_XDP: Needs = &[&[RAW], &[ADMIN], &[BPF, SYSTEM]];

/// Checks that a port can be opened at all. `root` is where `/proc`, `/sys` and `/dev` are.
pub(super) fn check(address: &PortAddress, root: &Path) -> Result<(), PortError> {
    match address {
        PortAddress::Pci(address) => {
            driver("bus_pci")?;
            pci(*address, root)
        }
        PortAddress::Vdev(vdev) => {
            driver(vdev.driver())?;
            // Parameters that make no sense are the driver's to name.
            if vdev.arguments().is_err() {
                return Ok(());
            }
            match vdev {
                Vdev::AfPacket(packet) => {
                    kernel(vdev, &packet.interface, u16::MAX, AF_PACKET, root)
                }
                // The kernel does not let programs on interfaces with longer frames than a page.
                Vdev::AfXdp(xdp) => kernel(vdev, &xdp.interface, AfXdp::mtu_max(), AF_XDP, root),
                Vdev::Memif(memif) => folder(&memif.socket),
                Vdev::Ring | Vdev::Null(_) => Ok(()),
            }
        }
    }
}

/// Drivers are plug-ins, which the EAL loads when it starts.
fn driver(name: &'static str) -> Result<(), PortError> {
    match libraries::is_missing(&format!("librte_{name}.so")) {
        true => Err(PortError::NoDriver { driver: name }),
        false => Ok(()),
    }
}

/// Either end of a memif wants to write where its socket is.
fn folder(socket: &Path) -> Result<(), PortError> {
    let Some(folder) = socket.parent() else {
        return Ok(());
    };
    eaccess(folder, READ_AND_WRITE).map_err(|errno| PortError::SocketFolder {
        folder: folder.to_owned(),
        errno: Errno::of_result(errno as i32),
    })
}

fn kernel(
    vdev: &Vdev,
    interface: &str,
    mtu_max: u16,
    needs: Needs,
    root: &Path,
) -> Result<(), PortError> {
    let mtu = interface::mtu(interface)?;
    // Of this thread: it is the one that opens sockets. Where it can't be known, the kernel says it.
    let status = fs::read_to_string(root.join("proc/thread-self/status"));
    let held = status.ok().as_deref().and_then(effective);
    let missing = held.map(|held| missing(held, needs)).unwrap_or_default();
    if !missing.is_empty() {
        return Err(PortError::NoCapability {
            driver: vdev.driver(),
            interface: interface.to_owned(),
            missing: missing.join(" and "),
        });
    }
    if mtu > mtu_max {
        return Err(PortError::InterfaceMtu {
            driver: vdev.driver(),
            interface: interface.to_owned(),
            mtu,
            max: mtu_max,
        });
    }
    Ok(())
}

/// The capabilities in effect, of a `status` file (proc_pid_status(5)).
fn effective(status: &str) -> Option<u64> {
    let mut lines = status.lines();
    let mask = lines.find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(mask.trim(), 16).ok()
}

fn missing(held: u64, needs: Needs) -> Vec<&'static str> {
    let lacks = |any: &&&[Capability]| any.iter().all(|(_, bit)| held >> bit & 1 == 0);
    let first = |any: &&'static [Capability]| any.first().map(|(name, _)| *name);
    needs.iter().filter(lacks).filter_map(first).collect()
}

/// <https://doc.dpdk.org/guides/linux_gsg/linux_drivers.html>
fn pci(address: PciAddress, root: &Path) -> Result<(), PortError> {
    let device = root.join("sys/bus/pci/devices").join(address.to_string());
    let link = |name: &str| {
        let target = fs::read_link(device.join(name)).ok()?;
        Some(target.file_name()?.to_string_lossy().into_owned())
    };
    if matches!(fs::metadata(&device), Err(error) if error.kind() == ErrorKind::NotFound) {
        return Err(PortError::NoPciDevice { address });
    }
    let bound = link("driver");
    let is_one_of = |names: &[&str]| bound.as_deref().is_some_and(|name| names.contains(&name));
    if !is_one_of(&USER_SPACE) && !is_one_of(&SHARED) {
        let bound = bound.unwrap_or_else(|| "no driver".to_owned());
        return Err(PortError::NotBound { address, bound });
    }
    if is_one_of(&[VFIO])
        && let Some(group) = link("iommu_group")
    {
        let file = root.join("dev/vfio").join(group);
        if eaccess(&file, READ_AND_WRITE) == Err(nix::errno::Errno::EACCES) {
            return Err(PortError::NoAccess { address, file });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::PathBuf;

    use super::{AF_PACKET, AF_XDP, effective, folder, missing, pci};
    use crate::{AfPacket, AfXdp, PciAddress, PortError, Vdev};

    /// A file system of one's own.
    struct Root(PathBuf);

    impl Root {
        fn new(name: &str) -> Self {
            let root = format!("genie-preflight-{name}-{}", std::process::id());
            let root = std::env::temp_dir().join(root);
            let _ = fs::remove_dir_all(&root);
            fs::create_dir_all(root.join("proc/thread-self")).unwrap();
            fs::create_dir_all(root.join("sys/bus/pci/devices/0000:03:00.0")).unwrap();
            Self(root)
        }

        fn bind(&self, driver: &str) {
            let link = self.0.join("sys/bus/pci/devices/0000:03:00.0/driver");
            let _ = fs::remove_file(&link);
            symlink(format!("../../../bus/pci/drivers/{driver}"), link).unwrap();
        }

        fn holds(&self, capabilities: &str) {
            let status = format!("Name:\tgenie\nCapPrm:\t0\nCapEff:\t{capabilities}\nCapBnd:\t0\n");
            fs::write(self.0.join("proc/thread-self/status"), status).unwrap();
        }
    }

    impl Drop for Root {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_pci_device_must_be_there_and_bound() {
        let root = Root::new("pci");
        let card: PciAddress = "0000:03:00.0".parse().unwrap();
        let absent: PciAddress = "0000:04:00.0".parse().unwrap();
        let error = pci(absent, &root.0).unwrap_err();
        assert_eq!(error, PortError::NoPciDevice { address: absent });
        let unbound = pci(card, &root.0).unwrap_err();
        assert!(matches!(&unbound, PortError::NotBound { bound, .. } if bound == "no driver"));
        for wrong in ["ixgbe", "virtio-pci", "vfio"] {
            root.bind(wrong);
            let error = pci(card, &root.0).unwrap_err().to_string();
            assert!(error.contains(wrong), "{error}");
            let mend = "dpdk-devbind.py --bind=vfio-pci 0000:03:00.0";
            assert!(error.contains(mend), "{error}");
        }
        for right in ["vfio-pci", "igb_uio", "uio_pci_generic", "mlx5_core"] {
            root.bind(right);
            assert_eq!(pci(card, &root.0), Ok(()), "{right}");
        }
    }

    #[test]
    fn a_socket_must_have_a_folder() {
        let root = Root::new("memif");
        assert_eq!(folder(&root.0.join("link.sock")), Ok(()));
        let absent = root.0.join("absent");
        let error = folder(&absent.join("link.sock")).unwrap_err();
        assert!(
            matches!(&error, PortError::SocketFolder { folder, .. } if *folder == absent),
            "{error}"
        );
    }

    #[test]
    fn capabilities_are_read_and_compared() {
        assert_eq!(effective("CapEff:\t0000000000003000\n"), Some(0x3000));
        assert_eq!(effective("CapPrm:\t1\n"), None);
        assert_eq!(missing(0, AF_PACKET), ["CAP_NET_RAW"]);
        assert!(missing(1 << 13, AF_PACKET).is_empty());
        let names = ["CAP_NET_RAW", "CAP_NET_ADMIN", "CAP_BPF"];
        assert_eq!(missing(0, AF_XDP), names);
        assert_eq!(missing(1 << 13, AF_XDP), names[1..]);
        assert_eq!(missing(1 << 12 | 1 << 13, AF_XDP), names[2..]);
        for bpf in [21, 39] {
            assert!(missing(1 << 12 | 1 << 13 | 1 << bpf, AF_XDP).is_empty());
        }
    }

    #[test]
    fn an_interface_must_be_there_and_allowed() {
        let root = Root::new("interface");
        root.holds("0000000000000000");
        let packet = |name: &str| Vdev::AfPacket(AfPacket::new(name));
        let xdp = |name: &str| Vdev::AfXdp(AfXdp::new(name));
        let max = u16::MAX;
        let kernel =
            |vdev: &Vdev, name: &str, needs| super::kernel(vdev, name, max, needs, &root.0);
        for vdev in [packet("genie-absent0"), xdp("genie-absent0")] {
            let error = kernel(&vdev, "genie-absent0", AF_PACKET).unwrap_err();
            assert!(matches!(error, PortError::NoInterface { .. }), "{error}");
        }
        let denied = kernel(&packet("lo"), "lo", AF_PACKET).unwrap_err();
        assert!(denied.to_string().contains("CAP_NET_RAW"), "{denied}");
        let denied = kernel(&xdp("lo"), "lo", AF_XDP).unwrap_err().to_string();
        assert!(denied.contains("CAP_NET_ADMIN and CAP_BPF"), "{denied}");
        root.holds("000001ffffffffff");
        assert_eq!(kernel(&packet("lo"), "lo", AF_PACKET), Ok(()));
        assert_eq!(kernel(&xdp("lo"), "lo", AF_XDP), Ok(()));
        // That of the loopback interface is longer.
        let error = super::kernel(&xdp("lo"), "lo", 3438, AF_XDP, &root.0).unwrap_err();
        assert!(
            error.to_string().contains("ip link set lo mtu 3438"),
            "{error}"
        );
        // Without /proc the kernel is asked.
        fs::remove_file(root.0.join("proc/thread-self/status")).unwrap();
        assert_eq!(kernel(&packet("lo"), "lo", AF_PACKET), Ok(()));
    }
}
