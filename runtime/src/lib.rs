//! Zebra runtime: hybrid MLA + Mamba2 language models in WGSL compute shaders, native and in the browser.

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
