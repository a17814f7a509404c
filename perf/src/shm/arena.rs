//! The arena of a channel, cut for a test: places for what the program sends, then places for what
//! comes back.

use std::ops::Range;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use genie_channel::BULK_PART_MAX;
use genie_shm::Mapping;

use crate::path::Plan;

/// Places begin at multiples of this.
const ALIGNMENT: u64 = 4096;

/// Which way a place is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From the program.
    Out,
    /// To the program.
    Back,
}

/// The places of a test.
pub struct Places {
    mapping: Arc<Mapping>,
    bytes: u64,
    stride: u64,
    slots: u32,
}

impl Places {
    /// No places.
    pub fn new(mapping: Option<Arc<Mapping>>) -> Result<Self> {
        Ok(Self {
            mapping: mapping.context("a channel without an arena")?,
            bytes: 0,
            stride: 0,
            slots: 0,
        })
    }

    /// The places of `plan`.
    pub fn cut(&mut self, plan: &Plan) -> Result<()> {
        self.bytes = plan.size;
        self.stride = plan.size.next_multiple_of(ALIGNMENT);
        self.slots = plan.slots;
        if 2 * self.stride * u64::from(plan.slots) > self.mapping.capacity() {
            bail!("the channel's memory is too small: take a smaller --batch");
        }
        Ok(())
    }

    /// Takes the pages of a place.
    pub fn touch(&self, way: Way, slot: u32) {
        self.mapping.populate(self.start(way, slot), self.bytes);
    }

    fn start(&self, way: Way, slot: u32) -> u64 {
        let first = match way {
            Way::Out => 0,
            Way::Back => u64::from(self.slots),
        };
        (first + u64::from(slot)) * self.stride
    }

    /// The parts of a place, as ranges of the arena.
    pub fn parts(&self, way: Way, slot: u32) -> impl Iterator<Item = Range<u64>> + use<> {
        let (start, bytes) = (self.start(way, slot), self.bytes);
        (0..bytes.div_ceil(BULK_PART_MAX)).map(move |part| {
            let at = part * BULK_PART_MAX;
            start + at..start + bytes.min(at + BULK_PART_MAX)
        })
    }

    /// The slot whose last part begins at `place`; none for a part that is not the last.
    pub fn ended(&self, way: Way, place: u64) -> Option<u32> {
        let slot = place.checked_div(self.stride)?;
        let slot = match way {
            Way::Out => slot,
            Way::Back => slot.checked_sub(u64::from(self.slots))?,
        };
        let slot = u32::try_from(slot).ok().filter(|slot| *slot < self.slots)?;
        let last = self.parts(way, slot).last()?;
        (last.start == place).then_some(slot)
    }

    /// The bytes of a place.
    pub fn memory(&mut self, way: Way, slot: u32) -> &mut [u8] {
        let (start, bytes) = (self.start(way, slot), self.bytes);
        // SAFETY: by the channel's rules only one end has a place at a time: the program until it
        // commands, the loop until it tells. Both ends are this program, which keeps to them.
        let memory = unsafe { self.mapping.bytes_mut(start, bytes) };
        memory.unwrap_or_default()
    }

    /// Copies what came in a slot to where it goes back from.
    pub fn copy_back(&self, slot: u32) -> Result<()> {
        let (from, to) = (self.start(Way::Out, slot), self.start(Way::Back, slot));
        let from = self.mapping.address(from, self.bytes)?;
        let to = self.mapping.address(to, self.bytes)?;
        let bytes = usize::try_from(self.bytes)?;
        // SAFETY: both places are inside the mapping, and do not overlap.
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), to.as_ptr(), bytes) };
        Ok(())
    }
}
