//! Keeps a driver's bursts and its control path apart, where the driver itself does not.
//!
//! net_memif answers its peer on EAL's interrupt thread: where a peer has gone, it unmaps the
//! shared rings there, under a burst that may be copying to them. So each of its queues says when it
//! is inside the driver, and the control path ([`super::control`]) shuts the gate and waits until
//! all are outside. A queue that finds the gate shut moves no packets and does not wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The gate of one port.
///
/// Invariant: a queue is inside only between its `busy` and the matching `false`, and only if it saw
/// the gate open after it had set `busy`; who shut the gate and then saw every `busy` false is alone
/// until it opens the gate. (Both sides store, then load, in one total order: `SeqCst`.)
#[derive(Debug)]
pub(crate) struct Gate {
    shut: AtomicBool,
    /// The port is stopped: opening leaves the gate shut.
    stopped: AtomicBool,
    queues: Box<[Passage]>,
}

/// On a cache line of its own, since each is written at every burst.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Passage {
    busy: AtomicBool,
}

/// A queue's way through its port's gate.
#[derive(Debug)]
pub(crate) struct Pass {
    gate: Arc<Gate>,
    queue: usize,
}

/// Proof that a queue is inside. Dropping it leaves.
pub(crate) struct Inside<'a>(&'a Passage);

impl Gate {
    /// Shut, as of a port that was not started.
    pub(super) fn new(queues: usize) -> Arc<Self> {
        Arc::new(Self {
            shut: AtomicBool::new(true),
            stopped: AtomicBool::new(true),
            queues: (0..queues).map(|_| Passage::default()).collect(),
        })
    }

    /// One for each queue. No two values may be used for one queue.
    pub(super) fn pass(self: &Arc<Self>, queue: usize) -> Option<Pass> {
        (queue < self.queues.len()).then(|| Pass {
            gate: Arc::clone(self),
            queue,
        })
    }

    /// Shuts it and waits until no queue is inside. A burst takes microseconds; a thread that was
    /// interrupted in one gets the core.
    pub(super) fn shut(&self) {
        self.shut.store(true, Ordering::SeqCst);
        for queue in &self.queues {
            while queue.busy.load(Ordering::SeqCst) {
                std::thread::yield_now();
            }
        }
    }

    /// Opens it, unless the port is stopped.
    pub(super) fn open(&self) {
        let stopped = self.stopped.load(Ordering::Relaxed);
        self.shut.store(stopped, Ordering::SeqCst);
    }

    /// Only by who has shut it.
    pub(super) fn set_stopped(&self, stopped: bool) {
        self.stopped.store(stopped, Ordering::Relaxed);
    }
}

impl Pass {
    /// Lets the queue into the driver; or not, where the gate is shut.
    #[inline]
    pub(crate) fn enter(&mut self) -> Option<Inside<'_>> {
        let passage = self.gate.queues.get(self.queue)?;
        passage.busy.store(true, Ordering::SeqCst);
        let inside = Inside(passage);
        // Where it is shut, dropping `inside` takes `busy` back.
        (!self.gate.shut.load(Ordering::SeqCst)).then_some(inside)
    }
}

impl Drop for Inside<'_> {
    #[inline]
    fn drop(&mut self) {
        self.0.busy.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::UnsafeCell;
    use std::sync::Arc;

    use super::Gate;

    struct Shared(UnsafeCell<[u64; 8]>);
    // SAFETY: the gate keeps writer and reader apart; that is what is tested.
    unsafe impl Sync for Shared {}

    #[test]
    fn nobody_is_inside_while_it_is_shut() {
        let gate = Gate::new(2);
        let shared = Arc::new(Shared(UnsafeCell::new([0; 8])));
        let mut passes: Vec<_> = (0..2).filter_map(|queue| gate.pass(queue)).collect();
        assert!(gate.pass(2).is_none());
        assert!(passes[0].enter().is_none(), "a port that is not started");
        gate.shut();
        gate.set_stopped(false);
        gate.open();
        let readers: Vec<_> = passes
            .drain(..)
            .map(|mut pass| {
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || {
                    let (mut entered, mut refused) = (0_u64, 0_u64);
                    while entered < 100_000 {
                        let Some(_inside) = pass.enter() else {
                            refused += 1;
                            std::thread::yield_now();
                            continue;
                        };
                        // SAFETY: the gate is open, so nobody writes.
                        let seen = unsafe { shared.0.get().read_volatile() };
                        assert_eq!(seen, [seen[0]; 8], "written to under a burst");
                        entered += 1;
                    }
                    refused
                })
            })
            .collect();
        let mut round = 0;
        while readers.iter().any(|reader| !reader.is_finished()) {
            gate.shut();
            round += 1;
            for place in 0..8 {
                // SAFETY: the gate is shut and everybody outside.
                unsafe {
                    shared
                        .0
                        .get()
                        .cast::<u64>()
                        .add(place)
                        .write_volatile(round)
                };
            }
            gate.open();
            std::thread::yield_now();
        }
        for reader in readers {
            reader.join().unwrap();
        }
    }
}
