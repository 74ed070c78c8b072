//! `zebra quantize`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// Write a quantized copy of a checkpoint.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  zebra quantize ./Zebra-Llama-1B-4MLA-12Mamba-DPO ./zebra-1b-q4 --format q4
  zebra quantize amd/Zebra-Llama-1B-4MLA-12Mamba-DPO ./zebra-1b-q8 --format q8")]
pub struct QuantizeArgs {
    /// The checkpoint: a folder, or a model's name at the hub
    #[arg(value_name = "SRC")]
    pub source: String,

    /// The folder to write, which must not exist yet
    #[arg(value_name = "OUT")]
    pub out: PathBuf,

    /// Format of the weights
    #[arg(long, value_name = "FORMAT")]
    pub format: StoredFormat,
}

/// Weights in a quantized folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum StoredFormat {
    F16,
    Q8,
    Q4,
}
