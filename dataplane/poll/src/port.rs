//! A DPDK port as a wire: one receive queue, one transmit queue, bursts of 32.

use std::os::fd::{AsRawFd as _, RawFd};

use genie_dpdk::{Burst, Mbuf, Mempool, RxQueue, TxQueue};

use crate::wire::Wire;

/// Frames of a burst.
const BURST: usize = 32;

/// One pair of queues of an open port.
pub struct PortWire {
    rx: RxQueue,
    tx: TxQueue,
    pool: Mempool,
    arrived: Burst,
    /// Written, not yet taken by the driver.
    leaving: Burst,
    /// Fresh mbufs.
    spare: Burst,
    /// The one that is offered next, at its full length.
    next: Option<Mbuf>,
    frame_max: usize,
    /// Its interrupts do not work.
    is_deaf: bool,
    /// Frames in more than one part, which a port is not asked for.
    pub(crate) segmented: u64,
    /// Times the pool had nothing to give.
    pub(crate) exhausted: u64,
}

impl PortWire {
    /// Over the queues of a port whose frames have at most `frame_max` bytes, with their headers.
    /// Frames that leave are taken from `pool`, whose mbufs are at least that long.
    #[must_use]
    pub fn new(rx: RxQueue, tx: TxQueue, pool: Mempool, frame_max: usize) -> Self {
        Self {
            rx,
            tx,
            pool,
            arrived: Burst::new(),
            leaving: Burst::new(),
            spare: Burst::new(),
            next: None,
            frame_max,
            is_deaf: false,
            segmented: 0,
            exhausted: 0,
        }
    }

    /// Switches the receive interrupt on; gives what to wait for, where the driver has one. After
    /// it one must look once more before waiting.
    pub fn arm(&mut self) -> Option<RawFd> {
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

    /// Switches it off.
    pub fn disarm(&mut self) {
        // Polling goes on, whether it is off or not.
        let _ = self.rx.disarm();
    }

    /// Whether the port wakes who waits for it.
    #[must_use]
    pub fn has_interrupt(&self) -> bool {
        self.rx.has_interrupt() && !self.is_deaf
    }

    /// A fresh mbuf at its full length.
    fn fresh(&mut self) -> Option<Mbuf> {
        if let Some(next) = self.next.take() {
            return Some(next);
        }
        if self.spare.is_empty() && self.pool.alloc_into(&mut self.spare, BURST).is_err() {
            self.exhausted += 1;
            return None;
        }
        let mut mbuf = self.spare.pop()?;
        mbuf.append(self.frame_max).ok()?;
        Some(mbuf)
    }

    /// Hands over what was written. False when the driver left some.
    fn flush(&mut self) -> bool {
        while !self.leaving.is_empty() {
            if self.tx.send(&mut self.leaving) == 0 {
                return false;
            }
        }
        true
    }
}

impl Wire for PortWire {
    fn receive(&mut self, mut take: impl FnMut(&mut [u8])) -> usize {
        let count = self.rx.receive(&mut self.arrived);
        for mbuf in self.arrived.as_mut_slice() {
            if mbuf.segment_count() == 1 {
                take(mbuf.data_mut());
            } else {
                self.segmented += 1;
            }
        }
        self.arrived.clear();
        count
    }

    fn transmit(&mut self, mut write: impl FnMut(&mut [u8]) -> Option<usize>) -> usize {
        let mut sent = 0;
        while self.flush() {
            while self.leaving.len() < BURST {
                let Some(mut mbuf) = self.fresh() else {
                    break;
                };
                let Some(len) = write(mbuf.data_mut()) else {
                    self.next = Some(mbuf);
                    break;
                };
                if mbuf.truncate(len).is_ok() && self.leaving.push(mbuf).is_ok() {
                    sent += 1;
                }
            }
            if self.leaving.is_empty() {
                break;
            }
        }
        sent
    }

    fn is_backlogged(&self) -> bool {
        !self.leaving.is_empty()
    }

    fn frame_max(&self) -> usize {
        self.frame_max
    }
}
