//! An explanation to look at: bars of what took how long, and a table of operators.

use std::fmt::Write as _;

use super::Explanation;
use super::text::Column;

/// Operators in the table: a page of more is slow to look at.
const ROWS_MAX: usize = 5000;

const STYLE: &str = "body{font:14px/1.4 system-ui,sans-serif;margin:2em;color:#222}\
table{border-collapse:collapse}td,th{padding:2px 10px;text-align:left}\
th{border-bottom:1px solid #999}td.n{text-align:right}\
.bar{display:flex;height:26px;margin:4px 0 2px;width:100%}\
.bar span{overflow:hidden;color:#fff;font-size:11px;padding:4px 2px;white-space:nowrap}\
p.w{color:#a40}";
const COLOURS: [&str; 14] = [
    "#4269d0", "#b8860b", "#c0392b", "#3a9188", "#3c8c3f", "#a463a8", "#97643c", "#5b6b7b",
    "#8a5a83", "#2c7da0", "#7a6c00", "#8f3f3f", "#446688", "#556b2f",
];

impl Explanation {
    /// The whole of it as one HTML file, which needs nothing else.
    #[must_use]
    pub fn page(&self) -> String {
        let title = escaped(&self.title());
        let mut page = format!(
            "<!doctype html><meta charset='utf-8'><title>{title}</title><style>{STYLE}</style><h1>{title}</h1>\n"
        );
        for warning in &self.warnings {
            let _ = writeln!(page, "<p class='w'>{}</p>", escaped(warning));
        }
        let bars: [(&str, Column); 5] = [
            ("phase", |one| &one.phase),
            ("role", |one| &one.role),
            ("modality", |one| &one.modality),
            ("residency", |one| &one.residency),
            ("node", |one| &one.node),
        ];
        for (what, of) in bars {
            self.bar(&mut page, what, of);
        }
        self.table(&mut page);
        page
    }

    fn bar(&self, page: &mut String, what: &str, of: Column) {
        let sums = self.sums(of);
        // Where nothing was measured, by how many there are.
        let all: f64 = sums.iter().map(|&(_, _, us)| us).sum();
        let part = |count: usize, us: f64| match all > 0.0 {
            true => us / all,
            false => count as f64 / self.operators.len().max(1) as f64,
        };
        let _ = write!(page, "<h2>{what}</h2><div class='bar'>");
        for (at, &(name, count, us)) in sums.iter().enumerate() {
            let label = escaped(&format!("{name}: {count} operators, {:.2} ms", us / 1e3));
            let (width, colour) = (part(count, us) * 100.0, COLOURS[at % COLOURS.len()]);
            let _ = write!(
                page,
                "<span title='{label}' style='width:{width:.2}%;background:{colour}'>{label}</span>"
            );
        }
        let _ = writeln!(page, "</div>");
    }

    fn table(&self, page: &mut String) {
        let _ = write!(page, "<h2>operators</h2><table><tr>");
        for name in [
            "op",
            "phase",
            "modality",
            "residency",
            "role",
            "module",
            "node",
            "line",
            "flops",
            "bytes read",
            "bytes written",
            "ran us",
        ] {
            let _ = write!(page, "<th>{name}</th>");
        }
        let _ = writeln!(page, "</tr>");
        for one in self.operators.iter().take(ROWS_MAX) {
            let _ = write!(page, "<tr>");
            for text in [
                &one.op,
                &one.phase,
                &one.modality,
                &one.residency,
                &one.role,
                &one.module,
                &one.node,
                &one.line,
            ] {
                let _ = write!(page, "<td>{}</td>", escaped(text));
            }
            for number in [one.flops, one.bytes_read, one.bytes_written] {
                let _ = write!(page, "<td class='n'>{number}</td>");
            }
            let ran = one.ran_us.map_or_else(String::new, |us| format!("{us:.1}"));
            let _ = writeln!(page, "<td class='n'>{ran}</td></tr>");
        }
        let _ = writeln!(page, "</table>");
        let more = self.operators.len().saturating_sub(ROWS_MAX);
        if more > 0 {
            let _ = writeln!(page, "<p>and {more} more: JSON has all</p>");
        }
    }
}

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '\'' => escaped.push_str("&#39;"),
            '"' => escaped.push_str("&quot;"),
            other => escaped.push(other),
        }
    }
    escaped
}
