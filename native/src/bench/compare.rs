//! `zebra bench --compare`: two reports side by side, test by test.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::output;
use crate::terminal::Terminal;

/// What is compared of a report. Other fields may be there or not: reports of other commits have others.
#[derive(Debug, Deserialize)]
struct Recorded {
    model: String,
    format: String,
    cache: String,
    adapter: String,
    driver: String,
    commit: String,
    results: Vec<Test>,
}

#[derive(Debug, Deserialize)]
struct Test {
    test: String,
    tokens_per_second: f64,
    deviation: f64,
}

impl Recorded {
    fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        let what = || format!("{}: expected a report of `zebra bench --json`", path.display());
        let report: Self = serde_json::from_str(&text).with_context(what)?;
        if report.results.is_empty() {
            bail!("{}, found one without a test", what());
        }
        Ok(report)
    }

    fn find(&self, test: &str) -> Option<&Test> {
        self.results.iter().find(|t| t.test == test)
    }
}

pub fn run(files: &[PathBuf], terminal: &Terminal) -> Result<()> {
    let [a, b] = files else { bail!("--compare: expected two files, found {}", files.len()) };
    let (first, second) = (Recorded::read(a)?, Recorded::read(b)?);
    if let Some(differences) = differences(&first, &second) {
        terminal.warn(format_args!("the reports are not of the same thing: {differences}"));
    }
    let mut out = String::new();
    for (name, path, report) in [("A", a, &first), ("B", b, &second)] {
        let Recorded { model, format, cache, adapter, driver, commit, .. } = report;
        // Writing to a String cannot fail.
        let _ = writeln!(
            out,
            "{name}: {}: {model}, {format}, cache {cache}, on {adapter} ({driver}), commit {commit}",
            path.display()
        );
    }
    Ok(output::text(&(out + &table(&first, &second)))?)
}

/// What keeps a comparison from being one of the program alone.
fn differences(a: &Recorded, b: &Recorded) -> Option<String> {
    let fields = [
        ("model", &a.model, &b.model),
        ("format", &a.format, &b.format),
        ("cache", &a.cache, &b.cache),
        ("adapter", &a.adapter, &b.adapter),
        ("driver", &a.driver, &b.driver),
    ];
    let named: Vec<String> = fields
        .into_iter()
        .filter(|(_, a, b)| a != b)
        .map(|(name, a, b)| format!("{name} \"{a}\" and \"{b}\""))
        .collect();
    (!named.is_empty()).then(|| named.join(", "))
}

/// The tests of A in their order, then those that only B has.
fn table(a: &Recorded, b: &Recorded) -> String {
    let only_b = b.results.iter().filter(|t| a.find(&t.test).is_none());
    let mut out = "\n| test | A, tokens/s | B, tokens/s | change |\n|---|---|---|---|\n".to_owned();
    let mut marked = false;
    for test in a.results.iter().chain(only_b) {
        let found = (a.find(&test.test), b.find(&test.test));
        let change = match found {
            (Some(a), Some(b)) => {
                let outside = is_outside(a, b);
                marked |= outside;
                let percent = 100.0 * (b.tokens_per_second / a.tokens_per_second - 1.0);
                format!("{percent:+.1}%{}", if outside { " *" } else { "" })
            }
            _ => "–".into(),
        };
        let speed =
            |t: Option<&Test>| t.map_or("–".into(), |t| format!("{:.1} ± {:.1}", t.tokens_per_second, t.deviation));
        // Writing to a String cannot fail.
        let _ = writeln!(out, "| {} | {} | {} | {change} |", test.test, speed(found.0), speed(found.1));
    }
    if marked {
        out.push_str("\n* outside of both deviations\n");
    }
    out
}

/// Whether two speeds differ by more than both their deviations explain.
fn is_outside(a: &Test, b: &Test) -> bool {
    (a.tokens_per_second - b.tokens_per_second).abs() > a.deviation + b.deviation
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(adapter: &str, tests: &[(&str, f64, f64)]) -> Recorded {
        let test = |&(test, tokens_per_second, deviation): &(&str, f64, f64)| Test {
            test: test.into(),
            tokens_per_second,
            deviation,
        };
        Recorded {
            model: "m".into(),
            format: "q4".into(),
            cache: "q8".into(),
            adapter: adapter.into(),
            driver: "d".into(),
            commit: "c".into(),
            results: tests.iter().map(test).collect(),
        }
    }

    #[test]
    fn changes_beyond_both_deviations_are_marked() {
        let a = report("x", &[("pp512", 100.0, 4.0), ("tg128", 50.0, 1.0), ("tg128 x 8", 80.0, 1.0)]);
        let b = report("x", &[("tg128", 75.0, 1.0), ("pp512", 105.0, 2.0), ("tg64", 9.0, 0.0)]);
        let table = table(&a, &b);
        let lines: Vec<&str> = table.lines().skip(3).collect();
        assert_eq!(
            lines,
            [
                "| pp512 | 100.0 ± 4.0 | 105.0 ± 2.0 | +5.0% |",
                "| tg128 | 50.0 ± 1.0 | 75.0 ± 1.0 | +50.0% * |",
                "| tg128 x 8 | 80.0 ± 1.0 | – | – |",
                "| tg64 | – | 9.0 ± 0.0 | – |",
                "",
                "* outside of both deviations",
            ]
        );
    }

    #[test]
    fn other_adapters_are_named() {
        let (a, b) = (report("x", &[]), report("y", &[]));
        assert_eq!(differences(&a, &a), None);
        assert_eq!(differences(&a, &b).as_deref(), Some("adapter \"x\" and \"y\""));
    }
}
