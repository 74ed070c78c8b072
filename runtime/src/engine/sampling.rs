//! How the next token is chosen: the options of a caller, checked, and as the sampling kernels take them.
//!
//! The order is that of the common libraries: biases, penalties, temperature, `top_k`, `top_p`, `min_p`, draw.

use crate::model::sampling::{
    CANDIDATES, SLOT_BIAS, SLOT_HISTORY, SLOT_STOPS, SampleSettings, SlotSettings, TOP_LOGPROBS,
};
use crate::text::GenerationDefaults;
use crate::{Error, Result};

/// Below it a temperature leaves no second token a chance; it bounds the inverse.
const LEAST_TEMPERATURE: f32 = 1e-6;
/// The largest bias: enough to forbid or force any token, far from what an f32 can hold.
const MOST_BIAS: f32 = 1e9;

/// How the next token is chosen from logits. The default draws from the model's own distribution.
#[derive(Debug, Clone, PartialEq)]
pub struct SamplingOptions {
    /// Divides the logits: 0..=100. 0 is greedy, the best token (of equals the lowest id).
    pub temperature: f32,
    /// Keeps the so many best tokens: 0..=1024. 0 is off.
    pub top_k: u32,
    /// Keeps the fewest best tokens that together have this probability, one at least and 1,024 at most: 0..=1. 1 is off.
    pub top_p: f32,
    /// Keeps tokens of at least this probability relative to the best, 1,024 at most: 0..=1. 0 is off.
    pub min_p: f32,
    /// Divides positive and multiplies negative logits of the window's tokens: over 0, up to 100. 1 is off.
    pub repetition_penalty: f32,
    /// Taken from the logit of every token of this answer in the window: -100..=100. 0 is off.
    pub presence_penalty: f32,
    /// Taken from the logit of every token of this answer in the window, as often as it occurs: -100..=100. 0 is off.
    pub frequency_penalty: f32,
    /// The last tokens of the context, prompt and answer, that penalties look at: 0..=256.
    pub penalty_window: u32,
    /// With the same seed, context and options the answer is the same.
    pub seed: u64,
    /// (token, what is added to its logit: -1e9..=1e9), 256 at most.
    pub logit_bias: Vec<(u32, f32)>,
    /// Reports the log probabilities of so many best tokens: 0..=20.
    pub logprobs: Option<u32>,
}

impl Default for SamplingOptions {
    fn default() -> Self {
        Self {
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            penalty_window: SLOT_HISTORY as u32,
            seed: 0,
            logit_bias: Vec::new(),
            logprobs: None,
        }
    }
}

impl SamplingOptions {
    /// What a checkpoint says, and what changes nothing where it is silent: greedy, no filter, no penalty.
    pub fn of(defaults: &GenerationDefaults) -> Self {
        let plain = Self::greedy();
        Self {
            temperature: defaults.temperature.unwrap_or(plain.temperature),
            top_k: defaults.top_k.unwrap_or(plain.top_k),
            top_p: defaults.top_p.unwrap_or(plain.top_p),
            min_p: defaults.min_p.unwrap_or(plain.min_p),
            repetition_penalty: defaults.repetition_penalty.unwrap_or(plain.repetition_penalty),
            ..plain
        }
    }

    /// The best token, always.
    pub fn greedy() -> Self {
        Self { temperature: 0.0, ..Self::default() }
    }

    /// Checks every option for a vocabulary of so many tokens.
    ///
    /// # Errors
    /// [`Error::Option`] that names the first option outside its range.
    pub fn validate(&self, vocab: usize) -> Result<()> {
        // Ranges contain no NaN, so that it is refused too.
        let within = |name: &str, value: f32, least: f32, most: f32, what: &str| {
            check((least..=most).contains(&value), name, format!("{least} to {most}{what}"), value)
        };
        within("temperature", self.temperature, 0.0, 100.0, " (0 is greedy)")?;
        check(self.top_k as usize <= CANDIDATES, "top_k", format!("0 (off) to {CANDIDATES}"), self.top_k)?;
        within("top_p", self.top_p, 0.0, 1.0, " (1 is off)")?;
        within("min_p", self.min_p, 0.0, 1.0, " (0 is off)")?;
        let repetition = self.repetition_penalty;
        check(
            repetition > 0.0 && repetition <= 100.0,
            "repetition_penalty",
            "more than 0, at most 100 (1 is off)".into(),
            repetition,
        )?;
        within("presence_penalty", self.presence_penalty, -100.0, 100.0, " (0 is off)")?;
        within("frequency_penalty", self.frequency_penalty, -100.0, 100.0, " (0 is off)")?;
        let window = self.penalty_window;
        check(window as usize <= SLOT_HISTORY, "penalty_window", format!("0 to {SLOT_HISTORY}"), window)?;
        let logprobs = self.logprobs.unwrap_or(0);
        check(logprobs as usize <= TOP_LOGPROBS, "logprobs", format!("0 to {TOP_LOGPROBS}"), logprobs)?;
        let count = self.logit_bias.len();
        check(count <= SLOT_BIAS, "logit_bias", format!("at most {SLOT_BIAS} tokens"), count)?;
        for (i, &(id, value)) in self.logit_bias.iter().enumerate() {
            check((id as usize) < vocab, "logit_bias", format!("token ids below {vocab}"), id)?;
            within("logit_bias", value, -MOST_BIAS, MOST_BIAS, "")?;
            let again = self.logit_bias[..i].iter().any(|b| b.0 == id);
            check(!again, "logit_bias", "each token once".into(), format!("{id} twice"))?;
        }
        Ok(())
    }

    /// The options as the kernels take them, for an answer of at most `max_tokens` that one of `stops` ends.
    ///
    /// # Errors
    /// [`Error::Option`] as [`SamplingOptions::validate`], and for more stop tokens than a slot has room for or an
    /// answer of no tokens.
    pub fn settings(&self, vocab: usize, stops: &[u32], max_tokens: u32) -> Result<SampleSettings> {
        self.validate(vocab)?;
        check(max_tokens > 0, "max_tokens", "at least 1".into(), max_tokens)?;
        let mut distinct = stops.to_vec();
        distinct.sort_unstable();
        distinct.dedup();
        let count = distinct.len();
        check(count <= SLOT_STOPS, "stop tokens", format!("at most {SLOT_STOPS}"), count)?;
        distinct.resize(SLOT_STOPS, 0);
        let mut slot_stops = [0; SLOT_STOPS];
        slot_stops.copy_from_slice(&distinct);
        Ok(SampleSettings {
            slot: SlotSettings {
                seed: [self.seed as u32, (self.seed >> 32) as u32],
                inverse_temperature: match self.temperature {
                    0.0 => 0.0,
                    t => 1.0 / t.max(LEAST_TEMPERATURE),
                },
                top_k: self.top_k,
                top_p: self.top_p,
                min_p: self.min_p,
                repetition: self.repetition_penalty,
                presence: self.presence_penalty,
                frequency: self.frequency_penalty,
                window: self.penalty_window,
                biases: self.logit_bias.len() as u32,
                stops: count as u32,
                max_tokens,
                logprobs: self.logprobs.unwrap_or(0),
                unused: [0; 2],
            },
            bias: self.logit_bias.iter().map(|&(id, value)| [id, value.to_bits()]).collect(),
            stops: slot_stops,
        })
    }
}

fn check(holds: bool, name: &str, expected: String, found: impl std::fmt::Display) -> Result<()> {
    if holds { Ok(()) } else { Err(Error::Option { name: name.into(), expected, found: found.to_string() }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(options: &SamplingOptions) -> String {
        options.validate(100).expect_err("it was accepted").to_string()
    }

    #[test]
    fn defaults_and_limits_are_accepted() {
        let mut options = SamplingOptions::default();
        options.validate(1).expect("defaults");
        options.temperature = 100.0;
        options.top_k = 1024;
        options.top_p = 0.0;
        options.min_p = 1.0;
        options.repetition_penalty = 100.0;
        options.penalty_window = 0;
        options.logprobs = Some(20);
        options.logit_bias = vec![(99, -1e9), (0, 1e9)];
        options.validate(100).expect("limits");
    }

    #[test]
    fn what_is_out_of_range_is_named() {
        let d = SamplingOptions::default;
        let cases = [
            (SamplingOptions { temperature: -0.1, ..d() }, "temperature: expected 0 to 100 (0 is greedy), found -0.1"),
            (
                SamplingOptions { temperature: f32::NAN, ..d() },
                "temperature: expected 0 to 100 (0 is greedy), found NaN",
            ),
            (SamplingOptions { top_k: 1025, ..d() }, "top_k: expected 0 (off) to 1024, found 1025"),
            (SamplingOptions { top_p: 1.5, ..d() }, "top_p: expected 0 to 1 (1 is off), found 1.5"),
            (SamplingOptions { min_p: -1.0, ..d() }, "min_p: expected 0 to 1 (0 is off), found -1"),
            (
                SamplingOptions { repetition_penalty: 0.0, ..d() },
                "repetition_penalty: expected more than 0, at most 100 (1 is off), found 0",
            ),
            (
                SamplingOptions { presence_penalty: 101.0, ..d() },
                "presence_penalty: expected -100 to 100 (0 is off), found 101",
            ),
            (
                SamplingOptions { frequency_penalty: f32::INFINITY, ..d() },
                "frequency_penalty: expected -100 to 100 (0 is off), found inf",
            ),
            (SamplingOptions { penalty_window: 257, ..d() }, "penalty_window: expected 0 to 256, found 257"),
            (SamplingOptions { logprobs: Some(21), ..d() }, "logprobs: expected 0 to 20, found 21"),
            (
                SamplingOptions { logit_bias: vec![(100, 1.0)], ..d() },
                "logit_bias: expected token ids below 100, found 100",
            ),
            (
                SamplingOptions { logit_bias: vec![(1, 1.0), (2, 0.0), (1, 2.0)], ..d() },
                "logit_bias: expected each token once, found 1 twice",
            ),
            (
                SamplingOptions { logit_bias: (0..257).map(|i| (i, 0.0)).collect(), ..d() },
                "logit_bias: expected at most 256 tokens, found 257",
            ),
        ];
        for (options, message) in cases {
            assert_eq!(refused(&options), message);
        }
    }

    #[test]
    fn settings_carry_every_option() {
        let options = SamplingOptions {
            temperature: 0.5,
            seed: 0x1_0000_0002,
            logit_bias: vec![(7, 1.5)],
            logprobs: Some(3),
            ..SamplingOptions::default()
        };
        let settings = options.settings(100, &[9, 4, 9], 12).expect("settings");
        assert_eq!(settings.slot.seed, [2, 1]);
        assert_eq!(settings.slot.inverse_temperature, 2.0);
        assert_eq!((settings.slot.stops, &settings.stops[..3]), (2, &[4, 9, 0][..]));
        assert_eq!(settings.bias, [[7, 1.5f32.to_bits()]]);
        assert_eq!((settings.slot.max_tokens, settings.slot.logprobs), (12, 3));
        assert_eq!(SamplingOptions::greedy().settings(100, &[], 1).expect("greedy").slot.inverse_temperature, 0.0);
        let error = options.settings(100, &(0..17).collect::<Vec<_>>(), 1).expect_err("17 stop tokens").to_string();
        assert_eq!(error, "stop tokens: expected at most 16, found 17");
        assert!(options.settings(100, &[], 0).is_err());
    }
}
