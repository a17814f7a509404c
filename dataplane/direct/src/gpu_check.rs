//! Everything that a device must do, as one report: what `genie-gpu-check` prints.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use genie_dpdk::{Eal, EalError, EalOptions};
use genie_dpdk_sys::gpudev::{self, rte_gpu_info};
use genie_gpudev::device::check as device_check;
use genie_gpudev::device::{self, Device, DeviceError, DeviceKind};
use genie_gpudev::pool::{Pool, PoolConfig, bench};
use genie_gpudev::receive::{Way, compare};
use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};
use serde::Serialize;
use serde_json::{Value, json};

use crate::check::{LinkCheck, over_link};
use crate::registration::Registration;

/// The version of the report's layout.
pub const SCHEMA_VERSION: u32 = 1;

/// What to check.
#[derive(Clone, Debug)]
pub struct Options {
    /// The device.
    pub device: DeviceKind,
    /// Where DPDK's drivers are, if not where it was built for.
    pub drivers: Option<PathBuf>,
    /// For each measurement.
    pub time: Duration,
}

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// As it should.
    Passed,
    /// Not as it should.
    Failed,
    /// Something that it needs is missing here.
    Skipped,
}

/// One check.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    /// Its name.
    pub name: &'static str,
    /// How it ended.
    pub status: Status,
    /// Why, if not passed.
    pub reason: Option<String>,
    /// How long it took.
    pub seconds: f64,
    /// What it found, if it measures.
    pub found: Value,
}

/// All of them.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// The device that was asked for.
    pub device: String,
    /// Its own name, memory in bytes, and the like.
    pub info: Value,
    /// Whether it is a GPU: what the host device measures says nothing of one.
    pub is_gpu: bool,
    /// DPDK's version, or why there is none.
    pub dpdk: String,
    /// The checks, in order.
    pub checks: Vec<Check>,
}

impl Report {
    /// Whether a check ended like this.
    #[must_use]
    pub fn any(&self, status: Status) -> bool {
        self.checks.iter().any(|check| check.status == status)
    }
}

/// Runs all checks. A process can do so once, since DPDK starts once.
///
/// # Errors
/// There is no such device.
pub fn run(options: &Options) -> Result<Report, DeviceError> {
    let device = device::open(options.device)?;
    let info = device.info();
    let mut checks = Checks::default();
    let on = device.as_ref();
    checks.run("copies", || done(device_check::copies(on)));
    checks.run("memory", || done(device_check::resizing(on)));
    checks.run("pools", || done(device_check::pools(on)));
    checks.run("pool_latency", || pool_latency(on));
    checks.run("gather", || done(device_check::gather(on)));
    checks.run("paths", || paths(on, options.time));
    let dpdk = start(options);
    let version = match &dpdk {
        Ok(eal) => eal.version(),
        Err(reason) => reason.to_string(),
    };
    checks.with("gpudev", &dpdk, |eal| registration(eal, &device));
    let link = |way, corrupt_every| LinkCheck {
        way,
        sealed: false,
        split: false,
        transfers: 64,
        corrupt_every,
    };
    let staged = link(Way::Staged, 0);
    let direct = link(Way::Direct, 0);
    for (name, check) in [
        ("staged_over_link", staged),
        (
            "sealed_over_link",
            LinkCheck {
                sealed: true,
                ..staged
            },
        ),
        ("direct_over_link", direct),
        (
            "split_over_link",
            LinkCheck {
                split: true,
                ..direct
            },
        ),
        ("damaged_over_link", link(Way::Direct, 100)),
    ] {
        checks.with(name, &dpdk, |eal| {
            let report = over_link(eal, on, check)?;
            let found = check.corrupt_every == 0 || report.corrupt > 0;
            ensure!(found, "{} damaged frames passed", report.damaged);
            Ok(serde_json::to_value(report)?)
        });
    }
    Ok(Report {
        schema_version: SCHEMA_VERSION,
        device: options.device.to_string(),
        info: json!({
            "name": info.name,
            "memory_bytes": info.memory_bytes,
            "free_bytes": info.free_bytes,
            "page_bytes": info.page_bytes,
            "processors": info.processors,
            "nic_reach": info.nic_reach,
        }),
        is_gpu: matches!(options.device, DeviceKind::Cuda(_)),
        dpdk: version,
        checks: checks.0,
    })
}

#[derive(Default)]
struct Checks(Vec<Check>);

impl Checks {
    fn run(&mut self, name: &'static str, check: impl FnOnce() -> Result<Value>) {
        let started = Instant::now();
        let result = check();
        let (status, reason, found) = match result {
            Ok(found) => (Status::Passed, None, found),
            Err(error) => (Status::Failed, Some(format!("{error:#}")), Value::Null),
        };
        self.0.push(Check {
            name,
            status,
            reason,
            seconds: started.elapsed().as_secs_f64(),
            found,
        });
    }

    /// Runs a check that needs DPDK, or skips it with the reason.
    fn with(
        &mut self,
        name: &'static str,
        dpdk: &Result<Eal, EalError>,
        check: impl FnOnce(&Eal) -> Result<Value>,
    ) {
        match dpdk {
            Ok(eal) => self.run(name, || check(eal)),
            Err(reason) => self.0.push(Check {
                name,
                status: Status::Skipped,
                reason: Some(reason.to_string()),
                seconds: 0.0,
                found: Value::Null,
            }),
        }
    }
}

fn start(options: &Options) -> Result<Eal, EalError> {
    let refused = |error: String| EalError::Arguments { arguments: error };
    if let Some(folder) = &options.drivers {
        open_drivers(folder).map_err(refused)?;
    }
    let arguments = EalOptions::anywhere(256).validate();
    Eal::start(arguments.map_err(|error| refused(error.to_string()))?)
}

/// Opens DPDK's drivers, which makes them known to it. EAL would do so itself (`-d`), but not from a
/// folder below one that all may write to, and bundles are unpacked in /tmp.
fn open_drivers(folder: &Path) -> Result<(), String> {
    // First the library that stands between EAL and its drivers (see its documentation).
    genie_dpdk_sys::load().map_err(|error| error.to_string())?;
    let entries = std::fs::read_dir(folder);
    let entries = entries.map_err(|error| format!("{}: {error}", folder.display()))?;
    for file in entries.flatten().map(|entry| entry.path()) {
        // SAFETY: the constructors of DPDK's drivers only register them, and need no EAL. They are
        // never closed: EAL keeps what they registered.
        let driver = unsafe { Library::open(Some(&file), RTLD_NOW | RTLD_GLOBAL) };
        std::mem::forget(driver.map_err(|error| format!("{}: {error}", file.display()))?);
    }
    Ok(())
}

fn done(result: Result<(), device_check::CheckError>) -> Result<Value> {
    result?;
    Ok(Value::Null)
}

fn pool_latency(device: &dyn Device) -> Result<Value> {
    let found = bench(device, 256 << 20, 100_000)?;
    let quantiles = |of: genie_gpudev::pool::Quantiles| {
        json!({
            "p50": of.p50_ns, "p99": of.p99_ns, "p999": of.p999_ns, "max": of.max_ns,
        })
    };
    Ok(json!({
        "allocate_ns": quantiles(found.allocate),
        "free_ns": quantiles(found.free),
        "clock_ns": quantiles(found.clock),
        "failures": found.failures,
    }))
}

fn paths(device: &dyn Device, time: Duration) -> Result<Value> {
    let found = compare(device, 8192, time)?;
    let path = |of: genie_gpudev::receive::PathRate| json!({ "bytes_per_s": of.bytes_per_s, "batch_bytes": of.batch_bytes });
    Ok(json!({
        "frame_bytes": found.frame_bytes,
        "staged": path(found.staged),
        "direct": path(found.direct),
        "direct_over_staged": found.direct_over_staged,
        "note": found.note,
    }))
}

/// The device as DPDK's gpudev shows it: there, asked for, allocated from, and gone.
fn registration(eal: &Eal, device: &Arc<dyn Device>) -> Result<Value> {
    let api = gpudev::load()?;
    // SAFETY: the EAL runs; this thread alone uses gpudev, here and below.
    let before = unsafe { api.rte_gpu_count_avail() };
    let pool = Pool::new(device.as_ref(), PoolConfig::new(16 << 20))?;
    let pool = Arc::new(Mutex::new(pool));
    let memory = pool
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .memory()
        .clone();
    let registration = Registration::new(eal, Arc::clone(device), Arc::clone(&pool))?;
    let id = registration.id();
    let mut info = rte_gpu_info::default();
    // SAFETY: the number is a device's, `info` lives through the call; and as above.
    let (count, told) = unsafe {
        (
            api.rte_gpu_count_avail(),
            api.rte_gpu_info_get(id, &mut info),
        )
    };
    ensure!(
        count == before + 1 && told == 0,
        "gpudev does not show the device"
    );
    // SAFETY: as above.
    let place = unsafe { api.rte_gpu_mem_alloc(id, 1 << 20, 4096) };
    let offset = (place as u64).checked_sub(memory.address());
    let offset = offset.context("rte_gpu_mem_alloc gave a place outside the pool")?;
    memory.at(offset, 1 << 20)?;
    // SAFETY: as above; the place was just given, and is given back once.
    let freed = unsafe { api.rte_gpu_mem_free(id, place) };
    ensure!(freed == 0, "rte_gpu_mem_free says {freed}");
    // SAFETY: as above; the list is destroyed with the count it was made with.
    let listed = unsafe {
        let list = api.rte_gpu_comm_create_list(id as u16, 4);
        !list.is_null() && api.rte_gpu_comm_destroy_list(list, 4) == 0
    };
    ensure!(listed, "no communication list can be made and destroyed");
    ensure!(registration.places() == 0, "places are left with DPDK");
    drop(registration);
    // SAFETY: as above.
    let after = unsafe { api.rte_gpu_count_avail() };
    ensure!(after == before, "the device is still there");
    Ok(json!({ "processors": info.processor_count, "memory_bytes": info.total_memory }))
}
