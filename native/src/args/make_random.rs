//! `zebra make-random`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// Write a checkpoint of a released model's exact size with random weights, to measure with.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  zebra make-random --preset 1b-4mla --format q4 ./random-1b
  zebra make-random --preset 8b-8mla --format q4 --seed 7 ./random-8b
  zebra make-random --preset llama-1b --format bf16 ./random-llama

1b-4mla to 8b-16mla are Zebra-Llama; the others are Llama and hybrids of other families made from it. MambaInLlama's
last number is the percentage of layers that keep the attention.")]
pub struct MakeRandomArgs {
    /// The model whose size it has
    #[arg(long, value_name = "MODEL")]
    pub preset: Geometry,

    /// Format of the weights
    #[arg(long, value_name = "FORMAT")]
    pub format: RandomFormat,

    /// Start of the random numbers
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,

    /// The folder to write, which must not exist yet
    #[arg(value_name = "OUT")]
    pub out: PathBuf,
}

/// Weights of a random checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RandomFormat {
    F32,
    Bf16,
    Q8,
    Q4,
}

/// The released sizes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Geometry {
    #[value(name = "1b-4mla")]
    B1Mla4,
    #[value(name = "1b-8mla")]
    B1Mla8,
    #[value(name = "3b-6mla")]
    B3Mla6,
    #[value(name = "3b-14mla")]
    B3Mla14,
    #[value(name = "8b-8mla")]
    B8Mla8,
    #[value(name = "8b-16mla")]
    B8Mla16,
    #[value(name = "llama-1b")]
    Llama1B,
    #[value(name = "llama-3b")]
    Llama3B,
    #[value(name = "llama-8b")]
    Llama8B,
    #[value(name = "smollm2-135m")]
    SmolLm2,
    #[value(name = "x-ecomla-1b")]
    XEcoMla1B,
    #[value(name = "x-ecomla-3b")]
    XEcoMla3B,
    #[value(name = "x-ecomla-8b")]
    XEcoMla8B,
    #[value(name = "mambainllama-1b-50")]
    MambaInLlama1B,
    #[value(name = "mambainllama-3b-50")]
    MambaInLlama3B,
    #[value(name = "mambainllama-8b-50")]
    MambaInLlama8B,
    #[value(name = "mambainllama-8b-25")]
    MambaInLlama8BQuarter,
    #[value(name = "mambainllama-8b-12.5")]
    MambaInLlama8BEighth,
    #[value(name = "mambainllama-8b-0")]
    MambaInLlama8BNone,
    #[value(name = "mambainllama-8b-mamba1-50")]
    MambaInLlama8BMamba1,
    #[value(name = "llamba-1b")]
    Llamba1B,
    #[value(name = "llamba-3b")]
    Llamba3B,
    #[value(name = "llamba-8b")]
    Llamba8B,
    #[value(name = "minitron-4b")]
    Minitron4B,
    #[value(name = "minitron-8b")]
    Minitron8B,
}
