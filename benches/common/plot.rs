//! Lines over two logarithmic axes, as SVG.

use std::{fmt::Write, fs};

use super::Result;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 420.0;
/// The space around the lines: left, right, top, bottom.
const SPACE: [f64; 4] = [84.0, 190.0, 48.0, 60.0];
/// Colours that can be told apart also without seeing red or green.
const COLOURS: [&str; 4] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7"];

pub(crate) struct Plot {
    pub(crate) title: &'static str,
    pub(crate) across: &'static str,
    pub(crate) up: &'static str,
    /// A name for each line, and its points.
    pub(crate) lines: Vec<(String, Vec<(f64, f64)>)>,
}

impl Plot {
    /// Writes it beside the benchmarks.
    pub(crate) fn save(&self, name: &str) -> Result<()> {
        let path = format!("{}/benches/{name}", env!("CARGO_MANIFEST_DIR"));
        Ok(fs::write(path, self.svg()?)?)
    }

    fn svg(&self) -> Result<String> {
        let points = || self.lines.iter().flat_map(|(_, points)| points);
        let across = Scale::of(points().map(|it| it.0), SPACE[0], WIDTH - SPACE[1]);
        let up = Scale::of(points().map(|it| it.1), HEIGHT - SPACE[3], SPACE[2]);
        let mut out = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
             font-family=\"sans-serif\" font-size=\"13\" fill=\"#333\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n"
        );
        let (left, right) = (across.start, across.end);
        let (bottom, top) = (up.start, up.end);
        for (value, at) in across.ticks() {
            writeln!(out, "<path d=\"M{at:.1} {bottom}V{top}\" stroke=\"#ddd\"/>")?;
            let y = bottom + 20.0;
            writeln!(out, "<text x=\"{at:.1}\" y=\"{y}\" text-anchor=\"middle\">{value}</text>")?;
        }
        for (value, at) in up.ticks() {
            writeln!(out, "<path d=\"M{left} {at:.1}H{right}\" stroke=\"#ddd\"/>")?;
            let (x, y) = (left - 8.0, at + 4.0);
            writeln!(out, "<text x=\"{x}\" y=\"{y:.1}\" text-anchor=\"end\">{value}</text>")?;
        }
        let frame = format!("M{left} {top}V{bottom}H{right}");
        writeln!(out, "<path d=\"{frame}\" fill=\"none\" stroke=\"#333\"/>")?;
        let (x, y) = (f64::midpoint(left, right), HEIGHT - 16.0);
        writeln!(out, "<text x=\"{x}\" y=\"{y}\" text-anchor=\"middle\">{}</text>", self.across)?;
        let y = f64::midpoint(top, bottom);
        writeln!(
            out,
            "<text transform=\"translate(20 {y}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
            self.up
        )?;
        writeln!(
            out,
            "<text x=\"{left}\" y=\"26\" font-size=\"16\" font-weight=\"bold\">{}</text>",
            self.title
        )?;
        for (i, (name, points)) in self.lines.iter().enumerate() {
            let colour = COLOURS[i % COLOURS.len()];
            let places: Vec<(f64, f64)> =
                points.iter().map(|(x, y)| (across.place(*x), up.place(*y))).collect();
            let line: Vec<String> = places.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
            writeln!(
                out,
                "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
                line.join(" ")
            )?;
            for (x, y) in &places {
                writeln!(out, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\" fill=\"{colour}\"/>")?;
            }
            let (x, y) = (right + 16.0, top + 12.0 + 22.0 * i as f64);
            writeln!(out, "<circle cx=\"{x}\" cy=\"{}\" r=\"4\" fill=\"{colour}\"/>", y - 4.0)?;
            writeln!(out, "<text x=\"{}\" y=\"{y}\">{name}</text>", x + 12.0)?;
        }
        out.push_str("</svg>\n");
        Ok(out)
    }
}

/// Powers of ten between two places.
struct Scale {
    low: i32,
    high: i32,
    start: f64,
    end: f64,
}

impl Scale {
    fn of(values: impl Iterator<Item = f64>, start: f64, end: f64) -> Self {
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        for value in values.filter(|it| *it > 0.0) {
            (low, high) = (low.min(value.log10()), high.max(value.log10()));
        }
        let low = if low.is_finite() { low.floor() as i32 } else { 0 };
        let high = if high.is_finite() { high.ceil() as i32 } else { 1 };
        Self { low, high: high.max(low + 1), start, end }
    }

    fn place(&self, value: f64) -> f64 {
        let low = f64::from(self.low);
        let part = (value.max(f64::MIN_POSITIVE).log10() - low) / (f64::from(self.high) - low);
        self.start + part * (self.end - self.start)
    }

    fn ticks(&self) -> impl Iterator<Item = (String, f64)> {
        (self.low..=self.high).map(|power| {
            let value = 10_f64.powi(power);
            let text = match power {
                3.. => super::thousands(value as usize),
                _ => format!("{value}"),
            };
            (text, self.place(value))
        })
    }
}
