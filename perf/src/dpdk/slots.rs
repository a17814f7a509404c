//! The memory of a test, as the engine knows it: one mapping, cut in slots.

use std::sync::Arc;

use anyhow::{Context, Result};
use genie_poll::engine::Engine;
use genie_poll::memory::MemoryId;
use genie_poll::wire::Wire;
use genie_shm::Mapping;
use genie_transport::{Grant, Protection, RegionId, SourceId};

use crate::path::Plan;

/// Slots begin at multiples of this.
const ALIGNMENT: u64 = 4096;
/// Bytes whose pages are taken between two turns of the engine.
const TOUCH_BYTES: usize = 8 << 20;

/// Sources, or regions.
pub struct Slots {
    mapping: Arc<Mapping>,
    id: MemoryId,
    bytes: u64,
    stride: u64,
    /// By slot, for regions.
    regions: Vec<RegionId>,
    /// By slot: what is granted now.
    grants: Vec<Option<Grant>>,
}

impl Slots {
    /// Memory for `plan`, with its pages. Regions can be granted.
    pub fn new<W: Wire>(
        engine: &mut Engine<W>,
        plan: &Plan,
        regions: bool,
        protection: &Protection,
    ) -> Result<Self> {
        let stride = plan.size.next_multiple_of(ALIGNMENT);
        let all = stride * u64::from(plan.slots);
        let mapping = Arc::new(Mapping::create(all)?);
        let id = engine.add_memory(&mapping, protection)?;
        let mut slots = Self {
            mapping,
            id,
            bytes: plan.size,
            stride,
            regions: Vec::new(),
            grants: vec![None; plan.slots as usize],
        };
        for slot in 0..plan.slots {
            for piece in slots.memory(slot).chunks_mut(TOUCH_BYTES) {
                piece.fill(0);
                engine.turn();
            }
            if regions {
                let at = slots.offset(slot);
                let region = engine.memory().name(id, at, plan.size);
                slots
                    .regions
                    .push(region.context("too many places are named")?);
            }
        }
        Ok(slots)
    }

    /// Takes the memory back from the engine.
    pub fn forget<W: Wire>(self, engine: &mut Engine<W>) {
        engine.remove_memory(self.id);
    }

    /// Bytes of a slot.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Where a slot begins.
    #[must_use]
    pub fn offset(&self, slot: u32) -> u64 {
        u64::from(slot) * self.stride
    }

    /// As the transport reads it.
    #[must_use]
    pub fn source(&self) -> SourceId {
        self.id.source()
    }

    /// As the transport writes it.
    #[must_use]
    pub fn region(&self, slot: u32) -> Option<RegionId> {
        self.regions.get(slot as usize).copied()
    }

    fn slot(&self, region: RegionId) -> Option<u32> {
        // Named one after the other, so the first guess is right.
        let first = self.regions.first()?.0;
        let guess = usize::try_from(region.0.wrapping_sub(first)).unwrap_or(usize::MAX);
        let at = match self.regions.get(guess) {
            Some(found) if *found == region => Some(guess),
            _ => self.regions.iter().position(|known| *known == region),
        };
        u32::try_from(at?).ok()
    }

    /// A slot is granted now, or no longer.
    pub fn set_grant(&mut self, slot: u32, grant: Option<Grant>) {
        if let Some(known) = self.grants.get_mut(slot as usize) {
            *known = grant;
        }
    }

    /// Whether this is what is granted now, and for which slot.
    #[must_use]
    pub fn slot_of(&self, grant: Grant) -> Option<u32> {
        let slot = self.slot(grant.region)?;
        (self.grants.get(slot as usize)? == &Some(grant)).then_some(slot)
    }

    /// What is granted now.
    #[must_use]
    pub fn open_grants(&self) -> Vec<Grant> {
        self.grants.iter().copied().flatten().collect()
    }

    /// The bytes of a slot.
    pub fn memory(&mut self, slot: u32) -> &mut [u8] {
        let at = self.offset(slot);
        // SAFETY: only this process has the mapping. Its one thread drives the engine, which copies
        // in and out within a turn, and none runs while the slice, which borrows `self`, lives.
        let memory = unsafe { self.mapping.bytes_mut(at, self.bytes) };
        memory.unwrap_or_default()
    }
}
