//! Receive and transmit queues: the hot path.

use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::Arc;

use genie_dpdk_sys::Api;

use crate::port::error::PortError;
use crate::port::gate::Pass;
use crate::port::interrupt::Interrupt;
use crate::port::open::Open;
use crate::{Burst, Mbuf};

/// Mbufs that are asked for at once.
const RX_BURST: u16 = 32;

/// A receive queue of an open port.
///
/// Invariant: there is one value for a queue, and receiving borrows it exclusively, so no two
/// threads poll the same queue, which DPDK forbids. The port stays open while it exists.
///
/// <https://doc.dpdk.org/guides/prog_guide/poll_mode_drv.html>
#[derive(Debug)]
pub struct RxQueue {
    api: &'static Api,
    /// Before the port: an epoll instance must go before what it watches.
    interrupt: Option<Interrupt>,
    port: Arc<Open>,
    queue: u16,
    pass: Option<Pass>,
}

/// A transmit queue of an open port. The invariant is that of [`RxQueue`].
#[derive(Debug)]
pub struct TxQueue {
    api: &'static Api,
    port: Arc<Open>,
    queue: u16,
    pass: Option<Pass>,
    packet_bytes_max: Option<u16>,
    refused: u64,
}

impl RxQueue {
    pub(crate) fn new(port: &Arc<Open>, queue: u16, interrupt: Option<Interrupt>) -> Self {
        Self {
            api: port.api(),
            interrupt,
            port: Arc::clone(port),
            queue,
            pass: port.pass(queue),
        }
    }

    /// Adds what has arrived to the end of `burst`, up to 32 packets or its room. Never waits.
    #[inline]
    pub fn receive(&mut self, burst: &mut Burst) -> usize {
        let _inside = match &mut self.pass {
            Some(pass) => match pass.enter() {
                Some(inside) => Some(inside),
                None => return 0,
            },
            None => None,
        };
        let room = burst.make_room();
        let count = (room.len() as u16).min(RX_BURST);
        // SAFETY: the port is started and has this queue, which is borrowed exclusively; `room` has
        // at least `count` places for pointers. Where the driver needs a pass, it has been shown.
        let received = unsafe {
            let places = room.as_mut_ptr().cast();
            self.api
                .genie_dpdk_rx_burst(self.port.id(), self.queue, places, count)
        };
        let received = usize::from(received.min(count));
        // SAFETY: the driver has filled that many places with packets that are ours now.
        unsafe { burst.filled(received) };
        received
    }

    /// Its number in the port.
    pub fn index(&self) -> u16 {
        self.queue
    }

    /// Whether it can be waited for: [`crate::Granted::rx_interrupts`].
    pub fn has_interrupt(&self) -> bool {
        self.interrupt.is_some()
    }

    /// Switches the receive interrupt on and returns what to wait for with `poll` or `epoll`:
    /// readable when packets have arrived. Nothing, where the queue has no interrupt.
    ///
    /// A packet that came before does not make it readable with every driver. So: arm, receive once
    /// more, wait if nothing was there, then [`Self::disarm`] and poll again.
    pub fn arm(&mut self) -> Result<Option<BorrowedFd<'_>>, PortError> {
        let Some(interrupt) = &self.interrupt else {
            return Ok(None);
        };
        interrupt.switch(&self.port, self.queue, true)?;
        Ok(Some(interrupt.as_fd()))
    }

    /// Switches the receive interrupt off and takes what it has signalled.
    pub fn disarm(&mut self) -> Result<(), PortError> {
        let Some(interrupt) = &self.interrupt else {
            return Ok(());
        };
        interrupt.switch(&self.port, self.queue, false)?;
        interrupt.clear(&self.port);
        Ok(())
    }
}

impl TxQueue {
    pub(crate) fn new(port: &Arc<Open>, queue: u16) -> Self {
        Self {
            api: port.api(),
            port: Arc::clone(port),
            queue,
            pass: port.pass(port.rx_queues() + queue),
            packet_bytes_max: port.packet_bytes_max(),
            refused: 0,
        }
    }

    /// Hands as many packets to the driver as it takes, from the front of `burst`, and returns how
    /// many have left it. They are the driver's; the rest stays in the burst, to be sent again or
    /// dropped.
    ///
    /// A packet that the driver would get wrong is dropped when it is the first, and counted:
    /// [`Self::refused`].
    #[inline]
    pub fn send(&mut self, burst: &mut Burst) -> usize {
        // At most 64, see `Burst::MAX`.
        let mut count = burst.len() as u16;
        if count == 0 {
            // net_memif looks at the first packet of any burst, from 23.03 on.
            return 0;
        }
        if let Some(bytes) = self.packet_bytes_max {
            let fits = |mbuf: &Mbuf| self.fits(mbuf, bytes);
            let fitting = burst
                .as_slice()
                .iter()
                .take_while(|mbuf| fits(mbuf))
                .count();
            if fitting == 0 {
                self.refused += 1;
                drop(burst.pop());
                return 1;
            }
            count = fitting as u16;
        }
        let _inside = match &mut self.pass {
            Some(pass) => match pass.enter() {
                Some(inside) => Some(inside),
                None => return 0,
            },
            None => None,
        };
        let first = burst.as_mut_ptr().cast();
        // SAFETY: the port is started and has this queue, which is borrowed exclusively; `first`
        // points to `count` owned packets. Where the driver needs a pass, it has been shown.
        let sent = unsafe {
            self.api
                .genie_dpdk_tx_burst(self.port.id(), self.queue, first, count)
        };
        let sent = usize::from(sent.min(count));
        burst.handed_over(sent);
        sent
    }

    /// net_memif leaves the mark of a packet that took several buffers behind, for packets that use
    /// them later. A packet takes one where it fits into one, and, from 23.03 on, where the mbufs of
    /// its pool hold more than a buffer does.
    #[inline]
    fn fits(&self, mbuf: &Mbuf, buffer_bytes: u16) -> bool {
        let single = || {
            // SAFETY: the mbuf is owned; reads its pool.
            unsafe { self.api.genie_dpdk_mbuf_pool_room(mbuf.raw()) > buffer_bytes.into() }
        };
        mbuf.len() <= usize::from(buffer_bytes) && (mbuf.segment_count() == 1 || single())
    }

    /// Packets that were dropped since they are longer than the link's buffers, or have several
    /// segments where it can't carry them. See [`crate::Memif`].
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// Its number in the port.
    pub fn index(&self) -> u16 {
        self.queue
    }
}
