//! The memory of a session's tensors: counted against its budget, temporaries of kernels
//! included. Large blocks come from the outbound arena, so that a result is sent from where it was
//! computed; where that is full, from mappings with a small cache, because new pages are slow. A
//! device whose memory the CPU can't reach has libtorch's own allocator, and its results are copied
//! into the outbound pool on the device.
//!
//! libtorch calls in from any of its threads. There is one session in a process.

use std::alloc::Layout;
use std::ffi::c_void;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use genie_shm::Word;

use crate::places::{Outbound, OutboundStats};

/// Blocks at least this large are mapped, and cached when freed.
const MAPPED_BYTES: usize = 1 << 20;
/// Mapped blocks at least this large ask for huge pages.
const HUGE_BYTES: usize = 4 << 20;
const HUGE_PAGE_BYTES: usize = 2 << 20;
/// Free blocks that are kept.
const CACHE_BYTES: usize = 256 << 20;
const CACHE_BLOCKS: usize = 64;
/// Before every block: its size. Keeps the block aligned to a cache line.
const HEADER_BYTES: usize = 64;

/// Of the outbound memory, what tensors may not take: answers that are copied need room too.
const OUTBOUND_RESERVE: u64 = 4;
/// Released places that are reported although the device has not been waited for, by their bytes
/// and by their number.
const RELEASED_BYTES: u64 = 64 << 20;
const RELEASED_PLACES: usize = 256;

/// How often, and how long apart, to look whether others gave memory of the node back: executors tell
/// of it at most every 100 ms.
const ALLOWANCE_LOOKS: u32 = 10;
const ALLOWANCE_WAIT: Duration = Duration::from_millis(20);

/// The outbound memory, once the session has one.
static OUTBOUND: Mutex<Option<Outbound>> = Mutex::new(None);
static USED: AtomicU64 = AtomicU64::new(0);
static LIMIT: AtomicU64 = AtomicU64::new(u64::MAX);
/// What the node leaves this session, as the daemon says.
static ALLOWANCE: OnceLock<Word> = OnceLock::new();
static CACHE: Mutex<Cache> = Mutex::new(Cache {
    blocks: Vec::new(),
    bytes: 0,
});
/// Inbound places that are free again and not reported yet.
static RELEASED: Mutex<Released> = Mutex::new(Released {
    places: Vec::new(),
    bytes: 0,
});

struct Released {
    places: Vec<u64>,
    bytes: u64,
}

/// Large blocks come from `outbound` from now on.
pub fn set_outbound(outbound: Outbound) {
    *locked(&OUTBOUND) = Some(outbound);
}

fn with_outbound<R>(body: impl FnOnce(&mut Outbound) -> R) -> Option<R> {
    locked(&OUTBOUND).as_mut().map(body)
}

/// A place of the outbound memory.
pub fn outbound_allocate(bytes: u64) -> Option<u64> {
    with_outbound(|outbound| outbound.allocate(bytes)).flatten()
}

/// Gives one back. False where nothing is allocated there.
pub fn outbound_free(place: u64) -> bool {
    with_outbound(|outbound| outbound.free(place)).unwrap_or(false)
}

/// The device's address of `bytes` bytes at a place of it.
pub fn outbound_address(place: u64, bytes: u64) -> Option<NonNull<u8>> {
    let address = with_outbound(|outbound| outbound.address(place, bytes)).flatten()?;
    NonNull::new(address as *mut u8)
}

/// How full it is.
pub fn outbound_stats() -> OutboundStats {
    with_outbound(|outbound| outbound.stats()).unwrap_or_default()
}

/// Where in it `address` lies, if it does.
pub fn outbound_place(address: usize) -> Option<u64> {
    with_outbound(|outbound| outbound.place_of(address as u64)).flatten()
}

/// A large block of the outbound memory for the CPU, if it has room beside the reserve.
fn outbound_take(bytes: usize) -> Option<NonNull<u8>> {
    with_outbound(|outbound| {
        if !outbound.is_cpu() {
            return None;
        }
        let stats = outbound.stats();
        let room = stats.capacity - stats.capacity / OUTBOUND_RESERVE;
        if stats.taken.saturating_add(bytes as u64) > room {
            return None;
        }
        let place = outbound.allocate(bytes as u64)?;
        NonNull::new(outbound.address(place, bytes as u64)? as *mut u8)
    })
    .flatten()
}

/// Sets the budget in bytes.
pub fn set_limit(bytes: u64) {
    LIMIT.store(bytes, Ordering::Relaxed);
}

/// The daemon says at `word` what the node leaves this session.
pub fn set_allowance(word: Word) {
    // Once, at the start.
    let _ = ALLOWANCE.set(word);
}

/// One more operator begins: the daemon sees that the one before has ended.
pub fn count_operator() {
    if let Some(word) = ALLOWANCE.get() {
        word.count();
    }
}

/// Bytes in use.
pub fn used() -> u64 {
    USED.load(Ordering::Relaxed)
}

/// The budget: the session's own, or what the node leaves it, if that is less.
pub fn limit() -> u64 {
    let allowance = ALLOWANCE.get().map_or(u64::MAX, Word::get);
    LIMIT.load(Ordering::Relaxed).min(allowance)
}

/// Counts `bytes` more. False, and nothing counted, if that is past the budget.
pub fn charge(bytes: u64) -> bool {
    if try_charge(bytes) {
        return true;
    }
    let own = LIMIT.load(Ordering::Relaxed);
    if used().saturating_add(bytes) > own {
        return false;
    }
    // The node has no more. Others may have given some back, and the daemon not know it yet.
    (0..ALLOWANCE_LOOKS).any(|_| {
        std::thread::sleep(ALLOWANCE_WAIT);
        try_charge(bytes)
    })
}

fn try_charge(bytes: u64) -> bool {
    let limit = limit();
    USED.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
        used.checked_add(bytes).filter(|&used| used <= limit)
    })
    .is_ok()
}

/// Counts `bytes` less.
pub fn discharge(bytes: u64) {
    USED.fetch_sub(bytes, Ordering::Relaxed);
}

/// Inbound `place`, of which `bytes` bytes were counted, is not needed any more, once the device
/// has done what it was told before.
pub fn release_place(place: u64, bytes: u64) {
    discharge(bytes);
    let mut released = locked(&RELEASED);
    released.places.push(place);
    released.bytes += bytes;
}

/// Whether to tell of inbound places that became free since the last time: `now`, if there are any;
/// else once they are so many that the device should be waited for.
pub fn release_is_due(now: bool) -> bool {
    let released = locked(&RELEASED);
    let many = released.bytes >= RELEASED_BYTES || released.places.len() >= RELEASED_PLACES;
    many || (now && !released.places.is_empty())
}

/// Takes the inbound places that became free since the last time.
pub fn take_released(into: &mut Vec<u64>) {
    let mut released = locked(&RELEASED);
    released.bytes = 0;
    into.append(&mut released.places);
}

/// Gives cached blocks back to the system. For a session that is idle.
pub fn trim() {
    locked(&CACHE).shrink(0);
    with_outbound(Outbound::trim);
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What stands before a block.
#[repr(C)]
struct Header {
    /// As asked for, which is what the budget counts.
    bytes: u64,
    /// Of the whole block, header included.
    capacity: usize,
}

/// Mapped blocks that are free, the oldest first.
struct Cache {
    blocks: Vec<(NonNull<u8>, usize)>,
    bytes: usize,
}

// SAFETY: the blocks are plain memory that belongs to the cache alone.
unsafe impl Send for Cache {}

impl Cache {
    /// A block of at least `capacity` bytes, and not much more.
    fn take(&mut self, capacity: usize) -> Option<(NonNull<u8>, usize)> {
        let fits =
            |&&(_, has): &&(NonNull<u8>, usize)| has >= capacity && has - capacity <= capacity / 8;
        let (block, _) = self
            .blocks
            .iter()
            .filter(fits)
            .min_by_key(|(_, has)| *has)?;
        let at = self.blocks.iter().position(|(other, _)| other == block)?;
        let (block, has) = self.blocks.remove(at);
        self.bytes -= has;
        Some((block, has))
    }

    fn put(&mut self, block: NonNull<u8>, capacity: usize) {
        self.blocks.push((block, capacity));
        self.bytes += capacity;
        self.shrink(CACHE_BYTES);
    }

    fn shrink(&mut self, max: usize) {
        while self.bytes > max || self.blocks.len() > CACHE_BLOCKS {
            let (block, capacity) = self.blocks.remove(0);
            self.bytes -= capacity;
            unmap(block, capacity);
        }
    }
}

fn map(capacity: usize) -> Option<NonNull<u8>> {
    // SAFETY: a new mapping at an address of the kernel's choice touches no memory in use.
    let raw = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            capacity,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
            -1,
            0,
        )
    };
    if raw == libc::MAP_FAILED {
        return None;
    }
    if capacity >= HUGE_BYTES {
        // SAFETY: the range was just mapped; the call is only advice.
        unsafe { libc::madvise(raw, capacity, libc::MADV_HUGEPAGE) };
    }
    NonNull::new(raw.cast())
}

fn unmap(block: NonNull<u8>, capacity: usize) {
    // SAFETY: the block was mapped by `map` with this capacity and is nobody's any more.
    unsafe { libc::munmap(block.as_ptr().cast(), capacity) };
}

fn small_layout(capacity: usize) -> Option<Layout> {
    Layout::from_size_align(capacity, HEADER_BYTES).ok()
}

fn allocate(bytes: usize) -> Option<NonNull<u8>> {
    let total = bytes
        .checked_add(HEADER_BYTES)
        .filter(|&total| total < isize::MAX as usize / 2)?;
    if !charge(bytes as u64) {
        return None;
    }
    let block = if total >= MAPPED_BYTES {
        let page = if total >= HUGE_BYTES {
            HUGE_PAGE_BYTES
        } else {
            4096
        };
        let capacity = total.next_multiple_of(page);
        if let Some(block) = outbound_take(total) {
            return Some(headed(block, bytes, total));
        }
        // The lock is gone before the kernel is asked.
        let cached = locked(&CACHE).take(capacity);
        cached.or_else(|| map(capacity).map(|block| (block, capacity)))
    } else {
        small_layout(total).and_then(|layout| {
            // SAFETY: the size is at least that of the header, not zero.
            NonNull::new(unsafe { std::alloc::alloc(layout) }).map(|block| (block, total))
        })
    };
    let Some((block, capacity)) = block else {
        discharge(bytes as u64);
        return None;
    };
    Some(headed(block, bytes, capacity))
}

/// Writes the header of a block; gives what comes after it.
fn headed(block: NonNull<u8>, bytes: usize, capacity: usize) -> NonNull<u8> {
    // SAFETY: the block was just allocated with `capacity` bytes, which is the header and `bytes`
    // after it, and is aligned to 64.
    unsafe {
        block.cast::<Header>().write(Header {
            bytes: bytes as u64,
            capacity,
        });
        block.add(HEADER_BYTES)
    }
}

/// Memory for libtorch, aligned to 64; null past the budget or without memory.
#[unsafe(no_mangle)]
extern "C" fn genie_memory_allocate(bytes: usize) -> *mut c_void {
    allocate(bytes).map_or(std::ptr::null_mut(), |block| block.as_ptr().cast())
}

/// Frees what `genie_memory_allocate` gave; null is ignored.
#[unsafe(no_mangle)]
extern "C" fn genie_memory_free(data: *mut c_void) {
    let Some(data) = NonNull::new(data.cast::<u8>()) else {
        return;
    };
    // SAFETY: `data` is a block of `allocate`, with its header before it.
    let (block, header) = unsafe {
        let block = data.sub(HEADER_BYTES);
        (block, block.cast::<Header>().read())
    };
    discharge(header.bytes);
    if header.capacity >= MAPPED_BYTES
        && let Some(place) = outbound_place(block.as_ptr() as usize)
    {
        if !outbound_free(place) {
            tracing::error!(place, "a block of the outbound memory was freed twice");
        }
        return;
    }
    if header.capacity >= MAPPED_BYTES {
        locked(&CACHE).put(block, header.capacity);
    } else if let Some(layout) = small_layout(header.capacity) {
        // SAFETY: allocated with this layout, freed once.
        unsafe { std::alloc::dealloc(block.as_ptr(), layout) };
    }
}

/// Bytes in use and the budget.
///
/// # Safety
/// Both places may be written.
#[unsafe(no_mangle)]
unsafe extern "C" fn genie_memory_state(used_bytes: *mut u64, limit_bytes: *mut u64) {
    // SAFETY: the caller vouches for them.
    unsafe {
        used_bytes.write(used());
        limit_bytes.write(limit());
    }
}

/// The `bytes` bytes at inbound `place` are not needed any more.
#[unsafe(no_mangle)]
extern "C" fn genie_place_release(place: u64, bytes: u64) {
    release_place(place, bytes);
}
