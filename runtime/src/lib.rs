//! Zebra runtime: hybrid MLA + Mamba2 language models in WGSL compute shaders, native and in the browser.

pub mod config;
pub mod engine;
mod error;
pub mod files;
pub mod gpu;
pub mod kernels;
pub mod model;
pub mod text;
pub mod weights;

pub use error::{Error, Result};
