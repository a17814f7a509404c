//! Frames a second over memif between two processes, each polling on a core of its own.
//!
//! `cargo run --release -p genie-dpdk --example memif_rate -- [FRAME_BYTES] [SECONDS]`
//!
//! Like testpmd's `txonly` and `rxonly`, the sender does not write the payload and the receiver
//! does not read it: this is the link's own speed.

use std::error::Error;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use genie_dpdk::{
    Burst, Eal, EalOptions, Lcore, Memif, MemifRole, Mempool, MempoolConfig, OpenPort, Port,
    PortConfig, Vdev, allowed_cores,
};

type Outcome<T> = Result<T, Box<dyn Error>>;

const RECEIVER: &str = "--receiver";

fn main() -> Outcome<()> {
    let mut words = std::env::args().skip(1);
    match words.next() {
        Some(word) if word == RECEIVER => {
            let socket = words.next().ok_or("no socket")?;
            receive(Path::new(&socket), words.next().ok_or("no time")?.parse()?)
        }
        bytes => {
            let bytes = bytes.map_or(Ok(8192), |word| word.parse())?;
            let seconds = words.next().map_or(Ok(3.0), |word| word.parse())?;
            if genie_dpdk::is_built().is_err() {
                println!("skipped: built without DPDK");
                return Ok(());
            }
            let folder = std::env::temp_dir().join(format!("genie-rate-{}", std::process::id()));
            std::fs::create_dir_all(&folder)?;
            let result = send(&folder.join("link.sock"), bytes, seconds);
            std::fs::remove_dir_all(&folder)?;
            result
        }
    }
}

/// One end of the link.
fn end(role: MemifRole, socket: &Path) -> Outcome<(Eal, Mempool, OpenPort)> {
    let eal = Eal::start(EalOptions::anywhere(256).validate()?)?;
    let config = MempoolConfig {
        cache: 256,
        ..MempoolConfig::new("rate", 4095, 9216)
    };
    let pool = Mempool::new(&eal, config)?;
    let memif = Vdev::Memif(Memif::new(role, socket).jumbo());
    let opened = Port::open(&eal, &memif.into(), &PortConfig::default(), &pool)?;
    Ok((eal, pool, opened))
}

/// Pins this thread to one of the allowed cores.
fn pin(eal: &Eal, core: usize) -> Outcome<Lcore> {
    let cores = allowed_cores();
    let core = cores.get(core % cores.len().max(1)).ok_or("no core")?;
    Ok(Lcore::claim(eal, *core)?)
}

fn send(socket: &Path, bytes: usize, seconds: f64) -> Outcome<()> {
    let (eal, pool, mut opened) = end(MemifRole::Server, socket)?;
    // Started before this thread is pinned, since it inherits the cores.
    let mut receiver = Command::new(std::env::current_exe()?)
        .args([RECEIVER.as_ref(), socket.as_os_str()])
        .arg(seconds.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let _lcore = pin(&eal, 0)?;
    if !opened.port.wait_for_link(Duration::from_secs(10))? {
        receiver.kill()?;
        return Err("the receiver never came".into());
    }
    // The driver does not bear a peer that closes while it sends: the receiver says that it has
    // counted, this side stops, and then `wait` closes the pipe for which the receiver waits.
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
                mbuf.append(bytes)?;
            }
        }
        opened.tx[0].send(&mut burst);
    }
    receiver.wait()?;
    print!("{}", listener.join().map_err(|_| "the listener died")??);
    Ok(())
}

fn receive(socket: &Path, seconds: f64) -> Outcome<()> {
    let (eal, _pool, mut opened) = end(MemifRole::Client, socket)?;
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
