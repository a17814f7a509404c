//! IP packets on their way out, and what smoltcp takes for its device.

use smoltcp::phy::{Device, DeviceCapabilities, RxToken, TxToken};
use smoltcp::time::Instant;

/// A bounded queue of IP packets in memory that was allocated once.
#[derive(Debug)]
pub(crate) struct PacketQueue {
    memory: Box<[u8]>,
    lengths: Box<[usize]>,
    slot_bytes: usize,
    head: usize,
    count: usize,
}

impl PacketQueue {
    pub(crate) fn new(packets: usize, bytes_each: usize) -> Self {
        Self {
            memory: vec![0; packets * bytes_each].into(),
            lengths: vec![0; packets].into(),
            slot_bytes: bytes_each,
            head: 0,
            count: 0,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(crate) fn is_full(&self) -> bool {
        self.count == self.lengths.len()
    }

    /// The oldest packet.
    pub(crate) fn front_mut(&mut self) -> Option<&mut [u8]> {
        let start = self.head * self.slot_bytes;
        (self.count > 0).then(|| &mut self.memory[start..start + self.lengths[self.head]])
    }

    /// Drops the oldest packet.
    pub(crate) fn pop(&mut self) {
        if self.count > 0 {
            self.head = (self.head + 1) % self.lengths.len();
            self.count -= 1;
        }
    }

    /// Room for a packet, which is then queued. None if it is too long, or the queue is full.
    pub(crate) fn push(&mut self, len: usize) -> Option<&mut [u8]> {
        if self.is_full() || len > self.slot_bytes {
            return None;
        }
        let slot = (self.head + self.count) % self.lengths.len();
        self.count += 1;
        self.lengths[slot] = len;
        let start = slot * self.slot_bytes;
        Some(&mut self.memory[start..start + len])
    }
}

/// smoltcp's device: at most one received packet, and the queue.
pub(crate) struct Phy<'p> {
    pub(crate) received: Option<&'p [u8]>,
    pub(crate) queue: &'p mut PacketQueue,
    pub(crate) capabilities: &'p DeviceCapabilities,
}

impl Device for Phy<'_> {
    type RxToken<'a>
        = Received<'a>
    where
        Self: 'a;
    type TxToken<'a>
        = Slot<'a>
    where
        Self: 'a;

    fn receive(&mut self, _now: Instant) -> Option<(Received<'_>, Slot<'_>)> {
        if self.queue.is_full() {
            return None;
        }
        let packet = self.received.take()?;
        Some((Received(packet), Slot(self.queue)))
    }

    fn transmit(&mut self, _now: Instant) -> Option<Slot<'_>> {
        (!self.queue.is_full()).then_some(Slot(self.queue))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        self.capabilities.clone()
    }
}

pub(crate) struct Received<'a>(&'a [u8]);

impl RxToken for Received<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(self.0)
    }
}

pub(crate) struct Slot<'a>(&'a mut PacketQueue);

impl TxToken for Slot<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, write: F) -> R {
        match self.0.push(len) {
            Some(room) => write(room),
            // A packet beyond the MTU, which smoltcp does not make: written to nowhere.
            None => write(&mut vec![0; len]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::PacketQueue;

    #[test]
    fn first_in_first_out_and_bounded() {
        let mut queue = PacketQueue::new(2, 4);
        for round in 0..5_u8 {
            queue.push(1).unwrap()[0] = round;
            queue.push(4).unwrap().copy_from_slice(&[round; 4]);
            assert!(queue.is_full());
            assert!(queue.push(1).is_none());
            assert_eq!(queue.front_mut(), Some(&mut [round][..]));
            queue.pop();
            assert_eq!(queue.front_mut(), Some(&mut [round; 4][..]));
            queue.pop();
            assert!(queue.is_empty() && queue.front_mut().is_none());
            assert!(queue.push(5).is_none(), "longer than a slot");
        }
    }
}
