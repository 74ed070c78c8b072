//! What every command that loads a model takes.

use clap::{Args, ValueEnum};

/// Which model, and how it is loaded.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Model")]
pub struct ModelArgs {
    /// A checkpoint folder, or a model's name at the hub: OWNER/NAME or OWNER/NAME@REVISION [default: the model inside of
    /// the program]
    #[arg(long, value_name = "FOLDER|NAME")]
    pub model: Option<String>,

    /// Format of the weights on the GPU [default: the stored one of a quantized folder, else q8]
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<Format>,

    /// Format of the latent cache [default: q8]
    #[arg(long, value_name = "FORMAT")]
    pub cache: Option<Cache>,

    /// Tokens that fit in the context [default: the model's maximum, at most 4096]
    #[arg(long, value_name = "N")]
    pub context: Option<usize>,

    /// `auto` runs what was measured to be the fastest on the GPU; `plain` uses only kernels that need no optional feature and
    /// sum in one order, whatever else runs beside them
    #[arg(long, value_name = "KIND", default_value = "auto")]
    pub kernels: Kernels,
}

/// Weights on the GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    F32,
    F16,
    Q8,
    Q4,
}

/// The latent cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Cache {
    F32,
    F16,
    Q8,
}

/// Which kernels may be chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kernels {
    Auto,
    Plain,
}
