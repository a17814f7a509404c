//! Blocks: what the control part of a frame is made of.

use crate::limits::{ACK_RANGES_MAX, CONTENTS_MAX, MESSAGE_BYTES_MAX};
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

/// An acknowledgement, and the credit that goes with it (one consistent picture).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack<'a> {
    /// The largest packet number that arrived.
    pub largest: u64,
    /// Microseconds from its arrival to this acknowledgement.
    pub delay_us: u32,
    /// Bytes that may be in flight from here on.
    pub credit: u64,
    /// Messages below this sequence number may be sent.
    pub message_limit: u64,
    /// Pairs of (packets missing above, packets in the run), from the largest downwards.
    ranges: &'a [u8],
}

impl Ack<'_> {
    /// Runs `low..=high` of packet numbers that arrived, from the largest downwards.
    pub fn ranges(&self) -> impl Iterator<Item = (u64, u64)> {
        let mut from = Reader::new(self.ranges);
        // One above the next run's gap.
        let mut above = self.largest.checked_add(1);
        std::iter::from_fn(move || {
            let gap = u64::from(from.u32()?);
            let count = u64::from(from.u32()?);
            let end = above?.checked_sub(gap)?;
            let low = if count == 0 {
                None
            } else {
                end.checked_sub(count)
            }?;
            above = Some(low);
            Some((low, end - 1))
        })
    }

    fn is_sound(&self) -> bool {
        let promised = self.ranges.len() / 8;
        promised > 0
            && self.ranges().count() == promised
            && self
                .ranges()
                .next()
                .is_some_and(|(_, high)| high == self.largest)
    }
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
}

const ACK: u8 = 1;
const DATA: u8 = 2;
const MESSAGE: u8 = 3;
const PING: u8 = 4;
const PADDING: u8 = 5;
const RESET: u8 = 6;
const CLOSE: u8 = 7;

/// Bytes of a DATA block.
pub(crate) const DATA_BLOCK_BYTES: usize = 1 + 8 + 8 + 8 + 2;

impl<'a> Block<'a> {
    /// The peer has to answer.
    pub(crate) fn elicits_ack(&self) -> bool {
        !matches!(self, Block::Ack(_) | Block::Close)
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
        })
    }

    fn parse(from: &mut Reader<'a>) -> Option<Block<'a>> {
        Some(match from.u8()? {
            ACK => {
                let (largest, delay_us) = (from.u64()?, from.u32()?);
                let (credit, message_limit) = (from.u64()?, from.u64()?);
                let count = usize::from(from.u8()?);
                if count > ACK_RANGES_MAX {
                    return None;
                }
                let ranges = from.bytes(8 * count)?;
                let ack = Ack {
                    largest,
                    delay_us,
                    credit,
                    message_limit,
                    ranges,
                };
                if !ack.is_sound() {
                    return None;
                }
                Block::Ack(ack)
            }
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
            _ => return None,
        })
    }
}

/// Writes an acknowledgement of `runs` (half-open, from the largest downwards).
pub(crate) fn encode_ack(
    to: &mut Writer<'_>,
    delay_us: u32,
    credit: u64,
    message_limit: u64,
    runs: impl Iterator<Item = (u64, u64)> + Clone,
) -> bool {
    to.all_or_nothing(|to| {
        let (_, end) = runs.clone().next()?;
        // A run or a gap beyond 32 bits ends the list; what it leaves out is sent again.
        let mut above = end;
        let pairs = runs.take(ACK_RANGES_MAX).map_while(|(low, end)| {
            let gap = u32::try_from(above - end).ok()?;
            let count = u32::try_from(end - low).ok()?;
            above = low;
            Some((gap, count))
        });
        let mut encoded = [0; 8 * ACK_RANGES_MAX];
        let mut list = Writer::new(&mut encoded);
        let mut count = 0;
        for (gap, run) in pairs {
            list.u32(gap)?;
            list.u32(run)?;
            count += 1;
        }
        let len = list.len();
        to.u8(ACK)?;
        to.u64(end.checked_sub(1)?)?;
        to.u32(delay_us)?;
        to.u64(credit)?;
        to.u64(message_limit)?;
        to.u8(count)?;
        to.bytes(encoded.get(..len)?)
    })
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

    #[test]
    fn an_acknowledgement_keeps_its_ranges() {
        let runs = [(100, 111), (50, 60), (0, 7)];
        let mut buffer = [0; 512];
        let mut to = Writer::new(&mut buffer);
        assert!(encode_ack(&mut to, 5, 6, 7, runs.into_iter()));
        let len = to.len();
        let Some(Block::Ack(ack)) = Blocks::parse(&buffer[..len], 0).unwrap().next() else {
            panic!("not an acknowledgement");
        };
        assert_eq!(
            (ack.largest, ack.delay_us, ack.credit, ack.message_limit),
            (110, 5, 6, 7)
        );
        assert_eq!(
            ack.ranges().collect::<Vec<_>>(),
            [(100, 110), (50, 59), (0, 6)]
        );
    }

    #[test]
    fn a_range_below_zero_is_malformed() {
        let mut buffer = [0; 64];
        let mut to = Writer::new(&mut buffer);
        assert!(encode_ack(&mut to, 0, 0, 0, [(3u64, 5u64)].into_iter()));
        let len = to.len();
        buffer[len - 1] = 6; // six packets down from number 4
        assert!(Blocks::parse(&buffer[..len], 0).is_none());
    }

    proptest! {
        #[test]
        fn any_bytes_parse_or_not_but_never_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..300),
            first in 0u8..9,
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
