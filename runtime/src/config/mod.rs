//! What a model is: its configuration files, in the form of its family, and the shapes of the stored tensors, which alone
//! know ranks and kv heads. Holds numbers and names only: no tensor is read here.
//!
//! A family is one reader (`zebra`, `xecomla`, `mambainllama`, `llama`, `llamba`, `nemotron`): it turns its files into a
//! [`ModelConfig`], the same for all. A kind of mixer has its sizes and its tensors' names in one file (`attention`, `mla`,
//! `mamba1`, `mamba2`, `discrete_mamba2`).

mod attention;
mod discrete_mamba2;
mod family;
mod layers;
mod llama;
mod llamba;
mod mamba1;
mod mamba2;
mod mambainllama;
mod mla;
mod nemotron;
mod object;
mod rope;
mod xecomla;
mod zebra;

pub use attention::AttentionConfig;
pub use discrete_mamba2::DiscreteMamba2Config;
pub use family::{CONFIG_FILES, ConfigFiles, Family};
pub use layers::{Layer, MixerConfig, MixerKind, MlpConfig, MlpKind, NormConfig, NormKind};
pub use mamba1::Mamba1Config;
pub use mamba2::Mamba2Config;
pub use mla::MlaConfig;
pub use rope::Rope;

use crate::Result;

/// The file of the base Transformer's configuration.
pub const CONFIG_FILE: &str = "config.json";
/// The file that says which layers of a Zebra-Llama are MLA and which Mamba2, and their sizes.
pub const HYBRID_CONFIG_FILE: &str = "hybrid_config.json";
/// The file that names the layers of an X-EcoMLA.
pub const MLA_CONFIG_FILE: &str = "MLA_config.json";
/// The file that has their sizes.
pub const MLA_LAYER_CONFIG_FILE: &str = "mla_layer_config.json";
/// The file that says which layers of a MambaInLlama are attention, and the sizes of the others.
pub const MAMBA_CONFIG_FILE: &str = "mamba_config.json";

/// Limits on what a file may claim, far above any real model, so that no product of two sizes overflows.
const MAX_LAYERS: usize = 4096;
const MAX_WIDTH: usize = 1 << 22;
const MAX_HEADS: usize = 4096;
const MAX_HEAD_DIM: usize = 4096;
const MAX_POSITIONS: usize = 1 << 30;

/// Everything that the plan of a model needs.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    pub family: Family,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Tokens: what is read, sampled and told of logits.
    pub vocab_size: usize,
    /// Rows of the embedding and of the head, of which those past the vocabulary are padding and no token's.
    pub vocab_rows: usize,
    /// Positions that the model was made for.
    pub max_position_embeddings: usize,
    /// The embedding's tensor, (vocab_rows, hidden).
    pub embedding: String,
    /// The head's tensor, where it is not the embedding.
    pub head: Option<String>,
    /// First layer first.
    pub layers: Vec<Layer>,
    /// The norm before the head.
    pub final_norm: NormConfig,
    /// The base Transformer's attention, for comparing caches.
    pub base: BaseAttention,
    /// Tokens that end an answer, as `config.json` lists them.
    pub eos_token_ids: Vec<u32>,
    /// The token that begins a text.
    pub bos_token_id: Option<u32>,
}

/// Grouped-query attention of the Transformer that the model was distilled from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BaseAttention {
    /// Layers, all of them attention.
    pub layers: usize,
    /// Key and value heads, 0 where the files do not say.
    pub kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
}

/// What a tensor is to the runtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TensorKind {
    /// A linear map or the embedding, (out, in): may be quantized.
    Matrix,
    /// Norms, convolutions and per-head values: always f32.
    Vector,
}

/// A tensor that a checkpoint of this configuration must hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorSpec {
    /// The checkpoint's name for it.
    pub name: String,
    /// Its shape, outermost first.
    pub shape: Vec<usize>,
    /// Whether it may be quantized.
    pub kind: TensorKind,
}

impl TensorSpec {
    /// The number of values.
    pub fn elements(&self) -> u64 {
        self.shape.iter().map(|&d| d as u64).product()
    }
}

/// Answers with the shape of a stored tensor, or `None` when there is none.
pub type Shapes<'a> = &'a dyn Fn(&str) -> Option<Vec<usize>>;

impl ModelConfig {
    /// Reads the configuration files of a family. Of `shapes` only the few are asked that ranks, kv heads and the form of
    /// a layer follow from.
    pub fn parse(family: Family, files: &ConfigFiles, shapes: Shapes<'_>) -> Result<Self> {
        match family {
            Family::ZebraLlama => zebra::read(files, shapes),
            Family::XEcoMla => xecomla::read(files, shapes),
            Family::MambaInLlama => mambainllama::read(files, shapes),
            Family::Llama => llama::read(files, shapes),
            Family::Minitron => nemotron::read(files, shapes),
            Family::Llamba => llamba::read(files, shapes),
        }
    }

    /// Whether the embedding is the head, too.
    pub fn tied_head(&self) -> bool {
        self.head.is_none()
    }

    /// Values that a token adds to the caches of all layers.
    pub fn cache_elements(&self) -> usize {
        self.layers.iter().map(|layer| layer.mixer.cache_elements()).sum()
    }

    /// Values that a token adds to the cache of the Transformer that the model was made from.
    pub fn base_cache_elements(&self) -> usize {
        2 * self.base.layers * self.base.kv_heads * self.base.head_dim
    }

    /// Every tensor of a checkpoint of this configuration, in the order of the forward pass.
    pub fn tensors(&self) -> Vec<TensorSpec> {
        let mut list = TensorList(Vec::new());
        list.matrix(&self.embedding, self.vocab_rows, self.hidden_size);
        for layer in &self.layers {
            layer.list(self.hidden_size, &mut list);
        }
        self.final_norm.tensors(self.hidden_size, &mut list);
        if let Some(head) = &self.head {
            list.matrix(head, self.vocab_rows, self.hidden_size);
        }
        list.0
    }
}

struct TensorList(Vec<TensorSpec>);

impl TensorList {
    fn matrix(&mut self, name: impl Into<String>, rows: usize, columns: usize) {
        self.0.push(TensorSpec { name: name.into(), shape: vec![rows, columns], kind: TensorKind::Matrix });
    }

    fn vector(&mut self, name: impl Into<String>, shape: &[usize]) {
        self.0.push(TensorSpec { name: name.into(), shape: shape.to_vec(), kind: TensorKind::Vector });
    }
}
