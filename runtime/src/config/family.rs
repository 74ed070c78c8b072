//! Which family of models a folder holds, told by its own files.

use std::collections::BTreeMap;

use serde_json::Value;

use super::object::Object;
use super::{CONFIG_FILE, HYBRID_CONFIG_FILE, MAMBA_CONFIG_FILE, MLA_CONFIG_FILE, MLA_LAYER_CONFIG_FILE};
use crate::{Error, Result};

/// The files that a family may be told by and configured in, where they are there.
pub const CONFIG_FILES: [&str; 5] =
    [CONFIG_FILE, HYBRID_CONFIG_FILE, MLA_CONFIG_FILE, MLA_LAYER_CONFIG_FILE, MAMBA_CONFIG_FILE];

/// The families that run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// AMD's Zebra-Llama: MLA and Mamba2 layers.
    ZebraLlama,
    /// AMD's X-EcoMLA: a Llama whose layers became MLA.
    XEcoMla,
    /// MambaInLlama: attention and Mamba2 or Mamba1 layers.
    MambaInLlama,
    /// Llama 3 and others of its form.
    Llama,
    /// Minitron: a pruned Nemotron.
    Minitron,
    /// Llamba: discrete Mamba2 layers.
    Llamba,
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
        let config = files.object(CONFIG_FILE).map_err(|_| format!("{CONFIG_FILE} is not a JSON object"))?;
        let kind = config.map.get("model_type").and_then(Value::as_str);
        let alone = match kind {
            Some("nemotron") => Some(Family::Minitron),
            Some("llamba") => Some(Family::Llamba),
            _ => None,
        };
        let told = [
            (HYBRID_CONFIG_FILE, Family::ZebraLlama),
            (MLA_CONFIG_FILE, Family::XEcoMla),
            (MLA_LAYER_CONFIG_FILE, Family::XEcoMla),
            (MAMBA_CONFIG_FILE, Family::MambaInLlama),
        ];
        let told: Vec<_> = told.into_iter().filter(|(name, _)| files.has(name)).collect();
        let Some(&(first, family)) = told.first() else {
            return alone.or((kind == Some("llama")).then_some(Family::Llama)).ok_or_else(|| describe(&config));
        };
        if alone.is_some() || told.iter().any(|(_, other)| *other != family) {
            let names = told.iter().map(|(name, _)| (*name).to_owned());
            let names: Vec<String> = alone.map(|_| describe(&config)).into_iter().chain(names).collect();
            return Err(format!("files of different families are there together: {}", names.join(", ")));
        }
        if first == MLA_LAYER_CONFIG_FILE {
            return Err(format!("{MLA_LAYER_CONFIG_FILE} is there without {MLA_CONFIG_FILE}"));
        }
        Ok(family)
    }

    /// As it is named to people.
    pub fn name(self) -> &'static str {
        match self {
            Family::ZebraLlama => "zebra-llama",
            Family::XEcoMla => "x-ecomla",
            Family::MambaInLlama => "mambainllama",
            Family::Llama => "llama",
            Family::Minitron => "minitron",
            Family::Llamba => "llamba",
        }
    }

    /// What a folder of it is known by.
    pub fn because(self) -> &'static str {
        match self {
            Family::ZebraLlama => "config.json comes with hybrid_config.json",
            Family::XEcoMla => "config.json comes with MLA_config.json",
            Family::MambaInLlama => "config.json comes with mamba_config.json",
            Family::Llama => "config.json has model_type \"llama\" and comes with no file of another family",
            Family::Minitron => "config.json has model_type \"nemotron\" and comes with no file of another family",
            Family::Llamba => "config.json has model_type \"llamba\"",
        }
    }
}

/// What a `config.json` says of itself.
fn describe(config: &Object) -> String {
    let kind = config.map.get("model_type").and_then(Value::as_str);
    let architecture = config.map.get("architectures").and_then(|list| list.get(0)).and_then(Value::as_str);
    match (architecture, kind) {
        (Some(architecture), Some(kind)) => format!("a {architecture} (model_type \"{kind}\")"),
        (Some(architecture), None) => format!("a {architecture}"),
        (None, Some(kind)) => format!("a model of model_type \"{kind}\""),
        (None, None) => format!("a model without model_type in its {CONFIG_FILE}"),
    }
}
