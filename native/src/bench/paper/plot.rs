//! The rows as plots: decode throughput and a sequence's cache over the context, a line for each model. Written as
//! text: one file, whose colours follow the reader's light or dark theme, which plotting crates do not do.

use std::collections::BTreeMap;
use std::fmt::{Result, Write};

use super::rows::{Mode, Row};

const WIDTH: f64 = 1120.0;
const HEIGHT: f64 = 460.0;
/// Of one plot's inside.
const PLOT: (f64, f64) = (450.0, 300.0);
/// Where the insides begin.
const TOP: f64 = 50.0;
const LEFTS: [f64; 2] = [80.0, 640.0];

/// Told apart on white and on black, and by most who see colours otherwise.
const COLOURS: [&str; 8] = ["#3b82f6", "#e0700b", "#16a34a", "#d6409f", "#8b5cf6", "#0d9ba8", "#b58900", "#dc2626"];

const STYLE: &str = "\
.paper{fill:#ffffff}.ink{fill:#1f2328}.grid{stroke:#1f2328;stroke-opacity:.15}\
@media(prefers-color-scheme:dark){.paper{fill:#0d1117}.ink{fill:#e6edf3}.grid{stroke:#e6edf3}}\
text{font:12px system-ui,sans-serif}.title{font-size:15px}.line{fill:none;stroke-width:2}";

/// One line of both plots: a model with a batch, on read prompts or on random ones.
struct Series<'a> {
    name: String,
    colour: &'static str,
    random: bool,
    rows: Vec<&'a Row>,
}

fn series<'a>(rows: &[&'a Row]) -> Vec<Series<'a>> {
    let mut batches: Vec<u32> = rows.iter().map(|row| row.key.batch).collect();
    batches.sort_unstable();
    batches.dedup();
    let mut models: Vec<&str> = Vec::new();
    let mut found: BTreeMap<(usize, u32, bool), Vec<&Row>> = BTreeMap::new();
    for row in rows {
        let model = models.iter().position(|m| *m == row.key.model).unwrap_or_else(|| {
            models.push(&row.key.model);
            models.len() - 1
        });
        found.entry((model, row.key.batch, row.key.mode == Mode::Random)).or_default().push(row);
    }
    let named = |((model, batch, random), mut rows): ((usize, u32, bool), Vec<&'a Row>)| {
        rows.sort_by_key(|row| row.key.prompt);
        let batch = if batches.len() > 1 { format!(" x {batch}") } else { String::new() };
        let random_name = if random { ", random" } else { "" };
        let name = format!("{}{batch}{random_name}", rows.first().map_or_else(String::new, |row| row.key.title()));
        Series { name, colour: COLOURS[model % COLOURS.len()], random, rows }
    };
    found.into_iter().map(named).collect()
}

/// One axis: its ends, and whether it goes by powers.
#[derive(Clone, Copy)]
struct Axis {
    low: f64,
    high: f64,
    powers: bool,
}

impl Axis {
    /// Where a value lies, from 0 to 1.
    fn at(self, value: f64) -> f64 {
        let place = |v: f64| if self.powers { v.log2() } else { v };
        (place(value) - place(self.low)) / (place(self.high) - place(self.low))
    }

    /// From 0 to a round number.
    fn linear(most: f64) -> Self {
        let unit = 10f64.powf(most.max(1.0).log10().floor());
        let high = [1.0, 2.0, 4.0, 5.0, 8.0, 10.0].map(|m| m * unit).into_iter().find(|high| *high >= most);
        Self { low: 0.0, high: high.unwrap_or(10.0 * unit), powers: false }
    }

    /// Between powers of `base` around what is there.
    fn powers(values: &[f64], base: f64) -> Self {
        let power = |v: f64, round: fn(f64) -> f64| base.powf(round(v.max(1.0).ln() / base.ln()));
        let low = values.iter().copied().fold(f64::INFINITY, f64::min);
        let high = values.iter().copied().fold(1.0, f64::max);
        let low = power(if low.is_finite() { low } else { 1.0 }, |p| (p + 1e-9).floor());
        let high = power(high, |p| (p - 1e-9).ceil());
        Self { low, high: if high > low { high } else { low * base }, powers: true }
    }

    fn ticks(self, base: f64) -> Vec<f64> {
        if self.powers {
            let mut ticks = vec![self.low];
            while let Some(last) = ticks.last().copied().filter(|last| *last < self.high / 1.001) {
                ticks.push(last * base);
            }
            ticks
        } else {
            (0..=4).map(|i| self.low + f64::from(i) / 4.0 * (self.high - self.low)).collect()
        }
    }
}

pub fn svg(rows: &[&Row]) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = write(&mut out, rows);
    out
}

fn write(out: &mut String, rows: &[&Row]) -> Result {
    let series = series(rows);
    let refused = rows.iter().any(|row| row.refusal().is_some());
    let legend = series.len().div_ceil(4) as f64 * 20.0;
    let height = HEIGHT + legend;
    writeln!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
         height=\"{height}\" role=\"img\" aria-label=\"Decode throughput and cache over context\">\n<style>{STYLE}</style>\n\
         <rect class=\"paper\" width=\"100%\" height=\"100%\"/>"
    )?;
    let speed = |row: &Row| row.measured().map(|m| m.decode_tokens_per_second);
    let cache = |row: &Row| Some(row.sequence_bytes(u64::from(row.key.prompt)) as f64);
    let values = |of: &dyn Fn(&Row) -> Option<f64>| rows.iter().filter_map(|row| of(row)).collect::<Vec<f64>>();
    let x = Axis::powers(&rows.iter().map(|row| f64::from(row.key.prompt)).collect::<Vec<_>>(), 2.0);
    let most = values(&speed).into_iter().fold(1.0, f64::max);
    plot(out, LEFTS[0], "Decode, tokens/s", x, Axis::linear(most), 1.0, &|v| format!("{v:.0}"), &series, &speed)?;
    let bytes = Axis::powers(&values(&cache), 4.0);
    plot(out, LEFTS[1], "Cache and states of a sequence", x, bytes, 4.0, &size, &series, &cache)?;
    for (i, line) in series.iter().enumerate() {
        let (left, top) = (LEFTS[0] + (i % 4) as f64 * 255.0, HEIGHT - 20.0 + (i / 4) as f64 * 20.0);
        writeln!(
            out,
            "<line class=\"line\" stroke=\"{}\"{} x1=\"{left}\" x2=\"{}\" y1=\"{}\" y2=\"{}\"/>\
             <text class=\"ink\" x=\"{}\" y=\"{top}\">{}</text>",
            line.colour,
            dashes(line.random),
            left + 24.0,
            top - 4.0,
            top - 4.0,
            left + 30.0,
            line.name
        )?;
    }
    if refused {
        let (left, top) = (LEFTS[0], TOP + PLOT.1 + 60.0);
        writeln!(out, "<text class=\"ink\" x=\"{left}\" y=\"{top}\">× does not fit this GPU</text>")?;
    }
    writeln!(out, "</svg>")
}

fn dashes(random: bool) -> &'static str {
    if random { " stroke-dasharray=\"6 4\"" } else { "" }
}

/// Bytes in few letters.
fn size(bytes: f64) -> String {
    let (power, unit) = match bytes {
        b if b >= f64::from(1 << 30) => (30, "GiB"),
        b if b >= f64::from(1 << 20) => (20, "MiB"),
        b if b >= f64::from(1 << 10) => (10, "KiB"),
        _ => (0, "B"),
    };
    format!("{:.0} {unit}", bytes / f64::from(1 << power))
}

#[expect(clippy::too_many_arguments, reason = "the two calls of it stand together")]
fn plot(
    out: &mut String,
    left: f64,
    title: &str,
    x: Axis,
    y: Axis,
    y_base: f64,
    y_label: &dyn Fn(f64) -> String,
    series: &[Series<'_>],
    value: &dyn Fn(&Row) -> Option<f64>,
) -> Result {
    let (width, height) = PLOT;
    let px = |v: f64| left + width * x.at(v);
    let py = |v: f64| TOP + height * (1.0 - y.at(v));
    writeln!(out, "<text class=\"ink title\" x=\"{left}\" y=\"{}\">{title}</text>", TOP - 18.0)?;
    for tick in y.ticks(y_base) {
        let (at, right, label) = (py(tick), left + width, y_label(tick));
        writeln!(
            out,
            "<line class=\"grid\" x1=\"{left}\" x2=\"{right}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
             <text class=\"ink\" text-anchor=\"end\" x=\"{}\" y=\"{:.1}\">{label}</text>",
            left - 6.0,
            at + 4.0
        )?;
    }
    let bottom = TOP + height;
    for tick in x.ticks(2.0) {
        let at = px(tick);
        writeln!(
            out,
            "<line class=\"grid\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{TOP}\" y2=\"{bottom}\"/>\
             <text class=\"ink\" text-anchor=\"middle\" x=\"{at:.1}\" y=\"{}\">{tick}</text>",
            bottom + 18.0
        )?;
    }
    let (middle, below) = (left + width / 2.0, bottom + 38.0);
    writeln!(
        out,
        "<text class=\"ink\" text-anchor=\"middle\" x=\"{middle}\" y=\"{below}\">tokens in the context</text>"
    )?;
    for line in series {
        let colour = line.colour;
        let points: Vec<(f64, f64, &Row)> =
            line.rows.iter().filter_map(|row| Some((px(f64::from(row.key.prompt)), py(value(row)?), *row))).collect();
        let list: Vec<String> = points.iter().map(|(x, y, _)| format!("{x:.1},{y:.1}")).collect();
        let (dashes, list) = (dashes(line.random), list.join(" "));
        writeln!(out, "<polyline class=\"line\" stroke=\"{colour}\"{dashes} points=\"{list}\"/>")?;
        for (x, y, row) in points {
            let title = format!("{}: {}", row.key, value(row).map_or_else(String::new, y_label));
            writeln!(
                out,
                "<circle fill=\"{colour}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\"><title>{title}</title></circle>"
            )?;
        }
        for row in line.rows.iter().filter(|row| value(row).is_none()) {
            let (at, title) =
                (px(f64::from(row.key.prompt)), row.refusal().map_or_else(String::new, ToString::to_string));
            writeln!(
                out,
                "<text fill=\"{colour}\" text-anchor=\"middle\" x=\"{at:.1}\" y=\"{:.1}\">×\
                 <title>{}: {title}</title></text>",
                bottom - 3.0,
                row.key
            )?;
        }
    }
    Ok(())
}
