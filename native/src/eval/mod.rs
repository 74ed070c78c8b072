//! `zebra eval`: how right a model is, against goldens, exact answers and another format of itself.

pub mod kld;
pub mod logits;
pub mod questions;

use std::path::Path;

use anyhow::{Context, Result};

/// The lines of a JSON-lines file with their numbers, blank ones left out.
fn json_lines(path: &Path) -> Result<Vec<(usize, serde_json::Value)>> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    text.lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty())
        .map(|(i, line)| {
            let value = serde_json::from_str(line).with_context(|| format!("{} line {}", path.display(), i + 1))?;
            Ok((i + 1, value))
        })
        .collect()
}

/// A string of a line.
fn text<'a>(value: &'a serde_json::Value, key: &str, path: &Path, line: usize) -> Result<&'a str> {
    value[key].as_str().with_context(|| format!("{} line {line}: expected a string \"{key}\"", path.display()))
}
