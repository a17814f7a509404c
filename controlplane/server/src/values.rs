//! Values of a configuration: parsed once, refused with what is allowed.

use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::str::FromStr;

pub use serde;
use serde::de::{self, Visitor};

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

/// In the file each of them is a string, or a number where that is enough.
pub struct TextOrNumber<T>(std::marker::PhantomData<T>);

impl<T> Default for TextOrNumber<T> {
    fn default() -> Self {
        Self(std::marker::PhantomData)
    }
}

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

/// How a value is read from a file: as its text, which [`FromStr`] reads.
#[macro_export]
macro_rules! from_text_or_number {
    ($([$($generics:tt)*] $type:ty,)*) => {$(
        impl<'de, $($generics)*> $crate::values::serde::Deserialize<'de> for $type {
            fn deserialize<D: $crate::values::serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_any($crate::values::TextOrNumber::default())
            }
        }
    )*};
}

from_text_or_number! {
    [] Size,
    [const MIN: u64, const MAX: u64] Count<MIN, MAX>,
    [] Address,
    [] LogFilter,
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
    fn counts_say_their_bounds() {
        assert_eq!("3".parse::<Count<1, 4>>(), Ok(Count(3)));
        assert!(
            "5".parse::<Count<1, 4>>()
                .unwrap_err()
                .contains("from 1 to 4")
        );
    }

    #[test]
    fn log_filters_are_checked() {
        assert!("info,genie_dataplane=debug".parse::<LogFilter>().is_ok());
        assert!("loud".parse::<LogFilter>().unwrap_err().contains("trace"));
    }
}
