//! MambaInLlama: `config.json` is the base Llama's, `mamba_config.json` says which layers keep its attention and gives the
//! sizes of the others, Mamba2.

use super::layers::MixerKind;
use super::llama::{Llama, listed};
use super::{AttentionConfig, ConfigFiles, Family, MAMBA_CONFIG_FILE, ModelConfig, Shapes, mamba2};
use crate::Result;

pub(super) fn read(files: &ConfigFiles, shapes: Shapes<'_>) -> Result<ModelConfig> {
    let base = Llama::new(files)?;
    let mamba = files.object(MAMBA_CONFIG_FILE)?;
    base.agrees(&mamba)?;
    let is_attention = listed(&mamba, "attn_layers", base.layers)?;
    let attention = AttentionConfig::parse(&base.config)?;
    let sizes = if is_attention.contains(&false) { Some(mamba2::sizes(&mamba, base.hidden_size)?) } else { None };
    let eps = mamba.positive("rms_norm_eps")? as f32;
    base.model(Family::MambaInLlama, eps, shapes, |n| match &sizes {
        Some(sizes) if !is_attention[n] => Ok(("mamba.", MixerKind::Mamba2(mamba2::layer(sizes, n, shapes)?))),
        _ => Ok(base.attention(&attention)),
    })
}
