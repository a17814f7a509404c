//! The slots, with threads of the system. `tests/handover.rs` tries every order of theirs.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::slots::{Destination, Key, Slots};
use crate::link::TICK;

#[test]
fn memory_goes_only_when_its_loan_has_ended() {
    let slots = Slots::default();
    let key = Key::Wait(1);
    let mut memory = [0_u8; 8];
    // SAFETY: the memory outlives the slot.
    slots.open(key, unsafe { Destination::new(memory.as_mut_ptr(), 8) });
    let mut loan = slots.lend(key).unwrap();
    assert!(slots.lend(key).is_none(), "it is lent once");
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let giver = scope.spawn(|| {
            slots.forget(key);
            ended.load(Ordering::SeqCst)
        });
        std::thread::sleep(3 * TICK / 2);
        loan.memory()[..3].fill(7);
        loan.filled(3);
        ended.store(true, Ordering::SeqCst);
        drop(loan);
        assert!(giver.join().unwrap(), "the memory went while it was lent");
    });
    assert!(slots.lend(key).is_none());
    slots.answer(key, Ok(Vec::new()));
    assert!(slots.take(key).is_none(), "nobody waits");
    assert_eq!(memory, [7, 7, 7, 0, 0, 0, 0, 0]);
}

#[test]
fn what_changes_between_a_look_and_a_pause_ends_the_pause() {
    let slots = Slots::default();
    slots.open(Key::Wait(1), Destination::NOWHERE);
    let began = std::time::Instant::now();
    let long = Duration::from_secs(20);
    let seen = slots.changes();
    slots.answer(Key::Wait(1), Ok(Vec::new()));
    slots.pause(seen, long);
    let seen = slots.changes();
    slots.wake();
    slots.pause(seen, long);
    // One that waits alone is told too: who reads need not wait for anything.
    std::thread::scope(|scope| {
        let _waiting = slots.wait();
        let seen = slots.changes();
        scope.spawn(|| slots.answer(Key::Wait(1), Ok(Vec::new())));
        slots.pause(seen, long);
    });
    assert!(began.elapsed() < long / 2);
}

#[test]
fn what_has_come_stays_when_another_reads_on() {
    let slots = Slots::default();
    let key = Key::Wait(1);
    let mut memory = [0_u8; 4];
    // SAFETY: the memory outlives the slot.
    slots.open(key, unsafe { Destination::new(memory.as_mut_ptr(), 4) });
    for n in 1..=4 {
        assert_eq!(slots.room(key), Some(5 - u64::from(n)));
        let mut loan = slots.lend(key).unwrap();
        loan.memory()[0] = n;
        loan.filled(1);
    }
    slots.answer(key, Ok(Vec::new()));
    assert!(slots.is_done(key));
    assert_eq!(slots.take(key), Some(Ok(Vec::new())));
    assert_eq!(memory, [1, 2, 3, 4]);
}
