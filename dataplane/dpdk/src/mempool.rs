//! Pools of mbufs.

mod error;

use std::ffi::CString;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use genie_dpdk_sys::{self as sys, rte_mempool, rte_pktmbuf_extmem};
use nix::errno::Errno as Known;

pub use self::error::MempoolError;
use crate::external::memory::ExternalMemory;
use crate::{Burst, Eal, Errno, Mbuf, libraries};

/// What a pool is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MempoolConfig {
    /// Its name, unique in the process.
    pub name: String,
    /// How many mbufs. One less than a power of two uses memory best.
    pub mbufs: u32,
    /// Bytes of data that one mbuf holds, without the headroom. With it, 65535 at most.
    pub data_bytes: u16,
    /// Mbufs that each lcore keeps at hand, 512 at most.
    pub cache: u32,
    /// The NUMA node to take memory from, or any.
    pub numa_node: Option<u32>,
}

impl MempoolConfig {
    /// A pool of `mbufs` mbufs for `data_bytes` of data each, with small caches.
    pub fn new(name: impl Into<String>, mbufs: u32, data_bytes: u16) -> Self {
        Self {
            name: name.into(),
            mbufs,
            data_bytes,
            cache: if mbufs >= 1024 { 64 } else { 0 },
            numa_node: None,
        }
    }

    /// Bytes of external memory that a pool of this configuration needs.
    pub fn external_bytes(&self) -> usize {
        usize::from(self.element_bytes()) * self.mbufs as usize
    }

    /// What an mbuf's data takes there: whole cache lines, where 16 bits can say so.
    fn element_bytes(&self) -> u16 {
        let bytes = self.data_bytes.saturating_add(headroom());
        bytes.checked_next_multiple_of(64).unwrap_or(bytes)
    }

    fn node(&self) -> i32 {
        // Checked to fit.
        self.numa_node
            .map_or(sys::GENIE_SOCKET_ANY, |node| node as i32)
    }
}

/// A pool of mbufs of one size. Clones are handles of the same pool.
///
/// Invariant: the pool's memory is freed only when every mbuf of it is home; where the last handle
/// goes before, the pool stays for the rest of the process, unless it was [discarded](Self::discard).
///
/// <https://doc.dpdk.org/guides/prog_guide/mbuf_lib.html>
#[derive(Debug, Clone)]
pub struct Mempool(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    eal: Eal,
    pool: NonNull<rte_mempool>,
    config: MempoolConfig,
    /// Where the data lies, if not in the EAL's memory.
    memory: Option<ExternalMemory>,
    /// What is out will not come home, and nobody has it.
    discarded: AtomicBool,
}

// SAFETY: mempools made by `rte_pktmbuf_pool_create` may be used from any thread: their common ring
// is multi-producer and multi-consumer, and a cache is only touched by the lcore that owns it.
unsafe impl Send for Inner {}
// SAFETY: as above.
unsafe impl Sync for Inner {}

impl Mempool {
    /// Makes a pool.
    pub fn new(eal: &Eal, config: MempoolConfig) -> Result<Self, MempoolError> {
        let name = check(&config)?;
        let api = eal.api();
        let (name, room, node) = (name.as_ptr(), config.data_bytes + headroom(), config.node());
        // SAFETY: the EAL runs, the name is a C string that DPDK copies, the numbers were checked.
        let pool = unsafe {
            match eal.is_software_only() {
                true => {
                    api.genie_dpdk_pool_create_dense(name, config.mbufs, config.cache, room, node)
                }
                false => {
                    api.rte_pktmbuf_pool_create(name, config.mbufs, config.cache, 0, room, node)
                }
            }
        };
        Self::made(eal, pool, config, None)
    }

    /// Makes a pool whose mbufs have their data in `memory`, one behind the other, each taking
    /// [`MempoolConfig::external_bytes`]: for receiving into a device's memory, or into memory that
    /// other processes share. The mbufs themselves stay in the EAL's memory. The pool must be the
    /// only one that uses this memory, which it keeps.
    ///
    /// <https://doc.dpdk.org/api/rte__mbuf_8h.html>, `rte_pktmbuf_pool_create_extbuf`
    pub fn over_external(
        eal: &Eal,
        config: MempoolConfig,
        memory: ExternalMemory,
    ) -> Result<Self, MempoolError> {
        let name = check(&config)?;
        let element_bytes = config.element_bytes();
        if config.external_bytes() > memory.bytes() {
            return Err(MempoolError::ExternalTooSmall {
                mbufs: config.mbufs,
                element_bytes,
                bytes: memory.bytes(),
            });
        }
        let extent = rte_pktmbuf_extmem {
            buf_ptr: memory.start().as_ptr().cast(),
            buf_iova: ExternalMemory::device_address(memory.start()),
            buf_len: memory.bytes(),
            elt_size: element_bytes,
        };
        let api = eal.api();
        // SAFETY: as in `new`; the extent, which DPDK reads in the call, is registered memory that
        // the pool keeps, and has room for the mbufs.
        let pool = unsafe {
            api.rte_pktmbuf_pool_create_extbuf(
                name.as_ptr(),
                config.mbufs,
                config.cache,
                0,
                config.data_bytes + headroom(),
                config.node(),
                &extent,
                1,
            )
        };
        Self::made(eal, pool, config, Some(memory))
    }

    fn made(
        eal: &Eal,
        pool: *mut rte_mempool,
        config: MempoolConfig,
        memory: Option<ExternalMemory>,
    ) -> Result<Self, MempoolError> {
        let Some(pool) = NonNull::new(pool) else {
            let errno = Errno::last(eal.api());
            return Err(match errno.known() {
                Known::EEXIST => MempoolError::NameTaken(config.name),
                Known::ENOMEM | Known::ENOSPC => MempoolError::NoMemory(config.name),
                _ if libraries::is_missing("librte_mempool_") => MempoolError::NoDriver,
                _ => MempoolError::Other(errno),
            });
        };
        Ok(Self(Arc::new(Inner {
            eal: eal.clone(),
            pool,
            config,
            memory,
            discarded: AtomicBool::new(false),
        })))
    }

    /// One empty mbuf.
    pub fn alloc(&self) -> Result<Mbuf, MempoolError> {
        // SAFETY: the pool lives.
        let mbuf = unsafe { self.0.eal.api().genie_dpdk_mbuf_alloc(self.raw()) };
        // SAFETY: the mbuf is fresh from the pool: reset, with one reference, ours.
        NonNull::new(mbuf)
            .map(|mbuf| unsafe { Mbuf::from_raw(mbuf) })
            .ok_or(MempoolError::Exhausted { asked: 1 })
    }

    /// Adds `count` empty mbufs to `burst`, all or none.
    pub fn alloc_into(&self, burst: &mut Burst, count: usize) -> Result<(), MempoolError> {
        let room = burst.make_room();
        if count > room.len() {
            return Err(MempoolError::BurstFull {
                asked: count,
                room: room.len(),
            });
        }
        let asked = u32::try_from(count).unwrap_or(u32::MAX);
        // SAFETY: the pool lives, and `room` has at least `count` places for pointers.
        let failed = unsafe {
            let places = room.as_mut_ptr().cast();
            self.0
                .eal
                .api()
                .genie_dpdk_mbuf_alloc_bulk(self.raw(), places, asked)
        };
        if failed != 0 {
            return Err(MempoolError::Exhausted { asked: count });
        }
        // SAFETY: DPDK has filled `count` places with fresh mbufs that are ours.
        unsafe { burst.filled(count) };
        Ok(())
    }

    /// Lets the pool's memory go with its last handle, though mbufs may be out: a driver that failed
    /// to open a port (AF_XDP's) does not give back what it had taken.
    ///
    /// # Safety
    /// From now on no [`Mbuf`] of the pool exists, and no port that has it is open.
    pub unsafe fn discard(self) {
        self.0.discarded.store(true, Ordering::Release);
    }

    /// What it was made from.
    pub fn config(&self) -> &MempoolConfig {
        &self.0.config
    }

    /// Mbufs that are home, in the common ring or in a cache. Slow: it looks at every cache.
    pub fn available(&self) -> u32 {
        self.0.available()
    }

    /// Mbufs that are out: with the program or with a driver.
    pub fn in_use(&self) -> u32 {
        self.0.config.mbufs.saturating_sub(self.available())
    }

    pub(crate) fn raw(&self) -> *mut rte_mempool {
        self.0.pool.as_ptr()
    }
}

/// Bytes before the data of a fresh mbuf.
pub(crate) fn headroom() -> u16 {
    // 128 unless DPDK was built with another number, which is at most 16 bits wide.
    sys::GENIE_MBUF_HEADROOM as u16
}

fn check(config: &MempoolConfig) -> Result<CString, MempoolError> {
    let bad_name = || MempoolError::Name(config.name.clone());
    let bad = |what, value, expected| MempoolError::Value {
        what,
        value,
        expected,
    };
    let longest = sys::GENIE_POOL_NAME_MAX as usize - 1;
    if config.name.is_empty() || config.name.len() > longest {
        return Err(bad_name());
    }
    if config.mbufs == 0 {
        return Err(bad("mbufs", 0, "1 or more"));
    }
    if config.data_bytes == 0 || config.data_bytes > u16::MAX - headroom() {
        let expected = "1 to 65535 with the headroom";
        return Err(bad("data_bytes", config.data_bytes.into(), expected));
    }
    // DPDK flushes a cache at one and a half of its size, which the pool must be able to fill.
    let cache_max = sys::GENIE_POOL_CACHE_MAX;
    if config.cache > cache_max || u64::from(config.cache) * 3 > u64::from(config.mbufs) * 2 {
        let expected = "at most 512 and two thirds of the pool";
        return Err(bad("cache", config.cache, expected));
    }
    if let Some(node) = config.numa_node.filter(|&node| node > i32::MAX as u32) {
        return Err(bad("numa_node", node, "a NUMA node"));
    }
    CString::new(config.name.as_str()).map_err(|_| bad_name())
}

impl Inner {
    fn available(&self) -> u32 {
        // SAFETY: the pool lives; counting only reads.
        unsafe { self.eal.api().rte_mempool_avail_count(self.pool.as_ptr()) }
    }

    /// Whether every mbuf is home. Seen twice, since an lcore that has just counted an mbuf into
    /// its cache may still be writing the pointer.
    fn complete(&self) -> bool {
        self.available() == self.config.mbufs && {
            std::thread::sleep(Duration::from_millis(1));
            self.available() == self.config.mbufs
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if *self.discarded.get_mut() || self.complete() {
            // SAFETY: this is the last handle, no port keeps one, and every mbuf is home, or, where
            // the pool was discarded, out of everybody's reach.
            unsafe { self.eal.api().rte_mempool_free(self.pool.as_ptr()) };
        } else {
            let out = self.config.mbufs - self.available().min(self.config.mbufs);
            tracing::warn!(pool = %self.config.name, out, "mempool dropped with mbufs out; kept");
            std::mem::forget((self.eal.clone(), self.memory.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{MempoolConfig, MempoolError, check};

    #[test]
    fn a_configuration_out_of_bounds_is_refused() {
        let good = MempoolConfig::new("pool", 1023, 2048);
        assert!(check(&good).is_ok());
        let named = |name: &str| MempoolConfig {
            name: name.into(),
            ..good.clone()
        };
        for name in ["", "a\0b", "a name of more than 25 byte"] {
            assert!(matches!(check(&named(name)), Err(MempoolError::Name(_))));
        }
        let value = |config: MempoolConfig| match check(&config) {
            Err(MempoolError::Value { what, .. }) => what,
            other => panic!("{other:?}"),
        };
        assert_eq!(
            value(MempoolConfig {
                mbufs: 0,
                ..good.clone()
            }),
            "mbufs"
        );
        assert_eq!(
            value(MempoolConfig {
                data_bytes: 65500,
                ..good.clone()
            }),
            "data_bytes"
        );
        assert_eq!(
            value(MempoolConfig {
                cache: 700,
                ..good.clone()
            }),
            "cache"
        );
        assert_eq!(
            value(MempoolConfig {
                numa_node: Some(u32::MAX),
                ..good
            }),
            "numa_node"
        );
    }
}
