//! The simulated driver itself: each rule that is broken is noted.

use cudarc::driver::sys::{self, CUmemAllocationProp, CUresult};

use crate::driver::{MIB, Pace, Simulated, simulated};

const PAGE: usize = 2 << 20;

/// All of it by the driver's own functions.
struct Raw {
    address: u64,
    handle: u64,
    stream: sys::CUstream,
    event: sys::CUevent,
    host: Vec<u8>,
}

/// Memory of the device.
fn properties() -> CUmemAllocationProp {
    // SAFETY: all-zero bytes are a valid value.
    let mut properties: CUmemAllocationProp = unsafe { std::mem::zeroed() };
    properties.type_ = sys::CUmemAllocationType::CU_MEM_ALLOCATION_TYPE_PINNED;
    properties.requestedHandleTypes =
        sys::CUmemAllocationHandleType::CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR;
    properties.location.type_ = sys::CUmemLocationType::CU_MEM_LOCATION_TYPE_DEVICE;
    properties
}

/// Four pages of addresses, the first two with memory; one page of registered host memory.
fn raw() -> Raw {
    let mut raw = Raw {
        address: 0,
        handle: 0,
        stream: std::ptr::null_mut(),
        event: std::ptr::null_mut(),
        host: vec![0; 3 * PAGE],
    };
    let mut context = std::ptr::null_mut();
    let access = sys::CUmemAccessDesc {
        location: properties().location,
        flags: sys::CUmemAccess_flags::CU_MEM_ACCESS_FLAGS_PROT_READWRITE,
    };
    // SAFETY: every pointer is to a value that lives through the call, or to `host`, which lives as
    // long as the driver knows it.
    let answers = unsafe {
        [
            sys::cuInit(0),
            sys::cuDevicePrimaryCtxRetain(&mut context, 0),
            sys::cuCtxSetCurrent(context),
            sys::cuMemAddressReserve(&mut raw.address, 4 * PAGE, 0, 0, 0),
            sys::cuMemCreate(&mut raw.handle, 2 * PAGE, &properties(), 0),
            sys::cuMemMap(raw.address, 2 * PAGE, 0, raw.handle, 0),
            sys::cuMemSetAccess(raw.address, 2 * PAGE, &access, 1),
            sys::cuMemHostRegister_v2(raw.host.as_mut_ptr().cast(), PAGE, 3),
            sys::cuStreamCreate(&mut raw.stream, 1),
            sys::cuEventCreate(&mut raw.event, 2),
        ]
    };
    assert_eq!(answers, [CUresult::CUDA_SUCCESS; 10]);
    raw
}

/// Breaks a rule, which must be noted in these words, and nothing else.
fn breaks(driver: &Simulated, words: &str, rule: impl FnOnce(&mut Raw) -> CUresult) {
    driver.start();
    let answer = rule(&mut raw());
    let violations = driver.violations();
    let noted = matches!(&violations[..], [one] if one.contains(words));
    assert!(noted, "{words}: {answer:?}, {violations:?}");
}

#[test]
fn a_simulated_driver_notes_each_rule_that_is_broken() {
    simulated(|driver| {
        // SAFETY: the driver is the simulated one, which checks what it is given; host memory is
        // that of `Raw`, which lives until the driver is started anew or only lies there.
        unsafe { every_rule(driver) };
        driver.start();
    });
}

/// # Safety
/// The driver is the simulated one.
unsafe fn every_rule(driver: &Simulated) {
    let part = PAGE as u64;
    // SAFETY: as the caller says; see above for the memory.
    unsafe {
        let mut made = 0;
        breaks(driver, "creating", |_| {
            sys::cuMemCreate(&mut made, PAGE + 4096, &properties(), 0)
        });
        let mut other = properties();
        other.location.id = 1;
        breaks(driver, "properties", |_| {
            sys::cuMemCreate(&mut made, PAGE, &other, 0)
        });
        breaks(driver, "reserving", |_| {
            sys::cuMemAddressReserve(&mut made, 4096, 0, 0, 0)
        });
        breaks(driver, "over a mapping", |raw| {
            sys::cuMemMap(raw.address + part, PAGE, 0, raw.handle, 0)
        });
        breaks(driver, "not reserved", |raw| {
            sys::cuMemMap(raw.address + 3 * part, 2 * PAGE, 0, raw.handle, 0)
        });
        breaks(driver, "mapping 4096 bytes", |raw| {
            sys::cuMemMap(raw.address + 2 * part, 4096, 0, raw.handle, 0)
        });
        breaks(driver, "no such handle", |raw| {
            let _first = sys::cuMemRelease(raw.handle);
            sys::cuMemRelease(raw.handle)
        });
        breaks(driver, "no such handle", |raw| {
            let _first = sys::cuMemRelease(raw.handle);
            sys::cuMemMap(raw.address + 2 * part, 2 * PAGE, 0, raw.handle, 0)
        });
        breaks(driver, "is no mapping", |raw| {
            sys::cuMemUnmap(raw.address, PAGE)
        });
        breaks(driver, "memory behind", |raw| {
            sys::cuMemAddressFree(raw.address, 4 * PAGE)
        });
        breaks(driver, "not reserved so", |raw| {
            sys::cuMemAddressFree(raw.address, 2 * PAGE)
        });
        breaks(driver, "no access", |raw| {
            let _mapped = sys::cuMemMap(raw.address + 2 * part, 2 * PAGE, 0, raw.handle, 0);
            sys::cuMemcpyAsync(raw.address + 2 * part, raw.address, 64, raw.stream)
        });
        breaks(driver, "nothing is mapped", |raw| {
            sys::cuMemcpyAsync(raw.address + 2 * part - 1, raw.address, 64, raw.stream)
        });
        breaks(driver, "over itself", |raw| {
            sys::cuMemcpyAsync(raw.address + 1, raw.address, 64, raw.stream)
        });
        breaks(driver, "of nothing", |raw| {
            sys::cuMemcpyAsync(raw.address + 1, raw.address, 0, raw.stream)
        });
        breaks(driver, "border of a registration", |raw| {
            let end = raw.host.as_ptr() as u64 + part - 1;
            sys::cuMemcpyAsync(raw.address, end, 64, raw.stream)
        });
        breaks(driver, "behind a copy", |raw| {
            let pageable = raw.host.as_ptr() as u64 + 2 * part;
            let _copied = sys::cuMemcpyAsync(raw.address, pageable, 64, raw.stream);
            sys::cuEventRecord(raw.event, raw.stream)
        });
        breaks(driver, "which a stream still uses", |raw| {
            copy(driver, raw);
            sys::cuMemUnmap(raw.address, 2 * PAGE)
        });
        breaks(driver, "which a stream still uses", |raw| {
            copy(driver, raw);
            sys::cuMemHostUnregister(raw.host.as_mut_ptr().cast())
        });
        breaks(driver, "not registered", |raw| {
            sys::cuMemHostUnregister(raw.host.as_mut_ptr().add(PAGE).cast())
        });
        breaks(driver, "no such stream", |raw| {
            let _destroyed = sys::cuStreamDestroy_v2(raw.stream);
            sys::cuStreamSynchronize(raw.stream)
        });
        breaks(driver, "no such event", |raw| {
            let _destroyed = sys::cuEventDestroy_v2(raw.event);
            sys::cuEventQuery(raw.event)
        });
        breaks(driver, "without a current context", |_| {
            let create = || sys::cuStreamCreate(&mut std::ptr::null_mut(), 1);
            std::thread::spawn(create).join().unwrap()
        });
        breaks(driver, "more often than retained", |_| {
            let _released = sys::cuDevicePrimaryCtxRelease_v2(0);
            sys::cuDevicePrimaryCtxRelease_v2(0)
        });
        for (to, words) in [(65, "what it writes"), (127, "two copies of a batch write")] {
            breaks(driver, words, |raw| {
                let mut targets = [128, to].map(|at| raw.address + at);
                let mut sources = [64, 256].map(|at| raw.address + at);
                let mut attributes: sys::CUmemcpyAttributes = std::mem::zeroed();
                attributes.srcAccessOrder =
                    sys::CUmemcpySrcAccessOrder::CU_MEMCPY_SRC_ACCESS_ORDER_STREAM;
                sys::cuMemcpyBatchAsync_v2(
                    targets.as_mut_ptr(),
                    sources.as_mut_ptr(),
                    [2, 2].as_mut_ptr(),
                    2,
                    &mut attributes,
                    &mut 0,
                    1,
                    raw.stream,
                )
            });
        }
        driver.start();
        let raw = &mut raw();
        let twice = sys::cuMemHostRegister_v2(raw.host.as_mut_ptr().cast(), 1, 3);
        assert_eq!(twice, CUresult::CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED);
        let mut more = 0;
        let most = sys::cuMemCreate(&mut more, 1024 * MIB as usize, &properties(), 0);
        assert_eq!(most, CUresult::CUDA_ERROR_OUT_OF_MEMORY);
        assert_eq!((driver.violations().len(), driver.refusals().len()), (0, 2));
    }
}

/// Work that is not done: from the host's memory to the device's.
fn copy(driver: &Simulated, raw: &Raw) {
    driver.pace(Pace::Held);
    // SAFETY: both are mapped, and as long.
    let copied =
        unsafe { sys::cuMemcpyAsync(raw.address, raw.host.as_ptr() as u64, PAGE, raw.stream) };
    assert_eq!(copied, CUresult::CUDA_SUCCESS);
}
