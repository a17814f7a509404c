//! What a frame over memif costs in CPU time, with both ends on one thread: numbers that a busy
//! machine does not spoil, as it spoils those of `memif_rate`.
//!
//! `cargo run --release -p genie-dpdk --example memif_cost -- [FRAME_BYTES]`

use std::error::Error;
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::Duration;

use genie_dpdk::{
    Burst, Eal, EalOptions, ExternalMemory, ExternalSlab, Lcore, Memif, MemifRole, Mempool,
    MempoolConfig, OpenPort, Port, PortConfig, Vdev, allowed_cores,
};
use nix::libc;

type Outcome<T> = Result<T, Box<dyn Error>>;

const HEADER_BYTES: usize = 64;
const SOURCE_BYTES: usize = 64 << 20;
const PAGE_BYTES: usize = 4096;
const BURSTS: usize = 2000;
const POLLS: usize = 2_000_000;

/// CPU time of this thread, by which `work` took longer.
fn cpu(work: impl FnOnce() -> Outcome<()>) -> Outcome<Duration> {
    let start = thread_time();
    work()?;
    Ok(thread_time() - start)
}

fn thread_time() -> Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: writes the time into `time`.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn main() -> Outcome<()> {
    let bytes: usize = std::env::args()
        .nth(1)
        .map_or(Ok(8192), |word| word.parse())?;
    if genie_dpdk::is_built().is_err() {
        println!("skipped: built without DPDK");
        return Ok(());
    }
    let folder = std::env::temp_dir().join(format!("genie-cost-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let eal = Eal::start(EalOptions::anywhere(512).validate()?)?;
    let _lcore = Lcore::claim(&eal, *allowed_cores().first().ok_or("no core")?)?;
    for ring_log2 in [7, 8, 9, 10, 12] {
        let socket = folder.join(format!("{ring_log2}.sock"));
        let memif = |role| Memif {
            ring_log2,
            ..Memif::new(role, socket.clone()).jumbo()
        };
        let name = |end: &str| format!("{end}{ring_log2}");
        let data_bytes = memif(MemifRole::Server).data_bytes();
        let pool = |end: &str, data_bytes| {
            let config = MempoolConfig {
                cache: 256,
                ..MempoolConfig::new(name(end), 4095, data_bytes)
            };
            Mempool::new(&eal, config)
        };
        let (ours, theirs, carriers) = (
            pool("ours", data_bytes)?,
            pool("theirs", data_bytes)?,
            pool("carriers", 64)?,
        );
        let open = |role, pool: &Mempool| {
            let vdev = Vdev::Memif(memif(role)).into();
            Port::open(&eal, &vdev, &PortConfig::default(), pool)
        };
        let mut server = open(MemifRole::Server, &ours)?;
        let mut client = open(MemifRole::Client, &theirs)?;
        if !client.port.wait_for_link(Duration::from_secs(5))? {
            return Err("no link".into());
        }
        let owner = Arc::new(vec![0xa5_u8; SOURCE_BYTES + PAGE_BYTES]);
        let start = NonNull::from(&owner[0]);
        // SAFETY: the vector is a page longer than the range.
        let start = unsafe { start.byte_add(start.align_offset(PAGE_BYTES)) };
        // SAFETY: the vector is never written to again, and is kept as the range's owner.
        let memory =
            unsafe { ExternalMemory::register(&eal, start, SOURCE_BYTES, PAGE_BYTES, owner) }?;
        let slab = ExternalSlab::new(&memory, 0..SOURCE_BYTES).ok_or("no such range")?;
        for (how, attached) in [("plain", false), ("attached", true)] {
            let mut place = 0;
            let mut make = |burst: &mut Burst| -> Outcome<()> {
                ours.alloc_into(burst, 32)?;
                for mbuf in burst.as_mut_slice() {
                    if !attached {
                        mbuf.append(bytes)?;
                        continue;
                    }
                    mbuf.append(HEADER_BYTES)?;
                    if place + bytes > SOURCE_BYTES {
                        place = 0;
                    }
                    let range = place..place + bytes - HEADER_BYTES;
                    place = range.end;
                    mbuf.attach(carriers.alloc()?, &slab, range)?;
                }
                Ok(())
            };
            let making = cpu(|| {
                let mut burst = Burst::new();
                (0..BURSTS).try_for_each(|_| {
                    make(&mut burst)?;
                    burst.clear();
                    Ok(())
                })
            })?;
            let all = cpu(|| exchange(&mut server, &mut client, &mut make))?;
            let frame = |time: Duration| time.as_nanos() as f64 / (BURSTS * 32) as f64;
            println!(
                "ring 2^{ring_log2} {how}: {:.0} ns a frame for both ends ({:.0} ns of it to make \
                 and free it), {:.1} Gbit/s of a core",
                frame(all),
                frame(making),
                bytes as f64 * 8.0 / frame(all)
            );
        }
        let mut burst = Burst::new();
        let idle = cpu(|| {
            (0..POLLS).for_each(|_| {
                server.rx[0].receive(&mut burst);
            });
            Ok(())
        })?;
        drop(client);
        let absent = Port::open(
            &eal,
            &Vdev::Memif(Memif::new(MemifRole::Client, folder.join("absent")).jumbo()).into(),
            &PortConfig::default(),
            &theirs,
        );
        let mut absent = absent?;
        let gate = cpu(|| {
            (0..POLLS).for_each(|_| {
                absent.rx[0].receive(&mut burst);
            });
            Ok(())
        })?;
        println!(
            "ring 2^{ring_log2}: an empty poll {:.1} ns, of which the gate {:.1} ns",
            idle.as_nanos() as f64 / POLLS as f64,
            gate.as_nanos() as f64 / POLLS as f64
        );
    }
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}

/// Sends and receives on this thread.
fn exchange(
    from: &mut OpenPort,
    to: &mut OpenPort,
    make: &mut impl FnMut(&mut Burst) -> Outcome<()>,
) -> Outcome<()> {
    let (mut out, mut back) = (Burst::new(), Burst::new());
    for _ in 0..BURSTS {
        make(&mut out)?;
        // A client makes room for its server when it receives.
        let mut seen = 0;
        while seen < 32 {
            from.tx[0].send(&mut out);
            seen += to.rx[0].receive(&mut back);
            back.clear();
        }
    }
    Ok(())
}
