//! Values of the configuration: parsed once, refused with what is allowed.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr, ToSocketAddrs as _};
use std::str::FromStr;

use genie_gpudev::DeviceKind;
use serde::de::{self, Deserialize, Deserializer, Visitor};

/// A number of bytes: `4096`, `64KiB`, `8GiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size(pub u64);

const UNITS: [(&str, u32); 4] = [("KiB", 10), ("MiB", 20), ("GiB", 30), ("TiB", 40)];

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refuse = || {
            format!(
                "{text:?} is not a size: allowed are a number of bytes, or one with KiB, MiB, GiB or TiB, such as \"8GiB\""
            )
        };
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic() || c == ' ');
        let unit = text[digits.len()..].trim();
        let shift = match UNITS.iter().find(|(name, _)| *name == unit) {
            Some((_, shift)) => *shift,
            None if unit.is_empty() || unit == "B" => 0,
            None => return Err(refuse()),
        };
        let number: u64 = digits.parse().map_err(|_| refuse())?;
        match number.checked_mul(1 << shift) {
            Some(0) | None => Err(refuse()),
            Some(bytes) => Ok(Self(bytes)),
        }
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, shift) in UNITS.iter().rev() {
            if self.0 >> shift > 0 && self.0.trailing_zeros() >= *shift {
                return write!(f, "{}{name}", self.0 >> shift);
            }
        }
        write!(f, "{}", self.0)
    }
}

/// A whole number between bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count<const MIN: u64, const MAX: u64>(pub u64);

impl<const MIN: u64, const MAX: u64> FromStr for Count<MIN, MAX> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse()
            .ok()
            .filter(|number| (MIN..=MAX).contains(number))
            .map(Self)
            .ok_or_else(|| format!("{text} is not allowed: a whole number from {MIN} to {MAX}"))
    }
}

impl<const MIN: u64, const MAX: u64> fmt::Display for Count<MIN, MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Where to listen: `HOST:PORT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address(String);

impl Address {
    /// The addresses that it names.
    ///
    /// # Errors
    /// The host's name can't be resolved.
    pub fn resolve(&self) -> std::io::Result<Vec<SocketAddr>> {
        Ok(self.0.to_socket_addrs()?.collect())
    }

    /// Whether somebody chose the port; without, the system does.
    #[must_use]
    pub fn has_port(&self) -> bool {
        !self.0.ends_with(":0")
    }
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let port = text.rsplit_once(':').filter(|(host, _)| !host.is_empty());
        match port.map(|(_, port)| port.parse::<u16>()) {
            Some(Ok(_)) => Ok(Self(text.to_owned())),
            _ => Err(format!(
                "{text:?} is not an address: HOST:PORT, such as \"127.0.0.1:7700\" or \"[::1]:7700\""
            )),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

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

/// A log filter: a level, or `target=level` pairs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFilter(pub String);

impl FromStr for LogFilter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];
        let fits = |part: &str| {
            let level = part.rsplit_once('=').map_or(part, |(_, level)| level);
            LEVELS.contains(&level)
        };
        if text.split(',').all(|part| fits(part.trim())) {
            return Ok(Self(text.to_owned()));
        }
        Err(format!(
            "{text:?} is not a log filter: allowed are error, warn, info, debug, trace, off, or \
             pairs such as \"info,genie_dataplane::node::data=debug\""
        ))
    }
}

impl fmt::Display for LogFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
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

/// In the file each of them is a string, or a number where that is enough.
struct TextOrNumber<T>(std::marker::PhantomData<T>);

impl<T: FromStr<Err = String>> Visitor<'_> for TextOrNumber<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string or a whole number")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<T, E> {
        number.to_string().parse().map_err(E::custom)
    }
}

macro_rules! from_text_or_number {
    ($([$($generics:tt)*] $type:ty,)*) => {$(
        impl<'de, $($generics)*> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_any(TextOrNumber(std::marker::PhantomData))
            }
        }
    )*};
}

from_text_or_number! {
    [] Size,
    [const MIN: u64, const MAX: u64] Count<MIN, MAX>,
    [] Address,
    [] DeviceChoice,
    [] LogFilter,
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
    fn sizes_are_read_and_shown() {
        for (text, bytes) in [
            ("4096", 4096),
            ("64KiB", 65536),
            ("8GiB", 8 << 30),
            ("1 MiB", 1 << 20),
        ] {
            let size: Size = text.parse().unwrap();
            assert_eq!(size.0, bytes);
            assert_eq!(size.to_string().parse::<Size>(), Ok(size));
        }
        for text in ["", "8GB", "-1", "0", "1.5GiB", "99999999TiB", "GiB"] {
            assert!(text.parse::<Size>().unwrap_err().contains("GiB"), "{text}");
        }
    }

    #[test]
    fn addresses_have_a_host_and_a_port() {
        for text in ["127.0.0.1:7700", "localhost:0", "[::1]:80"] {
            assert!(text.parse::<Address>().is_ok(), "{text}");
        }
        for text in ["7700", ":7700", "host", "host:", "host:99999"] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }

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
    fn counts_say_their_bounds() {
        assert_eq!("3".parse::<Count<1, 4>>(), Ok(Count(3)));
        assert!(
            "5".parse::<Count<1, 4>>()
                .unwrap_err()
                .contains("from 1 to 4")
        );
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

    #[test]
    fn log_filters_are_checked() {
        assert!("info,genie_dataplane=debug".parse::<LogFilter>().is_ok());
        assert!("loud".parse::<LogFilter>().unwrap_err().contains("trace"));
    }
}
