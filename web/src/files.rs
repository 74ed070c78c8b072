//! JavaScript's files and sinks (`web/package/worker/files.ts`) as the runtime's. Bytes are copied once into wasm memory,
//! a range of at most 8 MiB at a time.

use std::borrow::Cow;
use std::cell::RefCell;
use std::ops::Range;

use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use js_sys::{Array, Uint8Array};
use wasm_bindgen::prelude::wasm_bindgen;
use wasm_bindgen::{JsCast, JsValue};
use zebra_runtime::files::Files;
use zebra_runtime::weights::ShardSink;
use zebra_runtime::{Error, Result};

#[wasm_bindgen(typescript_custom_section)]
const IMPORTS: &str = r#"import type { FileSink, ModelFiles } from "../files.js";"#;

#[wasm_bindgen]
extern "C" {
    /// `ModelFiles` of the package.
    #[wasm_bindgen(typescript_type = "ModelFiles")]
    pub type ModelFiles;
    #[wasm_bindgen(method)]
    fn describe(this: &ModelFiles) -> String;
    #[wasm_bindgen(method, catch)]
    async fn names(this: &ModelFiles) -> Result<JsValue, JsValue>;
    #[wasm_bindgen(method, catch)]
    async fn size(this: &ModelFiles, name: &str) -> Result<JsValue, JsValue>;
    #[wasm_bindgen(method, catch)]
    async fn read(this: &ModelFiles, name: &str, start: f64, end: f64) -> Result<JsValue, JsValue>;

    /// `FileSink` of the package.
    #[wasm_bindgen(typescript_type = "FileSink")]
    pub type FileSink;
    #[wasm_bindgen(method, catch)]
    async fn write(this: &FileSink, name: &str, offset: f64, bytes: Uint8Array) -> Result<JsValue, JsValue>;
}

/// The files of a checkpoint.
pub struct JsFiles {
    files: ModelFiles,
    /// What JavaScript threw, kept while the runtime's own error goes up in its place.
    failure: RefCell<Option<JsValue>>,
}

impl JsFiles {
    pub fn new(files: ModelFiles) -> Self {
        Self { files, failure: RefCell::new(None) }
    }

    /// What JavaScript threw last.
    pub fn take_failure(&self) -> Option<JsValue> {
        self.failure.borrow_mut().take()
    }

    fn failed(&self, name: &str, thrown: JsValue) -> Error {
        *self.failure.borrow_mut() = Some(thrown);
        self.wrong(name, "could not be read")
    }

    fn wrong(&self, name: &str, reason: &str) -> Error {
        Error::File { path: format!("{}/{name}", self.files.describe()), reason: reason.into() }
    }
}

impl Files for JsFiles {
    fn size<'a>(&'a self, name: &'a str) -> LocalBoxFuture<'a, Result<Option<u64>>> {
        async move {
            let size = self.files.size(name).await.map_err(|thrown| self.failed(name, thrown))?;
            Ok(size.as_f64().map(|size| size as u64))
        }
        .boxed_local()
    }

    fn read<'a>(&'a self, name: &'a str, range: Range<u64>) -> LocalBoxFuture<'a, Result<Cow<'a, [u8]>>> {
        async move {
            let (start, end) = (range.start as f64, range.end as f64);
            let bytes = self.files.read(name, start, end).await.map_err(|thrown| self.failed(name, thrown))?;
            let bytes: Uint8Array = bytes.dyn_into().map_err(|_| self.wrong(name, "read() gave no Uint8Array"))?;
            if u64::from(bytes.length()) != range.end - range.start {
                let reason = format!("{} bytes were asked for, {} came", range.end - range.start, bytes.length());
                return Err(self.wrong(name, &reason));
            }
            Ok(Cow::Owned(bytes.to_vec()))
        }
        .boxed_local()
    }

    fn names(&self) -> LocalBoxFuture<'_, Result<Vec<String>>> {
        async move {
            let names = self.files.names().await.map_err(|thrown| self.failed("", thrown))?;
            let mut names: Vec<String> = Array::from(&names).iter().filter_map(|name| name.as_string()).collect();
            names.sort();
            Ok(names)
        }
        .boxed_local()
    }

    fn describe(&self) -> String {
        self.files.describe()
    }
}

/// Where quantized files go.
pub struct JsSink<'a> {
    pub sink: FileSink,
    /// Keeps what the sink throws, too.
    pub files: &'a JsFiles,
}

impl ShardSink for JsSink<'_> {
    fn write<'a>(&'a mut self, file: &'a str, offset: u64, bytes: &'a [u8]) -> LocalBoxFuture<'a, Result<()>> {
        async move {
            let written = self.sink.write(file, offset as f64, Uint8Array::from(bytes)).await;
            written.map(drop).map_err(|thrown| self.files.failed(file, thrown))
        }
        .boxed_local()
    }
}
