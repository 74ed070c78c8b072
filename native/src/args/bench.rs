//! `zebra bench`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{ModelArgs, PaperArgs};

/// Measure prompt and decode speed, load time and memory.
#[derive(Debug, Args)]
#[command(
    after_help = "\
Examples:
  zebra bench
  zebra bench --model ./random-1b --depth 0,8192,32768 --context 36864
  zebra bench --model ./random-1b --batch 1,8 --repetitions 3 --profile
  zebra bench --json > before.json
  zebra bench --compare before.json after.json
  zebra bench paper --sizes 8b --batch 48 --prompt 1024,4096 --out paper-8b",
    args_conflicts_with_subcommands = true
)]
pub struct BenchArgs {
    #[command(subcommand)]
    pub command: Option<BenchCommand>,

    /// Tokens of the prompt
    #[arg(long, value_name = "N", default_value_t = 512)]
    pub prompt: usize,

    /// Tokens to generate
    #[arg(long, value_name = "N", default_value_t = 128)]
    pub generate: usize,

    /// Tokens already in the context before each measurement
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_value = "0")]
    pub depth: Vec<usize>,

    /// Sequences generated side by side
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_value = "1")]
    pub batch: Vec<usize>,

    /// Times each measurement is made
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub repetitions: usize,

    /// Also measure the GPU time of each kernel, and what this GPU's bandwidth and dispatches would allow
    #[arg(long)]
    pub profile: bool,

    /// Show two reports of --json side by side instead of measuring; a change that both deviations together do not explain
    /// is marked with *
    #[arg(
        long,
        num_args = 2,
        value_names = ["A.json", "B.json"],
        conflicts_with_all = ["prompt", "generate", "depth", "batch", "repetitions", "profile", "json", "ModelArgs"]
    )]
    pub compare: Option<Vec<PathBuf>>,

    /// Print one JSON object
    #[arg(long)]
    pub json: bool,

    #[command(flatten)]
    pub model: ModelArgs,
}

#[derive(Debug, Subcommand)]
pub enum BenchCommand {
    Paper(PaperArgs),
}
