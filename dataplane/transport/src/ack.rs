//! Acknowledgements: which packets arrived, and what may be sent from here on.

use crate::limits::ACK_RANGES_MAX;
use crate::wire::{Reader, Writer};

/// The type of its block; the others' are where all blocks are.
pub(crate) const ACK: u8 = 1;

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

impl<'a> Ack<'a> {
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

    /// What follows the type of the block.
    pub(crate) fn parse(from: &mut Reader<'a>) -> Option<Self> {
        let (largest, delay_us) = (from.u64()?, from.u32()?);
        let (credit, message_limit) = (from.u64()?, from.u64()?);
        let count = usize::from(from.u8()?);
        if count > ACK_RANGES_MAX {
            return None;
        }
        let ranges = from.bytes(8 * count)?;
        let ack = Self {
            largest,
            delay_us,
            credit,
            message_limit,
            ranges,
        };
        ack.is_sound().then_some(ack)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::{Block, Blocks};

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
}
