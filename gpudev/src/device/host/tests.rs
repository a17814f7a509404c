use super::*;
use crate::device::gather::{GatherFrame, GatherPiece, GatherTable, Verdict};
use crate::device::{CopyOrder, CopyPiece, Event};
use proptest::prelude::*;

fn piece(from: u64, to: u64, len: u64) -> CopyPiece {
    CopyPiece { from, to, len }
}

fn bytes_of(memory: &Memory, offset: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    memory.read(offset, &mut bytes).unwrap();
    bytes
}

/// Both kinds of queue.
fn queues(device: &HostDevice) -> [Box<dyn Queue>; 2] {
    [
        device.queue().unwrap(),
        Box::new(device.worker_queue().unwrap()),
    ]
}

#[test]
fn the_host_has_memory() {
    let host = HostDevice::new(0);
    assert!(host.info().memory_bytes > 0);
    let memory = host.allocate(10_000).unwrap();
    assert_eq!((memory.address() % 4096, memory.bytes()), (0, 10_000));
    assert!(host.allocate(u64::MAX).is_err());
    assert!(host.allocate(0).is_err());
    let more = host.info().memory_bytes + 4096;
    let refused = host.allocate(more).unwrap_err();
    assert!(matches!(refused, DeviceError::OutOfMemory { bytes, .. } if bytes == more));
}

#[test]
fn memory_is_resized_in_place_and_another_mapping_sees_it() {
    let host = HostDevice::new(0);
    let memory = host.reserve(8192, 1 << 20).unwrap();
    let address = memory.address();
    memory.write(8000, &[7; 192]).unwrap();
    assert!(memory.write(8191, &[1, 2]).is_err());
    memory.resize(1 << 20).unwrap();
    assert_eq!((memory.address(), memory.bytes()), (address, 1 << 20));
    memory.write((1 << 20) - 1, &[9]).unwrap();
    let share = memory.share().unwrap().pop().unwrap();
    let theirs = genie_shm::Mapping::from_peer(share.file).unwrap();
    let mut seen = [0; 192];
    theirs.read(8000, &mut seen).unwrap();
    assert_eq!(seen, [7; 192]);
    memory.resize(4096).unwrap();
    memory.resize(1 << 20).unwrap();
    assert_eq!(
        bytes_of(&memory, (1 << 20) - 1, 1),
        [0],
        "its page was given back"
    );
    for wrong in [0, (1 << 20) + 1, 5000] {
        assert!(
            matches!(memory.resize(wrong), Err(DeviceError::Size { .. })),
            "{wrong}"
        );
    }
}

#[test]
fn what_one_process_shares_another_attaches() {
    let host = HostDevice::new(0);
    let ours = host.reserve(1 << 16, 1 << 20).unwrap();
    ours.write(100, b"tensor").unwrap();
    // A device of another process has nothing in common with this one but the name.
    let theirs = HostDevice::new(0).attach(ours.share().unwrap()).unwrap();
    assert_ne!(theirs.address(), ours.address());
    assert_eq!(bytes_of(&theirs, 100, 6), b"tensor");
    ours.resize(1 << 20).unwrap();
    theirs.write((1 << 20) - 1, &[8]).unwrap();
    assert_eq!(bytes_of(&ours, (1 << 20) - 1, 1), [8]);
    assert!(matches!(theirs.resize(4096), Err(DeviceError::Size { .. })));
    drop(ours);
    assert_eq!(bytes_of(&theirs, 100, 6), b"tensor");
    let wrong = |change: fn(&mut Vec<Share>)| {
        let mut parts = theirs.share().unwrap();
        change(&mut parts);
        assert!(matches!(
            host.attach(parts),
            Err(DeviceError::Failed { .. })
        ));
    };
    wrong(|parts| parts.clear());
    wrong(|parts| parts[0].offset = 4096);
    wrong(|parts| parts[0].bytes = 0);
    wrong(|parts| parts[0].bytes = (1 << 20) + 1);
    wrong(|parts| parts[0].bytes = u64::MAX);
    wrong(|parts| parts[0].file = std::fs::File::open("/dev/null").unwrap().into());
}

#[test]
fn host_memory_is_registered_once_and_again_after_it_was_let_go() {
    let host = HostDevice::new(0);
    let mut block = vec![0_u8; 4096];
    let start = NonNull::new(block.as_mut_ptr()).unwrap();
    // SAFETY: `block` outlives every registration in this test, here and below.
    let register = |offset: usize, len| unsafe { host.register(start.add(offset), len) };
    let first = register(1000, 1000).unwrap();
    assert_eq!(first.residence(), Residence::Host);
    for (offset, len) in [(1000, 1000), (0, 1001), (1999, 1), (0, 4096), (1200, 10)] {
        let refused = register(offset, len).unwrap_err();
        assert!(
            matches!(refused, DeviceError::Registered { .. }),
            "{offset} {len}"
        );
    }
    let beside = [register(0, 1000).unwrap(), register(2000, 100).unwrap()];
    let mut queue = host.queue().unwrap();
    first.write(0, b"pinned").unwrap();
    let memory = host.allocate(4096).unwrap();
    queue
        .copy(&first, &memory, &[piece(0, 5, 6)], CopyOrder::Any)
        .unwrap();
    assert_eq!(bytes_of(&memory, 5, 6), b"pinned");
    drop((first, beside));
    register(0, 4096).unwrap();
}

#[test]
fn pieces_are_copied_in_order_and_bad_ones_change_nothing() {
    let host = HostDevice::new(0);
    for mut queue in queues(&host) {
        let (from, to) = (host.allocate(4096).unwrap(), host.allocate(4096).unwrap());
        from.write(0, b"abcdef").unwrap();
        let pieces = [piece(0, 10, 3), piece(3, 11, 3), piece(4096, 4096, 0)];
        let event = queue.copy(&from, &to, &pieces, CopyOrder::InOrder).unwrap();
        queue.wait(event).unwrap();
        assert!(queue.is_done(event).unwrap());
        assert_eq!(bytes_of(&to, 9, 6), b"\0adef\0");
        for wrong in [piece(4090, 0, 7), piece(0, 4090, 7), piece(u64::MAX, 0, 2)] {
            let refused = queue.copy(&from, &to, &[piece(0, 0, 1), wrong], CopyOrder::Any);
            assert!(matches!(refused, Err(DeviceError::Bounds { .. })));
        }
        let over_itself = queue.copy(&to, &to, &[piece(0, 10, 11)], CopyOrder::InOrder);
        assert!(matches!(over_itself, Err(DeviceError::Overlap { .. })));
        queue
            .copy(&to, &to, &[piece(0, 11, 11)], CopyOrder::InOrder)
            .unwrap();
        let theirs = HostDevice::new(1).allocate(4096).unwrap();
        for (from, to) in [(&theirs, &to), (&to, &theirs)] {
            let refused = queue.copy(from, to, &[], CopyOrder::Any);
            assert!(matches!(refused, Err(DeviceError::Unreachable { .. })));
        }
        let mut seen = [1];
        queue.read(&to, 0, &mut seen).unwrap();
        assert_eq!(seen, [0], "nothing of a refused copy was done");
    }
}

#[test]
fn a_worker_does_what_was_submitted_before_it_goes() {
    let host = HostDevice::new(0);
    let mut queue = host.worker_queue().unwrap();
    let (from, to) = (
        host.allocate(1 << 16).unwrap(),
        host.allocate(1 << 16).unwrap(),
    );
    from.write(0, &[5; 1 << 16]).unwrap();
    let mut last = Event(0);
    for at in 0..1000 {
        let copy = [piece(at * 64, at * 64, 64)];
        loop {
            match queue.copy(&from, &to, &copy, CopyOrder::Any) {
                Ok(event) => {
                    assert!(event > last);
                    last = event;
                    break;
                }
                Err(DeviceError::Full { .. }) => queue.wait(Event(last.0 - 32)).unwrap(),
                Err(error) => panic!("{error}"),
            }
        }
    }
    drop(queue);
    assert_eq!(bytes_of(&to, 0, 64_000), [5; 64_000]);
}

/// CRC32C, bit by bit (RFC 3720, appendix B.4).
fn checksum(bytes: &[u8]) -> u32 {
    let mut register = !0;
    for &byte in bytes {
        register ^= u32::from(byte);
        for _ in 0..8 {
            register = (register >> 1) ^ (0x82f6_3b78 & (register & 1).wrapping_neg());
        }
    }
    !register
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Frames at random places, some corrupt, cut in random pieces: against a plain reference.
    #[test]
    fn a_gather_places_what_is_sound_and_nothing_else(
        lens in prop::collection::vec(0_usize..3000, 1..12),
        seed in any::<u64>(),
        worker in any::<bool>(),
    ) {
        let host = HostDevice::new(0);
        let mut random = seed | 1;
        let mut next = move |below: usize| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            (random % below.max(1) as u64) as usize
        };
        let payload = host.allocate(1 << 16).unwrap();
        let target = host.allocate(1 << 16).unwrap();
        let mut expected = vec![0_u8; 1 << 16];
        let mut table = GatherTable::new(&host, &payload, &target, 16, 512).unwrap();
        let (mut at, mut place) = (0, 0);
        let mut verdicts = Vec::new();
        for len in lens {
            at += next(40);
            let data: Vec<u8> = (0..len).map(|_| next(256) as u8).collect();
            let kind = next(3);
            let mut sum = checksum(&data);
            if kind == 1 {
                sum ^= 1 << next(32);
            }
            payload.write(at as u64, &data).unwrap();
            let mut pieces = Vec::new();
            let mut from = 0;
            while from < len {
                let part = 1 + next(len - from);
                place += next(30);
                pieces.push(GatherPiece { at: from as u32, len: part as u32, to: place as u64 });
                if kind != 1 {
                    expected[place..place + part].copy_from_slice(&data[from..from + part]);
                }
                from += part;
                place += part;
            }
            let frame = GatherFrame {
                offset: at as u64,
                len: len as u32,
                crc: (kind != 2).then_some(sum),
            };
            table.push(&frame, &pieces).unwrap();
            verdicts.push(if kind == 1 { Verdict::Corrupt } else { Verdict::Placed });
            at += len;
        }
        let [at_once, by_worker] = queues(&host);
        let mut queue = if worker { by_worker } else { at_once };
        let event = queue.gather(&mut table).unwrap();
        queue.wait(event).unwrap();
        let found: Vec<_> = (0..table.len()).map(|frame| table.verdict(frame)).collect();
        prop_assert_eq!(found, verdicts);
        prop_assert_eq!(bytes_of(&target, 0, 1 << 16), expected);
        table.clear().unwrap();
        prop_assert!(table.is_empty() && table.verdict(0) == Verdict::Pending);
    }
}

#[test]
fn a_table_takes_nothing_outside_its_memories() {
    let host = HostDevice::new(0);
    let (payload, target) = (host.allocate(4096).unwrap(), host.allocate(4096).unwrap());
    let mut table = GatherTable::new(&host, &payload, &target, 2, 3).unwrap();
    let frame = |offset, len, checked: bool| GatherFrame {
        offset,
        len,
        crc: checked.then_some(0),
    };
    let piece = |at, len, to| GatherPiece { at, len, to };
    for (frame, piece) in [
        (frame(4093, 4, true), piece(0, 0, 0)),
        (frame(4090, 7, false), piece(0, 0, 0)),
        (frame(u64::MAX, 2, false), piece(0, 0, 0)),
        (frame(0, 100, true), piece(90, 11, 0)),
        (frame(0, 100, true), piece(u32::MAX, 2, 0)),
        (frame(0, 100, true), piece(0, 100, 3997)),
        (frame(0, 100, true), piece(0, 1, u64::MAX)),
    ] {
        let refused = table.push(&frame, &[piece]);
        assert!(
            matches!(refused, Err(DeviceError::Bounds { .. })),
            "{frame:?} {piece:?}"
        );
    }
    assert!(table.is_empty());
    let four = [piece(0, 1, 0); 4];
    let full = table.push(&frame(0, 8, false), &four);
    assert!(matches!(full, Err(DeviceError::Full { max: 3, .. })));
    table.push(&frame(0, 8, false), &four[..1]).unwrap();
    table.push(&frame(0, 8, false), &[]).unwrap();
    let full = table.push(&frame(0, 8, false), &[]);
    assert!(matches!(full, Err(DeviceError::Full { max: 2, .. })));
    let other = HostDevice::new(1).allocate(4096).unwrap();
    assert!(GatherTable::new(&host, &other, &target, 1, 1).is_err());
    assert!(GatherTable::new(&host, &payload, &other, 1, 1).is_err());
}

#[test]
fn a_table_that_the_device_has_is_not_touched() {
    let host = HostDevice::new(0);
    let memory = host.allocate(4096).unwrap();
    let mut table = GatherTable::new(&host, &memory, &memory, 2, 2).unwrap();
    let (shared, _) = table.begin().unwrap();
    let frame = GatherFrame {
        offset: 0,
        len: 1,
        crc: None,
    };
    assert_eq!(table.push(&frame, &[]), Err(DeviceError::Busy));
    assert_eq!(table.clear(), Err(DeviceError::Busy));
    assert_eq!(
        host.queue().unwrap().gather(&mut table),
        Err(DeviceError::Busy)
    );
    shared.done();
    table.push(&frame, &[]).unwrap();
}
