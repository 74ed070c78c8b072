//! Configuration files as JSON objects that complain by file and key.

use serde_json::{Map, Value};

use crate::{Error, Result};

/// A JSON object that names its file and key in every complaint.
pub(super) struct Object {
    pub(super) file: &'static str,
    /// What comes before a key in messages: "" or "rope_scaling.".
    prefix: String,
    pub(super) map: Map<String, Value>,
}

impl Object {
    pub(super) fn parse(file: &'static str, bytes: &[u8]) -> Result<Self> {
        let fail = |found: String| Error::Config {
            file: file.into(),
            key: "(the whole file)".into(),
            expected: "a JSON object".into(),
            found,
        };
        match serde_json::from_slice(bytes) {
            Ok(Value::Object(map)) => Ok(Self { file, prefix: String::new(), map }),
            Ok(other) => Err(fail(shorten(&other.to_string()))),
            Err(error) => Err(fail(format!("invalid JSON: {error}"))),
        }
    }

    pub(super) fn wrong(&self, key: &str, expected: impl Into<String>, found: impl Into<Value>) -> Error {
        Error::Config {
            file: self.file.into(),
            key: format!("{}{key}", self.prefix),
            expected: expected.into(),
            found: shorten(&found.into().to_string()),
        }
    }

    pub(super) fn missing(&self, key: &str, expected: &str) -> Error {
        Error::Config {
            file: self.file.into(),
            key: format!("{}{key}", self.prefix),
            expected: expected.into(),
            found: "no such key".into(),
        }
    }

    /// A key that is neither absent nor null: Python writes null for what is not set.
    pub(super) fn optional(&self, key: &str) -> Option<&Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    pub(super) fn required(&self, key: &str, expected: &str) -> Result<&Value> {
        self.optional(key).ok_or_else(|| self.missing(key, expected))
    }

    pub(super) fn object(&self, key: &str) -> Result<Option<Object>> {
        match self.optional(key) {
            None => Ok(None),
            Some(Value::Object(map)) => {
                Ok(Some(Object { file: self.file, prefix: format!("{}{key}.", self.prefix), map: map.clone() }))
            }
            Some(other) => Err(self.wrong(key, "an object", other.clone())),
        }
    }

    /// An integer from 1 to `max`.
    pub(super) fn size(&self, key: &str, max: usize) -> Result<usize> {
        match self.optional_size(key, max)? {
            Some(size) => Ok(size),
            None => Err(self.missing(key, &format!("an integer from 1 to {max}"))),
        }
    }

    pub(super) fn optional_size(&self, key: &str, max: usize) -> Result<Option<usize>> {
        let Some(value) = self.optional(key) else {
            return Ok(None);
        };
        let size = value.as_u64().and_then(|n| usize::try_from(n).ok()).filter(|n| (1..=max).contains(n));
        size.map(Some).ok_or_else(|| self.wrong(key, format!("an integer from 1 to {max}"), value.clone()))
    }

    /// A key that, when it is there, must repeat what is known from elsewhere.
    pub(super) fn expect_size(&self, key: &str, size: usize) -> Result<()> {
        match self.optional(key) {
            Some(value) if value.as_u64() != Some(size as u64) => Err(self.wrong(key, size.to_string(), value.clone())),
            _ => Ok(()),
        }
    }

    pub(super) fn number(&self, key: &str) -> Result<Option<f64>> {
        let Some(value) = self.optional(key) else {
            return Ok(None);
        };
        value.as_f64().map(Some).ok_or_else(|| self.wrong(key, "a number", value.clone()))
    }

    pub(super) fn optional_positive(&self, key: &str) -> Result<Option<f64>> {
        match self.number(key)? {
            Some(number) if number > 0.0 && number.is_finite() => Ok(Some(number)),
            Some(number) => Err(self.wrong(key, "a number above 0", number)),
            None => Ok(None),
        }
    }

    pub(super) fn positive(&self, key: &str) -> Result<f64> {
        self.optional_positive(key)?.ok_or_else(|| self.missing(key, "a number above 0"))
    }

    pub(super) fn flag(&self, key: &str) -> Result<Option<bool>> {
        let Some(value) = self.optional(key) else {
            return Ok(None);
        };
        value.as_bool().map(Some).ok_or_else(|| self.wrong(key, "true or false", value.clone()))
    }

    pub(super) fn expect_flag(&self, key: &str, expected: bool) -> Result<()> {
        match self.flag(key)? {
            Some(found) if found != expected => Err(self.wrong(key, expected.to_string(), found)),
            _ => Ok(()),
        }
    }

    pub(super) fn text(&self, key: &str) -> Result<Option<&str>> {
        let Some(value) = self.optional(key) else {
            return Ok(None);
        };
        value.as_str().map(Some).ok_or_else(|| self.wrong(key, "a string", value.clone()))
    }

    pub(super) fn expect_text(&self, key: &str, allowed: &[&str]) -> Result<()> {
        match self.text(key)? {
            Some(found) if !allowed.contains(&found) => {
                let quoted: Vec<String> = allowed.iter().map(|text| format!("\"{text}\"")).collect();
                Err(self.wrong(key, quoted.join(" or "), found))
            }
            _ => Ok(()),
        }
    }

    /// A token id or a list of them.
    pub(super) fn token_ids(&self, key: &str) -> Result<Vec<u32>> {
        let Some(value) = self.optional(key) else {
            return Ok(Vec::new());
        };
        let one = |v: &Value| v.as_u64().and_then(|id| u32::try_from(id).ok());
        let ids = match value {
            Value::Array(list) => list.iter().map(one).collect(),
            single => one(single).map(|id| vec![id]),
        };
        ids.ok_or_else(|| self.wrong(key, "a token id or a list of them", value.clone()))
    }
}

/// Keeps a message readable when a file holds something huge.
pub(super) fn shorten(text: &str) -> String {
    const MAX: usize = 120;
    match text.char_indices().nth(MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_string(),
    }
}
