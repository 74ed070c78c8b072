//! What every mixer is to the plan: the first half of a layer, from the residual stream back to it. A kind of mixer is
//! one file beside this one and a line in [`mixer`].

use std::fmt::Debug;

use super::attention::Attention;
use super::discrete_mamba2::discrete_mamba2;
use super::mamba1::Mamba1;
use super::mamba2::Mamba2;
use super::mla::Mla;
use super::norm::Input;
use super::state::{Carried, Kept};
use super::work::{Room, Work};
use super::{Pass, PlanOptions, Tensors};
use crate::config::{MixerConfig, MixerKind, Rope};
use crate::gpu::{Buffer, Dispatch, Limits, Purpose};
use crate::kernels::mla_attend::{self, LATENT_MEMORY, MOST_LATENT};
use crate::kernels::mla_latent::CacheShape;
use crate::kernels::{Target, rope};
use crate::{Error, Result};

/// A tensor of what a layer carries: its name in `cache.N.*`, its shape, its values.
pub type CacheTensor = (&'static str, Vec<usize>, Vec<f32>);

/// A mixer with its weights described.
pub trait Mixer: Debug {
    /// What a slot carries from one step to the next.
    fn kept(&self) -> Kept;

    /// How wide its rows are in the buffers that all layers share.
    fn room(&self, options: &PlanOptions, limits: &Limits) -> Room;

    /// Whether what it adds to the residual stream can be left coded.
    fn can_code(&self, target: Target) -> bool;

    /// `x += mixer(norm(x))`, carrying the state on.
    fn dispatches(&self, at: &Place<'_>) -> Vec<Dispatch>;

    /// What the f32 words of a slot's state are after so many tokens, in the shapes of the authors' caches; of cached rows
    /// where the format is f32.
    fn cache(&self, words: &[f32], length: usize) -> Vec<CacheTensor>;
}

/// Where in a plan a mixer runs.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// `"layer3"`.
    pub label: &'a str,
    pub work: &'a Work,
    /// What it mixes.
    pub input: Input<'a>,
    /// The gain of the norm that comes after it, if it has one (see [`super::norm::BlockNorm::gain`]).
    pub next: Option<&'a Buffer>,
    /// As [`Mixer::kept`] has it, for all slots.
    pub state: &'a Carried,
    pub options: &'a PlanOptions,
    pub pass: Pass,
}

/// What mixers are made with.
pub struct Maker<'a> {
    pub options: &'a PlanOptions,
    pub limits: Limits,
    pub hidden: usize,
    pub tensors: &'a mut Tensors,
    pub tables: Tables,
}

impl Maker<'_> {
    /// The table of a rotary embedding (see [`rope::turns`]).
    pub fn turns(&mut self, rope: &Rope) -> Buffer {
        self.tables.shared(rope::turns(&rope.inv_freq, rope.attention_scale, self.options.context as usize))
    }

    /// Whether kernels cover a cache, which a tensor's shape decides, on this adapter.
    ///
    /// # Errors
    /// [`Error::Tensor`] for values that are too wide, [`Error::Limit`] for an adapter of too little workgroup memory.
    pub fn check_cache(&self, layer: usize, tensor: &str, cache: CacheShape, heads: usize) -> Result<()> {
        if cache.values > MOST_LATENT {
            return Err(Error::Tensor {
                name: tensor.into(),
                expected: format!("a latent or a head's value of at most {MOST_LATENT} columns"),
                found: cache.values.to_string(),
            });
        }
        if !mla_attend::fits(cache, heads, &self.limits) {
            return Err(Error::Limit {
                what: format!("attention of layer {layer} over values of {} columns", cache.values),
                limit: "workgroup memory".into(),
                need: LATENT_MEMORY.into(),
                have: self.limits.workgroup_memory.into(),
                advice: "another adapter may have more".into(),
            });
        }
        Ok(())
    }
}

/// Tables that do not come from the checkpoint; layers with equal ones share a buffer.
#[derive(Debug, Default)]
pub struct Tables(pub Vec<(Buffer, Vec<[f32; 2]>)>);

impl Tables {
    fn shared(&mut self, table: Vec<[f32; 2]>) -> Buffer {
        if let Some((buffer, _)) = self.0.iter().find(|(_, t)| *t == table) {
            return buffer.clone();
        }
        let buffer = Buffer::new(format!("rope{}", self.0.len()), 8 * table.len() as u64, Purpose::Weights);
        self.0.push((buffer.clone(), table));
        buffer
    }
}

/// The mixer of a layer.
///
/// # Errors
/// [`Error::Tensor`] for sizes that the kernels do not cover, [`Error::Limit`] for ones that the adapter does not.
pub fn mixer(layer: usize, config: &MixerConfig, maker: &mut Maker<'_>) -> Result<Box<dyn Mixer>> {
    let prefix = &config.prefix;
    Ok(match &config.kind {
        MixerKind::Mla(sizes) => Box::new(Mla::new(sizes, prefix, layer, maker)?),
        MixerKind::Mamba2(sizes) => Box::new(Mamba2::new(sizes, prefix, maker)),
        MixerKind::Mamba1(sizes) => Box::new(Mamba1::new(sizes, prefix, maker)),
        MixerKind::DiscreteMamba2(sizes) => Box::new(discrete_mamba2(sizes, prefix, maker)),
        MixerKind::Attention(sizes) => Box::new(Attention::new(sizes, prefix, layer, maker)?),
    })
}
