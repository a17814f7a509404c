//! A burst: what the queues take and give.

use std::fmt;
use std::mem::MaybeUninit;

use crate::Mbuf;

/// Up to [`Burst::MAX`] mbufs, in order, without allocation.
///
/// Invariant: the places `head..tail` hold owned mbufs, all others hold nothing. Dropping a burst
/// frees what it holds, so after [`crate::TxQueue::send`] only what was not sent.
pub struct Burst {
    places: [MaybeUninit<Mbuf>; Self::MAX],
    head: usize,
    tail: usize,
}

impl Burst {
    /// The most mbufs that a burst holds.
    pub const MAX: usize = 64;

    /// An empty one.
    pub const fn new() -> Self {
        Self {
            places: [const { MaybeUninit::uninit() }; Self::MAX],
            head: 0,
            tail: 0,
        }
    }

    /// Mbufs in it.
    pub fn len(&self) -> usize {
        self.tail - self.head
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.head == self.tail
    }

    /// Mbufs that it can take yet.
    pub fn room(&self) -> usize {
        Self::MAX - self.len()
    }

    /// Adds one at the end; a full burst hands it back.
    pub fn push(&mut self, mbuf: Mbuf) -> Result<(), Mbuf> {
        let Some(place) = self.make_room().first_mut() else {
            return Err(mbuf);
        };
        place.write(mbuf);
        self.tail += 1;
        Ok(())
    }

    /// Takes the first.
    pub fn pop(&mut self) -> Option<Mbuf> {
        if self.is_empty() {
            return None;
        }
        // SAFETY: the place at `head` holds an mbuf, and moving `head` gives it up.
        let mbuf = unsafe { self.places[self.head].assume_init_read() };
        self.head += 1;
        Some(mbuf)
    }

    /// Takes them one by one, the first first. What is not taken stays.
    pub fn drain(&mut self) -> impl Iterator<Item = Mbuf> {
        std::iter::from_fn(|| self.pop())
    }

    /// Frees all of it, in one call to DPDK.
    pub fn clear(&mut self) {
        if let Some(api) = genie_dpdk_sys::loaded().filter(|_| !self.is_empty()) {
            let (first, count) = (self.as_mut_ptr(), self.len());
            self.head = self.tail;
            // SAFETY: the places held owned mbufs and count as empty from here on. An `Mbuf` is
            // its pointer. The count is at most `MAX`.
            unsafe { api.rte_pktmbuf_free_bulk(first.cast(), count as u32) };
        }
    }

    /// The mbufs in order.
    pub fn as_slice(&self) -> &[Mbuf] {
        let held = &self.places[self.head..self.tail];
        // SAFETY: these places hold mbufs, and `MaybeUninit<Mbuf>` has the layout of `Mbuf`.
        unsafe { std::slice::from_raw_parts(held.as_ptr().cast(), held.len()) }
    }

    /// The mbufs in order, to be written to.
    pub fn as_mut_slice(&mut self) -> &mut [Mbuf] {
        let held = &mut self.places[self.head..self.tail];
        // SAFETY: as in `as_slice`; the burst is borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(held.as_mut_ptr().cast(), held.len()) }
    }

    pub(crate) fn as_mut_ptr(&mut self) -> *mut Mbuf {
        self.places[self.head..].as_mut_ptr().cast()
    }

    /// All free places, brought together at the end.
    pub(crate) fn make_room(&mut self) -> &mut [MaybeUninit<Mbuf>] {
        if self.head > 0 {
            // `MaybeUninit` has no drop: rotating moves the mbufs to the front.
            self.places[..self.tail].rotate_left(self.head);
            self.tail -= self.head;
            self.head = 0;
        }
        &mut self.places[self.tail..]
    }

    /// # Safety
    /// The first `count` places of [`Self::make_room`] must hold owned mbufs now.
    pub(crate) unsafe fn filled(&mut self, count: usize) {
        debug_assert!(self.tail + count <= Self::MAX);
        self.tail += count;
    }

    /// Forgets the first `count` mbufs: a driver owns them.
    pub(crate) fn handed_over(&mut self, count: usize) {
        debug_assert!(count <= self.len());
        self.head += count;
    }
}

impl Default for Burst {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Burst {
    fn drop(&mut self) {
        self.clear();
    }
}

impl fmt::Debug for Burst {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.as_slice()).finish()
    }
}
