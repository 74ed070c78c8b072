//! Zebra-Llama: `config.json` is the base Llama's, `hybrid_config.json` has the mixers, in either of AMD's two schemas.

use super::layers::{Layer, Mamba2Config, MixerConfig, MixerKind, MlaConfig, MlpConfig, NormConfig};
use super::object::Object;
use super::rope::{self, Rope};
use super::{
    CONFIG_FILE, ConfigFiles, Family, HYBRID_CONFIG_FILE, MAX_HEAD_DIM, MAX_HEADS, MAX_LAYERS, MAX_POSITIONS,
    MAX_WIDTH, ModelConfig, Shapes, base_attention, head,
};
use crate::{Error, Result};

/// The taps of the causal convolution: the only number that any released checkpoint has.
const D_CONV: usize = 4;
/// Of the gated norm: a constant in AMD's code, in no configuration file.
const GATED_NORM_EPS: f32 = 1e-5;

pub(super) fn read(files: &ConfigFiles, shapes: Shapes<'_>) -> Result<ModelConfig> {
    let (base, hybrid) = (files.object(CONFIG_FILE)?, files.object(HYBRID_CONFIG_FILE)?);
    for file in [&base, &hybrid] {
        file.expect_text("hidden_act", &["silu"])?;
        file.expect_flag("attention_bias", false)?;
        file.expect_flag("mlp_bias", false)?;
    }
    hybrid.expect_text("linear_type", &["mamba", "mamba2"])?;

    let hidden_size = base.size("hidden_size", MAX_WIDTH)?;
    let layer_count = base.size("num_hidden_layers", MAX_LAYERS)?;
    let intermediate_size = base.size("intermediate_size", MAX_WIDTH)?;
    hybrid.expect_size("hidden_size", hidden_size)?;
    hybrid.expect_size("d_model", hidden_size)?;
    hybrid.expect_size("intermediate_size", intermediate_size)?;
    hybrid.expect_size("n_layer", layer_count)?;

    let is_mla = mla_layers(&hybrid, layer_count)?;
    let mla = if is_mla.contains(&true) { Some(MlaSizes::parse(&base, &hybrid)?) } else { None };
    let mamba = if is_mla.contains(&false) { Some(mamba2_sizes(&hybrid, hidden_size)?) } else { None };
    let eps = hybrid.positive("rms_norm_eps")? as f32;
    let mut layers = Vec::with_capacity(layer_count);
    for (n, &is_mla) in is_mla.iter().enumerate() {
        let at = |part: &str| format!("model.layers.{n}.{part}");
        let (module, kind) = match (&mla, &mamba) {
            (Some(sizes), _) if is_mla => ("mla.", MixerKind::Mla(sizes.layer(n, hidden_size, shapes)?)),
            (_, Some(sizes)) => ("mamba.", MixerKind::Mamba2(mamba2_layer(sizes, n, shapes)?)),
            _ => unreachable!("a layer is one of the two kinds, and each kind that occurs has its sizes"),
        };
        layers.push(Layer {
            input_norm: NormConfig { weight: at("input_layernorm.weight"), eps },
            mixer: MixerConfig { prefix: at(module), kind },
            post_norm: NormConfig { weight: at("post_attention_layernorm.weight"), eps },
            mlp: MlpConfig { prefix: at("mlp."), intermediate_size },
        });
    }
    let final_eps = base.positive("rms_norm_eps")? as f32;
    Ok(ModelConfig {
        family: Family::ZebraLlama,
        hidden_size,
        vocab_size: base.size("vocab_size", MAX_WIDTH)?,
        max_position_embeddings: base.size("max_position_embeddings", MAX_POSITIONS)?,
        embedding: "model.embed_tokens.weight".into(),
        head: head(&base, shapes)?,
        layers,
        final_norm: NormConfig { weight: "model.norm.weight".into(), eps: final_eps },
        base: base_attention(&base)?,
        eos_token_ids: base.token_ids("eos_token_id")?,
        bos_token_id: base.token_ids("bos_token_id")?.first().copied(),
    })
}

/// For each layer, whether `mla_layers` lists it.
fn mla_layers(hybrid: &Object, layer_count: usize) -> Result<Vec<bool>> {
    const KEY: &str = "mla_layers";
    let expected = || format!("a list of different layer numbers below {layer_count}");
    let value = hybrid.required(KEY, &expected())?;
    let list = value.as_array().ok_or_else(|| hybrid.wrong(KEY, expected(), value.clone()))?;
    let mut is_mla = vec![false; layer_count];
    for entry in list {
        let layer = entry.as_u64().and_then(|n| usize::try_from(n).ok()).and_then(|n| is_mla.get_mut(n));
        match layer {
            Some(seen) if !*seen => *seen = true,
            _ => return Err(hybrid.wrong(KEY, expected(), value.clone())),
        }
    }
    Ok(is_mla)
}

/// What all MLA layers share.
struct MlaSizes {
    heads: usize,
    nope: usize,
    rope_dim: usize,
    v: usize,
    lora_layer_norm: bool,
    rope: Rope,
}

impl MlaSizes {
    fn parse(base: &Object, hybrid: &Object) -> Result<Self> {
        let heads = hybrid.size("num_attention_heads", MAX_HEADS)?;
        let nope = hybrid.size("qk_nope_head_dim", MAX_HEAD_DIM)?;
        let rope_dim = hybrid.size("qk_rope_head_dim", MAX_HEAD_DIM)?;
        let v = hybrid.size("v_head_dim", MAX_HEAD_DIM)?;
        if !rope_dim.is_multiple_of(2) {
            return Err(hybrid.wrong("qk_rope_head_dim", "an even number", rope_dim));
        }
        let theta = match hybrid.optional("rope_theta") {
            Some(_) => hybrid.positive("rope_theta")?,
            None => base.positive("rope_theta")?,
        };
        let rope = rope::mla(hybrid, rope_dim, theta, (nope + rope_dim) as f64)?;
        let lora_layer_norm = hybrid.flag("use_lora_layer_norm")?.unwrap_or(false);
        Ok(Self { heads, nope, rope_dim, v, lora_layer_norm, rope })
    }

    /// The layer's ranks and kv heads are those of its tensors: configurations with ranks per layer exist, and
    /// `num_key_value_heads` does not say whether `kv_b_proj` has all heads.
    fn layer(&self, n: usize, hidden: usize, shape: Shapes<'_>) -> Result<MlaConfig> {
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

/// The sizes that `hybrid_config.json` gives all Mamba2 layers.
fn mamba2_sizes(hybrid: &Object, hidden: usize) -> Result<Mamba2Config> {
    let ssm =
        hybrid.object("ssm_cfg")?.ok_or_else(|| hybrid.missing("ssm_cfg", "an object with ngroups and d_state"))?;
    // What the mixer's code allows and no released checkpoint uses: refused rather than computed wrongly.
    ssm.expect_size("d_conv", D_CONV)?;
    ssm.expect_text("activation", &["silu", "swish"])?;
    for (key, value) in
        [("conv_bias", true), ("rmsnorm", true), ("bias", false), ("norm_before_gate", false), ("D_has_hdim", false)]
    {
        ssm.expect_flag(key, value)?;
    }
    let heads = ssm.size("ngroups", MAX_HEADS)?;
    let head_dim = ssm.size("d_state", MAX_HEAD_DIM)?;
    let d_inner = match hybrid.optional_size("d_inner", MAX_WIDTH)? {
        Some(d_inner) => d_inner,
        None => ssm.optional_size("expand", 64)?.unwrap_or(1) * hidden,
    };
    let d_xb = hybrid.size("d_xb", MAX_WIDTH)?;
    if !head_dim.is_multiple_of(4) || head_dim > 128 {
        return Err(hybrid.wrong("ssm_cfg.d_state", "a multiple of 4, at most 128", head_dim));
    }
    if heads * head_dim != d_inner {
        let expected = format!("ngroups * d_state = {heads} * {head_dim} = {}", heads * head_dim);
        return Err(hybrid.wrong("d_inner", expected, d_inner));
    }
    if !d_inner.is_multiple_of(d_xb) || !d_xb.is_multiple_of(head_dim) {
        let expected = format!("a divisor of d_inner ({d_inner}) that is a multiple of d_state ({head_dim})");
        return Err(hybrid.wrong("d_xb", expected, d_xb));
    }
    Ok(Mamba2Config {
        heads,
        head_dim,
        d_inner,
        d_xb,
        d_conv: D_CONV,
        repeat_kv_before_conv: false,
        norm_eps: GATED_NORM_EPS,
    })
}

/// The form of the convolution is told by its channels, not by `ssm_cfg.repeat_kv_before_conv`.
fn mamba2_layer(sizes: &Mamba2Config, n: usize, shape: Shapes<'_>) -> Result<Mamba2Config> {
    let name = format!("model.layers.{n}.mamba.conv1d.weight");
    let late = Mamba2Config { repeat_kv_before_conv: false, ..sizes.clone() };
    let early = Mamba2Config { repeat_kv_before_conv: true, ..sizes.clone() };
    let found = shape(&name);
    for config in [&late, &early] {
        if found.as_deref() == Some(&[config.conv_channels(), 1, config.d_conv]) {
            return Ok(config.clone());
        }
    }
    Err(Error::Tensor {
        name,
        expected: format!(
            "shape [{}, 1, {D_CONV}], or [{}, 1, {D_CONV}] with repeat_kv_before_conv",
            late.conv_channels(),
            early.conv_channels()
        ),
        found: found.map_or("no such tensor".into(), |shape| format!("shape {shape:?}")),
    })
}
