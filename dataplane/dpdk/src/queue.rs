//! Receive and transmit queues: the hot path.

use std::sync::Arc;

use genie_dpdk_sys::Api;

use crate::Burst;
use crate::port::Open;

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
    port: Arc<Open>,
    queue: u16,
}

/// A transmit queue of an open port. The invariant is that of [`RxQueue`].
#[derive(Debug)]
pub struct TxQueue {
    api: &'static Api,
    port: Arc<Open>,
    queue: u16,
}

impl RxQueue {
    pub(crate) fn new(port: &Arc<Open>, queue: u16) -> Self {
        Self {
            api: port.api(),
            port: Arc::clone(port),
            queue,
        }
    }

    /// Adds what has arrived to the end of `burst`, up to 32 packets or its room. Never waits.
    #[inline]
    pub fn receive(&mut self, burst: &mut Burst) -> usize {
        let room = burst.make_room();
        let count = (room.len() as u16).min(RX_BURST);
        // SAFETY: the port is started and has this queue, which is borrowed exclusively; `room` has
        // at least `count` places for pointers.
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
}

impl TxQueue {
    pub(crate) fn new(port: &Arc<Open>, queue: u16) -> Self {
        Self {
            api: port.api(),
            port: Arc::clone(port),
            queue,
        }
    }

    /// Hands as many packets to the driver as it takes, from the front of `burst`, and returns how
    /// many. They are the driver's; the rest stays in the burst, to be sent again or dropped.
    #[inline]
    pub fn send(&mut self, burst: &mut Burst) -> usize {
        // At most 64, see `Burst::MAX`.
        let count = burst.len() as u16;
        let first = burst.as_mut_ptr().cast();
        // SAFETY: the port is started and has this queue, which is borrowed exclusively; `first`
        // points to `count` owned packets.
        let sent = unsafe {
            self.api
                .genie_dpdk_tx_burst(self.port.id(), self.queue, first, count)
        };
        let sent = usize::from(sent.min(count));
        burst.handed_over(sent);
        sent
    }

    /// Its number in the port.
    pub fn index(&self) -> u16 {
        self.queue
    }
}
