//! Blocks: what the control part of a frame is made of.

use crate::ack::{ACK, Ack};
use crate::limits::{CONTENTS_MAX, MESSAGE_BYTES_MAX};
use crate::wire::{Reader, Writer};

/// Memory at the receiver, as the receiver names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RegionId(pub u64);

/// A region that one sender may fill once. The generation is never given twice by a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Grant {
    /// Where to.
    pub region: RegionId,
    /// Which grant of this connection.
    pub generation: u64,
}

/// Which end ends a transfer before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResetBy {
    /// The sender cancelled, or its source is gone.
    Sender,
    /// The receiver took the grant back, or never gave it.
    Receiver,
}

/// One thing in the control part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Block<'a> {
    /// What arrived.
    Ack(Ack<'a>),
    /// The next `len` bytes of the frame's data go to `offset` of the grant.
    Data {
        /// Where to.
        grant: Grant,
        /// Bytes from the start of the grant.
        offset: u64,
        /// Bytes, never zero.
        len: u16,
    },
    /// A small message, delivered once and in order.
    Message {
        /// Counts from zero.
        sequence: u64,
        /// At most [`MESSAGE_BYTES_MAX`].
        bytes: &'a [u8],
    },
    /// Asks for an acknowledgement.
    Ping,
    /// Fills a frame to the size whose passage is being tried.
    Padding(u16),
    /// Ends a transfer.
    Reset {
        /// Of which grant.
        grant: Grant,
        /// Who.
        by: ResetBy,
    },
    /// The peer is leaving.
    Close,
    /// A packet came with a good head and data that don't match: it is not to be acknowledged.
    Damaged {
        /// Its number.
        number: u64,
    },
}

const DATA: u8 = 2;
const MESSAGE: u8 = 3;
const PING: u8 = 4;
const PADDING: u8 = 5;
const RESET: u8 = 6;
const CLOSE: u8 = 7;
const DAMAGED: u8 = 8;

/// Bytes of a DATA block.
pub(crate) const DATA_BLOCK_BYTES: usize = 1 + 8 + 8 + 8 + 2;

impl<'a> Block<'a> {
    /// The peer has to answer.
    pub(crate) fn elicits_ack(&self) -> bool {
        !matches!(self, Block::Ack(_) | Block::Close | Block::Damaged { .. })
    }

    /// Writes the block whole, or says `false` and writes nothing.
    pub(crate) fn encode(&self, to: &mut Writer<'_>) -> bool {
        to.all_or_nothing(|to| match *self {
            Block::Ack(_) => None, // Written by `encode_ack`, which has the ranges.
            Block::Data { grant, offset, len } => {
                to.u8(DATA)?;
                encode_grant(grant, to)?;
                to.u64(offset)?;
                to.u16(len)
            }
            Block::Message { sequence, bytes } => {
                to.u8(MESSAGE)?;
                to.u64(sequence)?;
                to.u16(u16::try_from(bytes.len()).ok()?)?;
                to.bytes(bytes)
            }
            Block::Ping => to.u8(PING),
            Block::Padding(len) => {
                to.u8(PADDING)?;
                to.u16(len)?;
                to.zeros(usize::from(len))
            }
            Block::Reset { grant, by } => {
                to.u8(RESET)?;
                encode_grant(grant, to)?;
                to.u8(u8::from(by == ResetBy::Receiver))
            }
            Block::Close => to.u8(CLOSE),
            Block::Damaged { number } => {
                to.u8(DAMAGED)?;
                to.u64(number)
            }
        })
    }

    fn parse(from: &mut Reader<'a>) -> Option<Block<'a>> {
        Some(match from.u8()? {
            ACK => Block::Ack(Ack::parse(from)?),
            DATA => {
                let (grant, offset, len) = (parse_grant(from)?, from.u64()?, from.u16()?);
                if len == 0 {
                    return None;
                }
                Block::Data { grant, offset, len }
            }
            MESSAGE => {
                let (sequence, len) = (from.u64()?, usize::from(from.u16()?));
                if len > MESSAGE_BYTES_MAX {
                    return None;
                }
                Block::Message {
                    sequence,
                    bytes: from.bytes(len)?,
                }
            }
            PING => Block::Ping,
            PADDING => {
                let len = from.u16()?;
                from.bytes(usize::from(len))?;
                Block::Padding(len)
            }
            RESET => {
                let grant = parse_grant(from)?;
                let by = match from.u8()? {
                    0 => ResetBy::Sender,
                    1 => ResetBy::Receiver,
                    _ => return None,
                };
                Block::Reset { grant, by }
            }
            CLOSE => Block::Close,
            DAMAGED => Block::Damaged {
                number: from.u64()?,
            },
            _ => return None,
        })
    }
}

fn encode_grant(grant: Grant, to: &mut Writer<'_>) -> Option<()> {
    to.u64(grant.region.0)?;
    to.u64(grant.generation)
}

fn parse_grant(from: &mut Reader<'_>) -> Option<Grant> {
    Some(Grant {
        region: RegionId(from.u64()?),
        generation: from.u64()?,
    })
}

/// The control part of a frame, checked as a whole: it can be walked without errors.
#[derive(Clone)]
pub struct Blocks<'a>(Reader<'a>);

impl<'a> Blocks<'a> {
    /// Checks that `control` is a run of whole blocks, at most [`CONTENTS_MAX`] of them with data,
    /// which adds up to `data_len`; else `None`.
    #[must_use]
    pub fn parse(control: &'a [u8], data_len: usize) -> Option<Self> {
        let mut from = Reader::new(control);
        let (mut data, mut pieces) = (0, 0);
        while !from.is_empty() {
            if let Block::Data { len, .. } = Block::parse(&mut from)? {
                data += usize::from(len);
                pieces += 1;
            }
        }
        (data == data_len && pieces <= CONTENTS_MAX).then(|| Self(Reader::new(control)))
    }
}

impl<'a> Iterator for Blocks<'a> {
    type Item = Block<'a>;

    fn next(&mut self) -> Option<Block<'a>> {
        Block::parse(&mut self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(block: Block<'_>) -> Vec<u8> {
        let mut buffer = [0; 2048];
        let mut to = Writer::new(&mut buffer);
        assert!(block.encode(&mut to));
        let len = to.len();
        buffer[..len].to_vec()
    }

    #[test]
    fn every_block_is_read_as_it_was_written() {
        let grant = Grant {
            region: RegionId(7),
            generation: 8,
        };
        let blocks = [
            Block::Data {
                grant,
                offset: 1 << 40,
                len: 8192,
            },
            Block::Message {
                sequence: 3,
                bytes: b"hello",
            },
            Block::Ping,
            Block::Padding(100),
            Block::Reset {
                grant,
                by: ResetBy::Sender,
            },
            Block::Reset {
                grant,
                by: ResetBy::Receiver,
            },
            Block::Close,
            Block::Damaged { number: 9 },
        ];
        let control: Vec<u8> = blocks.iter().flat_map(|block| written(*block)).collect();
        let read: Vec<_> = Blocks::parse(&control, 8192).unwrap().collect();
        assert_eq!(read, blocks);
        assert!(
            Blocks::parse(&control, 8191).is_none(),
            "data lengths must add up"
        );
        assert_eq!(written(blocks[0]).len(), DATA_BLOCK_BYTES);
    }

    proptest! {
        #[test]
        fn any_bytes_parse_or_not_but_never_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..300),
            first in 0u8..10,
        ) {
            let mut bytes = bytes;
            if let Some(byte) = bytes.first_mut() {
                *byte = first;
            }
            for data_len in [0, 1, 500] {
                if let Some(blocks) = Blocks::parse(&bytes, data_len) {
                    for block in blocks {
                        if let Block::Ack(ack) = block {
                            prop_assert!(ack.ranges().all(|(low, high)| low <= high));
                        }
                    }
                }
            }
        }
    }
}
