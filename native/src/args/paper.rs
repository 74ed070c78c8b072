//! `zebra bench paper`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::Cache;

/// Measure the models of the Zebra-Llama paper's comparison against each other, with random weights of their geometry.
///
/// Each is written, loaded and measured in turn. Every row is saved when it is known, rows that do not fit this GPU
/// with what they need; the same command goes on where it was stopped.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  zebra bench paper --sizes 8b --batch 48 --prompt 1024,4096,8192,16384,32768 --generate 256 --out paper-8b
  zebra bench paper --sizes 8b --batch 48 --prompt 4096,32768,131072 --random-context --out paper-8b
  zebra bench paper --sizes 1b,3b --only 1b-4mla,3b-6mla --batch 1,8 --prompt 1024 --models ./random --out paper-small

FOLDER gets paper.json (every row of every run), paper.md (the table) and paper.svg (the plots).")]
pub struct PaperArgs {
    /// Sizes to compare models of
    #[arg(long, value_name = "SIZE,…", value_delimiter = ',', default_value = "8b")]
    pub sizes: Vec<PaperSize>,

    /// Of these sizes, only the models of these presets (see `zebra make-random --help`)
    #[arg(long, value_name = "PRESET,…", value_delimiter = ',')]
    pub only: Vec<String>,

    /// Sequences generated side by side
    #[arg(
        long,
        value_name = "N,…",
        value_delimiter = ',',
        default_value = "48",
        value_parser = clap::value_parser!(u32).range(1..=1024)
    )]
    pub batch: Vec<u32>,

    /// Tokens of each sequence's prompt
    #[arg(
        long,
        value_name = "N,…",
        value_delimiter = ',',
        default_value = "1024,4096,8192,16384,32768",
        value_parser = clap::value_parser!(u32).range(1..=1 << 20)
    )]
    pub prompt: Vec<u32>,

    /// Tokens to generate for each sequence
    #[arg(
        long,
        value_name = "N",
        default_value_t = 256,
        value_parser = clap::value_parser!(u32).range(1..=65_536)
    )]
    pub generate: u32,

    /// Prompts of at most N tokens are read by every sequence; of longer ones one sequence reads and the others get
    /// copies of what it left, so that only decoding is measured
    #[arg(long, value_name = "N", default_value_t = 8192, conflicts_with = "random_context")]
    pub read_to: u32,

    /// Measure only decoding, as the paper does: 1,024 tokens are read and their cached rows fill the context again and
    /// again
    #[arg(long)]
    pub random_context: bool,

    /// Format of the weights
    #[arg(long, value_name = "FORMAT", default_value = "q4")]
    pub format: PaperFormat,

    /// Format of the cache
    #[arg(long, value_name = "FORMAT", default_value = "q8")]
    pub cache: Cache,

    /// GPU memory that may be used [default: found by what a discrete GPU refuses; not known of others]
    #[arg(long, value_name = "GIB", value_parser = gibibytes)]
    pub memory: Option<u64>,

    /// Keep the random models in this folder, and use those that it holds [default: each is removed once measured]
    #[arg(long, value_name = "FOLDER")]
    pub models: Option<PathBuf>,

    /// The folder of the results, which another run may have begun
    #[arg(long, value_name = "FOLDER")]
    pub out: PathBuf,

    /// Measure again what is saved already
    #[arg(long)]
    pub again: bool,
}

/// The sizes of the paper's comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PaperSize {
    #[value(name = "1b")]
    B1,
    #[value(name = "3b")]
    B3,
    #[value(name = "8b")]
    B8,
}

/// Weights of the compared models.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PaperFormat {
    Q8,
    Q4,
}

/// Bytes of so many GiB.
fn gibibytes(text: &str) -> Result<u64, String> {
    let gib: f64 = text.trim().parse().map_err(|e| format!("{e}"))?;
    let fits = gib > 0.0 && gib <= f64::from(1 << 20);
    if fits { Ok((gib * f64::from(1 << 30)) as u64) } else { Err("expected more than 0, at most 1048576".into()) }
}
