//! Values of the configuration: parsed once, refused with what is allowed.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use genie_gpudev::DeviceKind;
use genie_server::from_text_or_number;
use genie_server::values::{Count, Size};

/// A device and what it has of this machine: `cuda:1`, `host:0`, `host:0?threads=1&memory=4GiB&speed=0.5`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceChoice {
    /// Which.
    pub kind: DeviceKind,
    /// Threads that one operator may use there, if not as everywhere on the node.
    pub threads: Option<u32>,
    /// What the tensors of one session may take there, if not as everywhere on the node.
    pub memory_bytes: Option<u64>,
    /// How fast it is made to be, in percent of what it is: to test a pool of unequal devices.
    pub speed_percent: Option<u32>,
}

impl From<DeviceKind> for DeviceChoice {
    fn from(kind: DeviceKind) -> Self {
        Self {
            kind,
            threads: None,
            memory_bytes: None,
            speed_percent: None,
        }
    }
}

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, options) = text.split_once('?').unwrap_or((text, ""));
        let kind: DeviceKind = name
            .parse()
            .map_err(|error: genie_gpudev::device::DeviceNameError| error.to_string())?;
        let mut choice = Self::from(kind);
        for option in options.split('&').filter(|option| !option.is_empty()) {
            let (key, value) = option.split_once('=').unwrap_or((option, ""));
            match (key, kind) {
                ("threads", DeviceKind::Host(_)) => {
                    choice.threads = u32::try_from(value.parse::<Count<1, 1024>>()?.0).ok();
                }
                ("speed", DeviceKind::Host(_)) => choice.speed_percent = Some(percent(value)?),
                ("memory", _) => choice.memory_bytes = Some(value.parse::<Size>()?.0),
                _ => {
                    return Err(format!(
                        "{text:?}: {key:?} is nothing that {kind} has; write \
                         host:N?threads=COUNT&memory=SIZE&speed=SHARE, or cuda:N?memory=SIZE"
                    ));
                }
            }
        }
        Ok(choice)
    }
}

/// A share of what there is, from 0.01 to 1.
fn percent(text: &str) -> Result<u32, String> {
    let share = text
        .parse::<f64>()
        .ok()
        .map(|share| (share * 100.0).round());
    match share {
        Some(percent) if (1.0..=100.0).contains(&percent) => Ok(percent as u32),
        _ => Err(format!("{text:?} is no speed: a share from 0.01 to 1")),
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.kind.fmt(f)?;
        let options = [
            self.threads.map(|threads| format!("threads={threads}")),
            self.memory_bytes
                .map(|bytes| format!("memory={}", Size(bytes))),
            self.speed_percent
                .map(|percent| format!("speed={}", f64::from(percent) / 100.0)),
        ];
        let options: Vec<_> = options.into_iter().flatten().collect();
        match options.is_empty() {
            true => Ok(()),
            false => write!(f, "?{}", options.join("&")),
        }
    }
}

/// A DPDK port; see [`genie_poll::PortSpec`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port(pub genie_poll::PortSpec);

impl FromStr for Port {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse()
            .map(Self)
            .map_err(|error: genie_poll::PortSpecError| error.to_string())
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A host's address on a link, and the bits of it that name the network: `10.77.0.1/24`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkAddress {
    /// The address.
    pub address: Ipv4Addr,
    /// 1 to 31.
    pub prefix: u8,
}

impl FromStr for LinkAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once('/');
        let parts = parts.and_then(|(address, prefix)| {
            let prefix: u8 = prefix.parse().ok()?;
            let address: Ipv4Addr = address.parse().ok()?;
            let is_host = !address.is_multicast()
                && !address.is_unspecified()
                && !address.is_loopback()
                && !address.is_broadcast();
            ((1..=31).contains(&prefix) && is_host).then_some(Self { address, prefix })
        });
        parts.ok_or_else(|| {
            format!("{text:?} is not a host's address on a link: IP/BITS, such as \"10.77.0.1/24\"")
        })
    }
}

impl fmt::Display for LinkAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// One word out of a few.
macro_rules! choice {
    ($(#[$doc:meta])* $name:ident { $(#[$first:meta])* $default:ident = $text:literal,
        $($(#[$rest:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub enum $name {
            $(#[$first])*
            #[default]
            $default,
            $($(#[$rest])* $variant,)*
        }

        impl FromStr for $name {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                match text {
                    $text => Ok(Self::$default),
                    $($word => Ok(Self::$variant),)*
                    other => Err(format!(
                        "{other:?} is not allowed: {}",
                        [$text, $($word),*].join(" or ")
                    )),
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self {
                    Self::$default => $text,
                    $(Self::$variant => $word,)*
                })
            }
        }
    };
}

choice! {
    /// Which transports the data path may use.
    TransportChoice {
        /// DPDK where it works, else TCP.
        Auto = "auto",
        /// TCP only.
        Tcp = "tcp",
    }
}

choice! {
    /// How the poll loop waits.
    PollingChoice {
        /// Backs off when idle.
        Adaptive = "adaptive",
        /// Never sleeps.
        Busy = "busy",
    }
}

choice! {
    /// Where packets arrive.
    ReceiveChoice {
        /// In the device's memory where they can.
        Auto = "auto",
        /// In the host's.
        Staged = "staged",
    }
}

choice! {
    /// Where tensors are.
    TensorsChoice {
        /// The host device's in memory that the daemon and the executor share, an accelerator's in
        /// pools of its own.
        Auto = "auto",
        /// In pools of the device, the host's too.
        Pools = "pools",
    }
}

choice! {
    /// Whether executors are held in.
    SandboxChoice {
        /// As far as this machine's kernel allows; what is missing is said.
        Auto = "auto",
        /// Not at all.
        Off = "off",
    }
}

from_text_or_number! {
    [] DeviceChoice,
    [] Port,
    [] LinkAddress,
    [] TransportChoice,
    [] PollingChoice,
    [] ReceiveChoice,
    [] TensorsChoice,
    [] SandboxChoice,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_host_or_cuda() {
        assert_eq!(
            "host:1".parse::<DeviceChoice>().unwrap().to_string(),
            "host:1"
        );
        assert_eq!(
            "cuda".parse::<DeviceChoice>().unwrap().to_string(),
            "cuda:0"
        );
        let part = "host:1?threads=1&memory=4GiB&speed=0.25";
        let choice: DeviceChoice = part.parse().unwrap();
        assert_eq!(
            (choice.threads, choice.memory_bytes, choice.speed_percent),
            (Some(1), Some(4 << 30), Some(25))
        );
        assert_eq!(choice.to_string(), part);
        for text in [
            "host:0?threads=0",
            "host:0?speed",
            "host:0?speed=0",
            "host:0?speed=2",
            "cuda:0?speed=0.5",
            "host:0?colour=red",
            "cuda:0?threads=1",
            "host:0?memory=x",
        ] {
            assert!(text.parse::<DeviceChoice>().is_err(), "{text}");
        }
        for text in ["hots:0", "cuda:x", "cuda:128", ""] {
            assert!(
                text.parse::<DeviceChoice>().unwrap_err().contains("host:N"),
                "{text}"
            );
        }
    }

    #[test]
    fn links_have_a_hosts_address() {
        let good: LinkAddress = "10.77.0.1/24".parse().unwrap();
        assert_eq!(good.to_string(), "10.77.0.1/24");
        for text in [
            "10.77.0.1",
            "10.77.0.1/0",
            "10.77.0.1/32",
            "224.0.0.1/24",
            "::1/64",
            "/24",
        ] {
            assert!(text.parse::<LinkAddress>().is_err(), "{text}");
        }
    }

    #[test]
    fn choices_say_what_is_allowed() {
        assert_eq!("tcp".parse(), Ok(TransportChoice::Tcp));
        let refused = "udp".parse::<TransportChoice>().unwrap_err();
        assert!(refused.contains("auto or tcp"), "{refused}");
    }
}
