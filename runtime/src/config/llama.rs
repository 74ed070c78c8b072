//! Llama 3 and whatever else has its form, and what the families that began as one share with it.

use super::attention::heads;
use super::layers::{Layer, MixerConfig, MixerKind, MlpConfig, MlpKind, NormConfig};
use super::object::Object;
use super::{
    AttentionConfig, BaseAttention, CONFIG_FILE, ConfigFiles, Family, MAX_LAYERS, MAX_POSITIONS, MAX_WIDTH,
    ModelConfig, Shapes,
};
use crate::{Error, Result};

pub(super) fn read(files: &ConfigFiles, shapes: Shapes<'_>) -> Result<ModelConfig> {
    let base = Llama::new(files)?;
    let attention = AttentionConfig::parse(&base.config)?;
    let eps = base.config.positive("rms_norm_eps")? as f32;
    base.model(Family::Llama, eps, shapes, |_| Ok(base.attention(&attention)))
}

/// A Llama's `config.json`, of which some layers' mixers may be others than it says.
pub(super) struct Llama {
    pub config: Object,
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub layers: usize,
}

impl Llama {
    pub fn new(files: &ConfigFiles) -> Result<Self> {
        let config = files.object(CONFIG_FILE)?;
        no_variant(&config)?;
        Ok(Self {
            hidden_size: config.size("hidden_size", MAX_WIDTH)?,
            intermediate_size: config.size("intermediate_size", MAX_WIDTH)?,
            layers: config.size("num_hidden_layers", MAX_LAYERS)?,
            config,
        })
    }

    /// Whether a family's own file repeats what `config.json` says, where it does.
    pub fn agrees(&self, file: &Object) -> Result<()> {
        no_variant(file)?;
        for (key, size) in [
            ("hidden_size", self.hidden_size),
            ("d_model", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("n_layer", self.layers),
        ] {
            file.expect_size(key, size)?;
        }
        Ok(())
    }

    /// A layer's own attention.
    pub fn attention(&self, sizes: &AttentionConfig) -> (&'static str, MixerKind) {
        ("self_attn.", MixerKind::Attention(sizes.clone()))
    }

    /// The model whose layers have these mixers; `eps` is of the layers' norms. A mixer comes with the name of its module.
    pub fn model(
        &self,
        family: Family,
        eps: f32,
        shapes: Shapes<'_>,
        mixer: impl Fn(usize) -> Result<(&'static str, MixerKind)>,
    ) -> Result<ModelConfig> {
        let base = &self.config;
        let layer = |n: usize| {
            let at = |part: &str| format!("model.layers.{n}.{part}");
            let (module, kind) = mixer(n)?;
            Ok(Layer {
                input_norm: NormConfig::rms(at("input_layernorm.weight"), eps),
                mixer: MixerConfig { prefix: at(module), kind },
                post_norm: NormConfig::rms(at("post_attention_layernorm.weight"), eps),
                mlp: MlpConfig { prefix: at("mlp."), intermediate_size: self.intermediate_size, kind: MlpKind::SwiGlu },
            })
        };
        let [_, kv_heads, head_dim] = heads(base)?;
        let vocab_size = base.size("vocab_size", MAX_WIDTH)?;
        Ok(ModelConfig {
            family,
            hidden_size: self.hidden_size,
            vocab_size,
            vocab_rows: vocab_size,
            max_position_embeddings: base.size("max_position_embeddings", MAX_POSITIONS)?,
            embedding: "model.embed_tokens.weight".into(),
            head: head(base, TIE_KEY, shapes, true)?,
            layers: (0..self.layers).map(layer).collect::<Result<_>>()?,
            final_norm: NormConfig::rms("model.norm.weight", base.positive("rms_norm_eps")? as f32),
            base: BaseAttention { layers: self.layers, kv_heads, head_dim },
            eos_token_ids: base.token_ids("eos_token_id")?,
            bos_token_id: base.token_ids("bos_token_id")?.first().copied(),
        })
    }
}

/// Refuses what other models of the form have and no kernel here.
fn no_variant(file: &Object) -> Result<()> {
    file.expect_text("hidden_act", &["silu"])?;
    file.expect_flag("attention_bias", false)?;
    file.expect_flag("mlp_bias", false)
}

/// The key of Hugging Face's own configurations that ties the head to the embedding.
pub(super) const TIE_KEY: &str = "tie_word_embeddings";

/// The head's tensor: `lm_head.weight` when it is stored, whatever the key says that ties it to the embedding; AMD's and
/// other tools store a head that differs and leave the key as it was. `tied` is what counts without the key.
pub(super) fn head(base: &Object, key: &str, shapes: Shapes<'_>, tied: bool) -> Result<Option<String>> {
    const NAME: &str = "lm_head.weight";
    let stored = shapes(NAME).is_some();
    let told = base.flag(key)?;
    if !stored && !told.unwrap_or(tied) {
        let says = if told.is_some() { "is false" } else { "is not there" };
        return Err(Error::Tensor {
            name: NAME.into(),
            expected: format!("to be stored ({CONFIG_FILE}: {key} {says})"),
            found: "no such tensor".into(),
        });
    }
    Ok(stored.then(|| NAME.into()))
}

/// For each layer, whether the list of layer numbers at a key has it.
pub(super) fn listed(file: &Object, key: &str, layers: usize) -> Result<Vec<bool>> {
    let expected = || format!("a list of different layer numbers below {layers}");
    let value = file.required(key, &expected())?;
    let list = value.as_array().ok_or_else(|| file.wrong(key, expected(), value.clone()))?;
    let mut listed = vec![false; layers];
    for entry in list {
        let layer = entry.as_u64().and_then(|n| usize::try_from(n).ok()).and_then(|n| listed.get_mut(n));
        match layer {
            Some(seen) if !*seen => *seen = true,
            _ => return Err(file.wrong(key, expected(), value.clone())),
        }
    }
    Ok(listed)
}

/// Refuses such a list where a layer's tensors contradict it. `with` are tensors of only the layers that it has, `without`
/// of only the others.
pub(super) fn check_listed(
    file: &Object,
    key: &str,
    listed: &[bool],
    [with, without]: [&[&str]; 2],
    shapes: Shapes<'_>,
) -> Result<()> {
    for (n, &is_listed) in listed.iter().enumerate() {
        let (wrong, how) = if is_listed { (without, "without") } else { (with, "with") };
        let mut names = wrong.iter().map(|tensor| format!("model.layers.{n}.{tensor}"));
        if let Some(name) = names.find(|name| shapes(name).is_some()) {
            let list = file.map.get(key).cloned().unwrap_or_default();
            return Err(file.wrong(key, format!("a list {how} {n}, which has {name}"), list));
        }
    }
    Ok(())
}
