//! Sealing and checksums of frames.
//!
//! Sealed: AES-128-GCM with the packet number as nonce (the construction of RFC 9001, 5.3, with a
//! bit that keeps the header's tag and the data's apart). Keys come from the connection's secret by
//! HKDF-SHA256, one for each direction, epoch and phase of 2^22 packets, so that a key stays below
//! the limits of RFC 9001, appendix B, without a handshake: the phase is read off the packet
//! number. Checksummed: CRC32C, for links that are trusted.

use ring::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, Tag, UnboundKey};
use ring::hkdf::{HKDF_SHA256, Prk, Salt};

use crate::drops::DropReason;
use crate::header::{Epoch, HEADER_BYTES, Role};

/// What a connection's frames are protected with.
#[derive(Clone)]
pub enum Protection {
    /// AES-128-GCM, from a secret that both ends got over the control channel.
    Sealed(Secret),
    /// CRC32C: finds accidents, not attacks.
    Checksummed,
}

impl Protection {
    /// As two ends agreed: sealed with a secret, or only summed.
    #[must_use]
    pub fn agreed(sealed: bool, secret: [u8; 32]) -> Self {
        if sealed {
            Self::Sealed(Secret(secret))
        } else {
            Self::Checksummed
        }
    }
}

/// 32 random bytes that only the two ends know. Never printed.
#[derive(Clone)]
pub struct Secret(pub [u8; 32]);

/// Bytes of a tag when sealed.
pub const SEAL_TAG_BYTES: usize = 16;
/// Bytes of a tag when checksummed.
pub const CHECKSUM_BYTES: usize = 4;
/// Packets of one key, as a power of two.
const PHASE_BITS: u32 = 22;
/// The nonce's bit for data.
const DATA_BIT: u64 = 1 << 63;

/// Which part of a frame a tag is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Header,
    Data,
}

/// Protects one direction of a connection.
pub(crate) enum Guard {
    Sealed(Box<Keys>),
    Checksummed,
}

pub(crate) struct Keys {
    secret: Prk,
    context: [u8; 5],
    phase: u64,
    /// Of the phases before, at and after `phase`.
    around: [Option<LessSafeKey>; 3],
}

impl Guard {
    pub(crate) fn new(protection: &Protection, epoch: Epoch, sender: Role) -> Self {
        match protection {
            Protection::Checksummed => Guard::Checksummed,
            Protection::Sealed(secret) => {
                let [a, b, c, d] = epoch.0.to_be_bytes();
                let direction = u8::from(sender == Role::Responder);
                let mut keys = Keys {
                    secret: Salt::new(HKDF_SHA256, b"genie-transport v1").extract(&secret.0),
                    context: [a, b, c, d, direction],
                    phase: 0,
                    around: [None, None, None],
                };
                keys.move_to(0);
                Guard::Sealed(Box::new(keys))
            }
        }
    }

    pub(crate) fn is_sealed(&self) -> bool {
        matches!(self, Guard::Sealed(_))
    }

    pub(crate) fn tag_len(&self) -> usize {
        match self {
            Guard::Sealed(_) => SEAL_TAG_BYTES,
            Guard::Checksummed => CHECKSUM_BYTES,
        }
    }

    /// An authentic packet with this number was seen or is about to be sent.
    pub(crate) fn reached(&mut self, packet_number: u64) {
        if let Guard::Sealed(keys) = self
            && packet_number >> PHASE_BITS > keys.phase
        {
            keys.move_to(packet_number >> PHASE_BITS);
        }
    }

    /// Protects `body` in place and writes its tag. `None` without a key or room.
    pub(crate) fn seal(
        &self,
        part: Part,
        packet_number: u64,
        header: &[u8],
        body: &mut [u8],
        tag: &mut [u8],
    ) -> Option<()> {
        match self {
            Guard::Checksummed => tag
                .get_mut(..CHECKSUM_BYTES)?
                .copy_from_slice(&checksum(part, header, body)),
            Guard::Sealed(keys) => {
                let key = keys.of(packet_number)?;
                let nonce = nonce(part, packet_number);
                let made = key
                    .seal_in_place_separate_tag(nonce, Aad::from(header), body)
                    .ok()?;
                tag.get_mut(..SEAL_TAG_BYTES)?
                    .copy_from_slice(made.as_ref());
            }
        }
        Some(())
    }

    /// Checks `body` against its tag, and opens it in place.
    pub(crate) fn open(
        &self,
        part: Part,
        packet_number: u64,
        header: &[u8],
        body: &mut [u8],
        tag: &[u8],
    ) -> Result<(), DropReason> {
        let fits = match self {
            Guard::Checksummed => tag == checksum(part, header, body),
            Guard::Sealed(keys) => keys
                .of(packet_number)
                .zip(Tag::try_from(tag).ok())
                .is_some_and(|(key, tag)| {
                    let nonce = nonce(part, packet_number);
                    key.open_in_place_separate_tag(nonce, Aad::from(header), tag, body, 0..)
                        .is_ok()
                }),
        };
        match part {
            _ if fits => Ok(()),
            Part::Header => Err(DropReason::BadHeaderTag),
            Part::Data => Err(DropReason::BadDataTag),
        }
    }
}

/// The data's tag stands apart from the header, so that a device can make or check it from the data
/// alone; the header's covers it.
fn checksum(part: Part, header: &[u8], body: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let seed = match part {
        Part::Header => crc32c(0, header),
        Part::Data => 0,
    };
    crc32c(seed, body).to_be_bytes()
}

/// CRC32C (Castagnoli) of `bytes` that follow others whose sum is `seed`; begin with zero.
#[must_use]
pub fn crc32c(seed: u32, bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(seed, bytes)
}

impl Keys {
    fn move_to(&mut self, phase: u64) {
        self.phase = phase;
        let keys = [phase.checked_sub(1), Some(phase), phase.checked_add(1)]
            .map(|phase| phase.and_then(|phase| self.derive(phase)));
        self.around = keys;
    }

    fn derive(&self, phase: u64) -> Option<LessSafeKey> {
        let info = [self.context.as_slice(), &phase.to_be_bytes()];
        let okm = self.secret.expand(&info, &AES_128_GCM).ok()?;
        Some(LessSafeKey::new(UnboundKey::from(okm)))
    }

    fn of(&self, packet_number: u64) -> Option<&LessSafeKey> {
        // Only the phases next to the newest: a forged number costs no key derivation.
        let index = ((packet_number >> PHASE_BITS) + 1).checked_sub(self.phase)?;
        self.around.get(usize::try_from(index).ok()?)?.as_ref()
    }
}

fn nonce(part: Part, packet_number: u64) -> Nonce {
    let number = match part {
        Part::Header => packet_number & !DATA_BIT,
        Part::Data => packet_number | DATA_BIT,
    };
    let mut bytes = [0; 12];
    bytes[4..].copy_from_slice(&number.to_be_bytes());
    Nonce::assume_unique_for_key(bytes)
}

const _: () = assert!(
    HEADER_BYTES == 32,
    "the associated data is the fixed header"
);

#[cfg(test)]
mod tests {
    use super::*;

    const NUMBERS: [u64; 4] = [0, 1, (1 << PHASE_BITS) - 1, 1 << PHASE_BITS];

    fn sealed(secret: u8, epoch: u32, sender: Role) -> Guard {
        Guard::new(
            &Protection::Sealed(Secret([secret; 32])),
            Epoch(epoch),
            sender,
        )
    }

    type Frame = (Vec<u8>, Vec<u8>);

    fn frame(guard: &Guard, part: Part, number: u64) -> Frame {
        let mut body = b"tensor".to_vec();
        let mut tag = vec![0; guard.tag_len()];
        guard
            .seal(part, number, b"head", &mut body, &mut tag)
            .unwrap();
        (body, tag)
    }

    fn open(
        guard: &Guard,
        part: Part,
        number: u64,
        head: &[u8],
        frame: &Frame,
    ) -> Result<Vec<u8>, DropReason> {
        let mut body = frame.0.clone();
        guard.open(part, number, head, &mut body, &frame.1)?;
        Ok(body)
    }

    #[test]
    fn what_is_sealed_opens_and_a_flipped_bit_does_not() {
        for guard in [sealed(1, 2, Role::Initiator), Guard::Checksummed] {
            for (part, reason) in [
                (Part::Header, DropReason::BadHeaderTag),
                (Part::Data, DropReason::BadDataTag),
            ] {
                for number in NUMBERS {
                    let good = frame(&guard, part, number);
                    assert_eq!(
                        open(&guard, part, number, b"head", &good).unwrap(),
                        b"tensor"
                    );
                    for bit in 0..(good.0.len() + good.1.len()) * 8 {
                        let mut bad = good.clone();
                        let byte = bad.0.iter_mut().chain(&mut bad.1).nth(bit / 8).unwrap();
                        *byte ^= 1 << (bit % 8);
                        let opened = open(&guard, part, number, b"head", &bad);
                        assert_eq!(opened, Err(reason), "bit {bit}");
                    }
                }
            }
            let good = frame(&guard, Part::Header, 0);
            assert!(open(&guard, Part::Header, 0, b"heat", &good).is_err());
            let short = (good.0.clone(), good.1[1..].to_vec());
            assert!(open(&guard, Part::Header, 0, b"head", &short).is_err());
        }
    }

    #[test]
    fn a_checksum_of_data_is_theirs_alone() {
        let (body, tag) = frame(&Guard::Checksummed, Part::Data, 7);
        assert_eq!(tag, crc32c(crc32c(0, &body[..2]), &body[2..]).to_be_bytes());
        assert_eq!(
            crc32c(0, b"123456789"),
            0xe306_9283,
            "RFC 3720's polynomial"
        );
    }

    #[test]
    fn keys_of_secrets_epochs_directions_parts_and_numbers_differ() {
        let guard = sealed(1, 2, Role::Initiator);
        let good = frame(&guard, Part::Data, 5);
        for other in [
            sealed(2, 2, Role::Initiator),
            sealed(1, 3, Role::Initiator),
            sealed(1, 2, Role::Responder),
        ] {
            assert!(open(&other, Part::Data, 5, b"head", &good).is_err());
        }
        assert!(open(&guard, Part::Header, 5, b"head", &good).is_err());
        assert!(open(&guard, Part::Data, 6, b"head", &good).is_err());
    }

    #[test]
    fn the_key_changes_with_the_phase_and_far_phases_have_none() {
        let mut guard = sealed(1, 2, Role::Initiator);
        let far = 5 << PHASE_BITS;
        let early = frame(&guard, Part::Data, 0);
        assert!(open(&guard, Part::Data, far, b"head", &early).is_err());
        guard.reached(far);
        let late = frame(&guard, Part::Data, far);
        assert!(open(&guard, Part::Data, far, b"head", &late).is_ok());
        assert!(open(&guard, Part::Data, 0, b"head", &early).is_err());
    }
}
