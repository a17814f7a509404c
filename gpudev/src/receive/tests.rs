use super::*;
use crate::device::HostDevice;

/// A host, its payload memory and its target.
struct Scene {
    host: HostDevice,
    payload: Memory,
    target: Memory,
    receiver: Receiver<u32>,
}

fn scene(way: Way, worker: bool) -> Scene {
    let host = HostDevice::new(0);
    let payload = match way {
        Way::Staged => host.reserve_host(4 << 20, 4 << 20),
        Way::Direct => host.reserve(4 << 20, 4 << 20),
    }
    .unwrap();
    let target = host.allocate(4 << 20).unwrap();
    let queue: Box<dyn Queue> = if worker {
        Box::new(host.worker_queue().unwrap())
    } else {
        host.queue().unwrap()
    };
    let receiver = Receiver::new(&host, queue, &payload, &target).unwrap();
    assert_eq!(receiver.way(), way);
    Scene {
        host,
        payload,
        target,
        receiver,
    }
}

fn all() -> impl Iterator<Item = Scene> {
    [
        (Way::Staged, false),
        (Way::Staged, true),
        (Way::Direct, false),
        (Way::Direct, true),
    ]
    .into_iter()
    .map(|(way, worker)| scene(way, worker))
}

fn data(number: u32, len: usize) -> Vec<u8> {
    (0..len)
        .map(|at| (at as u32 * 7 + number * 131) as u8)
        .collect()
}

fn byte(memory: &Memory, at: u64) -> u8 {
    let mut byte = [0];
    memory.read(at, &mut byte).unwrap();
    byte[0]
}

#[test]
fn both_ways_place_the_same_and_give_every_frame_back_in_order() {
    const FRAMES: u32 = 800;
    const LEN: usize = 3000;
    for mut scene in all() {
        let mut back = Vec::new();
        for number in 0..FRAMES {
            let offset = u64::from(number) * 4096;
            let bytes = data(number, LEN);
            scene.payload.write(offset, &bytes).unwrap();
            let wrong = u32::from(number % 10 == 3);
            let frame = GatherFrame {
                offset,
                len: LEN as u32,
                // Some were checked before.
                crc: (number % 7 != 0).then(|| crc32c::crc32c(&bytes) ^ wrong),
            };
            let to = u64::from(number) * LEN as u64;
            let pieces = [
                GatherPiece {
                    at: 1000,
                    len: 2000,
                    to: to + 1000,
                },
                GatherPiece {
                    at: 0,
                    len: 1000,
                    to,
                },
            ];
            let mut keep = number;
            while let Err(refused) = scene.receiver.push(&frame, &pieces, keep) {
                assert!(matches!(refused.error, DeviceError::Full { .. }));
                keep = refused.keep;
                scene
                    .receiver
                    .poll(|number, verdict, bytes| back.push((number, verdict, bytes)))
                    .unwrap();
            }
        }
        let batches = scene.receiver.stats().batches;
        scene
            .receiver
            .finish(|number, verdict, bytes| back.push((number, verdict, bytes)))
            .unwrap();
        assert_eq!(scene.receiver.under_way(), 0);
        let expected: Vec<_> = (0..FRAMES)
            .map(|number| {
                let sound = number % 7 == 0 || number % 10 != 3;
                let verdict = if sound {
                    Verdict::Placed
                } else {
                    Verdict::Corrupt
                };
                (number, verdict, LEN as u64)
            })
            .collect();
        assert_eq!(back, expected);
        for (number, verdict, _) in back {
            let mut found = vec![0; LEN];
            scene
                .target
                .read(u64::from(number) * LEN as u64, &mut found)
                .unwrap();
            let wanted = match verdict {
                Verdict::Placed => data(number, LEN),
                _ => vec![0; LEN],
            };
            assert!(found == wanted, "frame {number}");
        }
        let stats = scene.receiver.stats();
        let corrupt = expected
            .iter()
            .filter(|(_, verdict, _)| *verdict == Verdict::Corrupt);
        assert_eq!(stats.corrupt, corrupt.count() as u64);
        assert_eq!(stats.frames + stats.corrupt, FRAMES.into());
        // 800 frames of 3000 bytes make two whole batches and a rest.
        assert_eq!((batches, stats.batches), (2, 3), "{stats:?}");
    }
}

#[test]
fn a_batch_waits_for_company_or_a_flush() {
    for mut scene in all() {
        let frame = GatherFrame {
            offset: 0,
            len: 1,
            crc: None,
        };
        let piece = GatherPiece {
            at: 0,
            len: 1,
            to: 9,
        };
        scene.payload.write(0, &[42]).unwrap();
        scene.receiver.push(&frame, &[piece], 1).unwrap();
        assert_eq!(scene.receiver.poll(|_, _, _| {}).unwrap(), 0);
        assert_eq!(
            (byte(&scene.target, 9), scene.receiver.stats().batches),
            (0, 0)
        );
        scene.receiver.flush().unwrap();
        scene.receiver.flush().unwrap();
        let mut back = Vec::new();
        scene
            .receiver
            .finish(|keep, verdict, _| back.push((keep, verdict)))
            .unwrap();
        assert_eq!(back, [(1, Verdict::Placed)]);
        assert_eq!(
            (byte(&scene.target, 9), scene.receiver.stats().batches),
            (42, 1)
        );
    }
}

#[test]
fn bounds_hold_and_what_was_refused_is_given_back() {
    for mut scene in all() {
        let frame = GatherFrame {
            offset: 0,
            len: 100,
            crc: None,
        };
        let piece = |at, len, to| GatherPiece { at, len, to };
        let end = 4 << 20;
        for (frame, piece) in [
            (
                GatherFrame {
                    offset: end - 99,
                    ..frame
                },
                piece(0, 1, 0),
            ),
            (frame, piece(99, 2, 0)),
            (frame, piece(0, 1, end)),
        ] {
            let refused = scene.receiver.push(&frame, &[piece], 7).unwrap_err();
            assert!(
                matches!(refused.error, DeviceError::Bounds { .. }),
                "{refused:?}"
            );
            assert_eq!(refused.keep, 7);
        }
        let many = vec![piece(0, 1, 0); BATCH_PIECES + 1];
        let refused = scene.receiver.push(&frame, &many, 8).unwrap_err();
        assert!(matches!(refused.error, DeviceError::Full { .. }));
        assert_eq!((refused.keep, scene.receiver.under_way()), (8, 0));
        // Nobody polls: two batches, and no more.
        let mut taken = 0;
        let refused = loop {
            assert!(scene.receiver.room() <= 2 * BATCH_FRAMES - taken);
            match scene.receiver.push(&frame, &[piece(0, 0, 0)], 0) {
                Ok(()) => taken += 1,
                Err(refused) => break refused.error,
            }
        };
        assert!(matches!(refused, DeviceError::Full { .. }));
        assert_eq!((taken, scene.receiver.room()), (2 * BATCH_FRAMES, 0));
        scene.receiver.finish(|_, _, _| taken -= 1).unwrap();
        assert_eq!((taken, scene.receiver.room()), (0, 2 * BATCH_FRAMES));
    }
}

#[test]
fn memory_of_another_device_is_refused() {
    let Scene { host, payload, .. } = scene(Way::Direct, false);
    let theirs = HostDevice::new(1).allocate(4096).unwrap();
    for (payload, target) in [(&payload, &theirs), (&theirs, &payload)] {
        let refused = Receiver::<()>::new(&host, host.queue().unwrap(), payload, target);
        assert!(matches!(refused, Err(DeviceError::Unreachable { .. })));
    }
}

#[test]
fn both_ways_are_measured() {
    let time = std::time::Duration::from_millis(20);
    let found = compare(&HostDevice::new(0), 8192, time).unwrap();
    for path in [found.staged, found.direct] {
        assert!(path.bytes_per_s > 0.0 && path.corrupt == 0, "{found:?}");
        assert!(path.batch_bytes >= BATCH_BYTES as f64 * 0.9, "{found:?}");
    }
    assert!(found.note.contains("not a GPU"));
    println!("{found:#?}");
}
