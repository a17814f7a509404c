//! Goodput of the whole loop over memif between two processes, each polling on a core of its own:
//! bytes of 1 MiB transfers in their final region.
//!
//! `cargo run --release -p genie-poll --example memif_goodput -- [seal|plain] [SECONDS]`

use std::error::Error;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use genie_dpdk::{Eal, EalOptions, Lcore, allowed_cores};
use genie_poll::memory::MemoryId;
use genie_poll::{Link, LinkConfig, PeerPlace, link};
use genie_shm::Mapping;
use genie_transport::{
    Config, ConnectionId, Epoch, Event, Grant, Priority, Protection, RegionId, Role, Secret,
    Transfer,
};

type Outcome<T> = Result<T, Box<dyn Error>>;

const TRANSFER: u64 = 1 << 20;
const DEPTH: u64 = 16;
const ID: ConnectionId = ConnectionId(1);

fn main() -> Outcome<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["--sender", socket, seal] => send(Path::new(socket), *seal == "seal"),
        [seal, seconds] => receive(*seal == "seal", seconds.parse()?),
        _ => receive(false, 3.0),
    }
}

fn end(role: &str, socket: &Path, host: u8) -> Outcome<(Eal, Link)> {
    let eal = Eal::start(EalOptions::anywhere(128).validate()?)?;
    let config = LinkConfig {
        port: format!("memif:{},{role}", socket.display()).parse()?,
        address: SocketAddrV4::new(Ipv4Addr::new(10, 77, 0, host), 7700),
        prefix: 24,
        router: None,
    };
    let link = link::open(&eal, &config, Arc::new(|| ()))?;
    Ok((eal, link))
}

fn protection(seal: bool) -> Protection {
    if seal {
        Protection::Sealed(Secret([3; 32]))
    } else {
        Protection::Checksummed
    }
}

fn config(role: Role, seal: bool) -> Config {
    Config::new(ID, Epoch(1), role, protection(seal))
}

fn pin(eal: &Eal, core: usize) -> Outcome<Lcore> {
    let cores = allowed_cores();
    let core = cores.get(core % cores.len().max(1)).ok_or("no core")?;
    Ok(Lcore::claim(eal, *core)?)
}

fn add(link: &mut Link, seal: bool) -> Outcome<MemoryId> {
    let mapping = Arc::new(Mapping::create(TRANSFER * DEPTH)?);
    // Touched now, so that no page is faulted in while it is measured.
    for at in (0..TRANSFER * DEPTH).step_by(4096) {
        mapping.write(at, &[1])?;
    }
    Ok(link.engine.add_memory(&mapping, &protection(seal))?)
}

fn receive(seal: bool, seconds: f64) -> Outcome<()> {
    let folder = std::env::temp_dir().join(format!("genie-goodput-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let socket = folder.join("link.sock");
    let (eal, mut link) = end("server", &socket, 1)?;
    let mut sender = Command::new(std::env::current_exe()?)
        .args(["--sender".as_ref(), socket.as_os_str()])
        .arg(if seal { "seal" } else { "plain" })
        .stdin(Stdio::piped())
        .spawn()?;
    let _lcore = pin(&eal, 0)?;
    if !link.port.wait_for_link(Duration::from_secs(10))? {
        sender.kill()?;
        return Err("no link".into());
    }
    let sink = add(&mut link, seal)?;
    let engine = &mut link.engine;
    engine.open(config(Role::Responder, seal), PeerPlace::Learned)?;
    let mut open = Vec::new();
    let grant = |engine: &mut genie_poll::Engine<_>, slot: u64| -> Outcome<(Grant, u64)> {
        let region = engine
            .memory()
            .name(sink, slot * TRANSFER, TRANSFER)
            .ok_or("no place")?;
        let (connection, _) = engine.connection(ID).ok_or("it ended")?;
        let grant = connection.grant(region, TRANSFER)?;
        let mut message = [0; 16];
        message[..8].copy_from_slice(&grant.region.0.to_be_bytes());
        message[8..].copy_from_slice(&grant.generation.to_be_bytes());
        connection.send_message(&message)?;
        Ok((grant, slot))
    };
    let (mut started, mut bytes, mut before) = (None, 0_u64, [0_f64; 1]);
    let mut granted = false;
    loop {
        engine.turn();
        let (connection, _) = engine.connection(ID).ok_or("it ended")?;
        if !granted {
            // The sender is known once it has said something.
            if connection.read_message(|_| ()).is_some() {
                granted = true;
                for slot in 0..DEPTH {
                    open.push(grant(engine, slot)?);
                }
            }
            continue;
        }
        while let Some(event) = engine.connection(ID).and_then(|(c, _)| c.poll_event()) {
            match event {
                Event::Received(done) => {
                    let at = open.iter().position(|(g, _)| *g == done).ok_or("whose")?;
                    let (_, slot) = open.swap_remove(at);
                    engine.memory().forget(done.region);
                    open.push(grant(engine, slot)?);
                    if let Some(started) = started {
                        bytes += TRANSFER;
                        before[0] = Instant::elapsed(&started).as_secs_f64();
                    }
                }
                other => return Err(format!("{other:?}").into()),
            }
        }
        let now = Instant::now();
        match started {
            None => started = Some(now + Duration::from_millis(500)),
            Some(from) if now < from => bytes = 0,
            Some(from) if (now - from).as_secs_f64() >= seconds => break,
            Some(_) => {}
        }
    }
    let (connection, _) = engine.connection(ID).ok_or("it ended")?;
    let (counters, status) = (connection.counters(), connection.status());
    println!(
        "{:.2} Gbit/s {} over memif; frames {}, MTU {}, rtt {:?}",
        bytes as f64 * 8e-9 / seconds,
        if seal { "sealed" } else { "not sealed" },
        counters.frames_received,
        status.mtu,
        status.rtt
    );
    drop(sender.stdin.take());
    sender.wait()?;
    drop(link);
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}

fn send(socket: &Path, seal: bool) -> Outcome<()> {
    let (eal, mut link) = end("client", socket, 2)?;
    let _lcore = pin(&eal, 1)?;
    if !link.port.wait_for_link(Duration::from_secs(10))? {
        return Err("no link".into());
    }
    let source = add(&mut link, seal)?;
    let engine = &mut link.engine;
    let peer = SocketAddrV4::new(Ipv4Addr::new(10, 77, 0, 1), 7700);
    engine.open(config(Role::Initiator, seal), PeerPlace::At(peer))?;
    let mut greeted = false;
    let done = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    std::thread::spawn({
        let done = Arc::clone(&done);
        move || {
            let _ = std::io::Read::read(&mut std::io::stdin(), &mut [0]);
            done.store(true, std::sync::atomic::Ordering::Relaxed);
        }
    });
    let mut slot = 0;
    while !done.load(std::sync::atomic::Ordering::Relaxed) {
        engine.turn();
        let Some((connection, _)) = engine.connection(ID) else {
            continue;
        };
        if !greeted {
            connection.send_message(b"hello")?;
            greeted = true;
        }
        while connection.poll_event().is_some() {}
        while let Some(grant) = connection.read_message(|message| {
            let number =
                |at: usize| u64::from_be_bytes(message[at..at + 8].try_into().unwrap_or_default());
            Grant {
                region: RegionId(number(0)),
                generation: number(8),
            }
        }) {
            connection.send(Transfer {
                grant,
                offset: 0,
                source: source.source(),
                source_offset: slot % DEPTH * TRANSFER,
                len: TRANSFER,
                priority: Priority::Normal,
            })?;
            slot += 1;
        }
    }
    let (connection, _) = engine.connection(ID).ok_or("it ended")?;
    let (counters, status) = (connection.counters(), connection.status());
    eprintln!(
        "sender: {} frames, {} lost, {} late, {} repeated bytes, {} probes, window {}, rtt {:?}",
        counters.frames_sent,
        counters.frames_lost,
        counters.frames_late,
        counters.bytes_repeated,
        counters.probe_timeouts,
        status.window_bytes,
        status.rtt
    );
    Ok(())
}
