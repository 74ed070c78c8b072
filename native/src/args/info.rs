//! `zebra info`.

use clap::Args;

use super::ModelArgs;

/// Show a model's architecture, memory and cache, and this machine's GPUs.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  zebra info
  zebra info --model ./zebra-1b-q4 --context 32768
  zebra info --model ./zebra-1b-q4 --json")]
pub struct InfoArgs {
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,

    #[command(flatten)]
    pub model: ModelArgs,
}
