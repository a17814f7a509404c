//! Each call of the driver fails once, and the device is lost at each call once: an error, never a
//! crash, nothing left behind, no rule broken.

use std::sync::Arc;

use genie_gpudev::device::gather::{GatherFrame, GatherPiece, GatherTable, Verdict};
use genie_gpudev::device::{CopyOrder, CudaDevice, Device, DeviceError, register_mapping};
use genie_shm::Mapping;

use crate::devices::piece;
use crate::driver::{MIB, Simulated, open_files, simulated, simulated_until};

/// What a device is used for, once through, on a thread that knows nothing of it yet.
fn round() -> Result<(), DeviceError> {
    std::thread::spawn(use_a_device).join().unwrap()
}

fn use_a_device() -> Result<(), DeviceError> {
    let device = CudaDevice::open(0)?;
    let memory = device.reserve(2 * MIB, 200 * MIB)?;
    memory.resize(200 * MIB)?;
    let theirs = device.attach(memory.share()?)?;
    let host = device.reserve_host(MIB, 2 * MIB)?;
    host.resize(2 * MIB)?;
    let mapping = Arc::new(Mapping::create(MIB).unwrap());
    let registered = register_mapping(&device, &mapping)?;
    // Given back right after the queue: what fails there is not this memory's failure.
    let _beside = device.allocate(2 * MIB)?;
    let mut queue = device.queue()?;
    host.write(0, &[7; MIB as usize])?;
    // Over the border of two of the memory's parts.
    let pieces = [piece(0, 63 * MIB, 2 * MIB), piece(MIB, 0, MIB)];
    let event = queue.copy(&host, &memory, &pieces, CopyOrder::Any)?;
    queue.copy(
        &registered,
        &memory,
        &[piece(0, 9 * MIB, MIB)],
        CopyOrder::InOrder,
    )?;
    queue.is_done(event)?;
    let mut found = [0];
    queue.read(&theirs, 64 * MIB - 1, &mut found)?;
    assert_eq!(found, [7]);
    let mut table = GatherTable::new(&device, &memory, &memory, 1, 1)?;
    let frame = GatherFrame {
        offset: 0,
        len: 100,
        crc: None,
    };
    let part = GatherPiece {
        at: 0,
        len: 100,
        to: 100,
    };
    table.push(&frame, &[part])?;
    let event = queue.gather(&mut table)?;
    queue.wait(event)?;
    queue.write(&memory, 5, &[1, 2, 3])?;
    // Still under way when the memory shrinks, and when everything goes.
    let tail = [piece(190 * MIB, 0, MIB)];
    for _ in 0..8 {
        queue.copy(&memory, &registered, &tail, CopyOrder::InOrder)?;
    }
    std::thread::spawn(|| drop(theirs)).join().unwrap();
    memory.resize(2 * MIB)?;
    queue.copy(&memory, &host, &[piece(0, 0, MIB)], CopyOrder::InOrder)?;
    Ok(())
}

/// Calls of each function in a round.
fn calls(driver: &Simulated) -> Vec<(String, u64)> {
    round().unwrap();
    driver.calls().into_iter().collect()
}

/// Memory, when nobody can tell whether the device still uses it, or the driver does not take it back.
const MEMORY: [&str; 6] = [
    "bytes",
    "contexts",
    "handles",
    "mappings",
    "registrations",
    "reservations",
];

/// What may stay when this call failed: what it was to give back, or what may still be in use.
fn may_stay(name: &str) -> &'static [&'static str] {
    match name {
        "cuCtxGetCurrent"
        | "cuCtxSetCurrent"
        | "cuCtxSynchronize"
        | "cuStreamSynchronize"
        | "cuMemUnmap" => &MEMORY,
        "cuMemRelease" => &["handles", "bytes"],
        "cuMemAddressFree" => &["reservations"],
        "cuMemHostUnregister" => &["registrations"],
        "cuEventDestroy_v2" => &["events"],
        "cuStreamDestroy_v2" => &["streams"],
        "cuModuleUnload" => &["modules"],
        // cudarc forgets a context whose device it can't ask what it is.
        "cuDevicePrimaryCtxRelease_v2" | "cuDeviceGetAttribute" => &["contexts"],
        _ => &[],
    }
}

/// Of so many calls the first ones and the last: those between are like them.
fn some(count: u64) -> impl Iterator<Item = u64> {
    (1..=count).filter(move |&number| number <= 12 || number == count)
}

#[test]
fn every_call_of_a_simulated_driver_may_fail_once() {
    simulated(|driver| {
        let mut wrong = Vec::new();
        for (name, count) in calls(driver) {
            for number in some(count) {
                driver.start();
                driver.fail(&name, number, false);
                let files = open_files();
                let done = round();
                assert!(driver.has_failed(), "{name} {number}/{count}");
                let violations = driver.violations();
                let mut alive = driver.alive();
                alive.retain(|kind, _| !may_stay(&name).contains(&kind.as_str()));
                if may_stay(&name).is_empty() && open_files() != files {
                    alive.insert("files".into(), open_files() as u64);
                }
                if !violations.is_empty() || !alive.is_empty() {
                    wrong.push(format!(
                        "{name} {number}/{count}: {done:?} {violations:?} {alive:?}"
                    ));
                }
            }
        }
        driver.start();
        assert!(wrong.is_empty(), "{wrong:#?}");
    });
}

#[test]
fn a_simulated_device_may_be_lost_at_any_call() {
    simulated_until(
        |driver| {
            for (name, count) in calls(driver) {
                for number in some(count) {
                    driver.start();
                    driver.fail(&name, number, true);
                    let done = round();
                    let found = (driver.has_failed(), driver.violations());
                    assert_eq!(found, (true, vec![]), "{name} {number}/{count}: {done:?}");
                }
            }
        },
        &[&MEMORY[..], &["streams", "events", "modules"]].concat(),
    );
}

#[test]
fn memory_of_a_simulated_device_that_could_not_be_resized_is_as_it_was() {
    simulated(|driver| {
        let device = CudaDevice::open(0).unwrap();
        let memory = device.reserve(150 * MIB, 200 * MIB).unwrap();
        let mut queue = device.queue().unwrap();
        queue.write(&memory, 150 * MIB - 3, b"end").unwrap();
        for (name, size) in [
            ("cuCtxSynchronize", 2),
            ("cuMemCreate", 200),
            ("cuMemMap", 200),
            ("cuMemSetAccess", 200),
        ] {
            driver.fail(name, 1, false);
            let refused = memory.resize(size * MIB).unwrap_err();
            assert!(refused.to_string().contains("unknown error"), "{refused}");
            assert_eq!(memory.bytes(), 150 * MIB, "{name}");
            let mut end = [0; 3];
            queue.read(&memory, 150 * MIB - 3, &mut end).unwrap();
            assert_eq!(&end, b"end", "{name}");
        }
        // What the driver does not take back is still there when the memory grows again.
        driver.fail("cuMemUnmap", 2, false);
        memory.resize(2 * MIB).unwrap();
        assert_eq!(driver.alive()["mappings"], 2);
        memory.resize(200 * MIB).unwrap();
        queue.write(&memory, 200 * MIB - 3, b"end").unwrap();
    });
}

#[test]
fn a_simulated_queue_that_failed_says_so_for_ever_and_keeps_nothing() {
    simulated(|driver| {
        let device = CudaDevice::open(0).unwrap();
        let memory = device.allocate(4 * MIB).unwrap();
        let mut table = GatherTable::new(&device, &memory, &memory, 1, 1).unwrap();
        let mut queue = device.queue().unwrap();
        let frame = GatherFrame {
            offset: 0,
            len: 100,
            crc: None,
        };
        table.push(&frame, &[]).unwrap();
        // The kernel is no part of the queue: it is tried again.
        driver.fail("cuModuleLoadData", 1, false);
        queue.gather(&mut table).unwrap_err();
        let event = queue.gather(&mut table).unwrap();
        queue.wait(event).unwrap();
        assert_eq!(table.verdict(0), Verdict::Placed);
        let pieces = [piece(0, MIB, MIB), piece(0, 2 * MIB, MIB)];
        driver.fail("cuMemcpyAsync", 2, false);
        let mut refused = vec![queue.copy(&memory, &memory, &pieces, CopyOrder::InOrder)];
        refused.push(queue.copy(&memory, &memory, &pieces, CopyOrder::InOrder));
        refused.push(queue.gather(&mut table));
        refused.push(queue.wait(event).map(|()| event));
        refused.push(queue.read(&memory, 0, &mut [0]).map(|()| event));
        for refused in refused {
            assert!(
                matches!(refused, Err(DeviceError::Failed { .. })),
                "{refused:?}"
            );
        }
        assert!(!table.is_busy());
    });
}
