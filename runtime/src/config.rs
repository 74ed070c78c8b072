//! What a model is: `config.json` (the base Llama's), `hybrid_config.json` (the MLA and Mamba2 mixers, either of AMD's
//! two schemas) and the shapes of the stored tensors, which alone know ranks and kv heads. Holds numbers only: no
//! tensor is read here.

use serde_json::{Map, Value};

use crate::{Error, Result};

/// The file of the base Transformer's configuration.
pub const CONFIG_FILE: &str = "config.json";
/// The file that says which layers are MLA and which Mamba2, and their sizes.
pub const HYBRID_CONFIG_FILE: &str = "hybrid_config.json";

/// Limits on what a file may claim, far above any real model, so that no product of two sizes overflows.
const MAX_LAYERS: usize = 4096;
const MAX_WIDTH: usize = 1 << 22;
const MAX_HEADS: usize = 4096;
const MAX_HEAD_DIM: usize = 4096;
const MAX_POSITIONS: usize = 1 << 30;
/// The taps of the causal convolution: the only number that any released checkpoint has.
const D_CONV: usize = 4;
/// Of the gated norm: a constant in AMD's code, in no configuration file.
const GATED_NORM_EPS: f32 = 1e-5;

/// Everything that the plan of a model needs.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the MLP.
    pub intermediate_size: usize,
    /// Rows of the embedding and of the head.
    pub vocab_size: usize,
    /// Epsilon of the two norms of each layer (`hybrid_config.json`).
    pub rms_norm_eps: f32,
    /// Epsilon of the norm before the head (`config.json`).
    pub final_norm_eps: f32,
    /// Positions that the model was made for.
    pub max_position_embeddings: usize,
    /// True when no `lm_head.weight` is stored: the embedding is the head then.
    pub tied_head: bool,
    /// The mixers, first layer first.
    pub layers: Vec<Layer>,
    /// The base Transformer's attention, for comparing caches.
    pub base: BaseAttention,
    /// Tokens that end an answer, as `config.json` lists them.
    pub eos_token_ids: Vec<u32>,
    /// The token that begins a text.
    pub bos_token_id: Option<u32>,
}

/// The mixer of one layer.
#[derive(Debug, Clone, PartialEq)]
pub enum Layer {
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
    /// The rotary position embedding.
    pub rope: Rope,
}

/// The rotary embedding of an MLA layer, on interleaved pairs (2i, 2i + 1).
#[derive(Debug, Clone, PartialEq)]
pub struct Rope {
    /// Angle per position of pair i: `[qk_rope_head_dim / 2]`.
    pub inv_freq: Vec<f32>,
    /// Multiplies both cosine and sine.
    pub attention_scale: f32,
    /// Multiplies the scores: (nope + rope)^-0.5, times YaRN's own factor when `mscale_all_dim` is set.
    pub softmax_scale: f32,
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

/// Grouped-query attention of the Transformer that the model was distilled from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BaseAttention {
    /// Layers, all of them attention.
    pub layers: usize,
    /// Key and value heads.
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

impl MlaConfig {
    /// Values cached for a token: the latent and the rotated key part.
    pub fn latent_dim(&self) -> usize {
        self.kv_lora_rank + self.qk_rope_head_dim
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
}

impl ModelConfig {
    /// Reads the two configuration files. `shape` answers with the shape of a stored tensor, or `None` when there is
    /// none; only the few tensors that ranks, kv heads and the form of the convolution follow from are asked for.
    pub fn parse(config: &[u8], hybrid: &[u8], shape: &dyn Fn(&str) -> Option<Vec<usize>>) -> Result<Self> {
        let base = Object::parse(CONFIG_FILE, config)?;
        let hybrid = Object::parse(HYBRID_CONFIG_FILE, hybrid)?;

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
        let mut layers = Vec::with_capacity(layer_count);
        for (n, &is_mla) in is_mla.iter().enumerate() {
            layers.push(match (&mla, &mamba) {
                (Some(sizes), _) if is_mla => Layer::Mla(sizes.layer(n, hidden_size, shape)?),
                (_, Some(sizes)) => Layer::Mamba2(mamba2_layer(sizes, n, shape)?),
                _ => unreachable!("a layer is one of the two kinds, and each kind that occurs has its sizes"),
            });
        }

        let tied_head = shape("lm_head.weight").is_none();
        if tied_head && base.flag("tie_word_embeddings")? == Some(false) {
            return Err(Error::Tensor {
                name: "lm_head.weight".into(),
                expected: format!("to be stored ({CONFIG_FILE}: tie_word_embeddings is false)"),
                found: "no such tensor".into(),
            });
        }
        let heads = base.size("num_attention_heads", MAX_HEADS)?;
        let head_dim = match base.optional_size("head_dim", MAX_HEAD_DIM)? {
            Some(head_dim) => head_dim,
            None => hidden_size / heads,
        };
        let base_attention = BaseAttention {
            layers: layer_count,
            kv_heads: base.optional_size("num_key_value_heads", MAX_HEADS)?.unwrap_or(heads),
            head_dim,
        };
        Ok(Self {
            hidden_size,
            intermediate_size,
            vocab_size: base.size("vocab_size", MAX_WIDTH)?,
            rms_norm_eps: hybrid.positive("rms_norm_eps")? as f32,
            final_norm_eps: base.positive("rms_norm_eps")? as f32,
            max_position_embeddings: base.size("max_position_embeddings", MAX_POSITIONS)?,
            tied_head,
            layers,
            base: base_attention,
            eos_token_ids: base.token_ids("eos_token_id")?,
            bos_token_id: base.token_ids("bos_token_id")?.first().copied(),
        })
    }

    /// Values that a token adds to the caches of all layers.
    pub fn cache_elements(&self) -> usize {
        self.layers.iter().map(|layer| if let Layer::Mla(mla) = layer { mla.latent_dim() } else { 0 }).sum()
    }

    /// Values that a token adds to the cache of the Transformer that the model was made from.
    pub fn base_cache_elements(&self) -> usize {
        2 * self.base.layers * self.base.kv_heads * self.base.head_dim
    }

    /// Every tensor of a checkpoint of this configuration, in the order of the forward pass.
    pub fn tensors(&self) -> Vec<TensorSpec> {
        let mut list = TensorList(Vec::new());
        let (h, i) = (self.hidden_size, self.intermediate_size);
        list.matrix("model.embed_tokens.weight", self.vocab_size, h);
        for (n, layer) in self.layers.iter().enumerate() {
            let p = format!("model.layers.{n}.");
            list.vector(format!("{p}input_layernorm.weight"), &[h]);
            match layer {
                Layer::Mla(c) => {
                    let q_rows = c.heads * (c.qk_nope_head_dim + c.qk_rope_head_dim);
                    match c.q_lora_rank {
                        Some(rank) => {
                            list.matrix(format!("{p}mla.q_a_proj.weight"), rank, h);
                            if c.lora_layer_norm {
                                list.vector(format!("{p}mla.q_a_layernorm.weight"), &[rank]);
                            }
                            list.matrix(format!("{p}mla.q_b_proj.weight"), q_rows, rank);
                        }
                        None => list.matrix(format!("{p}mla.q_proj.weight"), q_rows, h),
                    }
                    list.matrix(format!("{p}mla.kv_a_proj_with_mqa.weight"), c.latent_dim(), h);
                    if c.lora_layer_norm {
                        list.vector(format!("{p}mla.kv_a_layernorm.weight"), &[c.kv_lora_rank]);
                    }
                    let kv_rows = c.kv_heads * (c.qk_nope_head_dim + c.v_head_dim);
                    list.matrix(format!("{p}mla.kv_b_proj.weight"), kv_rows, c.kv_lora_rank);
                    list.matrix(format!("{p}mla.out_proj.weight"), h, c.heads * c.v_head_dim);
                }
                Layer::Mamba2(c) => {
                    list.matrix(format!("{p}mamba.in_proj.weight"), c.in_proj_rows(), h);
                    list.vector(format!("{p}mamba.conv1d.weight"), &[c.conv_channels(), 1, c.d_conv]);
                    list.vector(format!("{p}mamba.conv1d.bias"), &[c.conv_channels()]);
                    list.vector(format!("{p}mamba.dt_bias"), &[c.heads]);
                    list.vector(format!("{p}mamba.A_log"), &[c.heads]);
                    list.vector(format!("{p}mamba.D"), &[c.heads]);
                    list.vector(format!("{p}mamba.norm.weight"), &[c.d_inner]);
                    list.matrix(format!("{p}mamba.out_proj.weight"), h, c.d_inner);
                }
            }
            list.vector(format!("{p}post_attention_layernorm.weight"), &[h]);
            list.matrix(format!("{p}mlp.gate_proj.weight"), i, h);
            list.matrix(format!("{p}mlp.up_proj.weight"), i, h);
            list.matrix(format!("{p}mlp.down_proj.weight"), h, i);
        }
        list.vector("model.norm.weight", &[h]);
        if !self.tied_head {
            list.matrix("lm_head.weight", self.vocab_size, h);
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
        let rope = rope(hybrid, rope_dim, theta, (nope + rope_dim) as f64)?;
        let lora_layer_norm = hybrid.flag("use_lora_layer_norm")?.unwrap_or(false);
        Ok(Self { heads, nope, rope_dim, v, lora_layer_norm, rope })
    }

    /// The layer's ranks and kv heads are those of its tensors: configurations with ranks per layer exist, and
    /// `num_key_value_heads` does not say whether `kv_b_proj` has all heads.
    fn layer(&self, n: usize, hidden: usize, shape: &dyn Fn(&str) -> Option<Vec<usize>>) -> Result<MlaConfig> {
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

/// The rotary embedding that AMD's code makes of `rope_scaling`. The older schema keeps Llama's own dictionary there
/// ("llama3") and says "yarn" at the top level; what that code computed is YaRN all the same.
fn rope(hybrid: &Object, dim: usize, theta: f64, qk_head_dim: f64) -> Result<Rope> {
    let plain: Vec<f32> = (0..dim / 2)
        .map(|i| {
            // Rounded where PyTorch's f32 rounds, so that angles agree with the reference at far positions too.
            let power = theta.powf(f64::from((2 * i) as f32 / dim as f32)) as f32;
            1.0 / power
        })
        .collect();
    let softmax_scale = qk_head_dim.powf(-0.5);
    let Some(scaling) = hybrid.object("rope_scaling")? else {
        return Ok(Rope { inv_freq: plain, attention_scale: 1.0, softmax_scale: softmax_scale as f32 });
    };
    let inner = scaling.text("rope_type")?.or(scaling.text("type")?);
    let outer = hybrid.text("rope_type")?;
    let kind = match inner {
        None | Some("llama3" | "default") => outer.or(inner).unwrap_or("yarn"),
        Some(kind) => kind,
    };
    if kind != "yarn" {
        return Err(hybrid.wrong("rope_scaling.rope_type", "\"yarn\" (here or as top-level rope_type)", kind));
    }

    let factor = scaling.positive("factor")?;
    let original = scaling.optional_positive("original_max_position_embeddings")?.unwrap_or(4096.0);
    let beta_fast = scaling.optional_positive("beta_fast")?.unwrap_or(32.0);
    let beta_slow = scaling.optional_positive("beta_slow")?.unwrap_or(1.0);
    let mscale = scaling.number("mscale")?.unwrap_or(1.0);
    let mscale_all_dim = scaling.number("mscale_all_dim")?.unwrap_or(0.0);

    let d = dim as f64;
    let corrected =
        |rotations: f64| d * (original / (rotations * 2.0 * std::f64::consts::PI)).ln() / (2.0 * theta.ln());
    let low = corrected(beta_fast).floor().max(0.0);
    let mut high = corrected(beta_slow).ceil().min(d - 1.0);
    if low == high {
        high += 0.001; // AMD's guard against a division by zero
    }
    let inv_freq: Vec<f32> = plain
        .iter()
        .enumerate()
        .map(|(i, &e)| {
            let ramp = ((i as f32 - low as f32) / (high - low) as f32).clamp(0.0, 1.0);
            e / factor as f32 * ramp + e * (1.0 - ramp)
        })
        .collect();
    let magnitude = |m: f64| {
        if factor <= 1.0 { 1.0 } else { 0.1 * m * factor.ln() + 1.0 }
    };
    let attention_scale = (magnitude(mscale) / magnitude(mscale_all_dim)) as f32;
    let of_all = if mscale_all_dim != 0.0 { magnitude(mscale_all_dim).powi(2) } else { 1.0 };
    let softmax_scale = (softmax_scale * of_all) as f32;
    if !inv_freq.iter().all(|f| f.is_finite()) || !attention_scale.is_finite() || !softmax_scale.is_finite() {
        return Err(hybrid.wrong("rope_scaling", "values that give finite frequencies", Value::Object(scaling.map)));
    }
    Ok(Rope { inv_freq, attention_scale, softmax_scale })
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
fn mamba2_layer(sizes: &Mamba2Config, n: usize, shape: &dyn Fn(&str) -> Option<Vec<usize>>) -> Result<Mamba2Config> {
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

/// A JSON object that names its file and key in every complaint.
struct Object {
    file: &'static str,
    /// What comes before a key in messages: "" or "rope_scaling.".
    prefix: String,
    map: Map<String, Value>,
}

impl Object {
    fn parse(file: &'static str, bytes: &[u8]) -> Result<Self> {
        let fail = |found: String| Error::Config {
            file: file.into(),
            key: "(the whole file)".into(),
            expected: "a JSON object".into(),
            found,
        };
        match serde_json::from_slice(bytes) {
            Ok(Value::Object(map)) => Ok(Self { file, prefix: String::new(), map }),
            Ok(other) => Err(fail(shorten(&other.to_string()))),
            Err(error) => Err(fail(format!("invalid JSON: {error}"))),
        }
    }

    fn wrong(&self, key: &str, expected: impl Into<String>, found: impl Into<Value>) -> Error {
        Error::Config {
            file: self.file.into(),
            key: format!("{}{key}", self.prefix),
            expected: expected.into(),
            found: shorten(&found.into().to_string()),
        }
    }

    fn missing(&self, key: &str, expected: &str) -> Error {
        Error::Config {
            file: self.file.into(),
            key: format!("{}{key}", self.prefix),
            expected: expected.into(),
            found: "no such key".into(),
        }
    }

    /// A key that is neither absent nor null: Python writes null for what is not set.
    fn optional(&self, key: &str) -> Option<&Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    fn required(&self, key: &str, expected: &str) -> Result<&Value> {
        self.optional(key).ok_or_else(|| self.missing(key, expected))
    }

    fn object(&self, key: &str) -> Result<Option<Object>> {
        match self.optional(key) {
            None => Ok(None),
            Some(Value::Object(map)) => {
                Ok(Some(Object { file: self.file, prefix: format!("{}{key}.", self.prefix), map: map.clone() }))
            }
            Some(other) => Err(self.wrong(key, "an object", other.clone())),
        }
    }

    /// An integer from 1 to `max`.
    fn size(&self, key: &str, max: usize) -> Result<usize> {
        match self.optional_size(key, max)? {
            Some(size) => Ok(size),
            None => Err(self.missing(key, &format!("an integer from 1 to {max}"))),
        }
    }

    fn optional_size(&self, key: &str, max: usize) -> Result<Option<usize>> {
        let Some(value) = self.optional(key) else {
            return Ok(None);
        };
        let size = value.as_u64().and_then(|n| usize::try_from(n).ok()).filter(|n| (1..=max).contains(n));
        size.map(Some).ok_or_else(|| self.wrong(key, format!("an integer from 1 to {max}"), value.clone()))
    }

    /// A key that, when it is there, must repeat what is known from elsewhere.
    fn expect_size(&self, key: &str, size: usize) -> Result<()> {
        match self.optional(key) {
            Some(value) if value.as_u64() != Some(size as u64) => Err(self.wrong(key, size.to_string(), value.clone())),
            _ => Ok(()),
        }
    }

    fn number(&self, key: &str) -> Result<Option<f64>> {
        let Some(value) = self.optional(key) else {
            return Ok(None);
        };
        value.as_f64().map(Some).ok_or_else(|| self.wrong(key, "a number", value.clone()))
    }

    fn optional_positive(&self, key: &str) -> Result<Option<f64>> {
        match self.number(key)? {
            Some(number) if number > 0.0 && number.is_finite() => Ok(Some(number)),
            Some(number) => Err(self.wrong(key, "a number above 0", number)),
            None => Ok(None),
        }
    }

    fn positive(&self, key: &str) -> Result<f64> {
        self.optional_positive(key)?.ok_or_else(|| self.missing(key, "a number above 0"))
    }

    fn flag(&self, key: &str) -> Result<Option<bool>> {
        let Some(value) = self.optional(key) else {
            return Ok(None);
        };
        value.as_bool().map(Some).ok_or_else(|| self.wrong(key, "true or false", value.clone()))
    }

    fn expect_flag(&self, key: &str, expected: bool) -> Result<()> {
        match self.flag(key)? {
            Some(found) if found != expected => Err(self.wrong(key, expected.to_string(), found)),
            _ => Ok(()),
        }
    }

    fn text(&self, key: &str) -> Result<Option<&str>> {
        let Some(value) = self.optional(key) else {
            return Ok(None);
        };
        value.as_str().map(Some).ok_or_else(|| self.wrong(key, "a string", value.clone()))
    }

    fn expect_text(&self, key: &str, allowed: &[&str]) -> Result<()> {
        match self.text(key)? {
            Some(found) if !allowed.contains(&found) => {
                let quoted: Vec<String> = allowed.iter().map(|text| format!("\"{text}\"")).collect();
                Err(self.wrong(key, quoted.join(" or "), found))
            }
            _ => Ok(()),
        }
    }

    /// A token id or a list of them.
    fn token_ids(&self, key: &str) -> Result<Vec<u32>> {
        let Some(value) = self.optional(key) else {
            return Ok(Vec::new());
        };
        let one = |v: &Value| v.as_u64().and_then(|id| u32::try_from(id).ok());
        let ids = match value {
            Value::Array(list) => list.iter().map(one).collect(),
            single => one(single).map(|id| vec![id]),
        };
        ids.ok_or_else(|| self.wrong(key, "a token id or a list of them", value.clone()))
    }
}

/// Keeps a message readable when a file holds something huge.
fn shorten(text: &str) -> String {
    const MAX: usize = 120;
    match text.char_indices().nth(MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_string(),
    }
}
