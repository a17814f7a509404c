//! A report as a table for a terminal.

use std::fmt::Write as _;

use super::rows::{COLUMNS, mtu, pinned};
use super::{Reception, Report, reception};

/// What is known of the run, a row a measurement, and the warnings.
#[must_use]
pub fn table(report: &Report) -> String {
    let mut out = String::new();
    let compared = if report.verified {
        "every byte compared"
    } else {
        "bytes not compared"
    };
    let _ = writeln!(out, "transport  {} ({})", report.transport, report.path);
    let _ = writeln!(
        out,
        "           {}, seal {}, memory {}, {compared}",
        mtu(report),
        report.seal,
        report.memory
    );
    let _ = writeln!(
        out,
        "machine    {}, {} cores ({}), {}\n",
        report.host.cpu,
        report.host.cores,
        pinned(report),
        report.host.system
    );
    let head = COLUMNS.map(|column| column.short.to_owned());
    let rows = report
        .results
        .iter()
        .map(|one| COLUMNS.map(|column| (column.cell)(one)));
    put_rows(&mut out, std::iter::once(head).chain(rows).collect());
    if !report.receptions.is_empty() {
        out.push_str("\nfrom a card's buffers into the device's memory\n");
        let head = reception::HEAD.map(str::to_owned);
        let rows = report.receptions.iter().map(Reception::row);
        put_rows(&mut out, std::iter::once(head).chain(rows).collect());
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

/// Rows under a head, aligned.
fn put_rows<const COLUMNS: usize>(out: &mut String, rows: Vec<[String; COLUMNS]>) {
    let widths: Vec<usize> = (0..COLUMNS)
        .map(|column| rows.iter().map(|row| row[column].len()).max().unwrap_or(0))
        .collect();
    for row in &rows {
        put_row(out, row, &widths);
    }
}

fn put_row(out: &mut String, row: &[String], widths: &[usize]) {
    for (at, (cell, width)) in row.iter().zip(widths).enumerate() {
        let _ = match at {
            0 => write!(out, "{cell:<width$}"),
            _ => write!(out, "  {cell:>width$}"),
        };
    }
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::super::sample::{measurement, reception, report};
    use super::*;

    #[test]
    fn both_ways_into_a_device_stand_side_by_side() {
        let mut report = report(Vec::new());
        assert!(!table(&report).contains("staged"));
        report.receptions.push(reception());
        let text = table(&report);
        for part in [
            "staged Gbit/s",
            "8 KiB",
            "20.0",
            "50.0",
            "2.50",
            "took part",
        ] {
            assert!(text.contains(part), "{part}\n{text}");
        }
    }

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
        assert!(lines[head + 2].ends_with(" 3"), "{text}");
        for part in [
            "MTU 65536 bytes",
            "64 MiB",
            "wrong",
            "not every end is pinned",
            "1000",
            "7",
        ] {
            assert!(text.contains(part), "{part}\n{text}");
        }
    }
}
