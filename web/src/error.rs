//! The runtime's errors as plain objects `{code, message, details}`: the package rebuilds its error class from them.

use std::collections::BTreeMap;

use serde::Serialize;
use wasm_bindgen::JsValue;
use zebra_runtime::Error;

use crate::files::JsFiles;
use crate::request::to_js;

#[derive(Serialize)]
struct ErrorData {
    code: &'static str,
    message: String,
    details: BTreeMap<&'static str, Detail>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Detail {
    Text(String),
    Number(f64),
}

/// An error of the runtime for JavaScript. What JavaScript's own files failed with comes back as it was thrown.
pub fn to_js_error(error: Error, files: Option<&JsFiles>) -> JsValue {
    if let (Error::File { .. }, Some(thrown)) = (&error, files.and_then(JsFiles::take_failure)) {
        return thrown;
    }
    let code = match error.code() {
        // What a file lacks or holds: what JavaScript could not read has been told already.
        "file" => "bad-model",
        "snapshot" => "bad-request",
        code => code,
    };
    let mut details = BTreeMap::new();
    let mut text = |key, value: &str| details.insert(key, Detail::Text(value.to_owned()));
    match &error {
        Error::File { path, .. } | Error::UnknownModel { path, .. } => drop(text("file", path)),
        Error::Config { file, key, .. } => {
            text("file", file);
            text("key", key);
        }
        Error::Safetensors { file, .. } => drop(text("file", file)),
        Error::Tensor { name, .. } => drop(text("tensor", name)),
        Error::Option { name, .. } => drop(text("option", name)),
        Error::Limit { limit, need, have, .. } => {
            text("limit", limit);
            details.insert("need", Detail::Number(*need as f64));
            details.insert("have", Detail::Number(*have as f64));
        }
        Error::OutOfMemory { need, .. } => drop(details.insert("need", Detail::Number(*need as f64))),
        Error::Context { need, have, .. } => {
            details.insert("need", Detail::Number(*need as f64));
            details.insert("have", Detail::Number(*have as f64));
        }
        _ => {}
    }
    to_js(&ErrorData { code, message: error.to_string(), details })
}
