//! What both kinds of report, for a terminal and as a page, say in the same words.

use super::{Measurement, Report};
use crate::options::size::show;

/// A column of the table of results.
pub struct Column {
    /// For a terminal.
    pub short: &'static str,
    /// For a page.
    pub long: &'static str,
    /// What it says of a measurement.
    pub cell: fn(&Measurement) -> String,
}

const fn column(
    short: &'static str,
    long: &'static str,
    cell: fn(&Measurement) -> String,
) -> Column {
    Column { short, long, cell }
}

/// All columns, in order.
pub const COLUMNS: [Column; 15] = [
    column("test", "test", |one| one.test.clone()),
    column("size", "size", |one| show(one.size_bytes)),
    column("batch", "batch", |one| one.batch.to_string()),
    column("Gbit/s", "Gbit/s", |one| number(one.gbit_per_s)),
    column("Gbit/s/core", "Gbit/s per core", |one| {
        number(one.gbit_per_s_per_core)
    }),
    column("msg/s", "a second", |one| number(one.messages_per_s)),
    column("p50 us", "p50 us", |one| number(one.latency_us.p50)),
    column("p90 us", "p90 us", |one| number(one.latency_us.p90)),
    column("p99 us", "p99 us", |one| number(one.latency_us.p99)),
    column("p99.9 us", "p99.9 us", |one| number(one.latency_us.p999)),
    column("max us", "max us", |one| number(one.latency_us.max)),
    column("cores", "cores busy", |one| {
        let cpu = one.cpu_seconds.here + one.cpu_seconds.there.unwrap_or(0.0);
        number(cpu / one.seconds)
    }),
    column("resent", "resent", |one| one.retransmissions.to_string()),
    column("dropped", "dropped", |one| one.frames_dropped.to_string()),
    column("wrong", "bytes wrong", |one| one.verify_errors.to_string()),
];

/// The largest packet.
#[must_use]
pub fn mtu(report: &Report) -> String {
    match report.mtu_bytes {
        0 => "no packets".to_owned(),
        bytes => format!("MTU {bytes} bytes"),
    }
}

/// How many ends have a core of their own.
#[must_use]
pub fn pinned(report: &Report) -> String {
    match report.pinned_cores {
        0 => "no end is pinned".to_owned(),
        count => format!("{count} pinned"),
    }
}

/// Four digits at most where there is a fraction.
#[must_use]
pub fn number(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        under if under < 0.01 => format!("{value:.4}"),
        under if under < 10.0 => format!("{value:.2}"),
        under if under < 1000.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_what_matters() {
        let shown = [0.0, 0.00123, 1.234, 56.78, 1234.5].map(number);
        assert_eq!(shown, ["0", "0.0012", "1.23", "56.8", "1234"]);
    }
}
