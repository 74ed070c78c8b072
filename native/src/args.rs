//! The command line: every command, option and example. Values that are only wrong for a model (a temperature below 0, an
//! empty prompt) are refused where they are used, with exit code 1; what clap refuses ends with exit code 2.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Runs Zebra-Llama language models (hybrid MLA + Mamba2) on any GPU.
#[derive(Debug, Parser)]
#[command(
    name = "zebra",
    version,
    propagate_version = true,
    max_term_width = 100,
    after_help = "\
Examples:
  zebra chat
  zebra generate --prompt \"What is a zebra?\" --temperature 0
  zebra info --model ./Zebra-Llama-1B-4MLA-12Mamba-DPO
  zebra quantize ./Zebra-Llama-1B-4MLA-12Mamba-DPO ./zebra-1b-q4 --format q4

Without --model the small model inside of the program is used. `zebra COMMAND --help` shows more."
)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,

    /// The GPU to use: its index or a part of its name, as `zebra info` lists them [default: the fastest kind]
    #[arg(long, global = true, env = "ZEBRA_ADAPTER", value_name = "NAME|INDEX", help_heading = "GPU")]
    pub adapter: Option<String>,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    Chat(ChatArgs),
    Generate(GenerateArgs),
    Info(InfoArgs),
    Quantize(QuantizeArgs),
    MakeRandom(MakeRandomArgs),
    Bench(BenchArgs),
    Eval(EvalArgs),
}

/// Which model, and how it is loaded.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Model")]
pub struct ModelArgs {
    /// A checkpoint folder, or a model's name at the hub: OWNER/NAME or OWNER/NAME@REVISION [default: the model inside of
    /// the program]
    #[arg(long, value_name = "FOLDER|NAME")]
    pub model: Option<String>,

    /// Format of the weights on the GPU [default: the stored one of a quantized folder, else q8]
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<Format>,

    /// Format of the latent cache [default: q8]
    #[arg(long, value_name = "FORMAT")]
    pub cache: Option<Cache>,

    /// Tokens that fit in the context [default: the model's maximum, at most 4096]
    #[arg(long, value_name = "N")]
    pub context: Option<usize>,

    /// `auto` runs what was measured to be the fastest on the GPU; `plain` uses only kernels that need no optional feature and
    /// sum in one order, whatever else runs beside them
    #[arg(long, value_name = "KIND", default_value = "auto")]
    pub kernels: Kernels,
}

/// How tokens are chosen. What is not given comes from the model's generation_config.json.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Sampling (defaults: the model's generation_config.json)")]
pub struct SamplingArgs {
    /// 0 always takes the likeliest token; higher is more varied
    #[arg(long, value_name = "T", allow_negative_numbers = true)]
    pub temperature: Option<f32>,

    /// Keep the likeliest tokens whose probabilities sum to P
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    pub top_p: Option<f32>,

    /// Keep the K likeliest tokens; 0 keeps all
    #[arg(long, value_name = "K")]
    pub top_k: Option<u32>,

    /// Keep tokens at least P times as likely as the likeliest
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    pub min_p: Option<f32>,

    /// Divide the logits of tokens already seen by X
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    pub repetition_penalty: Option<f32>,

    /// Lower the logits of tokens already seen by X
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    pub presence_penalty: Option<f32>,

    /// Lower the logits of tokens already seen by X for each time
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    pub frequency_penalty: Option<f32>,

    /// How many of the last tokens count as seen
    #[arg(long, value_name = "N")]
    pub penalty_window: Option<u32>,

    /// Add VALUE to the logit of token ID; may be given again
    #[arg(long, value_name = "ID=VALUE", value_parser = logit_bias)]
    pub logit_bias: Vec<(u32, f32)>,

    /// Start of the random numbers; the same seed gives the same text [default: a random one, which is shown]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,

    /// End an answer after N tokens [default: where the context ends]
    #[arg(long, value_name = "N")]
    pub max_tokens: Option<usize>,

    /// End an answer before this text; may be given again
    #[arg(long, value_name = "TEXT")]
    pub stop: Vec<String>,
}

/// Chat in the terminal.
///
/// Lines that are piped in are one message each; their answers are printed, and the end of the input ends the chat.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  zebra chat
  zebra chat --model amd/Zebra-Llama-1B-4MLA-12Mamba-DPO --format q4
  zebra chat --system \"Answer in one sentence.\" --temperature 0
  echo \"What is a zebra?\" | zebra chat

In the chat, /help lists the commands. Ctrl-C stops an answer, a second one leaves.")]
pub struct ChatArgs {
    /// A system message, before the first
    #[arg(long, value_name = "TEXT")]
    pub system: Option<OsString>,

    #[command(flatten)]
    pub sampling: SamplingArgs,

    #[command(flatten)]
    pub model: ModelArgs,
}

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

/// Write a checkpoint of a released model's exact size with random weights, to measure with.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  zebra make-random --preset 1b-4mla --format q4 ./random-1b
  zebra make-random --preset 8b-8mla --format q4 --seed 7 ./random-8b
  zebra make-random --preset llama-1b --format bf16 ./random-llama

1b-4mla to 8b-16mla are Zebra-Llama; the others are Llama and hybrids of other families made from it. MambaInLlama's
last number is the percentage of layers that keep the attention.")]
pub struct MakeRandomArgs {
    /// The model whose size it has
    #[arg(long, value_name = "MODEL")]
    pub preset: Geometry,

    /// Format of the weights
    #[arg(long, value_name = "FORMAT")]
    pub format: RandomFormat,

    /// Start of the random numbers
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,

    /// The folder to write, which must not exist yet
    #[arg(value_name = "OUT")]
    pub out: PathBuf,
}

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

/// Weights on the GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    F32,
    F16,
    Q8,
    Q4,
}

/// Weights in a quantized folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum StoredFormat {
    F16,
    Q8,
    Q4,
}

/// Weights of a random checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RandomFormat {
    F32,
    Bf16,
    Q8,
    Q4,
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

/// The latent cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Cache {
    F32,
    F16,
    Q8,
}

/// Which kernels may be chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kernels {
    Auto,
    Plain,
}

/// The released sizes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Geometry {
    #[value(name = "1b-4mla")]
    B1Mla4,
    #[value(name = "1b-8mla")]
    B1Mla8,
    #[value(name = "3b-6mla")]
    B3Mla6,
    #[value(name = "3b-14mla")]
    B3Mla14,
    #[value(name = "8b-8mla")]
    B8Mla8,
    #[value(name = "8b-16mla")]
    B8Mla16,
    #[value(name = "llama-1b")]
    Llama1B,
    #[value(name = "llama-3b")]
    Llama3B,
    #[value(name = "llama-8b")]
    Llama8B,
    #[value(name = "smollm2-135m")]
    SmolLm2,
    #[value(name = "x-ecomla-1b")]
    XEcoMla1B,
    #[value(name = "x-ecomla-3b")]
    XEcoMla3B,
    #[value(name = "x-ecomla-8b")]
    XEcoMla8B,
    #[value(name = "mambainllama-1b-50")]
    MambaInLlama1B,
    #[value(name = "mambainllama-3b-50")]
    MambaInLlama3B,
    #[value(name = "mambainllama-8b-50")]
    MambaInLlama8B,
    #[value(name = "mambainllama-8b-25")]
    MambaInLlama8BQuarter,
    #[value(name = "mambainllama-8b-12.5")]
    MambaInLlama8BEighth,
    #[value(name = "mambainllama-8b-0")]
    MambaInLlama8BNone,
    #[value(name = "mambainllama-8b-mamba1-50")]
    MambaInLlama8BMamba1,
    #[value(name = "llamba-1b")]
    Llamba1B,
    #[value(name = "llamba-3b")]
    Llamba3B,
    #[value(name = "llamba-8b")]
    Llamba8B,
    #[value(name = "minitron-4b")]
    Minitron4B,
    #[value(name = "minitron-8b")]
    Minitron8B,
}

/// Bytes of so many GiB.
fn gibibytes(text: &str) -> Result<u64, String> {
    let gib: f64 = text.trim().parse().map_err(|e| format!("{e}"))?;
    let fits = gib > 0.0 && gib <= f64::from(1 << 20);
    if fits { Ok((gib * f64::from(1 << 30)) as u64) } else { Err("expected more than 0, at most 1048576".into()) }
}

/// `ID=VALUE`.
fn logit_bias(text: &str) -> Result<(u32, f32), String> {
    let (id, value) = text.split_once('=').ok_or("expected ID=VALUE")?;
    let id = id.trim().parse().map_err(|e| format!("the id \"{id}\": {e}"))?;
    let value: f32 = value.trim().parse().map_err(|e| format!("the value \"{value}\": {e}"))?;
    if value.is_nan() { Err("the value is not a number".into()) } else { Ok((id, value)) }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_has_examples() {
        fn check(command: &clap::Command) {
            let subcommands: Vec<_> = command.get_subcommands().filter(|c| c.get_name() != "help").collect();
            if subcommands.is_empty() || !command.is_subcommand_required_set() {
                let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
                assert!(help.contains("Example"), "{}", command.get_name());
            }
            subcommands.into_iter().for_each(check);
        }
        check(&Cli::command());
    }

    #[test]
    fn values_that_only_a_model_refuses_are_parsed() {
        for line in [
            "zebra generate --prompt a --temperature -1 --top-p -0.5 --min-p nan --repetition-penalty -2",
            "zebra generate --raw --stop a --stop b --logit-bias 5=-inf --logit-bias 7=1.5",
            "zebra chat --adapter 0 --context 0",
            "zebra --adapter lavapipe chat",
            "zebra bench --depth 0,8192 --batch 1,8 --json --profile",
            "zebra bench --compare a.json b.json",
            "zebra bench paper --sizes 8b,1b --batch 1,48 --prompt 1024,131072 --random-context --out p",
            "zebra bench paper --only 8b-8mla --cache f16 --format q8 --memory 0.5 --read-to 0 --again --out p",
            "zebra eval logits --ids 5,17,3 --decode 8 --dump out.safetensors --step-by-step",
            "zebra eval kld --reference models/x --text book.txt --limit 3",
            "zebra make-random --preset 8b-16mla --format bf16 out",
        ] {
            Cli::try_parse_from(line.split(' ')).unwrap_or_else(|e| panic!("{line}: {e}"));
        }
    }

    #[test]
    fn contradictions_are_usage_errors() {
        for line in [
            "zebra",
            "zebra generate --prompt a --messages b.json",
            "zebra generate --messages b.json --raw",
            "zebra generate --temperature hot",
            "zebra generate --format q5",
            "zebra eval kld --reference a",
            "zebra eval kld --reference a --text b --chats c",
            "zebra eval logits --dump out",
            "zebra quantize a b --format f32",
            "zebra chat --logit-bias 5",
            "zebra bench --compare a.json",
            "zebra bench --compare a.json b.json --json",
            "zebra bench --compare a.json b.json --depth 8192",
            "zebra bench --compare a.json b.json --format q4",
            "zebra bench paper",
            "zebra bench --depth 8192 paper --out p",
            "zebra bench paper --out p --sizes 70b",
            "zebra bench paper --out p --batch 0",
            "zebra bench paper --out p --batch 1025",
            "zebra bench paper --out p --prompt 0",
            "zebra bench paper --out p --prompt 1024,2000000",
            "zebra bench paper --out p --generate 0",
            "zebra bench paper --out p --memory 0",
            "zebra bench paper --out p --memory nan",
            "zebra bench paper --out p --format f32",
            "zebra bench paper --out p --random-context --read-to 8",
        ] {
            let error = Cli::try_parse_from(line.split(' ')).expect_err(line);
            assert_eq!(error.exit_code(), 2, "{line}");
        }
    }
}
