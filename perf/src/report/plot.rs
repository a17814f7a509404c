//! Plots as inline SVG, without scripts. Colours come from the page's style, so they follow its
//! light or dark theme.

use std::fmt::Write as _;

use super::rows::number;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 320.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 46.0;
/// Classes of lines in the page's style; more lines begin again, dashed.
pub const COLOURS: usize = 6;

/// One line of a plot.
pub struct Line {
    /// For the legend.
    pub name: String,
    /// Place across (0 to 1), value, and what to say about it.
    pub points: Vec<(f64, f64, String)>,
}

/// A plot with a linear or logarithmic scale upwards.
pub struct Plot<'a> {
    /// What it shows, read aloud instead of it.
    pub title: &'a str,
    /// Marks across: place (0 to 1) and label.
    pub across: Vec<(f64, String)>,
    /// Under them.
    pub across_name: &'a str,
    /// Beside the marks upwards.
    pub up_name: &'a str,
    /// Whether upwards is logarithmic.
    pub logarithmic: bool,
    /// What to draw.
    pub lines: Vec<Line>,
}

impl Plot<'_> {
    /// The plot and its legend.
    #[must_use]
    pub fn draw(&self) -> String {
        let values = || {
            self.lines
                .iter()
                .flat_map(|line| line.points.iter().map(|point| point.1))
        };
        let scale = Scale::over(values(), self.logarithmic);
        let mut out = format!(
            "<figure><svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\"><title>{}</title>\n",
            escape(self.title)
        );
        for mark in scale.marks() {
            let y = y_of(scale.place(mark));
            let _ = writeln!(
                out,
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
                 <text class=\"mark\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                WIDTH - RIGHT,
                LEFT - 8.0,
                y + 4.0,
                number(mark).trim_end_matches(".0")
            );
        }
        for (at, label) in &self.across {
            let x = x_of(*at);
            let _ = writeln!(
                out,
                "<line class=\"grid\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{:.1}\"/>\
                 <text class=\"mark\" x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
                HEIGHT - BOTTOM,
                HEIGHT - BOTTOM + 17.0,
                escape(label)
            );
        }
        let _ = writeln!(
            out,
            "<text class=\"name\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>\
             <text class=\"name\" transform=\"translate(14 {:.1}) rotate(-90)\" \
             text-anchor=\"middle\">{}</text>",
            x_of(0.5),
            HEIGHT - 6.0,
            escape(self.across_name),
            y_of(0.5),
            escape(self.up_name)
        );
        for (at, line) in self.lines.iter().enumerate() {
            self.draw_line(&mut out, at, line, &scale);
        }
        out.push_str("</svg><figcaption>");
        for (at, line) in self.lines.iter().enumerate() {
            let _ = write!(
                out,
                "<span class=\"key\"><i class=\"k{}{}\"></i>{}</span> ",
                at % COLOURS,
                if at < COLOURS { "" } else { " again" },
                escape(&line.name)
            );
        }
        out + "</figcaption></figure>\n"
    }

    fn draw_line(&self, out: &mut String, at: usize, line: &Line, scale: &Scale) {
        let class = at % COLOURS;
        let place = |point: &(f64, f64, String)| (x_of(point.0), y_of(scale.place(point.1)));
        if line.points.len() > 1 {
            let dashes = ["none", "7 4", "2 3"][(at / COLOURS).min(2)];
            let _ = write!(
                out,
                "<polyline class=\"line c{class}\" stroke-dasharray=\"{dashes}\" points=\""
            );
            for (x, y) in line.points.iter().map(place) {
                let _ = write!(out, "{x:.1},{y:.1} ");
            }
            out.push_str("\"/>\n");
        }
        for point in &line.points {
            let (x, y) = place(point);
            let _ = writeln!(
                out,
                "<circle class=\"dot c{class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\"><title>{}: {}\
                 </title></circle>",
                escape(&line.name),
                escape(&point.2)
            );
        }
    }
}

fn x_of(place: f64) -> f64 {
    // Marks at the edges keep room for their labels.
    LEFT + 14.0 + place.clamp(0.0, 1.0) * (WIDTH - LEFT - RIGHT - 28.0)
}

fn y_of(place: f64) -> f64 {
    HEIGHT - BOTTOM - place.clamp(0.0, 1.0) * (HEIGHT - TOP - BOTTOM)
}

/// From values to places between 0 and 1.
struct Scale {
    low: f64,
    high: f64,
    /// Between marks, if it is linear.
    step: f64,
    logarithmic: bool,
}

impl Scale {
    fn over(values: impl Iterator<Item = f64>, logarithmic: bool) -> Self {
        let (mut low, mut high) = (f64::INFINITY, 0.0_f64);
        for value in values.filter(|value| value.is_finite() && *value >= 0.0) {
            if value > 0.0 {
                low = low.min(value);
            }
            high = high.max(value);
        }
        if high <= 0.0 {
            (low, high) = (0.1, 1.0);
        }
        if logarithmic {
            let low = 10_f64.powf(low.log10().floor());
            let high = 10_f64.powf(high.log10().ceil()).max(low * 10.0);
            return Self {
                low,
                high,
                step: 0.0,
                logarithmic,
            };
        }
        let step = step(high);
        Self {
            low: 0.0,
            high: (high / step).ceil() * step,
            step,
            logarithmic,
        }
    }

    fn place(&self, value: f64) -> f64 {
        if self.logarithmic {
            let value = value.max(self.low);
            (value / self.low).log10() / (self.high / self.low).log10()
        } else {
            value / self.high
        }
    }

    fn marks(&self) -> Vec<f64> {
        let mut marks = Vec::new();
        let mut at = self.low;
        // A bound against rounding: no plot needs more.
        while at <= self.high * 1.001 && marks.len() < 16 {
            marks.push(at);
            at = if self.logarithmic {
                at * 10.0
            } else {
                at + self.step
            };
        }
        marks
    }
}

/// A round step that gives four to eight marks up to `high`.
fn step(high: f64) -> f64 {
    let power = 10_f64.powf((high / 4.0).log10().floor());
    match high / 4.0 / power {
        part if part >= 5.0 => 5.0 * power,
        part if part >= 2.0 => 2.0 * power,
        _ => power,
    }
}

/// Text that is safe in HTML.
#[must_use]
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_begin_and_end_at_round_numbers() {
        let linear = Scale::over([3.0, 37.0].into_iter(), false);
        assert_eq!((linear.low, linear.high), (0.0, 40.0));
        assert_eq!(
            linear.marks(),
            [0.0, 5.0, 10.0, 15.0, 20.0, 25.0, 30.0, 35.0, 40.0]
        );
        let log = Scale::over([3.0, 370.0].into_iter(), true);
        assert_eq!(log.marks(), [1.0, 10.0, 100.0, 1000.0]);
        assert!((log.place(31.62) - 0.5).abs() < 0.01);
        assert!(Scale::over(std::iter::empty(), true).marks().len() > 1);
        assert!(Scale::over([0.0].into_iter(), false).marks().len() > 1);
    }

    #[test]
    fn names_can_not_break_out() {
        assert_eq!(
            escape("<a href='x'>&\"\n"),
            "&lt;a href=&#39;x&#39;&gt;&amp;&quot; "
        );
    }
}
