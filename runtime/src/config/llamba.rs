//! Llamba: every layer's mixer is a discrete Mamba2. All is in `config.json`.

use super::layers::{Layer, MixerConfig, MixerKind, MlpConfig, MlpKind, NormConfig};
use super::{
    BaseAttention, CONFIG_FILE, ConfigFiles, DiscreteMamba2Config, Family, MAX_LAYERS, MAX_WIDTH, ModelConfig, Shapes,
    llama,
};
use crate::Result;

/// Of the layers' norms: a constant in the authors' code. `norm_epsilon` is the final norm's.
const LAYER_NORM_EPS: f32 = 1e-5;
/// What the vocabulary's rows are padded to where the file does not say: the default of the authors' class.
const PAD_MULTIPLE: usize = 8;
/// Nothing in the model counts positions, and its state does not grow: as many as its base, Llama 3.1, was made for.
const POSITIONS: usize = 131_072;

pub(super) fn read(files: &ConfigFiles, shapes: Shapes<'_>) -> Result<ModelConfig> {
    let config = files.object(CONFIG_FILE)?;
    config.expect_flag("lm_head_bias", false)?;
    let hidden_size = config.size("d_model", MAX_WIDTH)?;
    let layers = config.size("n_layer", MAX_LAYERS)?;
    let vocab_size = config.size("vocab_size", MAX_WIDTH)?;
    let multiple = config.optional_size("pad_vocab_size_multiple", MAX_WIDTH)?.unwrap_or(PAD_MULTIPLE);
    let object = |key, holds| config.object(key)?.ok_or_else(|| config.missing(key, holds));
    let mlp = object("mlp_cfg", "an object with intermediate_size")?;
    mlp.expect_text("act_fn", &["silu", "swish"])?;
    mlp.expect_flag("bias", false)?;
    let intermediate_size = mlp.size("intermediate_size", MAX_WIDTH)?;
    let ssm = object("ssm_cfg", "an object with d_state, n_v_heads, n_qk_heads and expand")?;
    let mixer = DiscreteMamba2Config::parse(&ssm, hidden_size)?;

    let layer = |n: usize| {
        let at = |part: &str| format!("backbone.layers.{n}.{part}");
        Layer {
            input_norm: NormConfig::rms(at("input_layernorm.weight"), LAYER_NORM_EPS),
            mixer: MixerConfig { prefix: at("mixer."), kind: MixerKind::DiscreteMamba2(mixer.clone()) },
            post_norm: NormConfig::rms(at("post_attention_layernorm.weight"), LAYER_NORM_EPS),
            mlp: MlpConfig { prefix: at("mlp."), intermediate_size, kind: MlpKind::SwiGlu },
        }
    };
    let eps = config.positive("norm_epsilon")? as f32;
    Ok(ModelConfig {
        family: Family::Llamba,
        hidden_size,
        vocab_size,
        vocab_rows: vocab_size.next_multiple_of(multiple),
        max_position_embeddings: POSITIONS,
        embedding: "backbone.embedding.weight".into(),
        head: llama::head(&config, "tie_embeddings", shapes, true)?,
        layers: (0..layers).map(layer).collect(),
        final_norm: NormConfig::rms("backbone.final_layernorm.weight", eps),
        // Its files do not say what it was distilled from.
        base: BaseAttention { layers, kv_heads: 0, head_dim: 0 },
        eos_token_ids: config.token_ids("eos_token_id")?,
        bos_token_id: config.token_ids("bos_token_id")?.first().copied(),
    })
}
