//! The browser's door to [`zebra_runtime`]: what the npm package's worker calls, and nothing that the runtime could know.
//!
//! | module | is |
//! |---|---|
//! | [`model`] | a loaded model: answers, snapshots, a lost device brought back |
//! | [`loading`] | from files to a model, or to an estimate of one, or to quantized files |
//! | [`files`] | JavaScript's files and sinks as the runtime's |
//! | [`request`] | what is asked and answered, as plain objects |
//! | [`error`] | the runtime's errors as objects that keep their code over a worker |
//! | [`time`] | the page's clock and timer |
//!
//! Storage, downloads, OpenAI's shapes and the worker itself are TypeScript (`web/package`).

#![cfg(target_arch = "wasm32")]

mod error;
mod files;
mod loading;
mod model;
mod request;
mod time;

pub use loading::{estimate, load, quantize};
pub use model::Zebra;

use wasm_bindgen::prelude::wasm_bindgen;

/// Runs once, when the module is instantiated.
#[wasm_bindgen(start)]
pub fn start() {
    console_error_panic_hook::set_once();
}
