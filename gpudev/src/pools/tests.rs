use std::os::fd::AsFd;
use std::sync::Arc;

use proptest::prelude::*;

use super::handover::{self, HandoverError};
use super::*;
use crate::device::HostDevice;
use genie_shm::seqpacket;

const MIB: u64 = 1 << 20;

fn host() -> Arc<dyn Device> {
    Arc::new(HostDevice::new(0))
}

fn place(pools: &mut Pools, len: u64) -> u64 {
    pools.allocate(len).unwrap().place
}

#[test]
fn pools_come_as_they_are_needed_and_go_when_they_are_empty() {
    let mut pools = Pools::new(host(), MIB, 1 << 30);
    assert_eq!(pools.stats(), PoolsStats::default());
    let first = pools.allocate(40 * MIB).unwrap();
    let (base, memory) = first.made.unwrap();
    assert_eq!((base, memory.bytes()), (MIB, POOL_BYTES_FIRST));
    assert_eq!(first.place, base);
    // It fits beside the first; the next does not.
    assert!(pools.allocate(20 * MIB).unwrap().made.is_none());
    let third = pools.allocate(30 * MIB).unwrap();
    assert_eq!(third.made.unwrap().0, base + POOL_BYTES_FIRST);
    assert_eq!(pools.stats().pools, 2);
    // The younger one is kept as the one empty pool; then the older takes its turn or goes.
    assert_eq!(pools.free(third.place).unwrap(), None);
    assert_eq!(pools.free(first.place + 40 * MIB).unwrap(), None);
    let gone = pools.free(first.place).unwrap();
    assert_eq!(gone, Some(base));
    let stats = pools.stats();
    assert_eq!((stats.pools, stats.places, stats.in_use_bytes), (1, 0, 0));
    assert_eq!(stats.capacity_bytes, POOL_BYTES_FIRST);
    // What is gone is nobody's, for ever.
    assert_eq!(
        pools.free(first.place),
        Err(PoolError::NoPlace(first.place))
    );
    assert!(place(&mut pools, 40 * MIB) >= base + POOL_BYTES_FIRST);
}

#[test]
fn a_session_gets_its_share_and_no_more() {
    let mut pools = Pools::new(host(), 0, 100 * MIB);
    place(&mut pools, 60 * MIB);
    // The rest of the share is a smaller pool.
    let second = pools.allocate(20 * MIB).unwrap();
    assert_eq!(second.made.unwrap().1.bytes(), 36 * MIB);
    let error = pools.allocate(20 * MIB).unwrap_err();
    assert!(
        matches!(error, PoolError::Exhausted { room: 0, .. }),
        "{error}"
    );
    assert_eq!(pools.stats().capacity_bytes, 100 * MIB);
    pools.free(second.place).unwrap();
    place(&mut pools, 30 * MIB);
}

#[test]
fn a_tensor_larger_than_any_pool_has_its_own() {
    // Reserved and touched only here and there: the host device takes all pages of what it gives,
    // so the tensor is as small as it can be.
    let Ok(pool) = Pool::dedicated(&HostDevice::new(0), POOL_BYTES_MAX + 1) else {
        eprintln!("skipped: this machine has no 2 GiB to spare");
        return;
    };
    assert_eq!(
        pool.memory().bytes(),
        POOL_BYTES_MAX + genie_shm::space::BLOCK_BYTES
    );
}

#[test]
fn what_one_side_writes_the_other_reads() {
    let (ours, theirs) = seqpacket::pair().unwrap();
    let mut pools = Pools::new(host(), 0, 1 << 30);
    let mut attached = AttachedPools::new(host(), theirs).unwrap();
    let mut places = Vec::new();
    for (number, len) in [50 * MIB, 60 * MIB, 100 * MIB].into_iter().enumerate() {
        let got = pools.allocate(len).unwrap();
        if let Some((base, memory)) = got.made {
            handover::announce(ours.as_fd(), base, &memory).unwrap();
        }
        let (memory, offset) = pools.memory(got.place, len).unwrap();
        memory.write(offset + len - 3, &[number as u8; 3]).unwrap();
        places.push((got.place, len));
    }
    // The last first: the pools before it are mapped on the way.
    for (number, &(place, len)) in places.iter().enumerate().rev() {
        let address = attached.address(place, len).unwrap();
        // SAFETY: `len` bytes are mapped there, and nobody writes them.
        let last = unsafe { *((address + len - 1) as *const u8) };
        assert_eq!(usize::from(last), number);
    }
    assert_eq!(attached.count(), 3);
    let (place, len) = places[0];
    let beyond = attached.address(place, POOL_BYTES_FIRST + 1);
    assert!(
        matches!(beyond, Err(AttachError::NoPool { .. })),
        "{beyond:?}"
    );
    assert!(attached.forget(0) && !attached.forget(0));
    drop(ours);
    let gone = attached.address(place, len);
    let is_gone = matches!(
        gone,
        Err(AttachError::NoPool { .. } | AttachError::Handover(_))
    );
    assert!(is_gone, "{gone:?}");
}

#[test]
fn a_pool_that_is_announced_wrongly_is_refused() {
    let memory = HostDevice::new(0).allocate(MIB).unwrap();
    let part = memory.share().unwrap().pop().unwrap();
    let words = |words: &[u64]| {
        words
            .iter()
            .flat_map(|word| word.to_le_bytes())
            .collect::<Vec<_>>()
    };
    for (bytes, files) in [
        (words(&[0]), 1),
        (words(&[0, MIB]), 0),
        (words(&[0, MIB, 0, MIB]), 0),
        (words(&[0, MIB, 0, MIB]), 2),
        (words(&[0, MIB, 0, 2 * MIB]), 1),
        (words(&[0, MIB, 0, MIB])[..31].to_vec(), 1),
    ] {
        let (ours, theirs) = seqpacket::pair().unwrap();
        let files = vec![part.file.as_fd(); files];
        seqpacket::send(ours.as_fd(), &bytes, &files).unwrap();
        let error = handover::receive(theirs.as_fd()).unwrap_err();
        assert!(
            matches!(error, HandoverError::Malformed(_)),
            "{bytes:?}: {error}"
        );
    }
    let (ours, theirs) = seqpacket::pair().unwrap();
    for base in [0, 7] {
        let half = words(&[base, MIB, 0, MIB / 2]);
        seqpacket::send(ours.as_fd(), &half, &[part.file.as_fd()]).unwrap();
    }
    let error = handover::receive(theirs.as_fd()).unwrap_err();
    assert!(matches!(error, HandoverError::Malformed(_)), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(6))]
    #[test]
    fn no_two_places_overlap_and_none_returns(lens in prop::collection::vec((1..80 * MIB, any::<bool>()), 1..24)) {
        let mut pools = Pools::new(host(), 0, 512 * MIB);
        let (mut taken, mut gone) = (Vec::<(u64, u64)>::new(), Vec::new());
        for (len, frees) in lens {
            if let Ok(Allocated { place, .. }) = pools.allocate(len) {
                for &(other, other_len) in &taken {
                    prop_assert!(place + len <= other || other + other_len <= place);
                }
                prop_assert!(gone.iter().all(|&(base, end)| place + len <= base || place >= end));
                prop_assert!(pools.memory(place, len).is_ok());
                taken.push((place, len));
            }
            if frees && !taken.is_empty() {
                let (place, len) = taken.swap_remove(taken.len() / 2);
                let before = pools.stats().capacity_bytes;
                if let Some(base) = pools.free(place).unwrap() {
                    let bytes = before - pools.stats().capacity_bytes;
                    prop_assert!(taken.iter().all(|&(at, _)| at < base || at >= base + bytes));
                    gone.push((base, base + bytes));
                }
                prop_assert!(pools.free(place).is_err() || len == 0);
            }
        }
        prop_assert_eq!(pools.stats().places, taken.len() as u64);
    }
}
