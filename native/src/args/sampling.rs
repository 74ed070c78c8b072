//! What every command that samples takes.

use clap::Args;

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

/// `ID=VALUE`.
fn logit_bias(text: &str) -> Result<(u32, f32), String> {
    let (id, value) = text.split_once('=').ok_or("expected ID=VALUE")?;
    let id = id.trim().parse().map_err(|e| format!("the id \"{id}\": {e}"))?;
    let value: f32 = value.trim().parse().map_err(|e| format!("the value \"{value}\": {e}"))?;
    if value.is_nan() { Err("the value is not a number".into()) } else { Ok((id, value)) }
}
