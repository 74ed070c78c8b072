//! One answer: sampling options from the command line and the model, the text as it comes, and how fast it came.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Instant;

use pollster::block_on;
use serde::Serialize;
use zebra_runtime::engine::{Engine, Finished, GenerateOptions, SamplingOptions};
use zebra_runtime::text::{GenerationDefaults, StopMatcher};

use crate::args::SamplingArgs;

/// A finished answer with its times.
pub struct Answer {
    pub done: Finished,
    /// From the request to the first token.
    pub prompt_seconds: f64,
    /// From the first token to the last.
    pub decode_seconds: f64,
}

/// Tokens of an answer, under the names of OpenAI's API.
#[derive(Debug, Serialize)]
pub struct Usage {
    pub prompt_tokens: usize,
    /// Those of the prompt whose state was there already.
    pub cached_tokens: usize,
    pub completion_tokens: usize,
    pub total_tokens: usize,
}

impl Answer {
    pub fn usage(&self) -> Usage {
        let done = &self.done;
        Usage {
            prompt_tokens: done.prompt_tokens,
            cached_tokens: done.cached_tokens,
            completion_tokens: done.ids.len(),
            total_tokens: done.prompt_tokens + done.ids.len(),
        }
    }

    /// Tokens of the prompt that were read, per second.
    pub fn prompt_speed(&self) -> f64 {
        rate(self.done.prompt_tokens - self.done.cached_tokens, self.prompt_seconds)
    }

    /// Tokens generated after the first, per second.
    pub fn decode_speed(&self) -> f64 {
        rate(self.done.ids.len().saturating_sub(1), self.decode_seconds)
    }

    /// One line for people.
    pub fn summary(&self, seed: u64) -> String {
        let usage = self.usage();
        format!(
            "{} prompt tokens ({} cached), {:.2} s to the first token; {} tokens, {:.1} tokens/s; seed {seed}",
            usage.prompt_tokens,
            usage.cached_tokens,
            self.prompt_seconds,
            usage.completion_tokens,
            self.decode_speed()
        )
    }
}

/// 0 rather than infinity for what took no measurable time.
fn rate(tokens: usize, seconds: f64) -> f64 {
    if seconds > 0.0 { tokens as f64 / seconds } else { 0.0 }
}

/// What the command line says, else the model, else what changes nothing.
pub fn options(args: &SamplingArgs, model: &GenerationDefaults, seed: u64) -> GenerateOptions {
    let model = SamplingOptions::of(model);
    GenerateOptions {
        sampling: SamplingOptions {
            temperature: args.temperature.unwrap_or(model.temperature),
            top_k: args.top_k.unwrap_or(model.top_k),
            top_p: args.top_p.unwrap_or(model.top_p),
            min_p: args.min_p.unwrap_or(model.min_p),
            repetition_penalty: args.repetition_penalty.unwrap_or(model.repetition_penalty),
            presence_penalty: args.presence_penalty.unwrap_or(model.presence_penalty),
            frequency_penalty: args.frequency_penalty.unwrap_or(model.frequency_penalty),
            penalty_window: args.penalty_window.unwrap_or(model.penalty_window),
            logit_bias: args.logit_bias.clone(),
            seed,
            ..model
        },
        max_tokens: args.max_tokens,
        stop: args.stop.clone(),
        ..GenerateOptions::default()
    }
}

/// Refuses options that no model could take, before one is loaded.
pub fn check(args: &SamplingArgs) -> zebra_runtime::Result<()> {
    let options = options(args, &GenerationDefaults::default(), 0);
    options.sampling.validate(usize::MAX)?;
    StopMatcher::new(&options.stop).map(drop)
}

/// A seed nobody chose: 32 bits, so that it is short to type and exact in every JSON reader.
pub fn random_seed() -> u64 {
    RandomState::new().build_hasher().finish() >> 32
}

/// Generates in slot 0, giving each piece of text to `show`. `stopped` is asked after each piece.
pub fn stream(
    engine: &mut Engine,
    ids: &[u32],
    options: &GenerateOptions,
    stopped: &dyn Fn() -> bool,
    show: &mut dyn FnMut(&str) -> std::io::Result<()>,
) -> anyhow::Result<Answer> {
    let started = Instant::now();
    let mut first = None;
    let mut last = started;
    let mut generation = block_on(engine.generate(0, ids, options))?;
    let mut shown = 0;
    while let Some(piece) = block_on(generation.next())? {
        last = Instant::now();
        first.get_or_insert(last);
        shown += piece.text.len();
        show(&piece.text)?;
        if stopped() {
            generation.stop();
        }
    }
    let done = block_on(generation.finish())?;
    // What was held back for a stop string that never came.
    show(done.text.get(shown..).unwrap_or_default())?;
    let first = first.unwrap_or(last);
    Ok(Answer { done, prompt_seconds: (first - started).as_secs_f64(), decode_seconds: (last - first).as_secs_f64() })
}
