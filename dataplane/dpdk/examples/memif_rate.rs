//! Frames a second over memif between two processes, each polling on a core of its own.
//!
//! `cargo run --release -p genie-dpdk --example memif_rate -- [FRAME_BYTES] [SECONDS] [HOW]
//! [RING_LOG2]`
//!
//! HOW is `plain` (the default), frames of one mbuf, or `attached`: 64 bytes of header in an mbuf,
//! and the rest sent from where it lies in 64 MiB of memory. Like testpmd's `txonly` and `rxonly`,
//! the sender does not write the payload and the receiver does not read it: this is the link's own
//! speed.

use std::error::Error;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use genie_dpdk::{
    Burst, Eal, EalOptions, ExternalMemory, ExternalSlab, Lcore, Mbuf, Memif, MemifRole, Mempool,
    MempoolConfig, OpenPort, Port, PortConfig, Vdev, allowed_cores,
};

type Outcome<T> = Result<T, Box<dyn Error>>;

const RECEIVER: &str = "--receiver";

const HEADER_BYTES: usize = 64;
const SOURCE_BYTES: usize = 64 << 20;
const PAGE_BYTES: usize = 4096;

/// What is measured.
struct Plan {
    bytes: usize,
    seconds: f64,
    attached: bool,
    ring_log2: u8,
}

fn main() -> Outcome<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let word = |place: usize| words.get(place).map(String::as_str);
    if word(0) == Some(RECEIVER) {
        let socket = word(1).ok_or("no socket")?;
        let ring_log2 = word(3).ok_or("no ring")?.parse()?;
        return receive(
            Path::new(socket),
            word(2).ok_or("no time")?.parse()?,
            ring_log2,
        );
    }
    let plan = Plan {
        bytes: word(0).unwrap_or("8192").parse()?,
        seconds: word(1).unwrap_or("3").parse()?,
        attached: match word(2).unwrap_or("plain") {
            "plain" => false,
            "attached" => true,
            other => return Err(format!("{other} is neither plain nor attached").into()),
        },
        ring_log2: word(3).unwrap_or("8").parse()?,
    };
    if genie_dpdk::is_built().is_err() {
        println!("skipped: built without DPDK");
        return Ok(());
    }
    let folder = std::env::temp_dir().join(format!("genie-rate-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let result = send(&folder.join("link.sock"), &plan);
    std::fs::remove_dir_all(&folder)?;
    result
}

/// One end of the link.
fn end(role: MemifRole, socket: &Path, ring_log2: u8) -> Outcome<(Eal, Mempool, OpenPort)> {
    let eal = Eal::start(EalOptions::anywhere(256).validate()?)?;
    let memif = Memif {
        ring_log2,
        ..Memif::new(role, socket).jumbo()
    };
    let config = MempoolConfig {
        cache: 256,
        ..MempoolConfig::new("rate", 4095, memif.data_bytes())
    };
    let pool = Mempool::new(&eal, config)?;
    let vdev = Vdev::Memif(memif).into();
    let opened = Port::open(&eal, &vdev, &PortConfig::default(), &pool)?;
    Ok((eal, pool, opened))
}

/// Makes frames whose payload lies in memory of its own.
struct Attached {
    carriers: Mempool,
    slab: ExternalSlab,
    next: usize,
}

impl Attached {
    fn new(eal: &Eal) -> Outcome<Self> {
        let owner = Arc::new(vec![0xa5_u8; SOURCE_BYTES + PAGE_BYTES]);
        let start = NonNull::from(&owner[0]);
        // SAFETY: the vector is a page longer than the range.
        let start = unsafe { start.byte_add(start.align_offset(PAGE_BYTES)) };
        // SAFETY: the vector is never written to again, and is kept as the range's owner.
        let memory =
            unsafe { ExternalMemory::register(eal, start, SOURCE_BYTES, PAGE_BYTES, owner) }?;
        Ok(Self {
            carriers: Mempool::new(eal, MempoolConfig::new("carriers", 4095, 64))?,
            slab: ExternalSlab::new(&memory, 0..SOURCE_BYTES).ok_or("no such range")?,
            next: 0,
        })
    }

    fn fill(&mut self, mbuf: &mut Mbuf, bytes: usize) -> Outcome<()> {
        mbuf.append(HEADER_BYTES)?;
        if self.next + bytes > SOURCE_BYTES {
            self.next = 0;
        }
        let range = self.next..self.next + bytes - HEADER_BYTES;
        self.next = range.end;
        Ok(mbuf.attach(self.carriers.alloc()?, &self.slab, range)?)
    }
}

/// Pins this thread to one of the allowed cores.
fn pin(eal: &Eal, core: usize) -> Outcome<Lcore> {
    let cores = allowed_cores();
    let core = cores.get(core % cores.len().max(1)).ok_or("no core")?;
    Ok(Lcore::claim(eal, *core)?)
}

fn send(socket: &Path, plan: &Plan) -> Outcome<()> {
    let (eal, pool, mut opened) = end(MemifRole::Server, socket, plan.ring_log2)?;
    let mut attached = plan.attached.then(|| Attached::new(&eal)).transpose()?;
    // Started before this thread is pinned, since it inherits the cores.
    let mut receiver = Command::new(std::env::current_exe()?)
        .args([RECEIVER.as_ref(), socket.as_os_str()])
        .args([plan.seconds.to_string(), plan.ring_log2.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let _lcore = pin(&eal, 0)?;
    if !opened.port.wait_for_link(Duration::from_secs(10))? {
        receiver.kill()?;
        return Err("the receiver never came".into());
    }
    // The receiver says that it has counted; `wait` closes the pipe for which it waits.
    let done = Arc::new(AtomicBool::new(false));
    let mut report = BufReader::new(receiver.stdout.take().ok_or("no output")?);
    let listener = std::thread::spawn({
        let done = Arc::clone(&done);
        move || {
            let mut line = String::new();
            let read = report.read_line(&mut line);
            done.store(true, Ordering::Release);
            read.map(|_| line)
        }
    });
    let mut burst = Burst::new();
    while !done.load(Ordering::Acquire) {
        if burst.is_empty() && pool.alloc_into(&mut burst, 32).is_ok() {
            for mbuf in burst.as_mut_slice() {
                match &mut attached {
                    Some(attached) => attached.fill(mbuf, plan.bytes)?,
                    None => mbuf.append(plan.bytes).map(|_| ())?,
                }
            }
        }
        opened.tx[0].send(&mut burst);
    }
    receiver.wait()?;
    print!("{}", listener.join().map_err(|_| "the listener died")??);
    Ok(())
}

fn receive(socket: &Path, seconds: f64, ring_log2: u8) -> Outcome<()> {
    let (eal, _pool, mut opened) = end(MemifRole::Client, socket, ring_log2)?;
    let _lcore = pin(&eal, 1)?;
    if !opened.port.wait_for_link(Duration::from_secs(10))? {
        return Err("no link".into());
    }
    let mut burst = Burst::new();
    let mut count = |time: Duration| {
        let (start, mut frames, mut bytes) = (Instant::now(), 0_u64, 0_u64);
        while start.elapsed() < time {
            for _ in 0..64 {
                frames += opened.rx[0].receive(&mut burst) as u64;
                bytes += burst
                    .as_slice()
                    .iter()
                    .map(|mbuf| mbuf.len() as u64)
                    .sum::<u64>();
                burst.clear();
            }
        }
        (frames, bytes, start.elapsed().as_secs_f64())
    };
    count(Duration::from_millis(300));
    let (frames, bytes, time) = count(Duration::try_from_secs_f64(seconds)?);
    println!(
        "memif, ordinary pages, 2 processes: {:.0} frames/s, {:.2} Gbit/s, {} bytes a frame",
        frames as f64 / time,
        bytes as f64 * 8e-9 / time,
        bytes.checked_div(frames).unwrap_or(0)
    );
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
