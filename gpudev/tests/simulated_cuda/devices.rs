//! One process: everything that a device does, and what it refuses.

use std::sync::Arc;

use genie_gpudev::device::gather::{GatherFrame, GatherPiece, Verdict};
use genie_gpudev::device::queue::QUEUE_DEPTH;
use genie_gpudev::device::{
    CopyOrder, CopyPiece, CudaDevice, Device, DeviceError, Queue, Share, check, register_mapping,
};
use genie_gpudev::pool::PoolConfig;
use genie_gpudev::receive::Way;
use genie_gpudev::{Pool, Receiver};
use genie_shm::Mapping;

use crate::driver::{MEMORY_BYTES, MIB, Pace, simulated};

pub fn piece(from: u64, to: u64, len: u64) -> CopyPiece {
    CopyPiece { from, to, len }
}

#[test]
fn a_simulated_device_says_what_it_is() {
    simulated(|driver| {
        let info = CudaDevice::open(0).unwrap().info();
        assert_eq!(
            (info.memory_bytes, info.free_bytes),
            (MEMORY_BYTES, MEMORY_BYTES)
        );
        assert_eq!((info.page_bytes, info.processors), (2 * MIB, 2));
        assert!(info.nic_reach && info.name == "a simulated GPU");
        let absent = CudaDevice::open(3).err().unwrap();
        assert!(matches!(absent, DeviceError::Absent { .. }), "{absent}");
        assert_eq!(driver.refusals().len(), 1);
        driver.attribute(110, 0);
        assert!(!CudaDevice::open(0).unwrap().info().nic_reach);
        for needed in [102, 103, 91] {
            driver.attribute(needed, 0);
            let absent = CudaDevice::open(0).err().unwrap();
            assert!(matches!(absent, DeviceError::Absent { .. }), "{absent}");
            driver.attribute(needed, 1);
        }
    });
}

#[test]
fn a_simulated_device_does_what_is_asked_of_it() {
    simulated(|_| {
        let device = CudaDevice::open(0).unwrap();
        check::copies(&device).unwrap();
        check::gather(&device).unwrap();
        check::resizing(&device).unwrap();
        check::pools(&device).unwrap();
    });
}

#[test]
fn memory_of_a_simulated_device_runs_out_and_comes_back() {
    simulated(|driver| {
        let device = CudaDevice::open(0).unwrap();
        let most = device
            .reserve(MEMORY_BYTES - 100 * MIB, MEMORY_BYTES + 100 * MIB)
            .unwrap();
        assert_eq!(device.info().free_bytes, 100 * MIB);
        let refused = [
            device.allocate(200 * MIB).unwrap_err(),
            most.resize(MEMORY_BYTES + 100 * MIB).unwrap_err(),
        ];
        let asked = refused.map(|refused| match refused {
            DeviceError::OutOfMemory { bytes, .. } => bytes,
            other => panic!("{other}"),
        });
        assert_eq!(asked, [200 * MIB, MEMORY_BYTES + 100 * MIB]);
        // Nothing of them was kept, and what was there is there.
        assert_eq!(device.info().free_bytes, 100 * MIB);
        assert_eq!(driver.refusals().len(), 2);
        let mut queue = device.queue().unwrap();
        queue
            .write(&most, MEMORY_BYTES - 100 * MIB - 3, b"end")
            .unwrap();
        most.resize(MEMORY_BYTES).unwrap();
        let mut end = [0; 3];
        queue
            .read(&most, MEMORY_BYTES - 100 * MIB - 3, &mut end)
            .unwrap();
        assert_eq!(&end, b"end");
        drop(most);
        device.allocate(MEMORY_BYTES).unwrap();
        for wrong in [0, u64::MAX] {
            let refused = device.allocate(wrong).unwrap_err();
            assert!(matches!(refused, DeviceError::Size { .. }), "{refused}");
        }
    });
}

#[test]
fn pools_of_a_simulated_device_grow_shrink_and_move_what_is_in_them() {
    simulated(|_| {
        let device = CudaDevice::open(0).unwrap();
        let config = PoolConfig {
            bytes_max: 300 * MIB,
            ..PoolConfig::new(10 * MIB)
        };
        let mut pool = Pool::new(&device, config).unwrap();
        let mut queue = device.queue().unwrap();
        let bytes = check::noise(3 * MIB as usize);
        let places: Vec<u64> = (0..60)
            .map(|_| {
                loop {
                    match pool.allocate(3 * MIB) {
                        Ok(place) => break place,
                        Err(_) => pool.resize(pool.memory().bytes() + 70 * MIB).unwrap(),
                    }
                }
            })
            .collect();
        let (last, others) = places.split_last().unwrap();
        queue.write(pool.memory(), *last, &bytes).unwrap();
        others.iter().for_each(|&place| pool.free(place).unwrap());
        let moves = pool.compact(queue.as_mut(), u64::MAX).unwrap().moves;
        assert_eq!((moves[0].from, moves[0].to), (*last, 0));
        pool.resize(4 * MIB).unwrap();
        assert_eq!(pool.memory().bytes(), 4 * MIB);
        // The first part stays, as it was made in one.
        assert_eq!(device.info().free_bytes, MEMORY_BYTES - 10 * MIB);
        let mut found = vec![0; bytes.len()];
        queue.read(pool.memory(), 0, &mut found).unwrap();
        assert!(found == bytes, "the place that moved");
    });
}

#[test]
fn host_memory_of_a_simulated_device_is_one_registration_whatever_its_size() {
    simulated(|driver| {
        let device = CudaDevice::open(0).unwrap();
        let host = device.reserve_host(MIB, 3 * MIB).unwrap();
        let there = device.allocate(3 * MIB).unwrap();
        let mut queue = device.queue().unwrap();
        let bytes = check::noise(3 * MIB as usize);
        for size in [2, 3, 1, 3] {
            host.resize(size * MIB).unwrap();
            host.write(0, &bytes[..(size * MIB) as usize]).unwrap();
            // Over every border that there could be.
            let event = queue
                .copy(
                    &host,
                    &there,
                    &[piece(0, 0, size * MIB)],
                    CopyOrder::InOrder,
                )
                .unwrap();
            queue.wait(event).unwrap();
            let mut found = vec![0; (size * MIB) as usize];
            queue.read(&there, 0, &mut found).unwrap();
            assert!(found == bytes[..found.len()], "{size} MiB");
        }
        assert_eq!(driver.alive()["registrations"], 1);
    });
}

#[test]
fn shared_memory_is_registered_with_a_simulated_device_once() {
    simulated(|driver| {
        let device = CudaDevice::open(0).unwrap();
        let mapping = Arc::new(Mapping::create(5 * MIB).unwrap());
        let memory = register_mapping(&device, &mapping).unwrap();
        let twice = register_mapping(&device, &mapping).unwrap_err();
        assert!(matches!(twice, DeviceError::Registered { .. }), "{twice}");
        assert_eq!(driver.refusals().len(), 1);
        let there = device.allocate(5 * MIB).unwrap();
        let mut queue = device.queue().unwrap();
        let bytes = check::noise(5 * MIB as usize);
        mapping.write(0, &bytes).unwrap();
        // Copies of nothing are none, wherever they are.
        let pieces = [
            piece(5 * MIB, 5 * MIB, 0),
            piece(0, MIB, 4 * MIB),
            piece(4 * MIB, 0, MIB),
        ];
        for order in [CopyOrder::InOrder, CopyOrder::Any] {
            queue.copy(&memory, &there, &pieces, order).unwrap();
        }
        queue.read(&there, 7, &mut []).unwrap();
        // The memory goes with the queue's last work on it, not before.
        drop((memory, mapping));
        let mut found = vec![0; 4 * MIB as usize];
        queue.read(&there, MIB, &mut found).unwrap();
        assert!(found == bytes[..found.len()]);
        assert_eq!(driver.alive().get("registrations"), None);
    });
}

#[test]
fn every_thread_may_use_a_simulated_device() {
    simulated(|_| {
        let device = &CudaDevice::open(0).unwrap();
        // Each on a thread that has not heard of the device.
        fn elsewhere<T: Send>(work: impl FnOnce() -> T + Send) -> T {
            std::thread::scope(|scope| scope.spawn(work).join().unwrap())
        }
        let memory = elsewhere(|| device.allocate(4 * MIB).unwrap());
        let host = elsewhere(|| device.reserve_host(MIB, MIB).unwrap());
        let mut queue = elsewhere(|| device.queue().unwrap());
        host.write(MIB - 3, b"end").unwrap();
        let whole = [piece(0, MIB, MIB)];
        let copy = |queue: &mut dyn Queue| queue.copy(&host, &memory, &whole, CopyOrder::Any);
        let event = elsewhere(|| copy(queue.as_mut()).unwrap());
        elsewhere(|| queue.wait(event).unwrap());
        assert!(elsewhere(|| queue.is_done(event).unwrap()));
        let mut end = [0; 3];
        elsewhere(|| queue.read(&memory, 2 * MIB - 3, &mut end).unwrap());
        assert_eq!(&end, b"end");
        elsewhere(|| queue.write(&memory, 0, &end).unwrap());
        assert_eq!(
            elsewhere(|| device.info().free_bytes),
            MEMORY_BYTES - 4 * MIB
        );
        let parts = elsewhere(|| memory.share().unwrap());
        let theirs = elsewhere(|| device.attach(parts).unwrap());
        elsewhere(|| drop((theirs, queue, host, memory)));
    });
}

#[test]
fn a_simulated_queue_is_full_and_has_room_again() {
    simulated(|driver| {
        let device = CudaDevice::open(0).unwrap();
        let memory = device.allocate(4 * MIB).unwrap();
        let mut queue = device.queue().unwrap();
        driver.pace(Pace::Held);
        let whole = [piece(0, 2 * MIB, MIB)];
        let mut events = Vec::new();
        let refused = loop {
            match queue.copy(&memory, &memory, &whole, CopyOrder::InOrder) {
                Ok(event) => events.push(event),
                Err(refused) => break refused,
            }
        };
        assert!(matches!(refused, DeviceError::Full { .. }), "{refused}");
        assert_eq!(events.len(), QUEUE_DEPTH);
        assert!(events.iter().all(|&event| !queue.is_done(event).unwrap()));
        driver.pace(Pace::Late);
        for round in 0..3 * QUEUE_DEPTH {
            queue.wait(events[round]).unwrap();
            assert!(queue.is_done(events[round]).unwrap());
            let event = queue.copy(&memory, &memory, &whole, CopyOrder::InOrder);
            events.push(event.unwrap());
        }
        // What is under way ends with the queue.
    });
}

#[test]
fn frames_are_received_into_a_simulated_device_both_ways() {
    simulated(|_| {
        let device = CudaDevice::open(0).unwrap();
        for (way, frames) in [(Way::Staged, 2500_u32), (Way::Direct, 60)] {
            let len = 1500_u32;
            let bytes = u64::from(frames) * u64::from(len);
            let payload = match way {
                Way::Staged => device.reserve_host(bytes, bytes).unwrap(),
                Way::Direct => device.allocate(bytes).unwrap(),
            };
            let target = device.allocate(bytes).unwrap();
            let mut queue = device.queue().unwrap();
            let mut wanted = check::noise(bytes as usize);
            queue.write(&payload, 0, &wanted).unwrap();
            queue.write(&target, 0, &vec![0; bytes as usize]).unwrap();
            let mut receiver = Receiver::new(&device, queue, &payload, &target).unwrap();
            assert_eq!(receiver.way(), way);
            let mut back = Vec::new();
            for number in 0..frames {
                let at = (number * len) as usize;
                let data = &mut wanted[at..at + len as usize];
                let is_corrupt = number % 50 == 7;
                let frame = GatherFrame {
                    offset: at as u64,
                    len,
                    crc: Some(crc32c::crc32c(data) ^ u32::from(is_corrupt)),
                };
                if is_corrupt {
                    data.fill(0);
                }
                let parts = [(700, len - 700), (0, 700)].map(|(part, len)| GatherPiece {
                    at: part,
                    len,
                    to: at as u64 + u64::from(part),
                });
                let mut keep = number;
                while let Err(refused) = receiver.push(&frame, &parts, keep) {
                    assert!(matches!(refused.error, DeviceError::Full { .. }));
                    keep = refused.keep;
                    receiver
                        .poll(|number, verdict, _| back.push((number, verdict)))
                        .unwrap();
                }
            }
            receiver
                .finish(|number, verdict, _| back.push((number, verdict)))
                .unwrap();
            let all = (0..frames).map(|number| match number % 50 {
                7 => (number, Verdict::Corrupt),
                _ => (number, Verdict::Placed),
            });
            assert!(back == all.collect::<Vec<_>>(), "{way}: {back:?}");
            drop(receiver);
            let mut found = vec![0; bytes as usize];
            device
                .queue()
                .unwrap()
                .read(&target, 0, &mut found)
                .unwrap();
            check::same("received", &found, &wanted).unwrap();
        }
    });
}

#[test]
fn what_was_not_shared_so_is_not_attached_by_a_simulated_device() {
    simulated(|driver| {
        let device = CudaDevice::open(0).unwrap();
        let memory = device.allocate(130 * MIB).unwrap();
        let wrong: [fn(&mut Vec<Share>); 6] = [
            |parts| parts.clear(),
            |parts| parts[1].offset += 2 * MIB,
            |parts| parts[2].bytes += 4096,
            |parts| parts[2].bytes += 2 * MIB,
            |parts| parts[1].file = std::fs::File::open("/dev/null").unwrap().into(),
            |parts| parts.swap(0, 2),
        ];
        for (number, change) in wrong.into_iter().enumerate() {
            let mut parts = memory.share().unwrap();
            change(&mut parts);
            let refused = device.attach(parts).map(|_| number).unwrap_err();
            assert!(
                matches!(refused, DeviceError::Failed { .. }),
                "{number}: {refused}"
            );
        }
        // The driver found two, and none of them left anything behind.
        assert_eq!(driver.refusals().len(), 2);
        assert_eq!(driver.alive()["handles"], 3);
        let theirs = device.attach(memory.share().unwrap()).unwrap();
        assert_eq!(theirs.bytes(), 130 * MIB);
        let refused = theirs.resize(2 * MIB).unwrap_err();
        assert!(matches!(refused, DeviceError::Size { .. }), "{refused}");
    });
}
