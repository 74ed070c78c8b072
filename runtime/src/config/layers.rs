//! What a layer is made of: a mixer and an MLP, each behind a norm, with the names and shapes of their tensors.

use super::{Rope, TensorList};

/// `x += mixer(input_norm(x)); x += mlp(post_norm(x))`.
#[derive(Debug, Clone, PartialEq)]
pub struct Layer {
    pub input_norm: NormConfig,
    pub mixer: MixerConfig,
    pub post_norm: NormConfig,
    pub mlp: MlpConfig,
}

/// An RMS norm.
#[derive(Debug, Clone, PartialEq)]
pub struct NormConfig {
    /// Its weight's tensor, (hidden).
    pub weight: String,
    pub eps: f32,
}

/// A SwiGLU MLP.
#[derive(Debug, Clone, PartialEq)]
pub struct MlpConfig {
    /// What its tensors' names begin with, such as `"model.layers.3.mlp."`.
    pub prefix: String,
    pub intermediate_size: usize,
}

/// The mixer of one layer.
#[derive(Debug, Clone, PartialEq)]
pub struct MixerConfig {
    /// What its tensors' names begin with, such as `"model.layers.3.mla."`.
    pub prefix: String,
    pub kind: MixerKind,
}

/// The kinds of mixers, with their sizes.
#[derive(Debug, Clone, PartialEq)]
pub enum MixerKind {
    /// Multi-head latent attention.
    Mla(MlaConfig),
    /// A Mamba2 state-space mixer in MambaInLlama's form.
    Mamba2(Mamba2Config),
}

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

/// Sizes of one Mamba2 layer.
#[derive(Debug, Clone, PartialEq)]
pub struct Mamba2Config {
    /// State heads.
    pub heads: usize,
    /// Width of a head and of its state: the state is `[heads, head_dim, head_dim]`.
    pub head_dim: usize,
    /// heads * head_dim: width of z, C and the output.
    pub d_inner: usize,
    /// Width of x and B before they are repeated to `d_inner`.
    pub d_xb: usize,
    /// Taps of the causal convolution.
    pub d_conv: usize,
    /// Whether x and B are repeated before the convolution instead of after it.
    pub repeat_kv_before_conv: bool,
    /// Epsilon of the gated norm.
    pub norm_eps: f32,
}

impl Layer {
    pub(super) fn tensors(&self, hidden: usize, list: &mut TensorList) {
        self.input_norm.tensors(hidden, list);
        let prefix = &self.mixer.prefix;
        match &self.mixer.kind {
            MixerKind::Mla(mla) => mla.tensors(prefix, hidden, list),
            MixerKind::Mamba2(mamba2) => mamba2.tensors(prefix, hidden, list),
        }
        self.post_norm.tensors(hidden, list);
        self.mlp.tensors(hidden, list);
    }
}

impl NormConfig {
    pub(super) fn tensors(&self, width: usize, list: &mut TensorList) {
        list.vector(&self.weight, &[width]);
    }
}

impl MlpConfig {
    fn tensors(&self, hidden: usize, list: &mut TensorList) {
        let (p, i) = (&self.prefix, self.intermediate_size);
        list.matrix(format!("{p}gate_proj.weight"), i, hidden);
        list.matrix(format!("{p}up_proj.weight"), i, hidden);
        list.matrix(format!("{p}down_proj.weight"), hidden, i);
    }
}

impl MixerConfig {
    /// As it is named to people.
    pub fn name(&self) -> &'static str {
        match self.kind {
            MixerKind::Mla(_) => "mla",
            MixerKind::Mamba2(_) => "mamba2",
        }
    }

    /// Values that a token adds to its cache.
    pub fn cache_elements(&self) -> usize {
        match &self.kind {
            MixerKind::Mla(mla) => mla.latent_dim(),
            MixerKind::Mamba2(_) => 0,
        }
    }
}

impl MlaConfig {
    /// Values cached for a token: the latent and the rotated key part.
    pub fn latent_dim(&self) -> usize {
        self.kv_lora_rank + self.qk_rope_head_dim
    }

    fn tensors(&self, p: &str, hidden: usize, list: &mut TensorList) {
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

impl Mamba2Config {
    /// Rows of `in_proj`: [z | x | B | C | dt].
    pub fn in_proj_rows(&self) -> usize {
        2 * self.d_inner + 2 * self.d_xb + self.heads
    }

    /// Channels of the convolution: [x | B | C].
    pub fn conv_channels(&self) -> usize {
        if self.repeat_kv_before_conv { 3 * self.d_inner } else { self.d_inner + 2 * self.d_xb }
    }

    fn tensors(&self, p: &str, hidden: usize, list: &mut TensorList) {
        list.matrix(format!("{p}in_proj.weight"), self.in_proj_rows(), hidden);
        list.vector(format!("{p}conv1d.weight"), &[self.conv_channels(), 1, self.d_conv]);
        list.vector(format!("{p}conv1d.bias"), &[self.conv_channels()]);
        list.vector(format!("{p}dt_bias"), &[self.heads]);
        list.vector(format!("{p}A_log"), &[self.heads]);
        list.vector(format!("{p}D"), &[self.heads]);
        list.vector(format!("{p}norm.weight"), &[self.d_inner]);
        list.matrix(format!("{p}out_proj.weight"), hidden, self.d_inner);
    }
}
