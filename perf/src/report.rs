//! Results, for people and for programs.

use serde::Serialize;

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

/// One measurement.
#[derive(Clone, Debug, Serialize)]
pub struct Measurement {
    /// `lat`, `bw_put` (to the node) or `bw_get` (from the node).
    pub test: &'static str,
    pub size_bytes: u64,
    /// Transfers under way at a time.
    pub batch: u32,
    /// Transfers that were counted.
    pub transfers: u64,
    pub seconds: f64,
    /// Of the transfers' own bytes, without headers.
    pub gbit_per_s: f64,
    /// Divided by the CPU seconds that this process took a second. Without the node's.
    pub gbit_per_s_per_client_core: f64,
    pub messages_per_s: f64,
    /// Of one transfer: for `bw`, from its sending to its completion with others under way.
    pub latency_us: Latency,
    /// Bytes that came back other than they went. Zero, too, where nothing was compared.
    pub verify_errors: u64,
}

/// All of a run.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub schema_version: u32,
    pub version: &'static str,
    /// The transport that was used.
    pub transport: String,
    /// Where the bytes went on the node.
    pub path: &'static str,
    pub tls: bool,
    pub cores: usize,
    pub verified: bool,
    pub results: Vec<Measurement>,
}

impl Report {
    /// A table for people.
    pub fn table(&self) -> String {
        let mut out = format!(
            "transport {} ({}), TLS {}, {} cores, bytes {}\n",
            self.transport,
            self.path,
            if self.tls { "on" } else { "off" },
            self.cores,
            if self.verified {
                "compared"
            } else {
                "not compared"
            },
        );
        out.push_str(
            "test         size  batch      Gbit/s  Gbit/s/core     msg/s     p50 us     p90 us     \
             p99 us   p99.9 us     max us\n",
        );
        for one in &self.results {
            let latency = &one.latency_us;
            out.push_str(&format!(
                "{:<7} {:>9} {:>6} {:>11.3} {:>12.3} {:>9.0} {:>10.1} {:>10.1} {:>10.1} {:>10.1} \
                 {:>10.1}\n",
                one.test,
                size(one.size_bytes),
                one.batch,
                one.gbit_per_s,
                one.gbit_per_s_per_client_core,
                one.messages_per_s,
                latency.p50,
                latency.p90,
                latency.p99,
                latency.p999,
                latency.max,
            ));
            if one.verify_errors > 0 {
                out.push_str(&format!("        {} bytes differ\n", one.verify_errors));
            }
        }
        out
    }
}

fn size(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..1_048_576 => format!("{} KiB", bytes >> 10),
        _ => format!("{} MiB", bytes >> 20),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_json_has_what_is_documented() {
        let latency_us = Latency {
            p50: 1.0,
            p90: 2.0,
            p99: 3.0,
            p999: 4.0,
            max: 5.0,
        };
        let report = Report {
            schema_version: SCHEMA_VERSION,
            version: "x",
            transport: "tcp".to_owned(),
            path: "host",
            tls: false,
            cores: 2,
            verified: true,
            results: vec![Measurement {
                test: "lat",
                size_bytes: 64,
                batch: 1,
                transfers: 10,
                seconds: 1.0,
                gbit_per_s: 0.1,
                gbit_per_s_per_client_core: 0.1,
                messages_per_s: 10.0,
                latency_us,
                verify_errors: 0,
            }],
        };
        let json = serde_json::to_value(&report).expect("plain data");
        for key in ["schema_version", "transport", "path", "results"] {
            assert!(json.get(key).is_some(), "{key}");
        }
        let first = &json["results"][0];
        for key in [
            "test",
            "size_bytes",
            "batch",
            "gbit_per_s",
            "messages_per_s",
            "verify_errors",
        ] {
            assert!(first.get(key).is_some(), "{key}");
        }
        for key in ["p50", "p90", "p99", "p999", "max"] {
            assert!(first["latency_us"].get(key).is_some(), "{key}");
        }
        assert!(report.table().contains("64 B"));
    }
}
