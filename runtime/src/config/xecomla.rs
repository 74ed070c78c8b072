//! X-EcoMLA: every layer is MLA. `config.json` is the base Llama's, `MLA_config.json` names the layers,
//! `mla_layer_config.json` has their sizes, as what differs from the defaults of DeepSeek-V3's configuration class.

use serde_json::json;

use super::layers::MixerKind;
use super::llama::{Llama, check_listed, listed};
use super::mla::MlaSizes;
use super::{AttentionConfig, ConfigFiles, Family, MLA_CONFIG_FILE, MLA_LAYER_CONFIG_FILE, ModelConfig, Shapes};
use crate::Result;

/// DeepseekV3Config's own, which a file leaves out where they hold.
const DEFAULT_THETA: f64 = 10_000.0;

pub(super) fn read(files: &ConfigFiles, shapes: Shapes<'_>) -> Result<ModelConfig> {
    let base = Llama::new(files)?;
    let (mla, mut sizes) = (files.object(MLA_CONFIG_FILE)?, files.object(MLA_LAYER_CONFIG_FILE)?);
    base.agrees(&mla)?;
    base.agrees(&sizes)?;
    for (key, default) in
        [("num_attention_heads", 128), ("qk_nope_head_dim", 128), ("qk_rope_head_dim", 64), ("v_head_dim", 128)]
    {
        sizes.map.entry(key).or_insert(json!(default));
    }
    let sizes = MlaSizes::parse(&sizes, || Ok(DEFAULT_THETA))?;
    let is_attention = listed(&mla, "attn_layers", base.layers)?;
    let tensors: [&[&str]; 2] = [&["self_attn.o_proj.weight"], &["mla.out_proj.weight"]];
    check_listed(&mla, "attn_layers", &is_attention, tensors, shapes)?;
    let attention = AttentionConfig::parse(&base.config)?;
    let eps = mla.positive("rms_norm_eps")? as f32;
    base.model(Family::XEcoMla, eps, shapes, |n| {
        if is_attention[n] {
            return Ok(base.attention(&attention));
        }
        Ok(("mla.", MixerKind::Mla(sizes.layer(n, base.hidden_size, shapes)?)))
    })
}
