//! After a connection is opened, moving bytes allocates nothing: every allocation of this thread is
//! counted while a lossy exchange runs.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends where it can't go on"
)]

mod sim;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use genie_transport::{Connection, Event, RegionId, SourceId, Time};
use sim::transfer::whole;
use sim::{Nowhere, configs};

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
    static BYTES: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every call goes to the system's allocator unchanged; the counters allocate nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        BYTES.with(|bytes| bytes.set(bytes.get() + layout.size()));
        // SAFETY: the caller keeps the contract of `GlobalAlloc::alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `GlobalAlloc::dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

#[test]
fn an_open_connection_allocates_nothing() {
    let before = BYTES.with(Cell::get);
    let mut ends = configs(1, true).map(|config| Connection::new(config, Time(0)).unwrap());
    let bytes = (BYTES.with(Cell::get) - before) / 2;
    assert!(
        (4 << 20..6 << 20).contains(&bytes),
        "a connection takes {bytes} bytes"
    );
    let mut frame = vec![0; 9000];
    let before = ALLOCATIONS.with(Cell::get);
    let (mut frames, mut received) = (0u64, 0);
    for round in 0..20_000u64 {
        let now = Time(round * 20_000);
        if let Ok(grant) = ends[1].grant(RegionId(round), 30_000) {
            let transfer = whole(grant, SourceId(0), 30_000);
            if ends[0].send(transfer).is_err() {
                ends[1].revoke(grant);
            }
        }
        let _full = ends[0].send_message(b"small");
        for from in 0..2 {
            while let Some(len) = ends[from].poll_transmit(now, &mut Nowhere, &mut frame) {
                frames += 1;
                if frames % 20 != 0 {
                    let _counted = ends[1 - from].handle(&mut frame[..len], now, &mut Nowhere);
                }
            }
            while let Some(event) = ends[from].poll_event() {
                received += u32::from(matches!(event, Event::Received(_)));
            }
            while ends[from].read_message(<[u8]>::len).is_some() {}
        }
    }
    assert_eq!(ALLOCATIONS.with(Cell::get) - before, 0);
    assert!(received > 10_000, "{received} transfers in {frames} frames");
}
