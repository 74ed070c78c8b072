//! What a measurement of the comparison is: rows, each by itself, and the file that holds them.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// How the context got into the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Every sequence read its prompt.
    Read,
    /// One sequence read its prompt, the others got copies.
    Shared,
    /// Rows of a short text fill it.
    Random,
}

impl Mode {
    pub fn name(self) -> &'static str {
        match self {
            Mode::Read => "read",
            Mode::Shared => "shared",
            Mode::Random => "random",
        }
    }
}

/// What is measured: rows of equal keys are the same measurement.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Key {
    /// The preset's name.
    pub model: String,
    pub format: String,
    pub cache: String,
    pub batch: u32,
    pub prompt: u32,
    pub generate: u32,
    pub mode: Mode,
    pub adapter: String,
}

impl Key {
    /// The preset's name, for readers who do not know that a size alone is a Zebra's.
    pub fn title(&self) -> String {
        if self.model.starts_with(|c: char| c.is_ascii_digit()) {
            format!("zebra-{}", self.model)
        } else {
            self.model.clone()
        }
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}, batch {} at {} tokens ({})", self.title(), self.batch, self.prompt, self.mode.name())
    }
}

/// What keeps a batch from being larger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    Memory,
    /// One binding must hold a slot of a layer's cache, and its states of all slots.
    Binding,
    /// The engine's own.
    Slots,
}

/// The largest batch that fits, and what ends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Largest {
    pub batch: u32,
    pub by: Limit,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    #[serde(flatten)]
    pub key: Key,
    pub driver: String,
    pub commit: String,
    pub parameters: u64,
    /// Of all sequences, with room for the tokens to generate: what this row alone needs, by the plan.
    pub gpu_bytes: u64,
    pub cache_bytes_per_token: u64,
    /// States of recurrent layers, whatever the length.
    pub state_bytes_per_sequence: u64,
    /// Values that are cached of a token, over those of the Llama of this size.
    pub percent_of_llama: f64,
    /// At this prompt; not known where the adapter's memory is not.
    pub largest_batch: Option<Largest>,
    pub outcome: Outcome,
}

impl Row {
    /// Bytes that a sequence's cache and states take after so many tokens.
    pub fn sequence_bytes(&self, tokens: u64) -> u64 {
        self.state_bytes_per_sequence + self.cache_bytes_per_token * tokens
    }

    pub fn measured(&self) -> Option<&Measured> {
        match &self.outcome {
            Outcome::Measured(measured) => Some(measured),
            Outcome::DoesNotFit(_) => None,
        }
    }

    pub fn refusal(&self) -> Option<&Refusal> {
        match &self.outcome {
            Outcome::Measured(_) => None,
            Outcome::DoesNotFit(refusal) => Some(refusal),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Measured(Measured),
    DoesNotFit(Refusal),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    pub kernels: String,
    /// Tokens in the cache when decoding began: the prompt's, but for one that would leave the model no room to decode.
    pub depth: u32,
    /// Of all prompts together, where each was read.
    pub prompt_seconds: Option<f64>,
    pub decode_seconds: f64,
    pub decode_tokens_per_second: f64,
    /// Tokens generated over the time of reading and decoding.
    pub end_to_end_tokens_per_second: Option<f64>,
    /// What the allocator holds, with room for the largest row that was loaded for.
    pub allocator_bytes: Option<u64>,
}

/// Why a row cannot be measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Refusal {
    /// What did not fit.
    pub what: String,
    pub unit: Unit,
    pub need: u64,
    pub have: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    Bytes,
    Positions,
    Count,
}

impl Refusal {
    /// A model that needs more memory than there is.
    pub fn of_memory(need: u64, have: Option<u64>) -> Self {
        Self { what: "the model with its cache".into(), unit: Unit::Bytes, need, have }
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let amount = |n: u64| match self.unit {
            Unit::Bytes => format!("{:.2} GiB", n as f64 / f64::from(1 << 30)),
            Unit::Positions => format!("{n} positions"),
            Unit::Count => n.to_string(),
        };
        let have = self.have.map_or("not known".into(), amount);
        write!(f, "does not fit: {} needs {}, there: {have}", self.what, amount(self.need))
    }
}

/// All that is saved in a folder.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
struct Saved {
    rows: Vec<Row>,
}

/// The rows of this and earlier runs, on the disk as soon as they are known.
#[derive(Debug)]
pub struct Record {
    file: PathBuf,
    saved: Saved,
}

impl Record {
    /// Of a folder, which is made where it is not there.
    pub fn open(folder: &Path) -> Result<Self> {
        std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        let file = folder.join("paper.json");
        let saved = match std::fs::read(&file) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .with_context(|| format!("{}: expected the rows of an earlier run", file.display()))?,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Saved::default(),
            Err(e) => return Err(e).with_context(|| file.display().to_string()),
        };
        Ok(Self { file, saved })
    }

    pub fn rows(&self) -> &[Row] {
        &self.saved.rows
    }

    pub fn get(&self, key: &Key) -> Option<&Row> {
        self.saved.rows.iter().find(|row| row.key == *key)
    }

    /// Adds a row, in the place of one with its key.
    pub fn put(&mut self, row: Row) -> Result<()> {
        match self.saved.rows.iter_mut().find(|old| old.key == row.key) {
            Some(old) => *old = row,
            None => self.saved.rows.push(row),
        }
        write(&self.file, &format!("{}\n", serde_json::to_string_pretty(&self.saved)?))
    }
}

/// Writes a file, so that a failure on the way leaves what was there before.
pub fn write(path: &Path, text: &str) -> Result<()> {
    let partial = path.with_extension("partial");
    std::fs::write(&partial, text)
        .and_then(|()| std::fs::rename(&partial, path))
        .with_context(|| path.display().to_string())
}
