//! Sealing and checksums of frames.
//!
//! Sealed: AES-128-GCM with the packet number as nonce (the construction of RFC 9001, 5.3, with a
//! bit that keeps the header's tag and the data's apart). Keys come from the connection's secret by
//! HKDF-SHA256, one for each direction, epoch and phase of 2^22 packets, so that a key stays below
//! the limits of RFC 9001, appendix B, without a handshake: the phase is read off the packet
//! number. Checksummed: CRC32C, for links that are trusted.

use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, Prk, Salt};

use crate::checksum::{CHECKSUM_BYTES, sum, write_sum};
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
/// Packets of one key, as a power of two.
const PHASE_BITS: u32 = 22;
/// The nonce's bit for data.
const DATA_BIT: u64 = 1 << 63;

/// Which part of a frame a tag is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
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

    /// Protects the head of a frame in place, that is, what follows its fixed header and goes with
    /// it, and writes its tag. `None` without a key or room.
    pub(crate) fn seal_head(&self, number: u64, head: &mut [u8], tag: &mut [u8]) -> Option<()> {
        match self {
            Guard::Checksummed => write_sum(head, tag),
            Guard::Sealed(keys) => {
                let (header, body) = head.split_at_mut_checked(HEADER_BYTES)?;
                keys.seal(Part::Header, number, header, body, tag)
            }
        }
    }

    /// The same for data, behind the header that they go with. A checksum is theirs alone, so that
    /// a device can make or check it; that they belong to this header the head's says.
    pub(crate) fn seal_data(
        &self,
        number: u64,
        header: &[u8],
        data: &mut [u8],
        tag: &mut [u8],
    ) -> Option<()> {
        match self {
            Guard::Checksummed => write_sum(data, tag),
            Guard::Sealed(keys) => keys.seal(Part::Data, number, header, data, tag),
        }
    }

    /// The same for data that lie elsewhere: `sealed` gets them. They are read once, and may change
    /// meanwhile. `None` also where there is no seal, or the lengths differ.
    pub(crate) fn seal_data_from(
        &self,
        number: u64,
        header: &[u8],
        data: &[u8],
        sealed: &mut [u8],
        tag: &mut [u8],
    ) -> Option<()> {
        let Guard::Sealed(keys) = self else {
            return None;
        };
        let (nonce, tag) = (nonce(Part::Data, number), tag.get_mut(..SEAL_TAG_BYTES)?);
        keys.of(number)?
            .seal_out_of_place_scatter(nonce, Aad::from(header), data, sealed, &[], tag)
            .ok()
    }

    /// Checks the head of a frame, its fixed header included, against its tag, and opens it in place.
    pub(crate) fn open_head(
        &self,
        number: u64,
        head: &mut [u8],
        tag: &[u8],
    ) -> Result<(), DropReason> {
        let fits = match self {
            Guard::Checksummed => tag == sum(head),
            Guard::Sealed(keys) => head
                .split_at_mut_checked(HEADER_BYTES)
                .is_some_and(|(header, body)| keys.open(Part::Header, number, header, body, tag)),
        };
        fits.then_some(()).ok_or(DropReason::BadHeaderTag)
    }

    /// The same for data.
    pub(crate) fn open_data(
        &self,
        number: u64,
        header: &[u8],
        data: &mut [u8],
        tag: &[u8],
    ) -> Result<(), DropReason> {
        let fits = match self {
            Guard::Checksummed => tag == sum(data),
            Guard::Sealed(keys) => keys.open(Part::Data, number, header, data, tag),
        };
        fits.then_some(()).ok_or(DropReason::BadDataTag)
    }
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

    fn seal(
        &self,
        part: Part,
        number: u64,
        header: &[u8],
        body: &mut [u8],
        tag: &mut [u8],
    ) -> Option<()> {
        let (nonce, header) = (nonce(part, number), Aad::from(header));
        let made = self
            .of(number)?
            .seal_in_place_separate_tag(nonce, header, body);
        tag.get_mut(..SEAL_TAG_BYTES)?
            .copy_from_slice(made.ok()?.as_ref());
        Some(())
    }

    fn open(&self, part: Part, number: u64, header: &[u8], body: &mut [u8], tag: &[u8]) -> bool {
        let (nonce, header) = (nonce(part, number), Aad::from(header));
        self.of(number).is_some_and(|key| {
            let opened = key.open_in_place_separate_tag(nonce, header, tag, body);
            opened.is_ok()
        })
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
    use crate::checksum::crc32c;

    const NUMBERS: [u64; 4] = [0, 1, (1 << PHASE_BITS) - 1, 1 << PHASE_BITS];

    fn sealed(secret: u8, epoch: u32, sender: Role) -> Guard {
        Guard::new(
            &Protection::Sealed(Secret([secret; 32])),
            Epoch(epoch),
            sender,
        )
    }

    /// Header and body, and their tag.
    type Frame = (Vec<u8>, Vec<u8>);

    const HEAD: [u8; HEADER_BYTES] = *b"a header of just thirty-two byte";

    fn frame(guard: &Guard, part: Part, number: u64) -> Frame {
        let mut bytes = [HEAD.as_slice(), b"tensor"].concat();
        let mut tag = vec![0; guard.tag_len()];
        let (header, body) = bytes.split_at_mut(HEADER_BYTES);
        match part {
            Part::Header => guard.seal_head(number, &mut bytes, &mut tag),
            Part::Data => guard.seal_data(number, header, body, &mut tag),
        }
        .unwrap();
        (bytes, tag)
    }

    fn open(guard: &Guard, part: Part, number: u64, frame: &Frame) -> Result<Vec<u8>, DropReason> {
        let mut bytes = frame.0.clone();
        let (header, body) = bytes.split_at_mut(HEADER_BYTES);
        match part {
            Part::Header => guard.open_head(number, &mut bytes, &frame.1),
            Part::Data => guard.open_data(number, header, body, &frame.1),
        }?;
        Ok(bytes.split_off(HEADER_BYTES))
    }

    #[test]
    fn what_is_sealed_opens_and_a_flipped_bit_does_not() {
        for guard in [sealed(1, 2, Role::Initiator), Guard::Checksummed] {
            for (part, reason) in [
                (Part::Header, DropReason::BadHeaderTag),
                (Part::Data, DropReason::BadDataTag),
            ] {
                // Summed data stand apart from their header.
                let free = match (part, guard.is_sealed()) {
                    (Part::Data, false) => HEADER_BYTES,
                    _ => 0,
                };
                for number in NUMBERS {
                    let good = frame(&guard, part, number);
                    assert_eq!(open(&guard, part, number, &good).unwrap(), b"tensor");
                    for bit in 8 * free..(good.0.len() + good.1.len()) * 8 {
                        let mut bad = good.clone();
                        let byte = bad.0.iter_mut().chain(&mut bad.1).nth(bit / 8).unwrap();
                        *byte ^= 1 << (bit % 8);
                        let opened = open(&guard, part, number, &bad);
                        assert_eq!(opened, Err(reason), "bit {bit}");
                    }
                }
                let good = frame(&guard, part, 0);
                let short = (good.0.clone(), good.1[1..].to_vec());
                assert_eq!(open(&guard, part, 0, &short), Err(reason));
            }
        }
    }

    #[test]
    fn a_checksum_of_data_is_theirs_alone() {
        let (bytes, tag) = frame(&Guard::Checksummed, Part::Data, 7);
        let body = &bytes[HEADER_BYTES..];
        assert_eq!(tag, crc32c(crc32c(0, &body[..2]), &body[2..]).to_be_bytes());
    }

    #[test]
    fn data_are_sealed_on_their_way_as_they_are_in_place() {
        let guard = sealed(1, 2, Role::Initiator);
        for len in [1, 15, 16, 17, 255, 1024, 8191, 8192] {
            let data: Vec<u8> = (0..len).map(|at| (at / 3) as u8).collect();
            let (mut there, mut here) = (vec![0; len], data.clone());
            let mut tags = [[0; SEAL_TAG_BYTES]; 2];
            let [one, two] = &mut tags;
            guard.seal_data(9, &HEAD, &mut here, one).unwrap();
            guard
                .seal_data_from(9, &HEAD, &data, &mut there, two)
                .unwrap();
            assert_eq!((&here, tags[0]), (&there, tags[1]));
            assert!(guard.open_data(9, &HEAD, &mut there, &tags[0]).is_ok());
            assert_eq!(there, data);
            let [_, two] = &mut tags;
            let short = guard.seal_data_from(9, &HEAD, &data, &mut here[1..], two);
            assert_eq!(short, None);
        }
    }

    /// Of `tensor` behind [`HEAD`], with its tag; made by another library than the one in use.
    const KNOWN: [(Part, u64, &str); 6] = [
        (
            Part::Header,
            0,
            "400bdb789aaf52a44e4c8bffa8184ec9f37db200898d",
        ),
        (
            Part::Header,
            1 << PHASE_BITS,
            "6cc174d5d4a426fc31eda539ebab5c7e4276e5d27822",
        ),
        (
            Part::Data,
            0,
            "3bd67f4551869c809112a6553deccc7c6ae663b7423a",
        ),
        (
            Part::Data,
            5,
            "f30f90d1fb3626d323f3f06d998b687010443e05eddf",
        ),
        (
            Part::Data,
            (1 << PHASE_BITS) - 1,
            "557f0192133d7e8ac6f80daba403cef296a062a024b6",
        ),
        (
            Part::Data,
            1 << PHASE_BITS,
            "4ade3f034f0fddf6b91994a913eb257efc545c612cc4",
        ),
    ];

    /// What a seal is made of must not change with the library that makes it.
    #[test]
    fn seals_are_those_of_the_format() {
        let guard = sealed(1, 2, Role::Initiator);
        for (part, number, expected) in KNOWN {
            let (bytes, tag) = frame(&guard, part, number);
            let made = [&bytes[HEADER_BYTES..], &tag].concat();
            let hex: String = made.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(hex, expected, "{part:?} {number}");
        }
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
            assert!(open(&other, Part::Data, 5, &good).is_err());
        }
        assert!(open(&guard, Part::Header, 5, &good).is_err());
        assert!(open(&guard, Part::Data, 6, &good).is_err());
    }

    #[test]
    fn the_key_changes_with_the_phase_and_far_phases_have_none() {
        let mut guard = sealed(1, 2, Role::Initiator);
        let far = 5 << PHASE_BITS;
        let early = frame(&guard, Part::Data, 0);
        assert!(open(&guard, Part::Data, far, &early).is_err());
        guard.reached(far);
        let late = frame(&guard, Part::Data, far);
        assert!(open(&guard, Part::Data, far, &late).is_ok());
        assert!(open(&guard, Part::Data, 0, &early).is_err());
    }
}
