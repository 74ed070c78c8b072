//! `zebra eval`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{Format, ModelArgs};

/// Measure how right a model is.
#[derive(Debug, Args)]
pub struct EvalArgs {
    #[command(subcommand)]
    pub command: EvalCommand,
}

#[derive(Debug, Subcommand)]
pub enum EvalCommand {
    Logits(LogitsArgs),
    Questions(QuestionsArgs),
    Kld(KldArgs),
}

/// Write the tensors inside of the model for given token ids.
///
/// Opens no tokenizer. Weights and cache are f32 unless --format and --cache say otherwise; end ids do not stop it.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  zebra eval logits --model ./tiny-gqa --ids 5,17,3 --decode 8 --dump out.safetensors")]
pub struct LogitsArgs {
    /// Token ids of the prompt
    #[arg(long, value_name = "ID,…", value_delimiter = ',', required = true)]
    pub ids: Vec<u32>,

    /// Tokens to generate greedily after it
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub decode: usize,

    /// The file to write
    #[arg(long, value_name = "FILE.safetensors")]
    pub dump: PathBuf,

    /// Read the prompt token by token, as generated ones are
    #[arg(long)]
    pub step_by_step: bool,

    /// Print one JSON object
    #[arg(long)]
    pub json: bool,

    #[command(flatten)]
    pub model: ModelArgs,
}

/// Count greedy answers that are exactly right.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  zebra eval questions --model models/zebra-pocket --format q4 tests/fixtures/pocket-questions.jsonl

Each line of the file is {\"question\": \"…\", \"answer\": \"…\"}.")]
pub struct QuestionsArgs {
    /// Questions with their answers
    #[arg(value_name = "FILE.jsonl")]
    pub file: PathBuf,

    /// Use only the first N
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,

    /// Print one JSON object
    #[arg(long)]
    pub json: bool,

    #[command(flatten)]
    pub model: ModelArgs,
}

/// Compare two models' predictions: KL divergence, agreement on the likeliest token, perplexity of both.
///
/// The reference and the model are loaded one after the other.
#[derive(Debug, Args)]
#[command(
    group(clap::ArgGroup::new("texts").required(true).args(["chats", "text"])),
    after_help = "\
Examples:
  zebra eval kld --model models/zebra-pocket --format q4 --reference models/zebra-pocket --chats tests/fixtures/pocket-questions.jsonl
  zebra eval kld --model ./zebra-1b-q4 --reference ./Zebra-Llama-1B-4MLA-12Mamba-DPO --text book.txt --limit 4096

Each line of --chats is {\"messages\": […]} or {\"question\": \"…\", \"answer\": \"…\"}, put through the chat template."
)]
pub struct KldArgs {
    /// The model to compare with: a folder, or a model's name at the hub
    #[arg(long, value_name = "FOLDER|NAME")]
    pub reference: String,

    /// Format of the reference's weights on the GPU
    #[arg(long, value_name = "FORMAT", default_value = "f32")]
    pub reference_format: Format,

    /// Chats to compare on
    #[arg(long, value_name = "FILE.jsonl")]
    pub chats: Option<PathBuf>,

    /// Text to compare on
    #[arg(long, value_name = "FILE")]
    pub text: Option<PathBuf>,

    /// Use only the first N chats, or the first N tokens of the text
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,

    /// Print one JSON object
    #[arg(long)]
    pub json: bool,

    #[command(flatten)]
    pub model: ModelArgs,
}
