//! Results, for people and for programs. `schema/report-1.json` documents the JSON.

mod html;
mod plot;
mod reception;
mod rows;
mod text;

use std::io::Write as _;

use anyhow::{Context, Result};
use serde::Serialize;

pub use self::reception::Reception;
use crate::options::Output;

/// Version of the JSON that is written. Fields may be added within a version.
pub const SCHEMA_VERSION: u32 = 1;

/// Percentiles of a latency, in microseconds.
#[derive(Clone, Debug, Serialize)]
pub struct Latency {
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub p999: f64,
    pub max: f64,
}

/// CPU time while it was measured, in seconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct CpuSeconds {
    /// Of the end that measured.
    pub here: f64,
    /// Of the other end, if it is known.
    pub there: Option<f64>,
}

/// One measurement.
#[derive(Clone, Debug, Serialize)]
pub struct Measurement {
    /// `bw`, `lat`, `rate`; against a node `bw_put` and `bw_get`; of a pool or device the
    /// operation.
    pub test: String,
    pub size_bytes: u64,
    /// Transfers or messages under way at a time.
    pub batch: u32,
    /// Transfers or messages that were counted.
    pub transfers: u64,
    pub seconds: f64,
    /// Of the transfers' own bytes, without headers; there and back counts twice.
    pub gbit_per_s: f64,
    /// Divided by the cores' worth of CPU time that the known ends took.
    pub gbit_per_s_per_core: f64,
    pub messages_per_s: f64,
    /// From the call that sends to the completion here.
    pub latency_us: Latency,
    /// Quantile (0 to 1) and microseconds.
    pub latency_curve_us: Vec<(f64, f64)>,
    pub cpu_seconds: CpuSeconds,
    /// Segments, or pieces of transfers, that both ends sent more than once.
    pub retransmissions: u64,
    /// Frames that reached a DPDK port of either end and were thrown away there.
    pub frames_dropped: u64,
    /// Bytes that came other than they went. Zero, too, where nothing was compared.
    pub verify_errors: u64,
}

/// The machine that measured.
#[derive(Clone, Debug, Serialize)]
pub struct Host {
    /// Its kernel.
    pub system: String,
    pub architecture: &'static str,
    /// The processor's own name.
    pub cpu: String,
    /// Cores that genie-perf may use.
    pub cores: usize,
    pub memory_bytes: u64,
}

/// All of a run.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub schema_version: u32,
    /// Of genie-perf.
    pub version: &'static str,
    /// As it was typed, without the program's name.
    pub command: String,
    /// Seconds since 1970.
    pub started_at: u64,
    /// Of the whole run.
    pub duration_s: f64,
    /// The transport that was used: `tcp`, `dpdk`, `shm`, `none`.
    pub transport: String,
    /// Where the bytes really went.
    pub path: String,
    /// Bytes of the largest packet; 0 where bytes do not travel in packets.
    pub mtu_bytes: u64,
    /// `off`, `crc32c`, `aes-128-gcm`, `tls`.
    pub seal: String,
    /// Whose memory: `host`, or a device.
    pub memory: String,
    /// Whether every byte was compared.
    pub verified: bool,
    /// Whether somebody ended the run before its time.
    pub interrupted: bool,
    /// Cores that the ends were pinned to.
    pub pinned_cores: usize,
    pub host: Host,
    /// What a reader of the numbers should know.
    pub warnings: Vec<String>,
    pub results: Vec<Measurement>,
    /// Of a device: what receiving by way of the host costs against receiving into it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub receptions: Vec<Reception>,
}

impl Report {
    /// Whether nothing differed.
    #[must_use]
    pub fn is_right(&self) -> bool {
        self.results.iter().all(|one| one.verify_errors == 0)
            && self.receptions.iter().all(Reception::is_right)
    }

    /// Writes the report where `output` says. JSON on standard output is alone there.
    pub fn write(&self, output: &Output) -> Result<()> {
        if let Some(path) = &output.html {
            std::fs::write(path, html::page(self)).with_context(|| path.display().to_string())?;
        }
        let json = serde_json::to_string_pretty(self)?;
        let text = match output.json.as_deref() {
            Some(path) if path.as_os_str() == "-" => json + "\n",
            Some(path) => {
                std::fs::write(path, json + "\n").with_context(|| path.display().to_string())?;
                text::table(self)
            }
            None => text::table(self),
        };
        let mut out = std::io::stdout().lock();
        out.write_all(text.as_bytes())?;
        Ok(out.flush()?)
    }
}

#[cfg(test)]
pub mod sample {
    //! A report to draw and to print.

    use super::*;

    pub fn measurement(test: &str, size_bytes: u64, scale: f64) -> Measurement {
        Measurement {
            test: test.to_owned(),
            size_bytes,
            batch: 4,
            transfers: 1234,
            seconds: 2.0,
            gbit_per_s: 10.0 * scale,
            gbit_per_s_per_core: 5.0 * scale,
            messages_per_s: 617.0,
            latency_us: Latency {
                p50: 10.0 * scale,
                p90: 20.0 * scale,
                p99: 30.0 * scale,
                p999: 40.0 * scale,
                max: 50.0 * scale,
            },
            latency_curve_us: vec![(0.0, 5.0 * scale), (0.5, 10.0 * scale), (1.0, 50.0 * scale)],
            cpu_seconds: CpuSeconds {
                here: 1.5,
                there: Some(1.0),
            },
            retransmissions: 7,
            frames_dropped: 0,
            verify_errors: 0,
        }
    }

    pub fn report(results: Vec<Measurement>) -> Report {
        Report {
            schema_version: SCHEMA_VERSION,
            version: "0.0.0",
            command: "local --link tcp <bw>".to_owned(),
            started_at: 1_700_000_000,
            duration_s: 4.5,
            transport: "tcp".to_owned(),
            path: "kernel TCP".to_owned(),
            mtu_bytes: 65536,
            seal: "off".to_owned(),
            memory: "host".to_owned(),
            verified: true,
            interrupted: false,
            pinned_cores: 0,
            host: Host {
                system: "Linux 6".to_owned(),
                architecture: "x86_64",
                cpu: "A & B".to_owned(),
                cores: 2,
                memory_bytes: 8 << 30,
            },
            warnings: vec!["not every end is pinned".to_owned()],
            results,
            receptions: Vec::new(),
        }
    }

    pub fn reception() -> Reception {
        let way = |gbit_per_s| reception::Way {
            gbit_per_s,
            batch_bytes: 262_144.0,
            corrupt_frames: 0,
        };
        Reception {
            frame_bytes: 8192,
            staged: way(20.0),
            direct: way(50.0),
            direct_over_staged: 2.5,
            note: "no card <took part>".to_owned(),
        }
    }
}
