//! A report as one page that needs nothing else: no network, no scripts.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::plot::{Line, Plot, escape};
use super::rows::{COLUMNS, mtu, number, pinned};
use super::{Measurement, Reception, Report, reception};
use crate::options::size::show;

const STYLE: &str = include_str!("page.css");

/// The page.
#[must_use]
pub fn page(report: &Report) -> String {
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>genie-perf: {0}</title>\n<style>\n{STYLE}</style></head>\n<body><main>\n\
         <h1>genie-perf</h1>\n<p class=\"command\"><code>genie-perf {0}</code></p>\n",
        escape(&report.command)
    );
    verdict(&mut out, report);
    facts(&mut out, report);
    if !report.warnings.is_empty() {
        out.push_str("<section class=\"warnings\"><h2>Read these first</h2><ul>\n");
        for warning in &report.warnings {
            let _ = writeln!(out, "<li>{}</li>", escape(warning));
        }
        out.push_str("</ul></section>\n");
    }
    if !report.results.is_empty() {
        throughput(&mut out, &report.results);
        latency(&mut out, &report.results);
        table(&mut out, &report.results);
    }
    if !report.receptions.is_empty() {
        receptions(&mut out, &report.receptions);
    }
    reading(&mut out);
    out + "</main></body></html>\n"
}

fn verdict(out: &mut String, report: &Report) {
    let wrong: u64 = report.results.iter().map(|one| one.verify_errors).sum();
    let said = match (report.verified, wrong) {
        (_, 1..) => {
            format!("<p class=\"bad\">{wrong} bytes arrived other than they were sent.</p>")
        }
        (true, 0) => {
            "<p class=\"good\">Every byte was compared: all arrived as sent.</p>".to_owned()
        }
        (false, 0) => "<p>Bytes were not compared (<code>--verify</code> does).</p>".to_owned(),
    };
    out.push_str(&said);
    if report.interrupted {
        out.push_str("<p class=\"bad\">The run was ended before its time.</p>");
    }
    out.push('\n');
}

fn facts(out: &mut String, report: &Report) {
    let host = &report.host;
    let rows = [
        ("Transport", report.transport.clone()),
        ("Path", report.path.clone()),
        ("Largest packet", mtu(report)),
        ("Seal", report.seal.clone()),
        ("Memory", report.memory.clone()),
        ("Machine", format!("{} ({})", host.cpu, host.architecture)),
        ("Cores", format!("{}, {}", host.cores, pinned(report))),
        ("System", host.system.clone()),
        (
            "Measured",
            format!(
                "{} for {} s",
                date(report.started_at),
                number(report.duration_s)
            ),
        ),
        (
            "Version",
            format!("{}, schema {}", report.version, report.schema_version),
        ),
    ];
    out.push_str("<dl>\n");
    for (name, value) in rows {
        let _ = writeln!(out, "<div><dt>{name}</dt><dd>{}</dd></div>", escape(&value));
    }
    out.push_str("</dl>\n");
}

fn throughput(out: &mut String, results: &[Measurement]) {
    let mut sizes: Vec<u64> = results.iter().map(|one| one.size_bytes).collect();
    sizes.sort_unstable();
    sizes.dedup();
    let at = |size: u64| -> f64 {
        let (low, high) = (sizes[0] as f64, sizes[sizes.len() - 1] as f64);
        if high > low {
            (size as f64 / low).ln() / (high / low).ln()
        } else {
            0.5
        }
    };
    let mut tests: BTreeMap<&str, Vec<&Measurement>> = BTreeMap::new();
    for one in results {
        tests.entry(&one.test).or_default().push(one);
    }
    let lines = tests.into_iter().map(|(test, mut of)| {
        of.sort_by_key(|one| one.size_bytes);
        let say = |one: &&Measurement| {
            let said = format!(
                "{}: {} Gbit/s, {} a second",
                show(one.size_bytes),
                number(one.gbit_per_s),
                number(one.messages_per_s)
            );
            (at(one.size_bytes), one.gbit_per_s, said)
        };
        Line {
            name: test.to_owned(),
            points: of.iter().map(say).collect(),
        }
    });
    // Labels of a long sweep would run into each other.
    let every = sizes.len().div_ceil(10);
    let plot = Plot {
        title: "Throughput by size",
        across: sizes
            .iter()
            .step_by(every)
            .map(|&size| (at(size), show(size)))
            .collect(),
        across_name: "size of one message or transfer",
        up_name: "Gbit/s",
        logarithmic: false,
        lines: lines.collect(),
    };
    out.push_str("<h2>Throughput</h2>\n<p>Payload bits a second: higher is better.</p>\n");
    out.push_str(&plot.draw());
}

fn latency(out: &mut String, results: &[Measurement]) {
    const MARKS: [(f64, &str); 6] = [
        (0.0, "fastest"),
        (0.5, "50%"),
        (0.9, "90%"),
        (0.99, "99%"),
        (0.999, "99.9%"),
        (1.0, "slowest"),
    ];
    // Nines are equally far apart; the slowest stands where five nines would.
    let at = |quantile: f64| -(1.0 - quantile.min(0.99999)).log10() / 5.0;
    let lines = results.iter().map(|one| Line {
        name: format!("{} {}", one.test, show(one.size_bytes)),
        points: one
            .latency_curve_us
            .iter()
            .map(|&(quantile, micros)| {
                let said = match quantile {
                    1.0 => format!("slowest: {} us", number(micros)),
                    _ => format!("{}% within {} us", quantile * 100.0, number(micros)),
                };
                (at(quantile), micros, said)
            })
            .collect(),
    });
    let plot = Plot {
        title: "Latency percentiles",
        across: MARKS
            .iter()
            .map(|&(quantile, name)| (at(quantile), name.to_owned()))
            .collect(),
        across_name: "share of messages or transfers that took no longer",
        up_name: "microseconds",
        logarithmic: true,
        lines: lines.collect(),
    };
    out.push_str(
        "<h2>Latency</h2>\n<p>How long one message or transfer took: lower is better, and a flat \
         line is steady. Where several are under way at a time, each waits for those before it.\
         </p>\n",
    );
    out.push_str(&plot.draw());
}

fn table(out: &mut String, results: &[Measurement]) {
    out.push_str("<h2>All numbers</h2>\n");
    let rows = results
        .iter()
        .map(|one| COLUMNS.map(|column| (column.cell)(one)));
    rows_of(out, &COLUMNS.map(|column| column.long), rows);
}

fn receptions(out: &mut String, receptions: &[Reception]) {
    out.push_str(
        "<h2>From a card's buffers into the device's memory</h2>\n<p><b>Staged</b>: frames lie in \
         host memory, the CPU checks them, the device copies them. <b>Direct</b>: frames lie in the \
         device's memory, which checks them and puts them in their places. Above 1, staging has a \
         penalty.</p>\n",
    );
    rows_of(out, &reception::HEAD, receptions.iter().map(Reception::row));
}

fn rows_of<const COLUMNS: usize>(
    out: &mut String,
    head: &[&str; COLUMNS],
    rows: impl Iterator<Item = [String; COLUMNS]>,
) {
    out.push_str("<div class=\"wide\"><table><thead><tr>");
    for name in head {
        let _ = write!(out, "<th>{}</th>", escape(name));
    }
    out.push_str("</tr></thead><tbody>\n");
    for row in rows {
        out.push_str("<tr>");
        for cell in row {
            let _ = write!(out, "<td>{}</td>", escape(&cell));
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</tbody></table></div>\n");
}

fn reading(out: &mut String) {
    out.push_str(
        "<h2>What the words mean</h2>\n<ul>\n\
         <li><b>bw</b> fills memory at the other end, several transfers at a time; a transfer is \
         done when all its bytes are in their final place. <b>bw_put</b> and <b>bw_get</b> are the \
         same to and from a Genie node.</li>\n\
         <li><b>lat</b> sends one message and waits until it is back; the bytes count both ways.\
         </li>\n\
         <li><b>rate</b> sends small messages one way, as many as possible.</li>\n\
         <li><b>batch</b> is how many are under way at a time.</li>\n\
         <li><b>Gbit/s</b> counts payload only. <b>Per core</b> divides it by the processor time of \
         the ends that are known: two busy cores halve it.</li>\n\
         <li><b>p99</b>: 99 of 100 took no longer.</li>\n\
         <li><b>resent</b> counts packets, or pieces of transfers, that were sent more than \
         once; <b>dropped</b> the frames that reached a DPDK port and were thrown away there.</li>\n\
         </ul>\n",
    );
}

/// A day and time in UTC (Howard Hinnant's algorithm for civil dates).
fn date(seconds: u64) -> String {
    let (days, in_day) = (seconds / 86_400, seconds % 86_400);
    let z = days + 719_468;
    let (era, of_era) = (z / 146_097, z % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march + 2) / 5 + 1;
    let month = if march < 10 { march + 3 } else { march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute) = (in_day / 3600, in_day % 3600 / 60);
    format!("{year}-{month:02}-{day:02} {hour:02}:{minute:02} UTC")
}

#[cfg(test)]
mod tests {
    use super::super::sample::{measurement, reception, report};
    use super::*;

    #[test]
    fn the_page_needs_nothing_from_elsewhere() {
        let results = vec![
            measurement("bw", 4096, 1.0),
            measurement("bw", 1 << 20, 3.0),
            measurement("lat", 64, 0.1),
        ];
        let page = page(&report(results));
        for foreign in [
            "http:", "https:", "src=", "href=", "url(", "@import", "<script", "//",
        ] {
            assert!(!page.contains(foreign), "{foreign}");
        }
        assert!(page.contains("prefers-color-scheme: dark"));
        assert_eq!(page.matches("<svg").count(), 2);
        assert!(page.contains("&lt;bw&gt;") && page.contains("A &amp; B"));
        assert!(page.contains("not every end is pinned"));
        assert!(page.contains("2023-11-14 22:13 UTC"));
    }

    #[test]
    fn a_run_without_results_is_a_page_too() {
        let mut empty = report(Vec::new());
        (empty.interrupted, empty.verified) = (true, false);
        let page = page(&empty);
        assert!(page.contains("ended before its time") && !page.contains("<svg"));
    }

    #[test]
    fn both_ways_into_a_device_stand_side_by_side() {
        let mut device = report(Vec::new());
        assert!(!page(&device).contains("direct/staged"));
        device.receptions.push(reception());
        let page = page(&device);
        for part in [
            "direct/staged",
            "<td>8 KiB</td>",
            "<td>2.50</td>",
            "&lt;took part&gt;",
        ] {
            assert!(page.contains(part), "{part}");
        }
    }

    #[test]
    fn wrong_bytes_stand_at_the_top() {
        let mut wrong = measurement("bw", 4096, 1.0);
        wrong.verify_errors = 12;
        assert!(page(&report(vec![wrong])).contains("12 bytes arrived other than they were sent"));
    }

    #[test]
    fn dates_are_right_at_the_edges() {
        assert_eq!(date(0), "1970-01-01 00:00 UTC");
        assert_eq!(date(951_782_400), "2000-02-29 00:00 UTC");
        assert_eq!(date(1_767_225_599), "2025-12-31 23:59 UTC");
    }
}
