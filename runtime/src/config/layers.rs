//! What a layer is made of: a mixer and an MLP, each behind a norm, with the names and shapes of their tensors.

use super::{AttentionConfig, DiscreteMamba2Config, Mamba1Config, Mamba2Config, MlaConfig, TensorList, TensorSpec};

/// `x += mixer(input_norm(x)); x += mlp(post_norm(x))`.
#[derive(Debug, Clone, PartialEq)]
pub struct Layer {
    pub input_norm: NormConfig,
    pub mixer: MixerConfig,
    pub post_norm: NormConfig,
    pub mlp: MlpConfig,
}

/// The norm of a row of the residual stream.
#[derive(Debug, Clone, PartialEq)]
pub struct NormConfig {
    pub kind: NormKind,
    /// Its weight's tensor, (hidden).
    pub weight: String,
    pub eps: f32,
}

/// The kinds of norms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NormKind {
    /// `x / sqrt(mean(x^2) + eps) * weight`.
    Rms,
    /// `(x - mean) / sqrt(var + eps) * (1 + weight) + bias`.
    Layer {
        /// Its bias's tensor, (hidden).
        bias: String,
    },
}

/// The MLP of a layer.
#[derive(Debug, Clone, PartialEq)]
pub struct MlpConfig {
    /// What its tensors' names begin with, such as `"model.layers.3.mlp."`.
    pub prefix: String,
    pub intermediate_size: usize,
    pub kind: MlpKind,
}

/// The kinds of MLPs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MlpKind {
    /// `down(silu(gate n) * up n)`.
    SwiGlu,
    /// `down(relu(up n)^2)`.
    Relu2,
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
    /// A Mamba1 state-space mixer in MambaInLlama's form.
    Mamba1(Mamba1Config),
    /// Grouped-query attention.
    Attention(AttentionConfig),
    /// A discrete Mamba2 in Llamba's form.
    DiscreteMamba2(DiscreteMamba2Config),
}

impl Layer {
    /// Its tensors, in the order of the forward pass.
    pub fn tensors(&self, hidden: usize) -> Vec<TensorSpec> {
        let mut list = TensorList(Vec::new());
        self.list(hidden, &mut list);
        list.0
    }

    pub(super) fn list(&self, hidden: usize, list: &mut TensorList) {
        self.input_norm.tensors(hidden, list);
        let prefix = &self.mixer.prefix;
        match &self.mixer.kind {
            MixerKind::Mla(mla) => mla.tensors(prefix, hidden, list),
            MixerKind::Mamba2(mamba2) => mamba2.tensors(prefix, hidden, list),
            MixerKind::Mamba1(mamba1) => mamba1.tensors(prefix, hidden, list),
            MixerKind::Attention(attention) => attention.tensors(prefix, hidden, list),
            MixerKind::DiscreteMamba2(discrete) => discrete.tensors(prefix, hidden, list),
        }
        self.post_norm.tensors(hidden, list);
        self.mlp.tensors(hidden, list);
    }
}

impl NormConfig {
    /// An RMS norm.
    pub fn rms(weight: impl Into<String>, eps: f32) -> Self {
        Self { kind: NormKind::Rms, weight: weight.into(), eps }
    }

    pub(super) fn tensors(&self, width: usize, list: &mut TensorList) {
        list.vector(&self.weight, &[width]);
        if let NormKind::Layer { bias } = &self.kind {
            list.vector(bias, &[width]);
        }
    }
}

impl MlpConfig {
    fn tensors(&self, hidden: usize, list: &mut TensorList) {
        let (p, i) = (&self.prefix, self.intermediate_size);
        if self.kind == MlpKind::SwiGlu {
            list.matrix(format!("{p}gate_proj.weight"), i, hidden);
        }
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
            MixerKind::Mamba1(_) => "mamba1",
            MixerKind::Attention(_) => "attention",
            MixerKind::DiscreteMamba2(_) => "discrete_mamba2",
        }
    }

    /// Values that a token adds to its cache.
    pub fn cache_elements(&self) -> usize {
        match &self.kind {
            MixerKind::Mla(mla) => mla.latent_dim(),
            MixerKind::Mamba2(_) | MixerKind::Mamba1(_) => 0,
            MixerKind::Attention(attention) => attention.cached(),
            MixerKind::DiscreteMamba2(_) => 0,
        }
    }
}
