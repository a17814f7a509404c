//! The fixed header of a frame, and how a frame is laid out.
//!
//! ```text
//!  0  magic 'G'      1  version     2  flags       3  zero
//!  4  connection id  (8 bytes)
//! 12  epoch          (4)
//! 16  packet number  (8)
//! 24  control length (2)           26  data length (2)
//! 28  zero           (4)
//! 32  control: blocks
//! ..  the data's tag (absent without data)
//! ..  the header's tag, over all that is above
//! ..  data: the bytes of the DATA blocks in their order
//! ```
//! Lengths are explicit, since a link may pad short frames. Control and data have a tag each, so
//! that the data may lie in memory that the CPU does not touch, at either end: all that the CPU
//! writes or reads is the *head*, everything before the data. A checksummed frame's data tag is the
//! CRC32C of the data alone, big-endian; that it belongs to this header the header's tag says.

use crate::drops::DropReason;
use crate::wire::{Reader, Writer};

/// Bytes of the fixed header.
pub const HEADER_BYTES: usize = 32;
/// The version that this crate speaks.
pub const VERSION: u8 = 1;
const MAGIC: u8 = b'G';
const FLAG_SEALED: u8 = 1;
const FLAG_RESPONDER: u8 = 2;

/// Names a connection at both of its ends; the control channel chooses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(pub u64);

/// Counts how often a connection was made anew; greater is newer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Epoch(pub u32);

/// Which end of a connection this is. It keeps the keys of the directions apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// The end that asked for the connection.
    Initiator,
    /// The end that was asked.
    Responder,
}

/// The fixed header. Nothing in it is to be believed before the header's tag was checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The connection.
    pub connection: ConnectionId,
    /// Its epoch.
    pub epoch: Epoch,
    /// Fresh for every transmission, repeats too: it is the nonce.
    pub packet_number: u64,
    /// Sealed or checksummed.
    pub sealed: bool,
    /// Who sent it.
    pub sender: Role,
    /// Bytes of control without its tag.
    pub control_len: u16,
    /// Bytes of data without its tag.
    pub data_len: u16,
}

impl Header {
    /// Writes the header to the front of `out`.
    pub fn encode(&self, out: &mut [u8; HEADER_BYTES]) {
        let mut flags = 0;
        if self.sealed {
            flags |= FLAG_SEALED;
        }
        if self.sender == Role::Responder {
            flags |= FLAG_RESPONDER;
        }
        let mut to = Writer::new(out);
        // The sizes add up to the buffer's, so there is always room.
        let _fits = to.all_or_nothing(|to| {
            to.bytes(&[MAGIC, VERSION, flags, 0])?;
            to.u64(self.connection.0)?;
            to.u32(self.epoch.0)?;
            to.u64(self.packet_number)?;
            to.u16(self.control_len)?;
            to.u16(self.data_len)?;
            to.u32(0)
        });
    }

    /// Reads a header from the front of a frame.
    ///
    /// # Errors
    /// [`DropReason::Truncated`], [`DropReason::BadMagic`], [`DropReason::BadVersion`], or
    /// [`DropReason::Malformed`] for bits that have no meaning.
    pub fn parse(frame: &[u8]) -> Result<Header, DropReason> {
        let mut from = Reader::new(frame.get(..HEADER_BYTES).ok_or(DropReason::Truncated)?);
        let mut fields = || {
            Some((
                [from.u8()?, from.u8()?, from.u8()?, from.u8()?],
                from.u64()?,
                from.u32()?,
                from.u64()?,
                from.u16()?,
                from.u16()?,
                from.u32()?,
            ))
        };
        let (start, connection, epoch, packet_number, control_len, data_len, zero) =
            fields().ok_or(DropReason::Truncated)?;
        let [magic, version, flags, reserved] = start;
        if magic != MAGIC {
            return Err(DropReason::BadMagic);
        }
        if version != VERSION {
            return Err(DropReason::BadVersion);
        }
        if flags & !(FLAG_SEALED | FLAG_RESPONDER) != 0 || reserved != 0 || zero != 0 {
            return Err(DropReason::Malformed);
        }
        Ok(Header {
            connection: ConnectionId(connection),
            epoch: Epoch(epoch),
            packet_number,
            sealed: flags & FLAG_SEALED != 0,
            sender: if flags & FLAG_RESPONDER == 0 {
                Role::Initiator
            } else {
                Role::Responder
            },
            control_len,
            data_len,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header {
            connection: ConnectionId(0x0102_0304_0506_0708),
            epoch: Epoch(9),
            packet_number: 10,
            sealed: true,
            sender: Role::Responder,
            control_len: 11,
            data_len: 8192,
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let mut bytes = [0xff; HEADER_BYTES];
        header().encode(&mut bytes);
        assert_eq!(Header::parse(&bytes), Ok(header()));
        assert_eq!(&bytes[4..12], &[1, 2, 3, 4, 5, 6, 7, 8]);
    }

    #[test]
    fn each_fault_has_its_reason() {
        let mut good = [0; HEADER_BYTES];
        header().encode(&mut good);
        let faults = [
            (0, DropReason::BadMagic),
            (1, DropReason::BadVersion),
            (2, DropReason::Malformed),
            (3, DropReason::Malformed),
            (30, DropReason::Malformed),
        ];
        for (at, reason) in faults {
            let mut bad = good;
            bad[at] ^= 0x80;
            assert_eq!(Header::parse(&bad), Err(reason), "byte {at}");
        }
        assert_eq!(Header::parse(&good[..31]), Err(DropReason::Truncated));
    }
}
