//! Sizes of multi-head latent attention, as Zebra-Llama and X-EcoMLA configure it.

use super::object::Object;
use super::rope::{self, Rope};
use super::{MAX_HEAD_DIM, MAX_HEADS, Shapes, TensorList};
use crate::{Error, Result};

/// Sizes of one MLA layer. The ranks may differ from layer to layer.
#[derive(Debug, Clone, PartialEq)]
pub struct MlaConfig {
    /// Query heads.
    pub heads: usize,
    /// Heads of `kv_b_proj`; query head h uses kv head h / (heads / kv_heads).
    pub kv_heads: usize,
    /// Rank of the query's two factors, or `None` when it is one matrix, `q_proj`.
    pub q_lora_rank: Option<usize>,
    /// Width of the latent that is cached.
    pub kv_lora_rank: usize,
    /// Width of a head's part without position.
    pub qk_nope_head_dim: usize,
    /// Width of a head's rotated part, and of the key part that all heads share.
    pub qk_rope_head_dim: usize,
    /// Width of a head's value.
    pub v_head_dim: usize,
    /// Whether the low-rank activations are normed (epsilon 1e-6, not `rms_norm_eps`).
    pub lora_layer_norm: bool,
    /// On interleaved pairs (2i, 2i + 1).
    pub rope: Rope,
}

impl MlaConfig {
    /// Values cached for a token: the latent and the rotated key part.
    pub fn latent_dim(&self) -> usize {
        self.kv_lora_rank + self.qk_rope_head_dim
    }

    pub(super) fn tensors(&self, p: &str, hidden: usize, list: &mut TensorList) {
        let q_rows = self.heads * (self.qk_nope_head_dim + self.qk_rope_head_dim);
        match self.q_lora_rank {
            Some(rank) => {
                list.matrix(format!("{p}q_a_proj.weight"), rank, hidden);
                if self.lora_layer_norm {
                    list.vector(format!("{p}q_a_layernorm.weight"), &[rank]);
                }
                list.matrix(format!("{p}q_b_proj.weight"), q_rows, rank);
            }
            None => list.matrix(format!("{p}q_proj.weight"), q_rows, hidden),
        }
        list.matrix(format!("{p}kv_a_proj_with_mqa.weight"), self.latent_dim(), hidden);
        if self.lora_layer_norm {
            list.vector(format!("{p}kv_a_layernorm.weight"), &[self.kv_lora_rank]);
        }
        let kv_rows = self.kv_heads * (self.qk_nope_head_dim + self.v_head_dim);
        list.matrix(format!("{p}kv_b_proj.weight"), kv_rows, self.kv_lora_rank);
        list.matrix(format!("{p}out_proj.weight"), hidden, self.heads * self.v_head_dim);
    }
}

/// What all MLA layers share.
pub(super) struct MlaSizes {
    heads: usize,
    nope: usize,
    rope_dim: usize,
    v: usize,
    lora_layer_norm: bool,
    rope: Rope,
}

impl MlaSizes {
    /// `theta` is that of RoPE where the file has none.
    pub fn parse(file: &Object, theta: impl FnOnce() -> Result<f64>) -> Result<Self> {
        let heads = file.size("num_attention_heads", MAX_HEADS)?;
        let nope = file.size("qk_nope_head_dim", MAX_HEAD_DIM)?;
        let rope_dim = file.size("qk_rope_head_dim", MAX_HEAD_DIM)?;
        let v = file.size("v_head_dim", MAX_HEAD_DIM)?;
        if !rope_dim.is_multiple_of(2) {
            return Err(file.wrong("qk_rope_head_dim", "an even number", rope_dim));
        }
        let theta = match file.optional_positive("rope_theta")? {
            Some(theta) => theta,
            None => theta()?,
        };
        let rope = rope::mla(file, rope_dim, theta, (nope + rope_dim) as f64)?;
        let lora_layer_norm = file.flag("use_lora_layer_norm")?.unwrap_or(false);
        Ok(Self { heads, nope, rope_dim, v, lora_layer_norm, rope })
    }

    /// The layer's ranks and kv heads are those of its tensors: configurations with ranks per layer exist, and
    /// `num_key_value_heads` does not say whether `kv_b_proj` has all heads.
    pub fn layer(&self, n: usize, hidden: usize, shape: Shapes<'_>) -> Result<MlaConfig> {
        let prefix = format!("model.layers.{n}.mla.");
        let matrix = |part: &str, expected: &str| -> Result<(usize, usize)> {
            let name = format!("{prefix}{part}.weight");
            match shape(&name).as_deref() {
                Some(&[rows, columns]) if rows > 0 && columns > 0 => Ok((rows, columns)),
                Some(other) => {
                    Err(Error::Tensor { name, expected: expected.to_string(), found: format!("shape {other:?}") })
                }
                None => Err(Error::Tensor { name, expected: expected.to_string(), found: "no such tensor".into() }),
            }
        };
        let q_lora_rank = if shape(&format!("{prefix}q_proj.weight")).is_some() {
            None
        } else {
            Some(matrix("q_a_proj", &format!("shape [q rank, {hidden}]"))?.0)
        };
        let per_head = self.nope + self.v;
        let kv_b_expected = format!("shape [kv heads * {per_head}, kv rank]");
        let (kv_rows, kv_lora_rank) = matrix("kv_b_proj", &kv_b_expected)?;
        let kv_heads = kv_rows / per_head;
        if !kv_rows.is_multiple_of(per_head) || kv_heads == 0 || !self.heads.is_multiple_of(kv_heads) {
            return Err(Error::Tensor {
                name: format!("{prefix}kv_b_proj.weight"),
                expected: format!("{kv_b_expected}, with kv heads that divide the {} query heads", self.heads),
                found: format!("shape [{kv_rows}, {kv_lora_rank}]"),
            });
        }
        let normed =
            ["q_a_layernorm", "kv_a_layernorm"].iter().any(|m| shape(&format!("{prefix}{m}.weight")).is_some());
        Ok(MlaConfig {
            heads: self.heads,
            kv_heads,
            q_lora_rank,
            kv_lora_rank,
            qk_nope_head_dim: self.nope,
            qk_rope_head_dim: self.rope_dim,
            v_head_dim: self.v,
            lora_layer_norm: self.lora_layer_norm || normed,
            rope: self.rope.clone(),
        })
    }
}
