//! A DPDK port as a wire: one receive queue, one transmit queue, bursts of 32.

use std::os::fd::{AsRawFd as _, RawFd};

use std::any::Any;
use std::sync::Arc;

use genie_dpdk::{Burst, Eal, ExternalMemory, ExternalSlab, Mbuf, Mempool, RxQueue, TxQueue};
use genie_shm::Mapping;
use genie_transport::SplitTransmit;

use crate::clock::Clock;
use crate::jam::Jam;
use crate::memory::MemoryId;
use crate::wire::{BURST, Packet, Wire, WireDrops, Written};

/// DPDK notes every page of memory that packets may lie in, which takes it a quarter of a
/// microsecond: more than these are not worth the stop.
const PAGES_MAX: usize = 128 << 10;
/// The largest page that it knows.
const PAGE_BYTES_MAX: usize = 1 << 30;

/// What a port needs to send from where bytes lie.
pub struct FromMemory {
    /// Where memory is made known.
    pub eal: Eal,
    /// Mbufs that carry what lies elsewhere: of no room to speak of.
    pub carriers: Mempool,
}

/// One pair of queues of an open port.
pub struct PortWire {
    rx: RxQueue,
    tx: TxQueue,
    arrived: Burst,
    /// Written, not yet taken by the driver.
    leaving: Burst,
    /// Fresh mbufs.
    spare: Burst,
    /// The one that is offered next, at its full length.
    next: Option<Mbuf>,
    /// After those that hold mbufs of it: it goes last.
    pool: Mempool,
    frame_max: usize,
    from_memory: Option<FromMemory>,
    /// By the number of the memory.
    slabs: Vec<Option<ExternalSlab>>,
    jam: Jam,
    /// There was no packet to write the next frame to.
    is_starved: bool,
    /// Its interrupts do not work.
    is_deaf: bool,
    drops: WireDrops,
}

impl PortWire {
    /// Over the queues of a port whose frames have at most `frame_max` bytes, with their headers.
    /// Frames that leave are taken from `pool`, whose mbufs are at least that long. With `from_memory`
    /// they may have more than one segment.
    #[must_use]
    pub fn new(
        rx: RxQueue,
        tx: TxQueue,
        pool: Mempool,
        frame_max: usize,
        from_memory: Option<FromMemory>,
    ) -> Self {
        Self {
            rx,
            tx,
            pool,
            arrived: Burst::new(),
            leaving: Burst::new(),
            spare: Burst::new(),
            next: None,
            frame_max,
            from_memory,
            slabs: Vec::new(),
            jam: Jam::new(Clock::start()),
            is_starved: false,
            is_deaf: false,
            drops: WireDrops::default(),
        }
    }

    /// A fresh mbuf at its full length.
    fn fresh(&mut self) -> Option<Mbuf> {
        if let Some(next) = self.next.take() {
            return Some(next);
        }
        if self.spare.is_empty() {
            self.is_starved = self.pool.alloc_into(&mut self.spare, BURST).is_err();
            if self.is_starved {
                self.drops.exhausted += 1;
                return None;
            }
        }
        let mut mbuf = self.spare.pop()?;
        mbuf.append(self.frame_max).ok()?;
        Some(mbuf)
    }

    /// Puts the data of a frame behind its head. False: one of them can't be had now.
    fn attach(&mut self, mbuf: &mut Mbuf, data: &SplitTransmit) -> bool {
        let Some(FromMemory { carriers, .. }) = &self.from_memory else {
            return data.data().is_empty();
        };
        data.data().iter().all(|span| {
            let slab =
                MemoryId::of(span.source).and_then(|id| self.slabs.get(id.index())?.as_ref());
            let (Some(slab), Ok(carrier)) = (slab, carriers.alloc()) else {
                return false;
            };
            let at = span.offset as usize;
            mbuf.attach(carrier, slab, at..at + span.len as usize)
                .is_ok()
        })
    }

    /// Hands over what was written. False when the driver left some.
    fn flush(&mut self) -> bool {
        while !self.leaving.is_empty() {
            if self.tx.send(&mut self.leaving) > 0 {
                self.jam.took();
                continue;
            }
            if !self.jam.refused() {
                return false;
            }
            self.drops.stuck += self.leaving.len() as u64;
            self.leaving.clear();
        }
        true
    }
}

impl Packet for Mbuf {
    fn bytes(&mut self) -> &mut [u8] {
        self.data_mut()
    }
}

impl Wire for PortWire {
    type Packet = Mbuf;

    fn receive(&mut self, mut take: impl FnMut(&mut [u8])) -> usize {
        let count = self.rx.receive(&mut self.arrived);
        for mbuf in self.arrived.as_mut_slice() {
            if mbuf.segment_count() == 1 {
                take(mbuf.data_mut());
            } else {
                self.drops.segmented += 1;
            }
        }
        self.arrived.clear();
        count
    }

    fn receive_kept(&mut self, mut take: impl FnMut(Mbuf)) -> usize {
        let count = self.rx.receive(&mut self.arrived);
        for mbuf in self.arrived.drain() {
            if mbuf.segment_count() == 1 {
                take(mbuf);
            } else {
                self.drops.segmented += 1;
            }
        }
        count
    }

    fn transmit(&mut self, mut write: impl FnMut(&mut [u8]) -> Option<Written>) -> usize {
        let mut sent = 0;
        while self.flush() {
            while self.leaving.len() < BURST {
                let Some(mut mbuf) = self.fresh() else {
                    break;
                };
                let Some(written) = write(mbuf.data_mut()) else {
                    self.next = Some(mbuf);
                    break;
                };
                let whole = mbuf.truncate(written.len).is_ok()
                    && written
                        .data
                        .is_none_or(|data| self.attach(&mut mbuf, &data));
                if !whole {
                    // It counts as lost, and is sent again.
                    self.drops.exhausted += 1;
                } else if self.leaving.push(mbuf).is_ok() {
                    sent += 1;
                }
            }
            if self.leaving.is_empty() {
                break;
            }
        }
        sent
    }

    fn share(&mut self, id: MemoryId, memory: &Arc<Mapping>) -> bool {
        let Some(FromMemory { eal, .. }) = &self.from_memory else {
            return false;
        };
        let len = memory.capacity();
        let (Ok(start), Ok(bytes)) = (memory.address(0, len), usize::try_from(len)) else {
            return false;
        };
        // Devices are given virtual addresses, so any size of page will do that the range is made
        // of; the kernel's own may be smaller.
        let edges = start.as_ptr() as usize | bytes;
        let page_bytes = (1 << edges.trailing_zeros()).min(PAGE_BYTES_MAX);
        if bytes / page_bytes > PAGES_MAX {
            return false;
        }
        let owner: Arc<dyn Any + Send + Sync> = Arc::<Mapping>::clone(memory);
        // SAFETY: the mapping is whole pages (a memfd of such a length, checked by DPDK), and stays
        // mapped while `owner` lives. It is only sent from, and may change meanwhile.
        let known = unsafe { ExternalMemory::register(eal, start, bytes, page_bytes, owner) };
        let slab = match known {
            Ok(known) => ExternalSlab::new(&known, 0..bytes),
            Err(error) => {
                tracing::debug!("tensors are copied into packets: {error}");
                None
            }
        };
        let shared = slab.is_some();
        if self.slabs.len() <= id.index() {
            self.slabs.resize_with(id.index() + 1, || None);
        }
        self.slabs[id.index()] = slab;
        shared
    }

    fn forget(&mut self, id: MemoryId) {
        if let Some(slab) = self.slabs.get_mut(id.index()) {
            *slab = None;
        }
    }

    fn drops(&self) -> WireDrops {
        self.drops
    }

    fn is_backlogged(&self) -> bool {
        !self.leaving.is_empty() && self.jam.is_brief()
    }

    fn takes_nothing(&self) -> bool {
        !self.leaving.is_empty() || self.is_starved
    }

    fn has_interrupt(&self) -> bool {
        self.rx.has_interrupt() && !self.is_deaf
    }

    fn arm(&mut self) -> Option<RawFd> {
        match self.rx.arm() {
            Ok(file) => file.map(|file| file.as_raw_fd()),
            Err(error) => {
                if !std::mem::replace(&mut self.is_deaf, true) {
                    tracing::warn!("the port has no interrupts after all: {error}");
                }
                None
            }
        }
    }

    fn disarm(&mut self) {
        // Polling goes on, whether it is off or not.
        let _ = self.rx.disarm();
    }

    fn frame_max(&self) -> usize {
        self.frame_max
    }
}
