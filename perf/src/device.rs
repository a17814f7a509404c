//! `device`: what copies to, from and on a device take, by its own queue; and what receiving by way
//! of host memory costs against receiving into the device. On CUDA this was not run yet.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use genie_gpudev::DeviceKind;
use genie_gpudev::device::{self, CopyOrder, CopyPiece, Device, Memory, Queue};
use genie_gpudev::receive;

use crate::interrupt;
use crate::machine::Setting;
use crate::meter::{Meter, Of};
use crate::options::DeviceTest;
use crate::path::Facts;
use crate::pattern;
use crate::report::{Measurement, Reception, Report};
use crate::run::{Run, What};

const SIZES: [u64; 3] = [64 << 10, 1 << 20, 64 << 20];
/// Pieces of one copy: a large one is cut as the dataplane does.
const PIECE_BYTES: u64 = 1 << 20;

/// Data of the frames that are received: an Ethernet's and a jumbo's.
const FRAMES: [u32; 2] = [1408, 8192];
/// How long each way of receiving has at most.
const RECEPTION_TIME_MAX: Duration = Duration::from_secs(2);

/// Measures.
pub fn run(options: &DeviceTest) -> Result<Report> {
    let kind = options.device;
    let mut run = Run::begin(&Setting {
        pinned: 1,
        ends: 1,
        polls: false,
    });
    if matches!(kind, DeviceKind::Host(_)) {
        run.warn("the host is its own device here: copies are of one memory");
    }
    let device = device::open(kind)?;
    let sizes = options
        .size
        .as_ref()
        .map_or(SIZES.to_vec(), |sizes| sizes.0.clone());
    let mut results = Vec::new();
    for size in sizes {
        let place = Place::new(&*device, size)
            .with_context(|| format!("no room for copies of {size} bytes"))?;
        results.extend(copies(options, place)?);
    }
    let mut receptions: Vec<Reception> = Vec::new();
    for frame_bytes in FRAMES {
        if interrupt::asked() {
            break;
        }
        let time = options.time.min(RECEPTION_TIME_MAX);
        let found = receive::compare(&*device, frame_bytes, time)
            .with_context(|| format!("frames of {frame_bytes} bytes can't be received"))?;
        receptions.push(found.into());
    }
    let what = What {
        facts: Facts {
            transport: "none",
            path: format!("copies by a queue of {}", device.info().name),
            mtu_bytes: 0,
            seal: "off",
        },
        memory: kind.to_string(),
        verified: options.verify,
        pinned_cores: 0,
    };
    Ok(Report {
        receptions,
        ..run.report(what, results)
    })
}

/// Memory to copy between.
struct Place {
    size: u64,
    queue: Box<dyn Queue>,
    host: Memory,
    here: Memory,
    there: Memory,
}

impl Place {
    fn new(device: &dyn Device, size: u64) -> Result<Self> {
        let page = device.info().page_bytes.max(1);
        let bytes = size.next_multiple_of(page);
        let mut place = Self {
            size,
            queue: device.queue()?,
            host: device.reserve_host(bytes, bytes)?,
            here: device.allocate(bytes)?,
            there: device.allocate(bytes)?,
        };
        // Touched, so that no page is taken while it counts.
        let zeros = vec![0; usize::try_from(size)?];
        for memory in [&place.host, &place.here, &place.there] {
            place.queue.write(memory, 0, &zeros)?;
        }
        Ok(place)
    }
}

fn copies(options: &DeviceTest, mut place: Place) -> Result<Vec<Measurement>> {
    let (host, here, there) = (place.host.clone(), place.here.clone(), place.there.clone());
    let mut results = Vec::new();
    for (test, from, to) in [
        ("copy_to_device", &host, &here),
        ("copy_from_device", &here, &host),
        ("copy_on_device", &here, &there),
    ] {
        if interrupt::asked() {
            break;
        }
        results.extend(one(options, &mut place, test, from, to)?);
    }
    Ok(results)
}

fn one(
    options: &DeviceTest,
    place: &mut Place,
    test: &str,
    from: &Memory,
    to: &Memory,
) -> Result<Option<Measurement>> {
    let size = place.size;
    let pieces: Vec<CopyPiece> = (0..size)
        .step_by(usize::try_from(PIECE_BYTES)?)
        .map(|at| CopyPiece {
            from: at,
            to: at,
            len: PIECE_BYTES.min(size - at),
        })
        .collect();
    let mut bytes = vec![0; usize::try_from(size)?];
    let mut meter = Meter::new()?;
    let began = Instant::now();
    for turn in 0.. {
        if interrupt::asked() || turn > 0 && began.elapsed() >= options.time {
            break;
        }
        if options.verify {
            pattern::fill(&mut bytes, turn);
            place.queue.write(from, 0, &bytes)?;
        }
        meter.start();
        let started = Instant::now();
        let done = place.queue.copy(from, to, &pieces, CopyOrder::Any)?;
        place.queue.wait(done)?;
        meter.done(started);
        meter.stop();
        if options.verify {
            place.queue.read(to, 0, &mut bytes)?;
            meter.verify_errors += pattern::differences(&bytes, turn);
        }
    }
    Ok(meter.finish(&Of {
        test,
        size_bytes: size,
        batch: 1,
        ways: 1,
        ..Of::default()
    }))
}
