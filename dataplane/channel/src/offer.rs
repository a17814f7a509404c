//! What a node offers a session: a connection of the transport, with its secret.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddrV4};

/// Longest frames that a connection of the transport may be offered, in bytes: its own limits
/// (`genie_transport::limits`, which `genie-poll` compares with these when it is compiled). They
/// stand here so that a program which only talks to a gateway needs no transport.
pub const MTU_MIN: usize = 1232;
/// See [`MTU_MIN`].
pub const MTU_MAX: usize = 16 * 1024;

/// Everything that a gateway needs to reach a session at its node.
#[derive(Clone, PartialEq, Eq)]
pub struct Offer {
    /// Names the connection at the node.
    pub connection: u64,
    /// Counts how often it was made anew.
    pub epoch: u32,
    /// What its keys are made of.
    pub secret: [u8; 32],
    /// Frames are sealed; if not, they only carry checksums.
    pub sealed: bool,
    /// Where the node takes frames.
    pub peer: SocketAddrV4,
    /// Longest frame that the node takes, in bytes.
    pub mtu_max: u16,
}

/// Not an offer: what is wrong with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the offer of a connection is malformed: {0}")]
pub struct OfferError(pub &'static str);

impl Offer {
    /// Bytes of an offer.
    pub const BYTES: usize = 8 + 4 + 32 + 1 + 4 + 2 + 2;

    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..8].copy_from_slice(&self.connection.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.epoch.to_le_bytes());
        bytes[12..44].copy_from_slice(&self.secret);
        bytes[44] = u8::from(self.sealed);
        bytes[45..49].copy_from_slice(&self.peer.ip().octets());
        bytes[49..51].copy_from_slice(&self.peer.port().to_le_bytes());
        bytes[51..53].copy_from_slice(&self.mtu_max.to_le_bytes());
        bytes
    }

    /// Parses an offer.
    ///
    /// # Errors
    /// Another length, or a field that no offer has.
    pub fn decode(bytes: &[u8]) -> Result<Self, OfferError> {
        let bytes: &[u8; Self::BYTES] = bytes.try_into().map_err(|_| OfferError("its length"))?;
        let mut connection = [0; 8];
        connection.copy_from_slice(&bytes[..8]);
        let mut secret = [0; 32];
        secret.copy_from_slice(&bytes[12..44]);
        let offer = Self {
            connection: u64::from_le_bytes(connection),
            epoch: u32::from_le_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]),
            secret,
            sealed: match bytes[44] {
                0 => false,
                1 => true,
                _ => return Err(OfferError("sealed is neither 0 nor 1")),
            },
            peer: SocketAddrV4::new(
                Ipv4Addr::new(bytes[45], bytes[46], bytes[47], bytes[48]),
                u16::from_le_bytes([bytes[49], bytes[50]]),
            ),
            mtu_max: u16::from_le_bytes([bytes[51], bytes[52]]),
        };
        offer.checked()
    }

    /// The same, if a connection can be made of it.
    ///
    /// # Errors
    /// An address that is nobody's, or an MTU that no link has.
    pub fn checked(self) -> Result<Self, OfferError> {
        let ip = self.peer.ip();
        if self.peer.port() == 0 || ip.is_unspecified() || ip.is_multicast() || ip.is_broadcast() {
            return Err(OfferError("nobody has the node's address"));
        }
        if !(MTU_MIN..=MTU_MAX).contains(&usize::from(self.mtu_max)) {
            return Err(OfferError("no link has the MTU"));
        }
        Ok(self)
    }
}

impl fmt::Debug for Offer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Offer")
            .field("connection", &self.connection)
            .field("epoch", &self.epoch)
            .field("sealed", &self.sealed)
            .field("peer", &self.peer)
            .field("mtu_max", &self.mtu_max)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn offer() -> Offer {
        Offer {
            connection: 0x0102_0304_0506_0708,
            epoch: 9,
            secret: [0xa7; 32],
            sealed: true,
            peer: SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 7), 7700),
            mtu_max: 8900,
        }
    }

    #[test]
    fn offers_round_trip_and_keep_their_secret() {
        let offer = offer();
        assert_eq!(Offer::decode(&offer.encode()).as_ref(), Ok(&offer));
        let shown = format!("{offer:?} {offer:#?}");
        assert!(shown.contains("10.0.0.7:7700"));
        assert!(
            !shown.contains("secret") && !shown.contains("167"),
            "{shown}"
        );
    }

    #[test]
    fn what_no_offer_has_is_refused() {
        let good = offer().encode();
        assert!(Offer::decode(&good[1..]).is_err());
        assert!(Offer::decode(&[&good[..], &[0]].concat()).is_err());
        let bad = |at: usize, bytes: &[u8]| {
            let mut bad = good;
            bad[at..at + bytes.len()].copy_from_slice(bytes);
            assert!(Offer::decode(&bad).is_err(), "{at}");
        };
        bad(44, &[2]);
        bad(45, &[0, 0, 0, 0]);
        bad(45, &[224, 0, 0, 1]);
        bad(45, &[255, 255, 255, 255]);
        bad(49, &[0, 0]);
        bad(51, &[0, 0]);
        bad(51, &u16::MAX.to_le_bytes());
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_offer_or_an_error(
            bytes in prop::collection::vec(any::<u8>(), 0..80),
            exact in prop::collection::vec(any::<u8>(), Offer::BYTES),
        ) {
            for bytes in [bytes, exact] {
                if let Ok(offer) = Offer::decode(&bytes) {
                    prop_assert_eq!(&offer.encode()[..], &bytes[..]);
                }
            }
        }
    }
}
