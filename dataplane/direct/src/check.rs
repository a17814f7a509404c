//! Both receive paths over a software link: two ports of one process, joined by shared memory
//! (memif), a transport at each end, and a device's memory behind one of them.
//!
//! The memif driver copies on the CPU. So for the direct way into a device whose memory the CPU
//! can't reach (CUDA), this program plays the card: it takes the frame from host memory, and has the
//! device's queue copy the data into the payload memory before it hands over both parts.

mod receiving;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use genie_dpdk::{
    Burst, Eal, Memif, MemifRole, Mempool, MempoolConfig, OpenPort, Port, PortConfig, Vdev,
};
use genie_gpudev::device::Device;
use genie_gpudev::device::check::noise;
use genie_gpudev::receive::{ReceiveStats, Way};
use genie_transport::{
    Config, ConnectionId, Credit, Endpoint, Epoch, Event, Grant, Priority, Protection, RegionGone,
    RegionId, Regions, Role, Secret, SourceId, Time, Transfer,
};
use serde::Serialize;

use self::receiving::{Receiving, both, receiving};
use crate::payload::PayloadPool;

/// Bytes that stand for the link's headers.
const LINK_HEADER_BYTES: usize = 42;
const FRAME_BYTES: usize = 8900;
const DATA_BYTES: u16 = 9216;
/// Where data start in a frame of a link whose card splits packets.
const DATA_AT: usize = 256;
const TRANSFER_BYTES: u64 = 1 << 20;
const CONNECTION: ConnectionId = ConnectionId(7);
/// The whole check stops here.
const LIMIT: Duration = Duration::from_secs(120);

/// What is to be sent.
#[derive(Clone, Copy, Debug)]
pub struct LinkCheck {
    /// The way to receive.
    pub way: Way,
    /// AES-GCM instead of CRC32C. Staged only.
    pub sealed: bool,
    /// Transfers of 1 MiB.
    pub transfers: u64,
    /// The card splits packets: the head into host memory, the data into the payload pool. Direct
    /// only; played by a copy, as software ports don't split.
    pub split: bool,
    /// Flip a bit in the data of each such frame on its way; 0 for never.
    pub corrupt_every: u64,
}

/// What arrived, every byte of it compared.
#[derive(Clone, Debug, Serialize)]
pub struct LinkReport {
    /// `staged` or `direct`.
    pub way: String,
    /// Sealed, or checksummed.
    pub sealed: bool,
    /// Packets arrived in two segments.
    pub split: bool,
    /// The card was played by a copy of this program.
    pub card_played: bool,
    /// Bytes in their places.
    pub bytes: u64,
    /// Frames with data whose bytes were placed.
    pub frames: u64,
    /// Frames that were found corrupt by the device.
    pub corrupt: u64,
    /// Frames that were made corrupt on their way.
    pub damaged: u64,
    /// Submissions to the device's queue.
    pub batches: u64,
    /// Bytes of data of a submission, on average.
    pub batch_bytes: f64,
    /// For all transfers, both ends on one thread, comparing not included.
    pub seconds: f64,
}

/// The sender's memory.
struct Source(Vec<u8>);

impl Regions for Source {
    fn read(&mut self, _: SourceId, offset: u64, into: &mut [u8]) -> Result<(), RegionGone> {
        let start = usize::try_from(offset).map_err(|_| RegionGone)?;
        let bytes = self.0.get(start..).and_then(|rest| rest.get(..into.len()));
        into.copy_from_slice(bytes.ok_or(RegionGone)?);
        Ok(())
    }

    fn write(&mut self, _: RegionId, _: u64, _: &[u8]) -> Result<(), RegionGone> {
        Err(RegionGone)
    }
}

/// A folder that goes with the check.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _left = std::fs::remove_dir_all(&self.0);
    }
}

/// Sends transfers over a link into the device's memory and compares every byte.
///
/// # Errors
/// Whatever keeps it from that, and a byte that differs.
pub fn over_link(eal: &Eal, device: &dyn Device, check: LinkCheck) -> Result<LinkReport> {
    ensure!(
        !(check.sealed && check.way == Way::Direct),
        "sealed links use the staged way"
    );
    ensure!(
        !(check.split && check.way == Way::Staged),
        "packets are split for the direct way"
    );
    let bytes = check.transfers * TRANSFER_BYTES;
    let target = device.allocate(bytes)?;
    let mut queue = device.queue()?;
    queue.write(&target, 0, &vec![0xa5; bytes as usize])?;
    // Names of pools are unique in a process.
    static RUN: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let run = RUN.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let config = |name: &str| MempoolConfig::new(format!("check-{name}{run}"), 4095, DATA_BYTES);
    let plain = Mempool::new(eal, config("tx"))?;
    let payload = PayloadPool::new(eal, device, check.way, config("rx"))?;
    let card_played = payload.memory().host().is_none();
    let pool = if card_played || check.split {
        &plain
    } else {
        payload.mempool()
    };

    let path = format!("genie-check-{}-{run}", std::process::id());
    let folder = Folder(std::env::temp_dir().join(path));
    std::fs::create_dir_all(&folder.0)?;
    let open = |role, pool: &Mempool| {
        let memif = Vdev::Memif(Memif::new(role, folder.0.join("link.sock")).jumbo());
        Port::open(eal, &memif.into(), &PortConfig::default(), pool)
    };
    let mut far = open(MemifRole::Server, pool)?;
    let mut near = open(MemifRole::Client, &plain)?;
    let started = Instant::now();
    while !(near.port.link()?.up && far.port.link()?.up) {
        ensure!(started.elapsed() < LIMIT, "the link does not come up");
        std::thread::sleep(Duration::from_millis(1));
    }
    let receiving = receiving(device, &payload, &target, check.split.then_some(&plain))?;
    let mut source = Source(noise(bytes as usize));
    let outcome = transfer(check, receiving, &plain, &mut near, &mut far, &mut source)?;
    let mut found = vec![0; bytes as usize];
    queue.read(&target, 0, &mut found)?;
    if let Some(at) = (0..found.len()).find(|&at| found[at] != source.0[at]) {
        bail!("{} way: byte {at} differs", check.way);
    }
    let Outcome {
        stats,
        damaged,
        elapsed,
    } = outcome;
    Ok(LinkReport {
        way: check.way.to_string(),
        sealed: check.sealed,
        split: check.split || card_played,
        card_played: card_played || check.split,
        bytes,
        frames: stats.frames,
        corrupt: stats.corrupt,
        damaged,
        batches: stats.batches,
        batch_bytes: stats.bytes as f64 / stats.batches.max(1) as f64,
        seconds: elapsed.as_secs_f64(),
    })
}

struct Outcome {
    stats: ReceiveStats,
    damaged: u64,
    elapsed: Duration,
}

fn config(role: Role, check: LinkCheck) -> Config {
    let protection = if check.sealed {
        Protection::Sealed(Secret([3; 32]))
    } else {
        Protection::Checksummed
    };
    Config {
        mtu_max: FRAME_BYTES,
        credit_when: Credit::WhenReleased,
        // Where a card is told to split.
        data_at: check.split.then_some(DATA_AT),
        ..Config::new(CONNECTION, Epoch(1), role, protection)
    }
}

fn transfer(
    check: LinkCheck,
    mut receiving: Receiving,
    pool: &Mempool,
    near: &mut OpenPort,
    far: &mut OpenPort,
    source: &mut Source,
) -> Result<Outcome> {
    let started = Instant::now();
    let now = || Time(started.elapsed().as_nanos() as u64);
    let (mut sender, mut receiver) = (Endpoint::new(), Endpoint::new());
    sender.open(config(Role::Initiator, check), now())?;
    receiver.open(config(Role::Responder, check), now())?;
    let mut granted: Vec<(Grant, u64)> = Vec::new();
    let (mut next, mut received, mut sent, mut frames, mut damaged) = (0, 0, 0, 0_u64, 0);
    let mut position = 0;
    let mut burst = Burst::new();
    loop {
        ensure!(
            started.elapsed() < LIMIT,
            "{received} of {} in time",
            check.transfers
        );
        // A few transfers at a time.
        while next < check.transfers && next < received + 8 {
            let (region, offset) = (RegionId(next), next * TRANSFER_BYTES);
            both!(&mut receiving, reception => reception.regions().add(region, offset, TRANSFER_BYTES))?;
            let end = receiver.connection(CONNECTION).context("no connection")?;
            let grant = end.grant(region, TRANSFER_BYTES)?;
            granted.push((grant, offset));
            let transfer = Transfer {
                grant,
                offset: 0,
                source: SourceId(0),
                source_offset: offset,
                len: TRANSFER_BYTES,
                priority: Priority::Normal,
            };
            let end = sender.connection(CONNECTION).context("no connection")?;
            end.send(transfer)?;
            next += 1;
        }
        send(&mut sender, source, pool, near, now())?;
        if receiving.has_room() {
            far.rx[0].receive(&mut burst);
        }
        let idle = burst.is_empty();
        while let Some(mut mbuf) = burst.pop() {
            frames += 1;
            let tail = mbuf.data_mut().last_mut();
            // The last byte is data in any frame of some length.
            if check.corrupt_every > 0
                && frames % check.corrupt_every == 0
                && let Some(byte) = tail
            {
                *byte ^= 0x10;
                damaged += 1;
            }
            while !receiving.has_room() {
                both!(&mut receiving, reception => reception.poll(&mut receiver, now()))?;
            }
            receiving.take(mbuf, &mut receiver, now())?;
        }
        if idle {
            both!(&mut receiving, reception => reception.flush())?;
        }
        both!(&mut receiving, reception => reception.poll(&mut receiver, now()))?;
        let end = receiver.connection(CONNECTION).context("no connection")?;
        while let Some(event) = end.poll_event() {
            match event {
                Event::Received(grant) => {
                    ensure!(
                        granted.iter().any(|(open, _)| *open == grant),
                        "an unknown grant"
                    );
                    received += 1;
                    position = both!(&receiving, reception => reception.position());
                }
                other => bail!("the receiver: {other:?}"),
            }
        }
        both!(&mut receiving, reception => send(&mut receiver, reception.regions(), pool, far, now()))?;
        near.rx[0].receive(&mut burst);
        while let Some(mut mbuf) = burst.pop() {
            let frame = mbuf
                .data_mut()
                .get_mut(LINK_HEADER_BYTES..)
                .unwrap_or_default();
            let _counted = sender.handle(frame, now(), source);
        }
        let end = sender.connection(CONNECTION).context("no connection")?;
        while let Some(event) = end.poll_event() {
            match event {
                Event::Sent(_) => sent += 1,
                other => bail!("the sender: {other:?}"),
            }
        }
        let settled = both!(&receiving, reception => reception.is_settled(position));
        if sent == check.transfers && received == check.transfers && settled {
            break;
        }
    }
    let elapsed = started.elapsed();
    both!(&mut receiving, reception => reception.finish(&mut receiver, now()))?;
    let stats = both!(&receiving, reception => reception.stats());
    Ok(Outcome {
        stats,
        damaged,
        elapsed,
    })
}

/// Sends what an end has to send now, up to a burst.
fn send(
    endpoint: &mut Endpoint,
    regions: &mut impl Regions,
    pool: &Mempool,
    port: &mut OpenPort,
    now: Time,
) -> Result<()> {
    let mut burst = Burst::new();
    while burst.room() > 0 {
        let mut mbuf = pool.alloc()?;
        mbuf.append(LINK_HEADER_BYTES)?.fill(0);
        let room = mbuf.append(FRAME_BYTES)?;
        let Some(transmit) = endpoint.poll_transmit(now, regions, room) else {
            break;
        };
        mbuf.truncate(LINK_HEADER_BYTES + transmit.len)?;
        if burst.push(mbuf).is_err() {
            break;
        }
    }
    // What the port does not take is lost like on any link, and comes again.
    port.tx[0].send(&mut burst);
    Ok(())
}
