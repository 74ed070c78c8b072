//! `zebra generate`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;

use super::{ModelArgs, SamplingArgs};

/// Answer one prompt and exit.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  zebra generate --prompt \"What is a zebra?\" --temperature 0
  zebra generate --prompt \"A zebra is\" --raw --max-tokens 20
  zebra generate --messages chat.json --json
  echo \"What is a zebra?\" | zebra generate

chat.json is a list: [{\"role\": \"user\", \"content\": \"What is a zebra?\"}]")]
pub struct GenerateArgs {
    /// One user message [default: what is piped in]
    #[arg(long, value_name = "TEXT", conflicts_with = "messages")]
    pub prompt: Option<OsString>,

    /// Continue the prompt as text, without the chat template; what a base model, which has none, always does
    #[arg(long, conflicts_with = "messages")]
    pub raw: bool,

    /// A chat: a JSON list of {"role", "content"}
    #[arg(long, value_name = "FILE.json")]
    pub messages: Option<PathBuf>,

    /// Print one JSON object: text, ids, prompt_ids, finish_reason, seed, usage, timings
    #[arg(long)]
    pub json: bool,

    #[command(flatten)]
    pub sampling: SamplingArgs,

    #[command(flatten)]
    pub model: ModelArgs,
}
