//! Zebra runtime: hybrid MLA + Mamba2 language models in WGSL compute shaders, native and in the browser.
//!
//! From text to text, a layer of this crate at a time; each knows only those below it:
//!
//! | module | is |
//! |---|---|
//! | [`engine`] | sessions over slots: prompts, answers, sampling options, snapshots that bring a state back, a lost GPU too |
//! | [`text`] | tokenizer, chat template, streamed text, stop strings |
//! | [`model`] | the layers as flat lists of dispatches, a file for each kind of mixer, the state they carry, steps of rows |
//! | [`kernels`] | one typed binding for each shader of `shaders/` |
//! | [`gpu`] | a device, buffers and dispatches as plain data, programs that run them |
//! | [`weights`] | checkpoints: safetensors files by ranges, formats f32, f16, q8 and q4, quantized folders |
//! | [`config`] | what a checkpoint says about its layers: a reader for each family, sizes of each kind of mixer |
//! | [`files`] | where the files come from: a folder, memory, a browser's storage |
//!
//! A step is rows, not a token: a prompt's chunk, single rows of many slots, or both at once. Everything is planned when a
//! model is loaded; a token allocates nothing, and the next one does not wait for the CPU to know the last; on a fast GPU a
//! submit holds several. There are no threads, clocks, files or network here, and one async body serves every target.
//!
//! Without the default feature `engine` only [`config`], [`files`] and [`weights`] are built: enough to read and quantize
//! checkpoints, with no GPU and no tokenizer.

pub mod config;
#[cfg(feature = "engine")]
pub mod engine;
mod error;
pub mod files;
#[cfg(feature = "engine")]
pub mod gpu;
#[cfg(feature = "engine")]
pub mod kernels;
#[cfg(feature = "engine")]
pub mod model;
#[cfg(feature = "engine")]
pub mod text;
pub mod weights;

pub use error::{Error, Result};
