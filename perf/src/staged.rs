//! Any path, between memories of a device: what is sent is copied from the device first, and what
//! came is copied to it before it counts as there. This is the staged way; where frames are
//! received into the device itself, the path does it. A transfer counts as sent when the path has
//! brought it; its slot takes the next only after the copy.
//!
//! On the `host` device the copies are real and the memory is the machine's own. On CUDA this was
//! not run yet.

use std::os::fd::RawFd;
use std::ptr::NonNull;
use std::sync::Arc;

use anyhow::{Context, Result};
use genie_gpudev::DeviceKind;
use genie_gpudev::device::{self, CopyOrder, CopyPiece, Device, Memory, Queue};

use crate::path::{Event, Facts, Part, Path, Plan, Wait};

/// Bytes of a copy before the other end hears of this one again.
const PIECE_BYTES: usize = 64 << 20;

/// A slot: the path's memory, registered with the device, and the device's.
struct Slot {
    staging: Memory,
    device: Memory,
}

/// A path whose memory is a device's.
pub struct Staged<P> {
    // Dropped before the path, whose memory they name.
    sources: Vec<Slot>,
    regions: Vec<Slot>,
    queue: Box<dyn Queue>,
    device: Arc<dyn Device>,
    kind: DeviceKind,
    bytes: u64,
    inner: P,
}

impl<P: Path> Staged<P> {
    /// Over a path.
    pub fn new(inner: P, kind: DeviceKind) -> Result<Self> {
        let device = device::open(kind).context("--memory device (--device chooses another)")?;
        Ok(Self {
            sources: Vec::new(),
            regions: Vec::new(),
            queue: device.queue()?,
            device,
            kind,
            bytes: 0,
            inner,
        })
    }

    fn slots(&mut self, part: Part, count: u32) -> Result<Vec<Slot>> {
        let page = self.device.info().page_bytes.max(1);
        let mut slots = Vec::new();
        for slot in 0..count {
            let memory = self.inner.memory(part, slot);
            // This end does not have this part.
            let Some(address) = NonNull::new(memory.as_mut_ptr()).filter(|_| !memory.is_empty())
            else {
                break;
            };
            let bytes = memory.len() as u64;
            // SAFETY: the path keeps a slot's memory where it is until the next `begin`, or its own
            // end; the handles are dropped before either.
            let staging = unsafe { self.device.register(address, bytes) }?;
            let device = self.device.allocate(bytes.next_multiple_of(page))?;
            slots.push(Slot { staging, device });
        }
        Ok(slots)
    }

    /// Copies a slot one way, and waits for it. Nothing for a slot that is not there.
    fn copy(&mut self, part: Part, slot: u32, to_device: bool) -> Result<()> {
        let slots = match part {
            Part::Source => &self.sources,
            Part::Region => &self.regions,
        };
        let Some(slot) = slots.get(slot as usize) else {
            return Ok(());
        };
        let (from, to) = match to_device {
            true => (&slot.staging, &slot.device),
            false => (&slot.device, &slot.staging),
        };
        for at in (0..self.bytes).step_by(PIECE_BYTES) {
            let piece = CopyPiece {
                from: at,
                to: at,
                len: (self.bytes - at).min(PIECE_BYTES as u64),
            };
            let done = self.queue.copy(from, to, &[piece], CopyOrder::Any)?;
            self.queue.wait(done)?;
            if piece.len == PIECE_BYTES as u64 {
                self.inner.breathe();
            }
        }
        Ok(())
    }
}

impl<P: Path> Path for Staged<P> {
    fn facts(&mut self) -> Facts {
        let facts = self.inner.facts();
        Facts {
            path: format!("{}; staged in host memory for {}", facts.path, self.kind),
            ..facts
        }
    }

    fn message_max(&self) -> usize {
        self.inner.message_max()
    }

    fn begin(&mut self, plan: &Plan) -> Result<()> {
        self.sources.clear();
        self.regions.clear();
        self.inner.begin(plan)?;
        self.bytes = plan.size;
        self.sources = self.slots(Part::Source, plan.slots)?;
        self.regions = self.slots(Part::Region, plan.slots)?;
        Ok(())
    }

    fn memory(&mut self, part: Part, slot: u32) -> &mut [u8] {
        self.inner.memory(part, slot)
    }

    fn send(&mut self, slot: u32, part: Part) -> Result<bool> {
        self.copy(part, slot, false)?;
        self.inner.send(slot, part)
    }

    fn message(&mut self, bytes: &[u8]) -> Result<bool> {
        self.inner.message(bytes)
    }

    fn next(&mut self) -> Result<Option<Event>> {
        let event = self.inner.next()?;
        if let Some(Event::Filled(slot)) = event {
            self.copy(Part::Region, slot, true)?;
        }
        Ok(event)
    }

    fn message_bytes(&self) -> &[u8] {
        self.inner.message_bytes()
    }

    fn wait(&mut self, what: Wait) -> Result<bool> {
        self.inner.wait(what)
    }

    fn written(&mut self, slot: u32) -> Result<()> {
        self.copy(Part::Source, slot, true)
    }

    fn fetch(&mut self, slot: u32) -> Result<()> {
        self.copy(Part::Region, slot, false)
    }

    fn changed(&mut self, slot: u32) -> Result<()> {
        self.copy(Part::Region, slot, true)
    }

    fn breathe(&mut self) {
        self.inner.breathe();
    }

    fn nudge(&mut self) -> Result<()> {
        self.inner.nudge()
    }

    fn watch(&mut self, descriptor: RawFd) {
        self.inner.watch(descriptor);
    }

    fn retransmissions(&mut self) -> u64 {
        self.inner.retransmissions()
    }

    fn dropped(&mut self) -> u64 {
        self.inner.dropped()
    }
}
