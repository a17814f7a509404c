//! Who calls: names that were parsed once, from a verified certificate.
//!
//! A name is taken as it is or refused: one that was cut or mended could be another's.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

/// Bytes of a name at most: twice what X.520 gives a common name or an organisation.
pub const NAME_BYTES_MAX: usize = 128;
/// What a name may have besides letters and digits; spaces only between two others.
pub const NAME_SIGNS: &str = " .,-_@:/+=&'()#";

/// Why a name is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing.
    #[error("it is empty")]
    Empty,
    /// Too much.
    #[error("it has {0} bytes, and {NAME_BYTES_MAX} are allowed")]
    Long(usize),
    /// Something else.
    #[error("it has the character {0:?}: allowed are letters, digits and {NAME_SIGNS:?}")]
    Character(char),
    /// It would look like another.
    #[error("it begins or ends with a space, or has two in a row")]
    Spaces,
}

fn parse(text: &str) -> Result<Arc<str>, NameError> {
    if text.is_empty() {
        return Err(NameError::Empty);
    }
    if text.len() > NAME_BYTES_MAX {
        return Err(NameError::Long(text.len()));
    }
    let fits = |c: char| c.is_alphanumeric() || NAME_SIGNS.contains(c);
    if let Some(wrong) = text.chars().find(|&c| !fits(c)) {
        return Err(NameError::Character(wrong));
    }
    if text.starts_with(' ') || text.ends_with(' ') || text.contains("  ") {
        return Err(NameError::Spaces);
    }
    Ok(text.into())
}

macro_rules! name {
    ($(#[$meta:meta])* $name:ident) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Its text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                parse(text).map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name! {
    /// Whose a session is: the certificate's common name.
    Principal
}

name! {
    /// Whose data may be seen: the certificate's organisation.
    Tenant
}

impl Default for Tenant {
    /// Of those whose certificate names no organisation.
    fn default() -> Self {
        Self("default".into())
    }
}

/// Who is calling: from the client's certificate, or nobody in particular without TLS.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    /// Who.
    pub principal: Principal,
    /// For whom.
    pub tenant: Tenant,
}

impl Identity {
    /// Whoever comes without TLS.
    #[must_use]
    pub fn anonymous() -> Self {
        Self {
            principal: Principal("anonymous".into()),
            tenant: Tenant::default(),
        }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.principal, self.tenant)
    }
}

/// Where a call comes from. One that holds too much is told from others by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Peer(IpAddr);

impl Peer {
    /// Of this address. One host has a whole /64 of IPv6.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(v6) if !v6.is_loopback() => {
                let network = u128::from(v6) >> 64 << 64;
                IpAddr::V6(network.into())
            }
            other => other,
        })
    }

    /// This machine.
    #[must_use]
    pub fn is_loopback(self) -> bool {
        self.0.is_loopback()
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_name_is_taken_as_it_is_or_refused(text in "\\PC{0,200}") {
            if let Ok(name) = text.parse::<Principal>() {
                prop_assert_eq!(name.as_str(), text.as_str());
                prop_assert!((1..=NAME_BYTES_MAX).contains(&text.len()));
                prop_assert!(!text.chars().any(char::is_control));
                prop_assert_eq!(text.trim(), text.as_str());
            }
        }

        #[test]
        fn plain_names_are_names(text in "[A-Za-z0-9._@-]{1,128}") {
            prop_assert!(text.parse::<Tenant>().is_ok());
        }

        #[test]
        fn anything_is_parsed_or_refused(text in any::<String>()) {
            let _ = text.parse::<Tenant>();
        }

        #[test]
        fn an_address_is_its_hosts(high in any::<u64>(), low in any::<u64>(), other in any::<u64>()) {
            let address = |low: u64| IpAddr::V6((u128::from(high) << 64 | u128::from(low)).into());
            prop_assume!(high != 0);
            prop_assert_eq!(Peer::of(address(low)), Peer::of(address(other)));
        }
    }

    #[test]
    fn what_is_no_name() {
        let long = "x".repeat(NAME_BYTES_MAX + 1);
        for (text, error) in [
            ("", NameError::Empty),
            (long.as_str(), NameError::Long(129)),
            ("a\nb", NameError::Character('\n')),
            ("a\0", NameError::Character('\0')),
            ("a\u{202e}b", NameError::Character('\u{202e}')),
            ("a\"b", NameError::Character('"')),
            (" a", NameError::Spaces),
            ("a  b", NameError::Spaces),
        ] {
            assert_eq!(text.parse::<Principal>(), Err(error), "{text:?}");
        }
        assert!("Société Générale, Inc.".parse::<Tenant>().is_ok());
    }

    #[test]
    fn mapped_addresses_are_the_same_host() {
        let [v4, mapped] = ["127.0.0.2", "::ffff:127.0.0.2"].map(|text| text.parse().unwrap());
        assert_eq!(Peer::of(v4), Peer::of(mapped));
        assert!(Peer::of(mapped).is_loopback());
        let other = "127.0.0.3".parse().unwrap();
        assert_ne!(Peer::of(v4), Peer::of(other));
    }
}
