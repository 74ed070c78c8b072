//! What is asked and answered, as plain objects. Their TypeScript stands beside them, for the package.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use wasm_bindgen::JsValue;
use wasm_bindgen::prelude::wasm_bindgen;
use zebra_runtime::engine::{CacheFormat, GenerateOptions, KernelChoice, LoadOptions, SamplingOptions};
use zebra_runtime::text::{GenerationDefaults, Tokenizer};
use zebra_runtime::{Error, Result};

#[wasm_bindgen(typescript_custom_section)]
const TYPES: &str = r#"
import type { CacheFormat, Estimate, Format, ModelInfo, Progress } from "../../types.js";

export interface LoadRequest {
  format?: Format;
  cache?: CacheFormat;
  context?: number;
  kernels?: "auto" | "plain";
  /** The device that will be opened has subgroups. */
  subgroups?: boolean;
  /** What `Zebra.verdict` told of an earlier load on this adapter: its self-test is not run again. */
  self_test?: string;
}

export interface ChatMessage {
  role: string;
  content: string;
}

export interface GenerateRequest {
  prompt: { messages: ChatMessage[] } | { text: string } | { ids: number[] };
  max_tokens?: number;
  temperature?: number;
  top_p?: number;
  top_k?: number;
  min_p?: number;
  seed?: number;
  stop?: string[];
  logprobs?: number;
  logit_bias?: [number, number][];
  presence_penalty?: number;
  frequency_penalty?: number;
  repetition_penalty?: number;
  ignore_eos?: boolean;
}

export interface TokenLogprob {
  id: number;
  /** Its text; U+FFFD where it holds a part of a character. */
  token: string;
  bytes: number[];
  logprob: number;
}

export interface Piece extends TokenLogprob {
  /** The text it completes: empty inside a character, or while a stop text may be beginning. */
  text: string;
  /** The likeliest tokens, as many as were asked for. */
  top: TokenLogprob[];
}

export interface Answer {
  text: string;
  /** The end of `text` that was in no piece: held back for a stop text that never came. */
  rest: string;
  ids: number[];
  finish_reason: "stop" | "length" | "abort";
  prompt_tokens: number;
  cached_tokens: number;
  seed: number;
}

export interface DoorEstimate extends Omit<Estimate, "download"> {
  /** The files of weights: what is long to download. */
  files: string[];
}
"#;

#[wasm_bindgen]
extern "C" {
    #[wasm_bindgen(typescript_type = "LoadRequest")]
    pub type JsLoadRequest;
    #[wasm_bindgen(typescript_type = "GenerateRequest")]
    pub type JsGenerateRequest;
    #[wasm_bindgen(typescript_type = "ChatMessage[]")]
    pub type JsMessages;
    #[wasm_bindgen(typescript_type = "ModelInfo")]
    pub type JsModelInfo;
    #[wasm_bindgen(typescript_type = "Estimate[\"gpu\"]")]
    pub type JsGpuBytes;
    #[wasm_bindgen(typescript_type = "DoorEstimate")]
    pub type JsEstimate;
    #[wasm_bindgen(typescript_type = "Answer")]
    pub type JsAnswer;
    #[wasm_bindgen(typescript_type = "(progress: Progress) => void")]
    pub type OnProgress;
    #[wasm_bindgen(typescript_type = "(loaded: number, total: number) => void")]
    pub type OnBytes;
    #[wasm_bindgen(typescript_type = "(piece: Piece) => void")]
    pub type OnPiece;
    #[wasm_bindgen(typescript_type = "() => boolean")]
    pub type IsAborted;
}

/// How to load, as the package asks.
#[derive(Clone, Default, Deserialize)]
#[serde(default)]
pub struct LoadRequest {
    pub format: Option<String>,
    pub cache: Option<String>,
    pub context: Option<usize>,
    pub kernels: Option<String>,
    pub subgroups: bool,
    pub self_test: Option<String>,
}

impl LoadRequest {
    /// The runtime's options, all but what only a loaded model needs.
    pub fn options(&self) -> Result<LoadOptions> {
        let one_of = |name: &str, expected: &str, found: &str| Error::Option {
            name: name.into(),
            expected: expected.into(),
            found: format!("\"{found}\""),
        };
        Ok(LoadOptions {
            preset: self.format.as_deref().map(str::parse).transpose()?,
            cache: match self.cache.as_deref() {
                None | Some("q8") => CacheFormat::Q8,
                Some("f16") => CacheFormat::F16,
                Some("f32") => CacheFormat::F32,
                Some(other) => return Err(one_of("cache", "f32, f16 or q8", other)),
            },
            context: self.context,
            kernels: match self.kernels.as_deref() {
                None | Some("auto") => KernelChoice::Auto,
                Some("plain") => KernelChoice::Plain,
                Some(other) => return Err(one_of("kernels", "auto or plain", other)),
            },
            ..LoadOptions::default()
        })
    }
}

/// What an answer goes on from.
#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Prompt {
    Messages(Vec<ChatMessage>),
    Text(String),
    Ids(Vec<u32>),
}

/// A message as OpenAI's API has it.
#[derive(Deserialize)]
pub struct ChatMessage {
    pub role: String,
    pub content: String,
}

/// What to answer and how.
#[derive(Deserialize)]
pub struct GenerateRequest {
    pub prompt: Prompt,
    max_tokens: Option<usize>,
    temperature: Option<f32>,
    top_p: Option<f32>,
    top_k: Option<u32>,
    min_p: Option<f32>,
    pub seed: Option<u32>,
    #[serde(default)]
    stop: Vec<String>,
    logprobs: Option<u32>,
    #[serde(default)]
    logit_bias: Vec<(u32, f32)>,
    presence_penalty: Option<f32>,
    frequency_penalty: Option<f32>,
    repetition_penalty: Option<f32>,
    #[serde(default)]
    ignore_eos: bool,
}

impl GenerateRequest {
    /// What was asked, else what the checkpoint says.
    pub fn options(&self, defaults: &GenerationDefaults, seed: u32) -> GenerateOptions {
        let model = SamplingOptions::of(defaults);
        GenerateOptions {
            sampling: SamplingOptions {
                temperature: self.temperature.unwrap_or(model.temperature),
                top_k: self.top_k.unwrap_or(model.top_k),
                top_p: self.top_p.unwrap_or(model.top_p),
                min_p: self.min_p.unwrap_or(model.min_p),
                repetition_penalty: self.repetition_penalty.unwrap_or(model.repetition_penalty),
                presence_penalty: self.presence_penalty.unwrap_or(model.presence_penalty),
                frequency_penalty: self.frequency_penalty.unwrap_or(model.frequency_penalty),
                logit_bias: self.logit_bias.clone(),
                logprobs: self.logprobs,
                seed: seed.into(),
                ..model
            },
            max_tokens: self.max_tokens,
            stop: self.stop.clone(),
            ignore_eos: self.ignore_eos,
            ..GenerateOptions::default()
        }
    }
}

/// A token with its log probability.
#[derive(Serialize)]
pub struct TokenLogprob {
    id: u32,
    token: String,
    bytes: Vec<u8>,
    logprob: f32,
}

impl TokenLogprob {
    pub fn new(tokenizer: &Tokenizer, id: u32, logprob: f32) -> Self {
        let bytes = tokenizer.bytes(id);
        Self { id, token: String::from_utf8_lossy(&bytes).into_owned(), bytes, logprob }
    }
}

/// A generated token.
#[derive(Serialize)]
pub struct Piece {
    #[serde(flatten)]
    pub token: TokenLogprob,
    pub text: String,
    pub top: Vec<TokenLogprob>,
}

/// A finished answer.
#[derive(Serialize)]
pub struct Answer {
    pub text: String,
    pub rest: String,
    pub ids: Vec<u32>,
    pub finish_reason: &'static str,
    pub prompt_tokens: usize,
    pub cached_tokens: usize,
    pub seed: u32,
}

/// A plain object of a value.
pub fn to_js(value: &impl Serialize) -> JsValue {
    // Our own types hold nothing that an object cannot.
    value.serialize(&serde_wasm_bindgen::Serializer::json_compatible()).unwrap_or_else(|e| JsValue::from(e.to_string()))
}

/// A value of a plain object.
pub fn from_js<T: DeserializeOwned>(value: impl Into<JsValue>) -> Result<T> {
    serde_wasm_bindgen::from_value(value.into())
        .map_err(|e| Error::Prompt(format!("the request is not understood: {e}")))
}
