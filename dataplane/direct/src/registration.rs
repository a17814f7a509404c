//! A device of ours as one of DPDK's gpudev.
//!
//! `rte_gpu_mem_alloc` takes places of a [`Pool`], so DPDK's users and ours share the memory's
//! books; `rte_gpu_mem_register` registers host memory with the device. A host device maps its
//! memory for the CPU and has a write barrier. A CUDA device has neither: its memory would need
//! gdrcopy to be mapped, and DPDK then keeps its communication lists in host memory.
//!
//! Pages followed: <https://doc.dpdk.org/guides/prog_guide/gpudev.html>,
//! <https://doc.dpdk.org/api/rte__gpudev_8h.html>.

use std::collections::HashMap;
use std::ffi::{CString, c_int, c_uint, c_void};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use genie_dpdk::Eal;
use genie_dpdk_sys::LoadError;
use genie_dpdk_sys::gpudev::{self, GpuApi, rte_gpu};
use genie_gpudev::device::{Device, DeviceKind, Memory};
use genie_gpudev::pool::{Pool, PoolError};

/// Alignment of every place in a pool, in bytes.
const PLACE_ALIGNMENT: u64 = 64;

/// gpudev's own functions may run on one thread at a time.
static GPUDEV: Mutex<()> = Mutex::new(());

/// Why a device could not be registered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegistrationError {
    /// librte_gpudev is not there.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// It has this device already, or no room for another.
    #[error("DPDK's gpudev does not take {0}: it is registered already, or 32 others are")]
    Refused(DeviceKind),
    /// The pool is of another device.
    #[error("a pool of {pool} is no memory for {device}")]
    OtherDevice {
        /// Of the pool.
        pool: DeviceKind,
        /// That was to be registered.
        device: DeviceKind,
    },
}

/// What the operations work on.
struct State {
    device: Arc<dyn Device>,
    pool: Arc<Mutex<Pool>>,
    books: Mutex<Books>,
    closed: AtomicBool,
}

#[derive(Default)]
struct Books {
    /// Places that DPDK has, by the address that it was given.
    places: HashMap<u64, u64>,
    /// Host memory that DPDK registered, by its start.
    registered: HashMap<u64, Memory>,
}

/// A device that `rte_gpu_*` sees. Taken out again when dropped; what DPDK's users still had of it
/// goes with it.
pub struct Registration {
    api: &'static GpuApi,
    id: i16,
    state: Arc<State>,
    /// gpudev's own memory is the EAL's.
    _eal: Eal,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Registration {
    /// Registers a device, whose `rte_gpu_mem_alloc` takes places of `pool`. DPDK calls it
    /// `genie_host_0`, `genie_cuda_0` and so on.
    ///
    /// # Errors
    /// No librte_gpudev; registered already; another device's pool.
    pub fn new(
        eal: &Eal,
        device: Arc<dyn Device>,
        pool: Arc<Mutex<Pool>>,
    ) -> Result<Self, RegistrationError> {
        let api = gpudev::load()?;
        let info = device.info();
        let owner = locked(&pool).device();
        if owner != info.kind {
            let (pool, device) = (owner, info.kind);
            return Err(RegistrationError::OtherDevice { pool, device });
        }
        let refused = RegistrationError::Refused(info.kind);
        let name = CString::new(format!("genie_{}", info.kind.to_string().replace(':', "_")))
            .map_err(|_| refused.clone())?;
        let state = Arc::new(State {
            device,
            pool,
            books: Mutex::default(),
            closed: AtomicBool::new(false),
        });
        let _alone = locked(&GPUDEV);
        // SAFETY: the EAL runs; the name is a C string that DPDK copies; nobody else is inside
        // gpudev (`GPUDEV`).
        let gpu = NonNull::new(unsafe { api.rte_gpu_allocate(name.as_ptr()) }).ok_or(refused)?;
        // SAFETY: DPDK has just allocated the device and its shared part for this driver to fill,
        // and nobody knows of them before `rte_gpu_complete_new`. Its memory is from `calloc`, less
        // aligned than its type says, so it is never looked at as a whole.
        let id = unsafe {
            let gpu = gpu.as_ptr();
            let mpshared = (&raw const (*gpu).mpshared).read();
            let shared = &mut (*mpshared).info;
            shared.parent = gpudev::GENIE_GPU_ID_NONE;
            shared.processor_count = info.processors;
            shared.total_memory = usize::try_from(info.memory_bytes).unwrap_or(usize::MAX);
            shared.page_size = usize::try_from(info.page_bytes).unwrap_or(4096);
            shared.numa_node = -1;
            let ops = &raw mut (*gpu).ops;
            let ops = &mut *ops;
            ops.dev_close = Some(dev_close);
            ops.mem_alloc = Some(mem_alloc);
            ops.mem_free = Some(mem_free);
            ops.mem_register = Some(mem_register);
            ops.mem_unregister = Some(mem_unregister);
            if matches!(info.kind, DeviceKind::Host(_)) {
                ops.mem_cpu_map = Some(mem_cpu_map);
                ops.mem_cpu_unmap = Some(mem_cpu_unmap);
                ops.wmb = Some(wmb);
            }
            // One count is gpudev's, until `dev_close`.
            let private = Arc::into_raw(Arc::clone(&state)).cast_mut().cast();
            (&raw mut (*gpu).process_private).write(private);
            api.rte_gpu_complete_new(gpu);
            (*mpshared).info.dev_id
        };
        Ok(Self {
            api,
            id,
            state,
            _eal: eal.clone(),
        })
    }

    /// The device's number in `rte_gpu_*`.
    #[must_use]
    pub fn id(&self) -> i16 {
        self.id
    }

    /// Places of the pool that DPDK's users have.
    #[must_use]
    pub fn places(&self) -> usize {
        locked(&self.state.books).places.len()
    }

    /// Ranges of host memory that DPDK's users have registered.
    #[must_use]
    pub fn registered(&self) -> usize {
        locked(&self.state.books).registered.len()
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        if self.state.closed.load(Ordering::Acquire) {
            return;
        }
        let _alone = locked(&GPUDEV);
        // SAFETY: the device was registered under this number and not closed since; nobody else is
        // inside gpudev.
        let result = unsafe { self.api.rte_gpu_close(self.id) };
        if result < 0 {
            tracing::warn!(id = self.id, result, "DPDK does not close a device");
        }
    }
}

impl State {
    /// The state of a device of ours.
    ///
    /// # Safety
    /// `gpu` is a device that `Registration::new` filled and that is not closed.
    unsafe fn of<'a>(gpu: *mut rte_gpu) -> &'a State {
        // SAFETY: the caller vouches for the device, which holds one count of the state.
        unsafe { &*private_of(gpu) }
    }

    fn allocate(&self, size: usize, align: c_uint) -> Result<u64, c_int> {
        let align = u64::from(align.max(1));
        let size = u64::try_from(size).map_err(|_| -libc::E2BIG)?;
        // The pool aligns to a cache line: more is found inside a larger place.
        let extra = if align > PLACE_ALIGNMENT { align } else { 0 };
        let asked = size.checked_add(extra).ok_or(-libc::E2BIG)?;
        let mut pool = locked(&self.pool);
        let place = pool.allocate(asked).map_err(|_| -libc::ENOMEM)?;
        // What DPDK knows the address of can't move.
        if pool.pin(place).is_err() {
            return Err(-libc::EFAULT);
        }
        let address = (pool.memory().address() + place).next_multiple_of(align);
        locked(&self.books).places.insert(address, place);
        Ok(address)
    }

    fn free(&self, address: u64) -> Result<(), c_int> {
        let place = locked(&self.books).places.remove(&address);
        let place = place.ok_or(-libc::EINVAL)?;
        let mut pool = locked(&self.pool);
        let freed: Result<(), PoolError> = pool.unpin(place).and_then(|()| pool.free(place));
        freed.map_err(|_| -libc::EFAULT)
    }

    /// Where the CPU reaches device memory.
    fn map(&self, address: u64, size: usize) -> Result<*mut c_void, c_int> {
        let memory = locked(&self.pool).memory().clone();
        let offset = address.checked_sub(memory.address()).ok_or(-libc::EINVAL)?;
        let mapped = memory.host_at(offset, size as u64);
        mapped
            .map(|at| at.as_ptr().cast())
            .map_err(|_| -libc::EINVAL)
    }
}

fn code(result: Result<(), c_int>) -> c_int {
    result.err().unwrap_or(0)
}

/// # Safety
/// `gpu` is a device of ours. It need not be as aligned as its type says: DPDK has it from `calloc`.
unsafe fn private_of(gpu: *mut rte_gpu) -> *const State {
    // SAFETY: as the caller says; a pointer is aligned there.
    unsafe { (&raw const (*gpu).process_private).read() }
        .cast_const()
        .cast()
}

unsafe extern "C" fn dev_close(gpu: *mut rte_gpu) -> c_int {
    // SAFETY: gpudev closes a device once, and this count was given to it by `Registration::new`.
    let state = unsafe { Arc::from_raw(private_of(gpu)) };
    state.closed.store(true, Ordering::Release);
    let books = std::mem::take(&mut *locked(&state.books));
    let mut pool = locked(&state.pool);
    for place in books.places.into_values() {
        let freed = pool.unpin(place).and_then(|()| pool.free(place));
        if let Err(error) = freed {
            tracing::warn!(%error, "DPDK's place in a pool is lost");
        }
    }
    0
}

unsafe extern "C" fn mem_alloc(
    gpu: *mut rte_gpu,
    size: usize,
    align: c_uint,
    place: *mut *mut c_void,
) -> c_int {
    // SAFETY: gpudev calls with a device of ours and a place for the result.
    let (state, place) = unsafe { (State::of(gpu), &mut *place) };
    code(
        state
            .allocate(size, align)
            .map(|address| *place = address as *mut c_void),
    )
}

unsafe extern "C" fn mem_free(gpu: *mut rte_gpu, address: *mut c_void) -> c_int {
    // SAFETY: gpudev calls with a device of ours.
    let state = unsafe { State::of(gpu) };
    code(state.free(address as u64))
}

unsafe extern "C" fn mem_register(gpu: *mut rte_gpu, size: usize, address: *mut c_void) -> c_int {
    // SAFETY: gpudev calls with a device of ours.
    let state = unsafe { State::of(gpu) };
    let Some(start) = NonNull::new(address.cast::<u8>()) else {
        return -libc::EINVAL;
    };
    // SAFETY: who calls `rte_gpu_mem_register` keeps the memory until it is unregistered, which
    // gpudev demands.
    let registered = unsafe { state.device.register(start, size as u64) };
    let registered = registered.map(|memory| {
        locked(&state.books)
            .registered
            .insert(address as u64, memory);
    });
    code(registered.map_err(|_| -libc::EINVAL))
}

unsafe extern "C" fn mem_unregister(gpu: *mut rte_gpu, address: *mut c_void) -> c_int {
    // SAFETY: gpudev calls with a device of ours.
    let state = unsafe { State::of(gpu) };
    let removed = locked(&state.books).registered.remove(&(address as u64));
    if removed.is_some() { 0 } else { -libc::EINVAL }
}

unsafe extern "C" fn mem_cpu_map(
    gpu: *mut rte_gpu,
    size: usize,
    address: *mut c_void,
    mapped: *mut *mut c_void,
) -> c_int {
    // SAFETY: gpudev calls with a device of ours and a place for the result.
    let (state, mapped) = unsafe { (State::of(gpu), &mut *mapped) };
    code(state.map(address as u64, size).map(|at| *mapped = at))
}

/// The mapping is the memory itself.
unsafe extern "C" fn mem_cpu_unmap(_gpu: *mut rte_gpu, _mapped: *mut c_void) -> c_int {
    0
}

unsafe extern "C" fn wmb(_gpu: *mut rte_gpu) -> c_int {
    fence(Ordering::SeqCst);
    0
}
