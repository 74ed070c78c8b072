//! Nemotron's form, of which the Minitron models are: Llama's tensors with layer norms and an MLP without a gate.

use super::attention::{self, AttentionConfig};
use super::layers::{Layer, MixerConfig, MixerKind, MlpConfig, MlpKind, NormConfig, NormKind};
use super::object::Object;
use super::{
    BaseAttention, CONFIG_FILE, ConfigFiles, Family, MAX_LAYERS, MAX_POSITIONS, MAX_WIDTH, ModelConfig, Shapes, llama,
    rope,
};
use crate::{Error, Result};

/// Where a configuration has none.
const ROTARY_FACTOR: f64 = 0.5;
const EPS: f64 = 1e-5;

pub(super) fn read(files: &ConfigFiles, shapes: Shapes<'_>) -> Result<ModelConfig> {
    let config = files.object(CONFIG_FILE)?;
    config.expect_text("hidden_act", &["relu2"])?;
    config.expect_flag("attention_bias", false)?;
    config.expect_flag("mlp_bias", false)?;
    let attention = attention(&config, shapes)?;
    let intermediate_size = config.size("intermediate_size", MAX_WIDTH)?;
    let layers = config.size("num_hidden_layers", MAX_LAYERS)?;
    let eps = config.optional_positive("norm_eps")?.unwrap_or(EPS) as f32;
    let norm = |name: String| NormConfig {
        kind: NormKind::Layer { bias: format!("{name}.bias") },
        weight: format!("{name}.weight"),
        eps,
    };
    let layer = |n: usize| {
        let at = |part: &str| format!("model.layers.{n}.{part}");
        Layer {
            input_norm: norm(at("input_layernorm")),
            mixer: MixerConfig { prefix: at("self_attn."), kind: MixerKind::Attention(attention.clone()) },
            post_norm: norm(at("post_attention_layernorm")),
            mlp: MlpConfig { prefix: at("mlp."), intermediate_size, kind: MlpKind::Relu2 },
        }
    };
    let AttentionConfig { kv_heads, head_dim, .. } = attention;
    let vocab_size = config.size("vocab_size", MAX_WIDTH)?;
    Ok(ModelConfig {
        family: Family::Minitron,
        hidden_size: config.size("hidden_size", MAX_WIDTH)?,
        vocab_size,
        vocab_rows: vocab_size,
        max_position_embeddings: config.size("max_position_embeddings", MAX_POSITIONS)?,
        embedding: "model.embed_tokens.weight".into(),
        head: llama::head(&config, llama::TIE_KEY, shapes, false)?,
        layers: (0..layers).map(layer).collect(),
        final_norm: norm("model.norm".into()),
        base: BaseAttention { layers, kv_heads, head_dim },
        eos_token_ids: config.token_ids("eos_token_id")?,
        bos_token_id: config.token_ids("bos_token_id")?.first().copied(),
    })
}

fn attention(config: &Object, shapes: Shapes<'_>) -> Result<AttentionConfig> {
    let [heads, kv_heads, mut head_dim] = attention::heads(config)?;
    let q_proj = "model.layers.0.self_attn.q_proj.weight";
    // Heads need not be as wide together as the residual stream: where the width of one is not told, q_proj has it.
    if let (None, Some(&[rows, _])) = (config.optional("head_dim"), shapes(q_proj).as_deref()) {
        if !rows.is_multiple_of(heads) {
            return Err(Error::Tensor {
                name: q_proj.into(),
                expected: format!("rows of {heads} heads ({CONFIG_FILE}: num_attention_heads)"),
                found: format!("{rows} rows"),
            });
        }
        head_dim = rows / heads;
    }
    let (key, factor) = rotary_factor(config)?;
    let rotary = (factor * head_dim as f64) as usize;
    if rotary < 2 || !rotary.is_multiple_of(2) || rotary > head_dim {
        return Err(config.wrong(key, format!("an even part of the {head_dim} columns of a head"), factor));
    }
    Ok(AttentionConfig { heads, kv_heads, head_dim, rotary, rope: rope::llama(config, rotary, head_dim)? })
}

/// The part of a head that is turned, and the key that says so: older files have it under other names, newer ones in
/// another place.
fn rotary_factor(config: &Object) -> Result<(&'static str, f64)> {
    const KEY: &str = "partial_rotary_factor";
    for key in [KEY, "rope_percent", "partial_rotary_percent"] {
        if let Some(factor) = config.optional_positive(key)? {
            return Ok((key, factor));
        }
    }
    let inner = config.object("rope_parameters")?.map(|rope| rope.optional_positive(KEY)).transpose()?.flatten();
    Ok((KEY, inner.unwrap_or(ROTARY_FACTOR)))
}
