use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, Ordering};
use loom::thread;

use super::slots::{Destination, Key, Slots};
use super::sync::Mutex;
use crate::PATIENCE;

/// What has come and nobody has read yet, the oldest last.
type Frames = Vec<Key>;

#[derive(Default)]
struct Session {
    slots: Slots,
    reading: Mutex<Frames>,
}

impl Session {
    fn asked(keys: &[Key]) -> Arc<Self> {
        let session = Self::default();
        for &key in keys {
            session.slots.open(key, Destination::NOWHERE);
        }
        session.reading.lock().extend(keys);
        Arc::new(session)
    }

    /// As a thread of the program waits (`engine/wait.rs`).
    fn wait(&self, key: Key) {
        let _waiting = self.slots.wait();
        loop {
            let seen = self.slots.changes();
            if self.slots.is_done(key) {
                break;
            }
            let turn = self.slots.turn(&self.reading, |frames| {
                while !self.slots.is_done(key) {
                    let came = frames.pop().expect("what was asked is answered");
                    self.slots.answer(came, Ok(Vec::new()));
                }
            });
            if turn.is_none() {
                self.slots.pause(seen, PATIENCE);
            }
        }
        assert_eq!(self.slots.take(key), Some(Ok(Vec::new())));
    }

    /// As the housekeeper reads what nobody waits for (`engine/housekeeper.rs`).
    fn keep_house(&self) {
        if self.slots.waiting() == 0 {
            self.slots.turn(&self.reading, |frames| {
                while self.slots.waiting() == 0
                    && let Some(came) = frames.pop()
                {
                    self.slots.answer(came, Ok(Vec::new()));
                }
            });
        }
    }
}

/// Tries all orders of threads with so many changes of thread where none has to wait: more than any
/// race here needs, and few enough to be over in seconds.
fn orders(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(model);
}

#[test]
fn what_the_housekeeper_reads_reaches_who_waits() {
    orders(|| {
        let session = Session::asked(&[Key::Wait(1)]);
        let other = Arc::clone(&session);
        let housekeeper = thread::spawn(move || other.keep_house());
        session.wait(Key::Wait(1));
        housekeeper.join().unwrap();
    });
}

#[test]
fn who_stops_reading_leaves_it_to_who_still_waits() {
    let keys = [Key::Wait(1), Key::Call(2)];
    orders(move || {
        let session = Session::asked(&keys);
        let other = Arc::clone(&session);
        let waiter = thread::spawn(move || other.wait(keys[0]));
        session.wait(keys[1]);
        waiter.join().unwrap();
    });
}

#[test]
fn memory_goes_only_when_nobody_writes_to_it() {
    orders(|| {
        let slots = Arc::new(Slots::default());
        let gone = Arc::new(AtomicBool::new(false));
        let key = Key::Wait(1);
        let memory = Box::into_raw(Box::new([0_u8; 4]));
        // SAFETY: the memory is freed after `forget` has returned.
        slots.open(key, unsafe { Destination::new(memory.cast(), 4) });
        let reader = {
            let (slots, gone) = (Arc::clone(&slots), Arc::clone(&gone));
            thread::spawn(move || {
                if let Some(mut loan) = slots.lend(key) {
                    loan.memory().fill(7);
                    loan.filled(4);
                    assert!(!gone.load(Ordering::SeqCst), "it went while it was lent");
                }
                slots.answer(key, Ok(Vec::new()));
            })
        };
        slots.forget(key);
        gone.store(true, Ordering::SeqCst);
        // SAFETY: made above, once, and lent no more.
        drop(unsafe { Box::from_raw(memory) });
        reader.join().unwrap();
        assert!(slots.take(key).is_none());
    });
}
