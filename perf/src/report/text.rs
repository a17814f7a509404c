//! A report as a table for a terminal.

use std::fmt::Write as _;

use super::Report;
use crate::options::size::show;

const HEADINGS: [&str; 13] = [
    "test",
    "size",
    "batch",
    "Gbit/s",
    "Gbit/s/core",
    "msg/s",
    "p50 us",
    "p90 us",
    "p99 us",
    "p99.9 us",
    "max us",
    "cores",
    "resent",
];

/// What is known of the run, a row a measurement, and the warnings.
#[must_use]
pub fn table(report: &Report) -> String {
    let mut out = String::new();
    let compared = if report.verified {
        "every byte compared"
    } else {
        "bytes not compared"
    };
    let mtu = match report.mtu_bytes {
        0 => "no packets".to_owned(),
        bytes => format!("MTU {bytes} bytes"),
    };
    let pinned = match report.pinned_cores {
        0 => "not pinned".to_owned(),
        count => format!("{count} pinned"),
    };
    let _ = writeln!(out, "transport  {} ({})", report.transport, report.path);
    let _ = writeln!(
        out,
        "           {mtu}, seal {}, memory {}, {compared}",
        report.seal, report.memory
    );
    let _ = writeln!(
        out,
        "machine    {}, {} cores ({pinned}), {}\n",
        report.host.cpu, report.host.cores, report.host.system
    );
    let rows: Vec<[String; 13]> = report
        .results
        .iter()
        .map(|one| {
            let latency = &one.latency_us;
            let cpu = one.cpu_seconds.here + one.cpu_seconds.there.unwrap_or(0.0);
            [
                one.test.clone(),
                show(one.size_bytes),
                one.batch.to_string(),
                number(one.gbit_per_s),
                number(one.gbit_per_s_per_core),
                number(one.messages_per_s),
                number(latency.p50),
                number(latency.p90),
                number(latency.p99),
                number(latency.p999),
                number(latency.max),
                number(cpu / one.seconds),
                one.retransmissions.to_string(),
            ]
        })
        .collect();
    let widths: Vec<usize> = (0..HEADINGS.len())
        .map(|column| {
            let longest = rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
            longest.max(HEADINGS[column].len())
        })
        .collect();
    put_row(&mut out, &HEADINGS, &widths);
    for row in &rows {
        put_row(&mut out, &row.each_ref().map(String::as_str), &widths);
    }
    for one in report.results.iter().filter(|one| one.verify_errors > 0) {
        let _ = writeln!(
            out,
            "WRONG      {} of {}: {} bytes differ",
            one.test,
            show(one.size_bytes),
            one.verify_errors
        );
    }
    if report.interrupted {
        out.push_str("ended      before its time, by a signal\n");
    }
    if !report.warnings.is_empty() {
        out.push('\n');
    }
    for warning in &report.warnings {
        let _ = writeln!(out, "warning    {warning}");
    }
    out
}

fn put_row(out: &mut String, row: &[&str; 13], widths: &[usize]) {
    for (at, (cell, width)) in row.iter().zip(widths).enumerate() {
        let _ = match at {
            0 => write!(out, "{cell:<width$}"),
            _ => write!(out, "  {cell:>width$}"),
        };
    }
    out.push('\n');
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
    use super::super::sample::{measurement, report};
    use super::*;

    #[test]
    fn columns_are_aligned_and_nothing_is_left_out() {
        let mut wrong = measurement("bw_put", 64 << 20, 100.0);
        wrong.verify_errors = 3;
        let report = report(vec![measurement("bw", 1024, 1.0), wrong]);
        let text = table(&report);
        let lines: Vec<&str> = text.lines().collect();
        let head = lines
            .iter()
            .position(|line| line.starts_with("test"))
            .unwrap();
        assert_eq!(lines[head].len(), lines[head + 1].len());
        assert_eq!(lines[head].len(), lines[head + 2].len());
        for part in [
            "MTU 65536 bytes",
            "64 MiB",
            "3 bytes differ",
            "not every end is pinned",
            "1000",
            "7",
        ] {
            assert!(text.contains(part), "{part}\n{text}");
        }
    }

    #[test]
    fn numbers_keep_what_matters() {
        let shown = [0.0, 0.00123, 1.234, 56.78, 1234.5].map(number);
        assert_eq!(shown, ["0", "0.0012", "1.23", "56.8", "1234"]);
    }
}
