//! What stands behind the link: the port's own pool, or a card that this program plays.

use std::cell::RefCell;
use std::rc::Rc;

use anyhow::{Context as _, Result, ensure};
use genie_dpdk::{Mbuf, Mempool};
use genie_gpudev::device::{Device, Memory, Queue};
use genie_transport::{Endpoint, Header, Time};

use super::{DATA_BYTES, LINK_HEADER_BYTES};
use crate::gathering::{ReceptionError, head_len};
use crate::payload::PayloadPool;
use crate::reception::Reception;

/// A place in the payload memory, given back when dropped.
pub(super) struct Slot {
    free: Rc<RefCell<Vec<u64>>>,
    offset: u64,
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.free.borrow_mut().push(self.offset);
    }
}

/// Where frames go.
pub(super) enum Receiving {
    /// From the port's own pool.
    Port(Box<Reception>),
    /// From host memory, split as a card would do it.
    Split {
        reception: Box<Reception>,
        heads: Mempool,
        data: Mempool,
    },
    /// From host memory, by a played card.
    Played {
        reception: Box<Reception<Slot>>,
        queue: Box<dyn Queue>,
        free: Rc<RefCell<Vec<u64>>>,
    },
}

/// Runs `body` on what is the same for both.
macro_rules! both {
    ($receiving:expr, $reception:ident => $body:expr) => {
        match $receiving {
            $crate::check::receiving::Receiving::Port($reception) => $body,
            $crate::check::receiving::Receiving::Split {
                reception: $reception,
                ..
            } => $body,
            $crate::check::receiving::Receiving::Played {
                reception: $reception,
                ..
            } => $body,
        }
    };
}

pub(super) use both;

impl Receiving {
    pub(super) fn take(&mut self, mut mbuf: Mbuf, to: &mut Endpoint, now: Time) -> Result<()> {
        let taken = match self {
            Self::Port(reception) => reception.take(mbuf, LINK_HEADER_BYTES, to, now),
            Self::Split {
                reception,
                heads,
                data,
            } => {
                let (head, rest) = parts(&mut mbuf)?;
                let mut packet = heads.alloc()?;
                packet.append(LINK_HEADER_BYTES)?.fill(0);
                packet.extend_from_slice(head)?;
                if !rest.is_empty() {
                    let mut second = data.alloc()?;
                    second.extend_from_slice(rest)?;
                    let chained = packet.chain(second);
                    ensure!(chained.is_ok(), "a packet of two segments can't be made");
                }
                reception.take(packet, LINK_HEADER_BYTES, to, now)
            }
            Self::Played {
                reception,
                queue,
                free,
            } => {
                let (head, data) = parts(&mut mbuf)?;
                let offset = free.borrow_mut().pop().context("no place for a payload")?;
                let slot = Slot {
                    free: Rc::clone(free),
                    offset,
                };
                queue.write(reception.payload(), offset, data)?;
                let data = (offset, data.len() as u32);
                reception.take_parts(head, data, slot, to, now)
            }
        };
        match taken {
            // What the transport drops it counts, and the sender repeats.
            Ok(()) | Err(ReceptionError::Dropped(_)) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    pub(super) fn has_room(&self) -> bool {
        match self {
            Self::Port(reception) | Self::Split { reception, .. } => reception.has_room(),
            Self::Played {
                reception, free, ..
            } => reception.has_room() && !free.borrow().is_empty(),
        }
    }
}

/// A frame as a card splits it: the head, and the data if there are any.
fn parts(mbuf: &mut Mbuf) -> Result<(&mut [u8], &mut [u8])> {
    let frame = mbuf.data_mut().get_mut(LINK_HEADER_BYTES..);
    let frame = frame.context("a frame shorter than its link header")?;
    let header = Header::parse(frame).map_err(|reason| anyhow::anyhow!("{reason:?}"))?;
    let at = match header.data_len {
        0 => frame.len(),
        _ => head_len(&header),
    };
    let halves = frame.split_at_mut_checked(at);
    halves.context("a frame shorter than its head")
}

/// What receives from `payload` into `target`; `heads` where the card is to split packets.
pub(super) fn receiving(
    device: &dyn Device,
    payload: &PayloadPool,
    target: &Memory,
    heads: Option<&Mempool>,
) -> Result<Receiving> {
    let memory = payload.memory();
    if memory.host().is_none() {
        let slots = memory.bytes() / u64::from(DATA_BYTES);
        let free = (0..slots).map(|slot| slot * u64::from(DATA_BYTES));
        return Ok(Receiving::Played {
            reception: Box::new(Reception::new(device, device.queue()?, memory, target)?),
            queue: device.queue()?,
            free: Rc::new(RefCell::new(free.collect())),
        });
    }
    let reception = Reception::new(device, device.queue()?, memory, target)?;
    let reception = Box::new(reception);
    Ok(match heads {
        None => Receiving::Port(reception),
        Some(heads) => Receiving::Split {
            reception,
            heads: heads.clone(),
            data: payload.mempool().clone(),
        },
    })
}
