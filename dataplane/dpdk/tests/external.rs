//! Packet data in memory that is not the EAL's: received there, and sent from there.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends where it can't go on"
)]

mod common;

use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use genie_dpdk::{
    Burst, Eal, ExternalMemory, ExternalMemoryError, ExternalSlab, Mempool, MempoolConfig,
    MempoolError, OpenPort, Port, PortConfig, SlabError, Vdev,
};
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, munmap};

const PAGE: usize = 65536;

/// Mapped memory that counts its end.
struct Mapping {
    start: NonNull<u8>,
    bytes: usize,
    gone: Arc<AtomicUsize>,
}

// SAFETY: only the address and the length are used by this value.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped in `memory`, and nobody else unmaps it.
        unsafe { munmap(self.start.cast(), self.bytes + PAGE) }.unwrap();
        self.gone.fetch_add(1, Ordering::SeqCst);
    }
}

/// Registered memory of so many pages, and how often it was unmapped.
fn memory(eal: &Eal, pages: usize) -> (ExternalMemory, Arc<AtomicUsize>) {
    let bytes = pages * PAGE;
    let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    let length = (bytes + PAGE).try_into().unwrap();
    // SAFETY: a new mapping anywhere.
    let map = unsafe { mmap_anonymous(None, length, protection, MapFlags::MAP_PRIVATE) };
    let map = map.unwrap().cast::<u8>();
    let gone = Arc::new(AtomicUsize::new(0));
    let owner = Mapping {
        start: map,
        bytes,
        gone: Arc::clone(&gone),
    };
    // SAFETY: the mapping is a page longer than what is used of it.
    let start = unsafe { map.byte_add(map.align_offset(PAGE)) };
    // SAFETY: the owner keeps the range mapped; the tests use it as they say.
    let memory = unsafe { ExternalMemory::register(eal, start, bytes, PAGE, Arc::new(owner)) };
    (memory.unwrap(), gone)
}

fn bytes(memory: &mut ExternalMemory) -> &mut [u8] {
    // SAFETY: the tests have one such slice at a time, and no pool over it.
    unsafe { std::slice::from_raw_parts_mut(memory.start().as_ptr(), memory.bytes()) }
}

fn ring(eal: &Eal, pool: &Mempool) -> OpenPort {
    Port::open(eal, &Vdev::Ring.into(), &PortConfig::default(), pool).unwrap()
}

#[test]
fn packets_of_an_external_pool_lie_in_its_memory() {
    let Some(turn) = common::eal() else { return };
    let (memory, gone) = memory(&turn.eal, 20);
    let (start, end) = (
        memory.start(),
        memory.start().as_ptr() as usize + memory.bytes(),
    );
    let config = MempoolConfig::new("outside", 127, 8192);
    assert_eq!(config.external_bytes(), 127 * 8320);
    let pool = Mempool::over_external(&turn.eal, config, memory).unwrap();
    let mut places = Vec::new();
    let mut held = Vec::new();
    while let Ok(mut mbuf) = pool.alloc() {
        mbuf.append(8192).unwrap().fill(held.len() as u8);
        let (place, length) = mbuf.segment_addresses().next().unwrap();
        assert_eq!(length, 8192);
        let place = place.as_ptr() as usize;
        assert!(place >= start.as_ptr() as usize && place + length <= end);
        places.push(place);
        held.push(mbuf);
    }
    assert_eq!(held.len(), 127);
    places.sort_unstable();
    assert!(
        places.windows(2).all(|two| two[1] - two[0] >= 8192),
        "they overlap"
    );
    for (number, mbuf) in held.iter().enumerate() {
        assert!(mbuf.data().iter().all(|&byte| byte == number as u8));
    }
    // They come home like any other, also by a driver, and keep their memory until they do.
    held.truncate(1);
    let OpenPort {
        port,
        mut rx,
        mut tx,
    } = ring(&turn.eal, &pool);
    let mut burst = Burst::new();
    burst.push(held.pop().unwrap()).unwrap();
    assert_eq!(tx[0].send(&mut burst), 1);
    drop(pool.clone());
    assert_eq!(rx[0].receive(&mut burst), 1);
    assert_eq!(burst.as_slice()[0].data(), [0; 8192]);
    burst.clear();
    assert_eq!(pool.in_use(), 0);
    drop((port, rx, tx));
    assert_eq!(gone.load(Ordering::SeqCst), 0);
    drop(pool);
    assert_eq!(
        gone.load(Ordering::SeqCst),
        1,
        "the memory outlives its pool"
    );
}

#[test]
fn memory_that_cannot_be_is_refused() {
    let Some(turn) = common::eal() else { return };
    let (known, _) = memory(&turn.eal, 2);
    let register = |start: NonNull<u8>, bytes, page| {
        // SAFETY: never used, since it is refused.
        unsafe { ExternalMemory::register(&turn.eal, start, bytes, page, Arc::new(())) }
    };
    let again = register(known.start(), known.bytes(), PAGE);
    assert!(
        matches!(again, Err(ExternalMemoryError::Overlap { .. })),
        "{again:?}"
    );
    for (offset, bytes, page) in [
        (0, 0, PAGE),
        (0, PAGE + 1, PAGE),
        (64, PAGE, PAGE),
        (0, PAGE, 3),
    ] {
        // SAFETY: inside of the mapping.
        let start = unsafe { known.start().byte_add(offset) };
        let error = register(start, bytes, page).unwrap_err();
        assert!(
            matches!(error, ExternalMemoryError::Range { .. }),
            "{error}"
        );
    }
    let many = MempoolConfig::new("too many", 17, 8192);
    let error = Mempool::over_external(&turn.eal, many, known.clone()).unwrap_err();
    assert!(
        matches!(error, MempoolError::ExternalTooSmall { mbufs: 17, .. }),
        "{error}"
    );
    let fits = MempoolConfig::new("fits", 15, 8192);
    drop(Mempool::over_external(&turn.eal, fits, known).unwrap());
}

#[test]
fn bytes_are_sent_from_where_they_lie() {
    let Some(turn) = common::eal() else { return };
    let (mut memory, gone) = memory(&turn.eal, 2);
    for (place, byte) in bytes(&mut memory).iter_mut().enumerate() {
        *byte = (place % 251) as u8;
    }
    let slab = ExternalSlab::new(&memory, 1000..101_000).unwrap();
    assert!(ExternalSlab::new(&memory, 0..2 * PAGE + 1).is_none());
    assert_eq!((slab.bytes(), slab.in_flight()), (100_000, 0));
    let pool = common::pool(&turn.eal, "sent", 255, 256);
    let OpenPort {
        port,
        mut rx,
        mut tx,
    } = ring(&turn.eal, &pool);
    let mut burst = Burst::new();
    for number in 0..10 {
        let mut packet = pool.alloc().unwrap();
        packet.extend_from_slice(&[number; 40]).unwrap();
        let range = usize::from(number) * 10_000..usize::from(number) * 10_000 + 9999;
        packet.attach(pool.alloc().unwrap(), &slab, range).unwrap();
        assert_eq!((packet.len(), packet.segment_count()), (10_039, 2));
        burst.push(packet).unwrap();
    }
    assert_eq!((slab.in_flight(), pool.in_use()), (10, 20));
    assert_eq!(tx[0].send(&mut burst), 10);
    let mut back = Burst::new();
    assert_eq!(rx[0].receive(&mut back), 10);
    // The slab and the last handle of the memory may go before the packets do.
    drop((slab, memory));
    for (number, packet) in (0_u8..).zip(back.drain()) {
        let parts: Vec<_> = packet.segments().collect();
        assert_eq!(parts[0], [number; 40]);
        let first = 1000 + usize::from(number) * 10_000;
        let expected = (first..first + 9999).map(|place| (place % 251) as u8);
        assert!(
            parts[1].iter().copied().eq(expected),
            "packet {number} differs"
        );
        assert_eq!(gone.load(Ordering::SeqCst), 0);
    }
    assert_eq!(
        gone.load(Ordering::SeqCst),
        1,
        "the last packet frees the memory"
    );
    assert_eq!(pool.in_use(), 0);
    drop(port);
}

#[test]
fn what_cannot_be_attached_changes_nothing() {
    let Some(turn) = common::eal() else { return };
    let (memory, _) = memory(&turn.eal, 2);
    let slab = ExternalSlab::new(&memory, 0..2 * PAGE).unwrap();
    let pool = common::pool(&turn.eal, "refused", 255, 256);
    let mut packet = pool.alloc().unwrap();
    let mut refused = |range| {
        packet
            .attach(pool.alloc().unwrap(), &slab, range)
            .unwrap_err()
    };
    for range in [0..PAGE, PAGE..2 * PAGE + 1, 2 * PAGE + 1..2 * PAGE + 2] {
        assert!(matches!(refused(range), SlabError::Range { .. }));
    }
    #[allow(clippy::reversed_empty_ranges, reason = "what is tested")]
    let reversed = 10..5;
    assert!(matches!(refused(reversed), SlabError::Range { .. }));
    let mut full = pool.alloc().unwrap();
    full.append(1).unwrap();
    assert_eq!(packet.attach(full, &slab, 0..9), Err(SlabError::NotEmpty));
    for _ in 1..64 {
        packet.attach(pool.alloc().unwrap(), &slab, 0..9).unwrap();
    }
    let more = packet.attach(pool.alloc().unwrap(), &slab, 0..9);
    assert_eq!(more, Err(SlabError::Segments));
    assert_eq!(
        (packet.len(), slab.in_flight(), pool.in_use()),
        (63 * 9, 63, 64)
    );
    drop(packet);
    assert_eq!((slab.in_flight(), pool.in_use()), (0, 0));
    // An mbuf that has carried foreign bytes has its own buffer again.
    let mut mbuf = pool.alloc().unwrap();
    assert_eq!(mbuf.append(256).unwrap().len(), 256);
}

#[test]
fn segments_in_flight_are_bounded() {
    let Some(turn) = common::eal() else { return };
    let (memory, _) = memory(&turn.eal, 1);
    let slab = ExternalSlab::new(&memory, 0..PAGE).unwrap();
    let most = u32::from(ExternalSlab::IN_FLIGHT_MAX);
    let pool = common::pool(&turn.eal, "bounded", most + 1000, 1);
    let mut held = Vec::new();
    let error = loop {
        let mut packet = pool.alloc().unwrap();
        let filled = (0..63).find_map(|_| packet.attach(pool.alloc().unwrap(), &slab, 0..1).err());
        held.push(packet);
        if let Some(error) = filled {
            break error;
        }
    };
    assert_eq!(error, SlabError::InFlight(ExternalSlab::IN_FLIGHT_MAX));
    assert_eq!(slab.in_flight(), ExternalSlab::IN_FLIGHT_MAX);
    drop(held);
    assert_eq!((slab.in_flight(), pool.in_use()), (0, 0));
}

/// The count must not be lost between threads that attach and threads that free.
#[test]
fn segments_are_counted_across_threads() {
    const ROUNDS: usize = 3000;
    let Some(turn) = common::eal() else { return };
    let (memory, gone) = memory(&turn.eal, 1);
    let slab = Arc::new(ExternalSlab::new(&memory, 0..PAGE).unwrap());
    drop(memory);
    let pool = common::pool(&turn.eal, "threads", 1023, 64);
    let workers: Vec<_> = (0..3)
        .map(|_| {
            let (slab, pool) = (Arc::clone(&slab), pool.clone());
            std::thread::spawn(move || {
                for _ in 0..ROUNDS {
                    let mut packet = pool.alloc().unwrap();
                    packet.attach(pool.alloc().unwrap(), &slab, 0..64).unwrap();
                }
            })
        })
        .collect();
    for worker in workers {
        worker.join().unwrap();
    }
    assert_eq!((slab.in_flight(), pool.in_use()), (0, 0));
    drop(slab);
    assert_eq!(gone.load(Ordering::SeqCst), 1);
}
