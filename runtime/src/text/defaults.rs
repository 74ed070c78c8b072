//! What a checkpoint says about how to generate from it.

use serde_json::Value;

use crate::files::Files;
use crate::text::{Tokenizer, path, read_json, token_text};
use crate::{Error, Result};

/// Tokens that end an answer of a Llama 3 model. Which of them a checkpoint's files list has changed over its releases,
/// so all that exist stop.
const LLAMA_STOPS: [&str; 3] = ["<|eot_id|>", "<|eom_id|>", "<|end_of_text|>"];

/// Stop ids and sampling values of a checkpoint. A value that no file gives is `None`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GenerationDefaults {
    /// Every id that ends an answer, sorted: those of `generation_config.json`, `config.json`, the tokenizer's `eos_token`
    /// and the Llama 3 ones that exist.
    pub stop_ids: Vec<u32>,
    /// 0 when `generation_config.json` says `"do_sample": false`.
    pub temperature: Option<f32>,
    /// Keep the likeliest tokens up to this sum of probability.
    pub top_p: Option<f32>,
    /// Keep this many of the likeliest tokens; 0 keeps all.
    pub top_k: Option<u32>,
    /// Keep tokens at least this likely relative to the likeliest.
    pub min_p: Option<f32>,
    /// Divides (or multiplies, below 0) the logits of tokens seen.
    pub repetition_penalty: Option<f32>,
}

impl GenerationDefaults {
    /// Reads `generation_config.json`, `config.json` and `tokenizer_config.json`, each of which may be missing.
    pub async fn load(files: &dyn Files, tokenizer: &Tokenizer) -> Result<Self> {
        let mut stop_ids = Vec::new();
        let mut defaults = Self::default();
        for name in ["generation_config.json", "config.json"] {
            let Some(config) = read_json(files, name).await? else {
                continue;
            };
            let file = path(files, name);
            stop_ids.extend(eos_ids(&config, &file)?);
            if name == "generation_config.json" {
                let number = |key| number(&config, &file, key);
                defaults.temperature = number("temperature")?.map(|v| v as f32);
                defaults.top_p = number("top_p")?.map(|v| v as f32);
                defaults.top_k = number("top_k")?.map(|v| v as u32);
                defaults.min_p = number("min_p")?.map(|v| v as f32);
                defaults.repetition_penalty = number("repetition_penalty")?.map(|v| v as f32);
                if config["do_sample"] == false {
                    defaults.temperature = Some(0.0);
                }
            }
        }
        let config = read_json(files, "tokenizer_config.json").await?.unwrap_or(Value::Null);
        let tokens = token_text(&config["eos_token"]).into_iter().chain(LLAMA_STOPS);
        stop_ids.extend(tokens.filter_map(|token| tokenizer.id(token)));
        stop_ids.sort_unstable();
        stop_ids.dedup();
        Ok(Self { stop_ids, ..defaults })
    }
}

/// `eos_token_id`: one id, a list of ids, or null.
fn eos_ids(config: &Value, file: &str) -> Result<Vec<u32>> {
    let value = &config["eos_token_id"];
    let list = match value {
        Value::Null => &[],
        Value::Array(list) => list.as_slice(),
        one => std::slice::from_ref(one),
    };
    let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    list.iter().map(id).collect::<Option<_>>().ok_or_else(|| Error::Config {
        file: file.to_owned(),
        key: "eos_token_id".into(),
        expected: "a token id or a list of them".into(),
        found: value.to_string(),
    })
}

/// A number that is not negative, or null.
fn number(config: &Value, file: &str, key: &str) -> Result<Option<f64>> {
    match &config[key] {
        Value::Null => Ok(None),
        value => value.as_f64().filter(|v| *v >= 0.0).map(Some).ok_or_else(|| Error::Config {
            file: file.to_owned(),
            key: key.to_owned(),
            expected: "a number of at least 0".into(),
            found: value.to_string(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::tests::{pocket_tokenizer, pocket_with};

    fn load(replaced: &[(&str, Option<&str>)]) -> Result<GenerationDefaults> {
        pollster::block_on(GenerationDefaults::load(&pocket_with(replaced), &pocket_tokenizer()))
    }

    #[test]
    fn the_files_are_read_together() {
        let pocket = load(&[]).expect("defaults");
        assert_eq!(pocket.stop_ids, [8187, 8191]);
        assert_eq!((pocket.temperature, pocket.top_p, pocket.top_k), (Some(0.7), Some(0.9), None));
        let all = load(&[
            (
                "generation_config.json",
                Some(r#"{"eos_token_id": 5, "do_sample": false, "temperature": 0.6, "top_k": 50}"#),
            ),
            ("config.json", Some(r#"{"eos_token_id": [7, 5]}"#)),
            ("tokenizer_config.json", Some(r#"{"eos_token": {"content": "<|finetune_right_pad_id|>"}}"#)),
        ])
        .expect("defaults");
        assert_eq!(all.stop_ids, [5, 7, 8187, 8188, 8191]);
        assert_eq!((all.temperature, all.top_p, all.top_k), (Some(0.0), None, Some(50)));
        let none = load(&[("generation_config.json", None), ("config.json", None), ("tokenizer_config.json", None)]);
        assert_eq!(none.expect("defaults").stop_ids, [8187, 8191]);
    }

    #[test]
    fn a_value_of_another_kind_is_named() {
        for (json, key) in [(r#"{"eos_token_id": "a"}"#, "eos_token_id"), (r#"{"top_p": -1}"#, "top_p")] {
            let error = load(&[("generation_config.json", Some(json))]).expect_err("refused").to_string();
            assert!(error.contains("pocket/generation_config.json") && error.contains(key), "{error}");
        }
    }
}
