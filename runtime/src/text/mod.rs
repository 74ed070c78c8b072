//! From messages to token ids and back: the tokenizer, the chat template, what a checkpoint says about how to generate,
//! text that grows token by token, and strings that end an answer. Knows no model and no GPU.

mod bpe;
mod chat;
mod defaults;
mod stop;
mod stream;
mod template;
mod tokenizer;

pub use chat::{Message, encode_chat};
pub use defaults::GenerationDefaults;
pub use stop::StopMatcher;
pub use stream::TextStream;
pub use template::ChatTemplate;
pub use tokenizer::Tokenizer;

use serde_json::Value;

use crate::files::{Files, read_whole};
use crate::{Error, Result};

/// Reads a JSON file of the checkpoint; `None` when there is none.
async fn read_json(files: &dyn Files, name: &str) -> Result<Option<Value>> {
    let Some(bytes) = read_whole(files, name).await? else {
        return Ok(None);
    };
    let value = serde_json::from_slice(&bytes)
        .map_err(|e| Error::File { path: path(files, name), reason: format!("not valid JSON: {e}") })?;
    Ok(Some(value))
}

/// How a message names one file of the checkpoint.
fn path(files: &dyn Files, name: &str) -> String {
    format!("{}/{name}", files.describe())
}

/// The text of a special token in `tokenizer_config.json`: a plain string, or an object with the string in `content`.
fn token_text(value: &Value) -> Option<&str> {
    value.as_str().or_else(|| value.get("content")?.as_str())
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;
    use crate::files::MemoryFiles;

    /// The JSON files of the shipped model, with some of them replaced (or, by `None`, left out).
    pub fn pocket_with(replaced: &[(&str, Option<&str>)]) -> MemoryFiles {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/zebra-pocket");
        let mut files: Vec<(String, Cow<'static, [u8]>)> = Vec::new();
        for name in ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"] {
            if replaced.iter().all(|(other, _)| *other != name) {
                let bytes = std::fs::read(format!("{folder}/{name}")).expect("a file of models/zebra-pocket");
                files.push((name.into(), bytes.into()));
            }
        }
        for (name, text) in replaced {
            if let Some(text) = text {
                files.push(((*name).into(), text.as_bytes().to_vec().into()));
            }
        }
        MemoryFiles::new("pocket", files)
    }

    pub fn pocket_tokenizer() -> Tokenizer {
        pollster::block_on(Tokenizer::load(&pocket_with(&[]))).expect("the shipped tokenizer")
    }

    /// The chats of `tests/fixtures/pocket-chats.json`, made with transformers.
    pub fn pocket_chats() -> Vec<Value> {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/pocket-chats.json");
        let text = std::fs::read(path).expect("tests/fixtures/pocket-chats.json");
        serde_json::from_slice(&text).expect("a list of chats")
    }

    pub fn ids(value: &Value) -> Vec<u32> {
        serde_json::from_value(value.clone()).expect("a list of ids")
    }
}
