//! What a slot carries from one step to the next: latent rows of the MLA layers, scan and convolution states of the
//! Mamba2 layers.

use super::PlanOptions;
use super::{mamba2, mla};
use crate::config::{Layer, ModelConfig};
use crate::gpu::{Buffer, Purpose};
use crate::kernels::mla_latent::CacheShape;
use crate::kernels::ssm_shape::SsmShape;

/// The carried state of one layer, for all slots.
#[derive(Debug, Clone)]
pub enum Carried {
    /// `[slots, context, kv_heads, row_words]`; grows by a position a token, kept by length.
    Latents { buffer: Buffer, shape: CacheShape },
    /// `[slots, heads * P * N | heads * 3 * head_dim * 4]`, see [`SsmShape::state`]; of one size, overwritten by every token.
    Ssm { buffer: Buffer, shape: SsmShape },
}

impl Carried {
    /// Bytes that it grows by with each position.
    pub fn position_bytes(&self) -> u64 {
        match self {
            Carried::Latents { shape, .. } => 4 * shape.position_words() as u64,
            Carried::Ssm { .. } => 0,
        }
    }

    /// Bytes of a slot that every token overwrites.
    pub fn recurrent_bytes(&self) -> u64 {
        match self {
            Carried::Latents { .. } => 0,
            Carried::Ssm { shape, .. } => 4 * shape.state() as u64,
        }
    }
}

/// The carried states of all layers.
#[derive(Debug, Clone)]
pub struct State {
    pub layers: Vec<Carried>,
}

impl State {
    pub fn new(config: &ModelConfig, options: &PlanOptions) -> Self {
        let slots = u64::from(options.slots);
        let layers = config
            .layers
            .iter()
            .enumerate()
            .map(|(i, layer)| match layer {
                Layer::Mla(m) => {
                    let shape = mla::cache_shape(m, options);
                    let buffer = Buffer::new(format!("layer{i}.latents"), slots * shape.slot_bytes(), Purpose::Latents);
                    Carried::Latents { buffer, shape }
                }
                Layer::Mamba2(m) => {
                    let shape = mamba2::shape(m);
                    let bytes = 4 * shape.state() as u64;
                    Carried::Ssm { buffer: Buffer::new(format!("layer{i}.ssm"), slots * bytes, Purpose::States), shape }
                }
            })
            .collect();
        Self { layers }
    }

    pub fn buffers(&self) -> Vec<Buffer> {
        self.layers
            .iter()
            .map(|layer| match layer {
                Carried::Latents { buffer, .. } | Carried::Ssm { buffer, .. } => buffer.clone(),
            })
            .collect()
    }

    /// Bytes of the recurrent states of one slot.
    pub fn recurrent_bytes(&self) -> u64 {
        self.layers.iter().map(Carried::recurrent_bytes).sum()
    }

    /// Bytes of the latents of one position.
    pub fn position_bytes(&self) -> u64 {
        self.layers.iter().map(Carried::position_bytes).sum()
    }
}
