//! A device of our own in DPDK's gpudev, as an application sees it, and packets in its memory.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends where it can't go on"
)]

mod common;

use std::ffi::{c_int, c_uint, c_void};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use genie_dpdk::{ExternalMemory, Mempool, MempoolConfig};
use genie_dpdk_sys::gpudev::{self, GENIE_GPU_ID_NONE, GpuApi, rte_gpu, rte_gpu_info};
use nix::libc;

const PAGE: usize = 65536;
static CLOSED: AtomicUsize = AtomicUsize::new(0);

unsafe extern "C" fn mem_alloc(
    _: *mut rte_gpu,
    size: usize,
    align: c_uint,
    out: *mut *mut c_void,
) -> c_int {
    let align = (align as usize).max(PAGE);
    // SAFETY: `out` is the caller's; the alignment is a power of two.
    unsafe { libc::posix_memalign(out, align, size) }
}

unsafe extern "C" fn mem_free(_: *mut rte_gpu, memory: *mut c_void) -> c_int {
    // SAFETY: from `mem_alloc`.
    unsafe { libc::free(memory) };
    0
}

unsafe extern "C" fn close(_: *mut rte_gpu) -> c_int {
    CLOSED.fetch_add(1, Ordering::SeqCst);
    0
}

/// Frees device memory.
struct Allocation(&'static GpuApi, i16, usize);

impl Drop for Allocation {
    fn drop(&mut self) {
        // SAFETY: allocated on this device, and freed once.
        let result = unsafe { self.0.rte_gpu_mem_free(self.1, self.2 as *mut c_void) };
        assert_eq!(result, 0);
    }
}

#[test]
fn a_device_of_ours_holds_a_pool() {
    let Some(turn) = common::eal() else { return };
    let api = match gpudev::load() {
        Ok(api) => api,
        Err(reason) => return eprintln!("skipped: {reason}"),
    };
    // SAFETY: as the module's text asks for; the operations live as long as the program.
    let device = unsafe {
        assert_eq!(api.rte_gpu_count_avail(), 0);
        let gpu = api.rte_gpu_allocate(c"genie-test".as_ptr());
        assert!(!gpu.is_null());
        // DPDK has it from `calloc`, less aligned than its type says.
        let ops = &raw mut (*gpu).ops;
        let ops = &mut *ops;
        ops.mem_alloc = Some(mem_alloc);
        ops.mem_free = Some(mem_free);
        ops.dev_close = Some(close);
        let info = &mut (*(&raw const (*gpu).mpshared).read()).info;
        info.parent = GENIE_GPU_ID_NONE;
        info.total_memory = 1 << 30;
        info.page_size = PAGE;
        info.numa_node = -1;
        let device = info.dev_id;
        api.rte_gpu_complete_new(gpu);
        device
    };
    let mut info = rte_gpu_info::default();
    // SAFETY: asks a device that is there.
    unsafe {
        assert_eq!(api.rte_gpu_count_avail(), 1);
        let again = api.rte_gpu_allocate(c"genie-test".as_ptr());
        assert!(again.is_null(), "the name is taken");
        assert_eq!(api.rte_gpu_info_get(device, &mut info), 0);
        let name = std::ffi::CStr::from_ptr(info.name);
        assert_eq!(name, c"genie-test");
    }
    assert_eq!((info.total_memory, info.page_size), (1 << 30, PAGE));
    let bytes = 32 * PAGE;
    // SAFETY: allocates on a device that is there.
    let start = unsafe { api.rte_gpu_mem_alloc(device, bytes, 0) };
    let start = NonNull::new(start.cast::<u8>()).unwrap();
    let owner = Allocation(api, device, start.as_ptr() as usize);
    // SAFETY: the owner keeps it, and only the pool uses it.
    let memory =
        unsafe { ExternalMemory::register(&turn.eal, start, bytes, PAGE, Arc::new(owner)) };
    let config = MempoolConfig::new("gpu", 200, 8192);
    let pool = Mempool::over_external(&turn.eal, config, memory.unwrap()).unwrap();
    let mut mbuf = pool.alloc().unwrap();
    mbuf.extend_from_slice(b"in the device").unwrap();
    let (place, _) = mbuf.segment_addresses().next().unwrap();
    let offset = place.as_ptr() as usize - start.as_ptr() as usize;
    assert!(offset < bytes);
    drop((mbuf, pool));
    // SAFETY: nothing of the device is in use.
    unsafe {
        assert_eq!(api.rte_gpu_close(device), 0);
        assert_eq!(api.rte_gpu_count_avail(), 0);
    }
    assert_eq!(CLOSED.load(Ordering::SeqCst), 1);
}
