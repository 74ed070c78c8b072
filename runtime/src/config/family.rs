//! Which family of models a folder holds, told by its own files.

use std::collections::BTreeMap;

use serde_json::Value;

use super::object::Object;
use super::{CONFIG_FILE, HYBRID_CONFIG_FILE};
use crate::{Error, Result};

/// The files that a family may be told by and configured in, where they are there.
pub const CONFIG_FILES: [&str; 5] =
    [CONFIG_FILE, HYBRID_CONFIG_FILE, "MLA_config.json", "mla_layer_config.json", "mamba_config.json"];

/// The families that run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// AMD's Zebra-Llama: MLA and Mamba2 layers.
    ZebraLlama,
}

/// A folder's configuration files by their names.
#[derive(Debug, Clone, Default)]
pub struct ConfigFiles(BTreeMap<&'static str, Vec<u8>>);

impl ConfigFiles {
    /// `files` are pairs of one of [`CONFIG_FILES`] and its content.
    pub fn new(files: impl IntoIterator<Item = (&'static str, Vec<u8>)>) -> Self {
        Self(files.into_iter().collect())
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// A file as a JSON object.
    pub(super) fn object(&self, name: &'static str) -> Result<Object> {
        match self.0.get(name) {
            Some(bytes) => Object::parse(name, bytes),
            None => Err(Error::File { path: name.into(), reason: "no such file".into() }),
        }
    }
}

impl Family {
    /// The family of a folder with these configuration files.
    ///
    /// # Errors
    /// What it seems to be instead.
    pub fn find(files: &ConfigFiles) -> Result<Self, String> {
        if !files.has(CONFIG_FILE) {
            return Err(format!("no {CONFIG_FILE} is there"));
        }
        if files.has(HYBRID_CONFIG_FILE) {
            return Ok(Family::ZebraLlama);
        }
        let kind = if files.has("MLA_config.json") || files.has("mla_layer_config.json") {
            "an X-EcoMLA model (MLA_config.json)".to_string()
        } else if files.has("mamba_config.json") {
            "a MambaInLlama model (mamba_config.json)".to_string()
        } else {
            describe(files)
        };
        Err(format!("no {HYBRID_CONFIG_FILE} is there; this seems to be {kind}"))
    }

    /// As it is named to people.
    pub fn name(self) -> &'static str {
        match self {
            Family::ZebraLlama => "zebra-llama",
        }
    }

    /// What a folder of it is known by.
    pub fn because(self) -> &'static str {
        match self {
            Family::ZebraLlama => "config.json comes with hybrid_config.json",
        }
    }
}

/// What a `config.json` says of itself.
fn describe(files: &ConfigFiles) -> String {
    let Ok(config) = files.object(CONFIG_FILE) else {
        return format!("nothing known: {CONFIG_FILE} is not JSON");
    };
    let kind = config.map.get("model_type").and_then(Value::as_str);
    let architecture = config.map.get("architectures").and_then(|list| list.get(0)).and_then(Value::as_str);
    match (architecture, kind) {
        (Some(architecture), Some(kind)) => format!("a plain {architecture} (model_type \"{kind}\")"),
        (Some(architecture), None) => format!("a plain {architecture}"),
        (None, Some(kind)) => format!("a model of model_type \"{kind}\""),
        // Llamba's configuration has neither.
        (None, None) => format!("a model without model_type in its {CONFIG_FILE}"),
    }
}
