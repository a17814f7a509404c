//! Receive interrupts: a descriptor to wait for instead of polling.

use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};

use genie_dpdk_sys::{self as sys, rte_epoll_event};
use nix::sys::epoll::{Epoll, EpollCreateFlags};

use super::error::{PortError, Step};
use super::open::Open;

/// The interrupt of one receive queue, in an epoll instance of its own: drivers differ in what must
/// be read from their descriptor, and DPDK knows.
///
/// <https://doc.dpdk.org/guides/prog_guide/env_abstraction_layer.html#rx-interrupt-event>
#[derive(Debug)]
pub(crate) struct Interrupt(OwnedFd);

impl Interrupt {
    /// If the driver has one for this queue of a port that runs, and lets it be switched.
    pub(crate) fn of(port: &Open, queue: u16) -> Option<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).ok()?;
        let api = port.api();
        // SAFETY: the port runs and has the queue; drivers without an interrupt refuse each step,
        // the first without a line in the log. Off in the end: polling comes first.
        let refused = unsafe {
            let fd = epoll.0.as_raw_fd();
            let none = std::ptr::null_mut();
            api.rte_eth_dev_rx_intr_disable(port.id(), queue) < 0
                || api.rte_eth_dev_rx_intr_ctl_q(port.id(), queue, fd, sys::GENIE_INTR_ADD, none)
                    < 0
                || api.rte_eth_dev_rx_intr_enable(port.id(), queue) < 0
                || api.rte_eth_dev_rx_intr_disable(port.id(), queue) < 0
        };
        (!refused).then_some(Self(epoll.0))
    }

    pub(crate) fn switch(&self, port: &Open, queue: u16, on: bool) -> Result<(), PortError> {
        // SAFETY: the port runs and has the queue, of which the caller is the only user.
        let result = unsafe {
            match on {
                true => port.api().rte_eth_dev_rx_intr_enable(port.id(), queue),
                false => port.api().rte_eth_dev_rx_intr_disable(port.id(), queue),
            }
        };
        port.ok(result, Step::Interrupt)
    }

    /// Takes what has come, without waiting.
    pub(crate) fn clear(&self, port: &Open) {
        let mut event = rte_epoll_event::default();
        // SAFETY: the descriptor is an epoll instance, and `event` has room for one event.
        unsafe {
            port.api()
                .rte_epoll_wait(self.0.as_raw_fd(), &mut event, 1, 0)
        };
    }
}

impl AsFd for Interrupt {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
