//! Zebra runtime: hybrid MLA + Mamba2 language models in WGSL compute shaders, native and in the browser.

mod error;
pub mod files;
pub mod text;

pub use error::{Error, Result};
