use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::device::{DeviceMemory, HostDevice};

const MIB: u64 = 1 << 20;

#[derive(Clone, Debug)]
enum Step {
    Allocate(u64),
    Free(usize),
    FreeWrong(u64),
    Pin(usize),
    Unpin(usize),
    Compact(u64),
    Resize(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0_u64..3000).prop_map(Step::Allocate),
        6 => (0_u64..700_000).prop_map(Step::Allocate),
        6 => any::<usize>().prop_map(Step::Free),
        1 => (0_u64..8 * MIB).prop_map(Step::FreeWrong),
        2 => any::<usize>().prop_map(Step::Pin),
        1 => any::<usize>().prop_map(Step::Unpin),
        2 => prop_oneof![Just(u64::MAX), 0..4 * MIB].prop_map(Step::Compact),
        1 => (0..9 * MIB).prop_map(Step::Resize),
    ]
}

/// What the pool must remember of a place.
#[derive(Clone, Debug)]
struct Held {
    len: u64,
    pins: u32,
    seed: u64,
}

fn contents(seed: u64, len: u64) -> Vec<u8> {
    (0..len)
        .map(|at| (seed.wrapping_mul(0x9e37_79b9).wrapping_add(at * 31) >> 3) as u8)
        .collect()
}

fn check_contents(memory: &dyn DeviceMemory, place: u64, held: &Held) {
    let mut bytes = vec![0; held.len as usize];
    memory.read(place, &mut bytes).unwrap();
    assert!(
        bytes == contents(held.seed, held.len),
        "the bytes at {place} changed"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Random steps beside a plain book of what must hold, with every byte checked.
    #[test]
    fn places_keep_their_bytes_and_never_overlap(
        steps in prop::collection::vec(step(), 1..120),
        worker in any::<bool>(),
    ) {
        let host = HostDevice::new(0);
        let config = PoolConfig {
            bytes: 4 * MIB,
            bytes_max: 8 * MIB,
            residence: if worker { Residence::Host } else { Residence::Device },
        };
        let mut pool = Pool::new(&host, config).unwrap();
        let mut queue: Box<dyn crate::device::Queue> = if worker {
            Box::new(host.worker_queue().unwrap())
        } else {
            host.queue().unwrap()
        };
        let mut live: BTreeMap<u64, Held> = BTreeMap::new();
        let mut capacity = 4 * MIB;
        let (mut given, mut given_back, mut failures) = (0, 0, 0);
        let pick = |live: &BTreeMap<u64, Held>, at: usize| {
            (!live.is_empty()).then(|| *live.keys().nth(at % live.len()).unwrap())
        };
        for step in steps {
            let moves = matches!(step, Step::Compact(_) | Step::Resize(_));
            match step {
                Step::Allocate(len) => match pool.allocate(len) {
                    Ok(place) => {
                        given += 1;
                        let len = len.max(1);
                        prop_assert!(place % 64 == 0 && place + len <= capacity);
                        if let Some((before, held)) = live.range(..=place).next_back() {
                            prop_assert!(before + held.len <= place);
                        }
                        if let Some((after, _)) = live.range(place..).next() {
                            prop_assert!(place + len <= *after);
                        }
                        let held = Held { len, pins: 0, seed: given };
                        pool.memory().write(place, &contents(given, len)).unwrap();
                        live.insert(place, held);
                    }
                    Err(PoolError::Exhausted { free, largest, asked, .. }) => {
                        failures += 1;
                        prop_assert!(largest < asked.max(1).next_multiple_of(BLOCK_BYTES));
                        prop_assert!(largest <= free);
                    }
                    Err(error) => panic!("{error}"),
                },
                Step::Free(at) => {
                    let Some(place) = pick(&live, at) else { continue };
                    match live[&place].pins {
                        0 => {
                            pool.free(place).unwrap();
                            live.remove(&place);
                            given_back += 1;
                        }
                        pins => prop_assert_eq!(
                            pool.free(place),
                            Err(PoolError::Pinned { place, pins })
                        ),
                    }
                }
                Step::FreeWrong(place) => if !live.contains_key(&place) {
                    prop_assert_eq!(pool.free(place), Err(PoolError::NoPlace(place)));
                    prop_assert_eq!(pool.pin(place), Err(PoolError::NoPlace(place)));
                },
                Step::Pin(at) => {
                    let Some(place) = pick(&live, at) else { continue };
                    pool.pin(place).unwrap();
                    live.get_mut(&place).unwrap().pins += 1;
                }
                Step::Unpin(at) => {
                    let Some(place) = pick(&live, at) else { continue };
                    let held = live.get_mut(&place).unwrap();
                    if held.pins == 0 {
                        prop_assert_eq!(pool.unpin(place), Err(PoolError::NotPinned(place)));
                    } else {
                        pool.unpin(place).unwrap();
                        held.pins -= 1;
                    }
                }
                Step::Compact(bytes_max) => {
                    let before = pool.stats();
                    let done = pool.compact(queue.as_mut(), bytes_max).unwrap();
                    prop_assert!(done.bytes <= bytes_max);
                    prop_assert_eq!(done.largest_before, before.largest_free_bytes);
                    prop_assert!(done.largest_after >= done.largest_before);
                    for moved in &done.moves {
                        let held = live.remove(&moved.from).unwrap();
                        prop_assert_eq!(held.pins, 0, "a pinned place moved");
                        prop_assert!(moved.to < moved.from && moved.len >= held.len);
                        prop_assert!(live.insert(moved.to, held).is_none());
                    }
                    let after = pool.stats();
                    prop_assert_eq!(after.free_bytes, before.free_bytes);
                    prop_assert_eq!(after.in_use_bytes, before.in_use_bytes);
                    if bytes_max == u64::MAX && live.values().all(|held| held.pins == 0) {
                        prop_assert_eq!(after.fragmentation, 0.0, "{:?}", after);
                    }
                }
                Step::Resize(bytes) => {
                    let wanted = bytes.next_multiple_of(BLOCK_BYTES);
                    let end = live.last_key_value().map_or(0, |(place, held)| place + held.len);
                    match pool.resize(bytes) {
                        Ok(()) => {
                            prop_assert!((4 * MIB..=8 * MIB).contains(&wanted) && end <= wanted);
                            capacity = wanted;
                        }
                        Err(PoolError::TailTaken { taken_end, .. }) => {
                            prop_assert!(end > wanted && taken_end >= end);
                        }
                        Err(PoolError::Size(_)) => prop_assert!(wanted < 4 * MIB),
                        Err(PoolError::BeyondReserve { .. }) => prop_assert!(wanted > 8 * MIB),
                        Err(error) => panic!("{error}"),
                    }
                }
            }
            for (&place, held) in live.iter().filter(|_| moves) {
                check_contents(pool.memory().as_ref(), place, held);
            }
            let stats = pool.stats();
            prop_assert_eq!(stats.capacity_bytes, capacity);
            prop_assert_eq!(stats.places, live.len() as u64);
            prop_assert_eq!(
                (stats.allocations, stats.frees, stats.failures),
                (given, given_back, failures)
            );
            let pinned = live.values().filter(|held| held.pins > 0).count();
            prop_assert_eq!(stats.pinned_places, pinned as u64);
            prop_assert!(stats.in_use_bytes >= live.values().map(|held| held.len).sum::<u64>());
            prop_assert!(stats.in_use_bytes + stats.free_bytes <= capacity);
            prop_assert!(stats.high_water_bytes >= capacity.min(stats.in_use_bytes));
        }
        for (place, held) in live {
            check_contents(pool.memory().as_ref(), place, &held);
            (0..held.pins).for_each(|_| pool.unpin(place).unwrap());
            pool.free(place).unwrap();
        }
        let stats = pool.stats();
        prop_assert_eq!((stats.in_use_bytes, stats.largest_free_bytes), (0, capacity));
    }
}

#[test]
fn sizes_that_no_pool_has_are_refused() {
    let host = HostDevice::new(0);
    for bytes in [0, 1, 4 * MIB - BLOCK_BYTES, (2 << 30) + 1, u64::MAX] {
        let refused = Pool::new(&host, PoolConfig::new(bytes));
        assert!(matches!(refused, Err(PoolError::Size(_))), "{bytes}");
    }
    let config = PoolConfig {
        bytes_max: 4 * MIB,
        ..PoolConfig::new(5 * MIB)
    };
    assert!(matches!(
        Pool::new(&host, config),
        Err(PoolError::BeyondReserve { .. })
    ));
    let pool = Pool::new(&host, PoolConfig::new(4 * MIB + 1)).unwrap();
    assert_eq!(pool.stats().capacity_bytes, 4 * MIB + BLOCK_BYTES);
}

#[test]
fn a_full_pool_says_what_there_is_and_what_to_do() {
    let host = HostDevice::new(2);
    let config = PoolConfig {
        bytes_max: 5 * MIB,
        ..PoolConfig::new(4 * MIB)
    };
    let mut pool = Pool::new(&host, config).unwrap();
    let places: Vec<u64> = (0..4).map(|_| pool.allocate(MIB).unwrap()).collect();
    pool.free(places[0]).unwrap();
    pool.free(places[2]).unwrap();
    let text = |error: PoolError| error.to_string();
    let fragmented = text(pool.allocate(2 * MIB).unwrap_err());
    assert!(
        fragmented.contains("pool of host:2") && fragmented.ends_with("compact it"),
        "{fragmented}"
    );
    assert!(
        fragmented.contains("2097152 are free, the longest run has 1048576"),
        "{fragmented}"
    );
    assert_eq!(pool.stats().fragmentation, 0.5);
    assert!(text(pool.allocate(3 * MIB).unwrap_err()).ends_with("grow it"));
    assert!(text(pool.allocate(4 * MIB).unwrap_err()).ends_with("free some"));
    assert_eq!(pool.stats().failures, 3);
    let done = pool
        .compact(host.queue().unwrap().as_mut(), u64::MAX)
        .unwrap();
    assert_eq!(
        (done.bytes, done.largest_after),
        (MIB, 2 * MIB),
        "no more than is of use"
    );
    pool.allocate(2 * MIB).unwrap();
}

#[test]
fn a_pinned_place_splits_what_is_free() {
    let host = HostDevice::new(0);
    let mut pool = Pool::new(&host, PoolConfig::new(4 * MIB)).unwrap();
    let mut queue = host.queue().unwrap();
    let [low, middle, high] = [(); 3].map(|()| pool.allocate(MIB).unwrap());
    pool.pin(middle).unwrap();
    pool.free(low).unwrap();
    let done = pool.compact(queue.as_mut(), u64::MAX).unwrap();
    let moved = Move {
        from: high,
        to: low,
        len: MIB,
    };
    assert_eq!(done.moves, [moved], "what fits goes below the pin");
    assert!(
        pool.compact(queue.as_mut(), u64::MAX)
            .unwrap()
            .moves
            .is_empty()
    );
    pool.unpin(middle).unwrap();
    pool.free(low).unwrap();
    let done = pool.compact(queue.as_mut(), MIB - 1).unwrap();
    assert!(done.moves.is_empty(), "more than may be copied");
    let done = pool.compact(queue.as_mut(), MIB).unwrap();
    assert_eq!(
        done.moves,
        [Move {
            from: middle,
            to: 0,
            len: MIB
        }]
    );
}

/// Prints how long allocations take: `cargo test --release -p genie-gpudev -- --ignored --nocapture
/// how_long`.
#[test]
#[ignore = "measures"]
fn how_long_an_allocation_takes() {
    let found = bench(&HostDevice::new(0), 256 * MIB, 200_000).unwrap();
    println!("{found:#?}");
}
