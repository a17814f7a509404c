//! DPDK's own functions on a device of ours.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends where it can't go on"
)]

#[path = "../../dpdk/tests/common/eal.rs"]
mod eal;

use std::ffi::{CStr, c_void};
use std::sync::{Arc, Mutex};

use eal::eal;
use genie_direct::{Registration, RegistrationError};
use genie_dpdk::{ExternalMemory, Mempool, MempoolConfig};
use genie_dpdk_sys::gpudev::{self, GpuApi, rte_gpu_comm_flag, rte_gpu_info};
use genie_gpudev::device::{Device, HostDevice};
use genie_gpudev::pool::{Pool, PoolConfig};

const MIB: u64 = 1 << 20;

/// gpudev, or nothing and the reason printed.
fn api() -> Option<&'static GpuApi> {
    gpudev::load()
        .inspect_err(|error| eprintln!("skipped: {error}"))
        .ok()
}

fn host(index: u8) -> (Arc<dyn Device>, Arc<Mutex<Pool>>) {
    let device = HostDevice::new(index);
    let pool = Pool::new(&device, PoolConfig::new(8 * MIB)).unwrap();
    (Arc::new(device), Arc::new(Mutex::new(pool)))
}

fn count(api: &GpuApi) -> u16 {
    // SAFETY: the EAL runs (each test holds its turn), and no other test is inside gpudev.
    unsafe { api.rte_gpu_count_avail() }
}

#[test]
fn dpdk_sees_the_device_and_nothing_is_left_of_it() {
    let Some(turn) = eal() else { return };
    let Some(api) = api() else { return };
    let before = count(api);
    let (device, pool) = host(0);
    for round in 0..3 {
        let registered = Registration::new(&turn.eal, Arc::clone(&device), Arc::clone(&pool));
        let registration = registered.unwrap();
        assert_eq!(count(api), before + 1, "round {round}");
        let mut info = rte_gpu_info::default();
        // SAFETY: the EAL runs, the number is a device's, `info` lives through the call.
        let told = unsafe { api.rte_gpu_info_get(registration.id(), &mut info) };
        assert_eq!(told, 0);
        // SAFETY: the name is the device's copy of a C string.
        let name = unsafe { CStr::from_ptr(info.name) };
        assert_eq!(name.to_str(), Ok("genie_host_0"));
        assert_eq!(info.total_memory as u64, device.info().memory_bytes);
        assert_eq!(info.page_size, 4096);
        assert!(info.processor_count > 0 && info.numa_node == -1);
        let again = Registration::new(&turn.eal, Arc::clone(&device), Arc::clone(&pool));
        assert_eq!(
            again.err(),
            Some(RegistrationError::Refused(info_kind(&device)))
        );
        // SAFETY: as above. What is not freed goes with the device.
        assert!(!unsafe { api.rte_gpu_mem_alloc(registration.id(), 1000, 0) }.is_null());
        assert_eq!(pool.lock().unwrap().stats().places, 1);
        drop(registration);
        assert_eq!(count(api), before);
        assert_eq!(pool.lock().unwrap().stats().places, 0);
        assert_eq!(Arc::strong_count(&device), 1);
    }
    let (other, _) = host(1);
    let wrong = Registration::new(&turn.eal, other, pool);
    assert!(matches!(
        wrong.err(),
        Some(RegistrationError::OtherDevice { .. })
    ));
    assert_eq!(count(api), before);
}

fn info_kind(device: &Arc<dyn Device>) -> genie_gpudev::DeviceKind {
    device.info().kind
}

#[test]
fn its_memory_lies_in_the_pool_and_takes_packets() {
    let Some(turn) = eal() else { return };
    let Some(api) = api() else { return };
    let (device, pool) = host(0);
    let registration = Registration::new(&turn.eal, device, Arc::clone(&pool)).unwrap();
    let id = registration.id();
    let memory = pool.lock().unwrap().memory().clone();
    let config = MempoolConfig::new("in the pool", 255, 2048);
    let bytes = config.external_bytes().next_multiple_of(65536);
    // SAFETY: the EAL runs, the number is a device's, nobody else is inside gpudev; below, too.
    let place = unsafe { api.rte_gpu_mem_alloc(id, bytes, 65536) };
    let offset = place as u64 - memory.address();
    assert_eq!(
        pool.lock().unwrap().stats().pinned_places,
        1,
        "DPDK knows its address"
    );
    assert!(memory.at(offset, bytes as u64).is_ok() && (place as usize).is_multiple_of(65536));
    // SAFETY: as above.
    let mapped = unsafe { api.rte_gpu_mem_cpu_map(id, bytes, place) };
    assert_eq!(mapped, place, "the host's memory is the CPU's");
    let start = std::ptr::NonNull::new(place.cast::<u8>()).unwrap();
    // SAFETY: `memory` keeps the range mapped, and only the pool below uses it.
    let external = unsafe {
        ExternalMemory::register(&turn.eal, start, bytes, 65536, Arc::new(memory.clone()))
    };
    let packets = Mempool::over_external(&turn.eal, config, external.unwrap()).unwrap();
    let mut held: Vec<_> = (0..255).map(|_| packets.alloc().unwrap()).collect();
    for (number, mbuf) in held.iter_mut().enumerate() {
        mbuf.extend_from_slice(&[number as u8; 100]).unwrap();
        let (at, len) = mbuf.segment_addresses().next().unwrap();
        let offset = at.as_ptr() as u64 - place as u64;
        assert!(
            len == 100 && offset + 100 <= bytes as u64,
            "packet {number} is elsewhere"
        );
        let mut seen = [0; 100];
        memory
            .read(at.as_ptr() as u64 - memory.address(), &mut seen)
            .unwrap();
        assert_eq!(seen, [number as u8; 100]);
    }
    drop((held, packets));
    // SAFETY: as above; each is given back once.
    unsafe {
        let take = || api.rte_gpu_mem_alloc(id, 1000, 4096) as u64;
        let mut small: Vec<u64> = (0..100).map(|_| take()).collect();
        small.sort_unstable();
        assert!(small.iter().all(|at| at % 4096 == 0));
        assert!(
            small.windows(2).all(|pair| pair[0] + 1000 <= pair[1]),
            "they overlap"
        );
        for at in small {
            assert_eq!(api.rte_gpu_mem_free(id, at as *mut c_void), 0);
        }
    }
    // SAFETY: as above; nobody uses the place any more.
    unsafe {
        assert_eq!(api.rte_gpu_mem_cpu_unmap(id, mapped), 0);
        assert_eq!(api.rte_gpu_mem_free(id, place), 0);
        assert!(api.rte_gpu_mem_free(id, place) < 0, "twice");
        assert!(
            api.rte_gpu_mem_free(id, place.byte_add(64)) < 0,
            "never given"
        );
        assert!(
            api.rte_gpu_mem_alloc(id, 9 * MIB as usize, 0).is_null(),
            "more than there is"
        );
        assert!(api.rte_gpu_mem_alloc(id, usize::MAX, 4096).is_null());
        assert_eq!(api.rte_gpu_wmb(id), 0);
    }
    assert_eq!(
        (registration.places(), pool.lock().unwrap().stats().places),
        (0, 0)
    );
}

#[test]
fn host_memory_is_registered_and_lists_are_made() {
    let Some(turn) = eal() else { return };
    let Some(api) = api() else { return };
    let (device, pool) = host(0);
    let registration = Registration::new(&turn.eal, device, Arc::clone(&pool)).unwrap();
    let id = registration.id();
    let mut block = vec![0_u8; 8192];
    let start: *mut c_void = block.as_mut_ptr().cast();
    // SAFETY: the EAL runs, the number is a device's, nobody else is inside gpudev, `block` lives
    // until it is unregistered.
    unsafe {
        assert_eq!(api.rte_gpu_mem_register(id, 8192, start), 0);
        assert!(
            api.rte_gpu_mem_register(id, 100, start.byte_add(50)) < 0,
            "twice"
        );
        assert_eq!(registration.registered(), 1);
        assert_eq!(api.rte_gpu_mem_unregister(id, start), 0);
        assert!(api.rte_gpu_mem_unregister(id, start) < 0, "not any more");
    }
    // SAFETY: as above; all-zero bytes are a valid value, which the call fills.
    unsafe {
        let mut flag: rte_gpu_comm_flag = std::mem::zeroed();
        assert_eq!(api.rte_gpu_comm_create_flag(id as u16, &mut flag, 0), 0);
        assert_eq!(api.rte_gpu_comm_set_flag(&mut flag, 42), 0);
        let mut value = 0;
        assert_eq!(api.rte_gpu_comm_get_flag_value(&mut flag, &mut value), 0);
        assert_eq!(value, 42);
        assert_eq!(api.rte_gpu_comm_destroy_flag(&mut flag), 0);
    }
    // SAFETY: as above; the list has three items, and is destroyed once.
    unsafe {
        let list = api.rte_gpu_comm_create_list(id as u16, 3);
        assert!(!list.is_null());
        let memory = pool.lock().unwrap().memory().clone();
        for item in std::slice::from_raw_parts(list, 3) {
            let status = (item.status_d as u64).wrapping_sub(memory.address());
            assert!(
                memory.at(status, 4).is_ok(),
                "the status is in the device's memory"
            );
            assert_eq!(item.status_d, item.status_h, "which the CPU reaches");
        }
        assert_eq!(api.rte_gpu_comm_destroy_list(list, 3), 0);
    }
    assert_eq!((registration.places(), registration.registered()), (0, 0));
}
