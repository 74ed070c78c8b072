//! The presets: each is a family's form and a few numbers. What is not known of a released model is chosen here, and
//! said.

use serde_json::{Map, Value, json};
use zebra_runtime::Result;
use zebra_runtime::config::{
    CONFIG_FILE, ConfigFiles, Family, HYBRID_CONFIG_FILE, MAMBA_CONFIG_FILE, MLA_CONFIG_FILE, MLA_LAYER_CONFIG_FILE,
    ModelConfig,
};

use super::tokenizer::{LLAMA_3, NEMOTRON, SMOLLM_2, Text};
use crate::args::Geometry;

/// What a folder is made from.
pub struct Recipe {
    pub family: Family,
    pub text: &'static Text,
    /// Its configuration files.
    pub configs: Vec<(&'static str, Value)>,
    /// The shapes that a configuration is read with: of the tensors that decide on ranks, kv heads, channels and the
    /// head, by the last part of their names before `.weight`.
    pub shapes: Vec<(&'static str, Vec<usize>)>,
}

impl Recipe {
    pub fn config(&self) -> Result<ModelConfig> {
        let files = self.configs.iter().map(|(name, value)| (*name, value.to_string().into_bytes()));
        let shape = |name: &str| {
            let part = name.rsplit('.').nth(1)?;
            self.shapes.iter().find(|(known, _)| *known == part).map(|(_, shape)| shape.clone())
        };
        ModelConfig::parse(self.family, &ConfigFiles::new(files), &shape)
    }
}

/// The recipe of a preset.
pub fn recipe(preset: Geometry) -> Recipe {
    match preset {
        Geometry::B1Mla4 => zebra(&LLAMA_1B, &ZEBRA_1B, &[0, 5, 10, 14]),
        Geometry::B1Mla8 => zebra(&LLAMA_1B, &ZEBRA_1B, &every_other(0, 16)),
        Geometry::B3Mla6 => zebra(&LLAMA_3B, &ZEBRA_3B, &[0, 5, 10, 16, 21, 26]),
        Geometry::B3Mla14 => zebra(&LLAMA_3B, &ZEBRA_3B, &every_other(0, 28)),
        Geometry::B8Mla8 => zebra(&LLAMA_8B, &ZEBRA_8B, &[0, 4, 8, 12, 16, 20, 25, 30]),
        Geometry::B8Mla16 => zebra(&LLAMA_8B, &ZEBRA_8B, &every_other(0, 32)),
        Geometry::Llama1B => llama(&LLAMA_1B),
        Geometry::Llama3B => llama(&LLAMA_3B),
        Geometry::Llama8B => llama(&LLAMA_8B),
        Geometry::SmolLm2 => llama(&SMOLLM2_135M),
        // The released 1B of a fixed kv rank of 512. Its q rank is only in its files: chosen so that a layer has as many
        // parameters as with the pairs that are known for this base, 1424 beside 64 (X-EcoMLA's training configuration)
        // and 1344 beside 128 (Zebra, were it to have all kv heads).
        Geometry::XEcoMla1B => x_ecomla(&LLAMA_1B, &Ranks { q: 864, kv: 512, qk_dim: 32 }),
        // The released 3B of a fixed kv rank of 816. Its q rank is only in its files: chosen is that of Zebra's 3B, with
        // which a layer has about the parameters that its attention had.
        Geometry::XEcoMla3B => x_ecomla(&LLAMA_3B, &Ranks { q: 1536, kv: 816, qk_dim: 64 }),
        // No 8B was released: the kv rank of the released 3B, 816, whose heads and cache are the 8B's, and the q rank of
        // the 3B's training configuration and of Zebra's 8B; together about the parameters that the attention had.
        Geometry::XEcoMla8B => x_ecomla(&LLAMA_8B, &Ranks { q: 2048, kv: 816, qk_dim: 64 }),
        // No 1B was released: as the released 3B, whose even layers are Mamba2.
        Geometry::MambaInLlama1B => mamba2_in_llama(&LLAMA_1B, &every_other(1, 16)),
        Geometry::MambaInLlama3B => mamba2_in_llama(&LLAMA_3B, &every_other(1, 28)),
        Geometry::MambaInLlama8B => mamba2_in_llama(&LLAMA_8B, &every_other(1, 32)),
        // Those with less attention are Llama-3-8B's: 8,192 positions, no rope scaling. Here they have 3.1's, so that they can
        // be measured beside the others.
        Geometry::MambaInLlama8BQuarter => mamba2_in_llama(&LLAMA_8B, &every(4, 32)),
        Geometry::MambaInLlama8BEighth => mamba2_in_llama(&LLAMA_8B, &every(8, 32)),
        Geometry::MambaInLlama8BNone => mamba2_in_llama(&LLAMA_8B, &[]),
        Geometry::MambaInLlama8BMamba1 => mamba1_in_llama(&LLAMA_8B, &every_other(1, 32)),
        Geometry::Llamba1B => llamba(&LLAMA_1B),
        // Its heads are only in its configuration: chosen are the base's 24, each of which one was distilled from.
        Geometry::Llamba3B => llamba(&LLAMA_3B),
        Geometry::Llamba8B => llamba(&LLAMA_8B),
        Geometry::Minitron4B => minitron(&MINITRON_4B),
        Geometry::Minitron8B => minitron(&MINITRON_8B),
    }
}

fn every_other(first: usize, layers: usize) -> Vec<usize> {
    (first..layers).step_by(2).collect()
}

/// The last of every `period` layers.
fn every(period: usize, layers: usize) -> Vec<usize> {
    (period - 1..layers).step_by(period).collect()
}

/// A Transformer's sizes, which the hybrids made from it share.
#[derive(Clone, Copy)]
pub struct Base {
    pub hidden: usize,
    pub intermediate: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    pub layers: usize,
    pub tied: bool,
    pub positions: usize,
    pub theta: f64,
    /// Of llama3's rope scaling from 8,192 positions, where there is one.
    pub factor: Option<f64>,
    pub text: &'static Text,
}

/// Llama-3.2-1B.
pub const LLAMA_1B: Base = Base {
    hidden: 2048,
    intermediate: 8192,
    heads: 32,
    kv_heads: 8,
    head_dim: 64,
    layers: 16,
    tied: true,
    positions: 131_072,
    theta: 500_000.0,
    factor: Some(32.0),
    text: &LLAMA_3,
};

/// Llama-3.2-3B.
const LLAMA_3B: Base = Base { hidden: 3072, heads: 24, head_dim: 128, layers: 28, ..LLAMA_1B };

/// Llama-3.1-8B.
const LLAMA_8B: Base =
    Base { hidden: 4096, intermediate: 14336, head_dim: 128, layers: 32, tied: false, factor: Some(8.0), ..LLAMA_1B };

const SMOLLM2_135M: Base = Base {
    hidden: 576,
    intermediate: 1536,
    heads: 9,
    kv_heads: 3,
    head_dim: 64,
    layers: 30,
    tied: true,
    positions: 8192,
    theta: 100_000.0,
    factor: None,
    text: &SMOLLM_2,
};

/// Its own file has 4,096 positions; here are more, so that it can be measured beside the others.
const MINITRON_8B: Base = Base {
    hidden: 4096,
    intermediate: 16_384,
    heads: 48,
    head_dim: 128,
    layers: 32,
    tied: false,
    theta: 10_000.0,
    factor: None,
    text: &NEMOTRON,
    ..LLAMA_1B
};

const MINITRON_4B: Base = Base { hidden: 3072, intermediate: 9216, heads: 24, ..MINITRON_8B };

impl Base {
    /// `config.json`, as Meta writes it.
    fn config(&self) -> Value {
        let scaling = self.factor.map(|factor| {
            json!({
                "factor": factor,
                "high_freq_factor": 4.0,
                "low_freq_factor": 1.0,
                "original_max_position_embeddings": 8192,
                "rope_type": "llama3",
            })
        });
        json!({
            "architectures": ["LlamaForCausalLM"],
            "attention_bias": false,
            "attention_dropout": 0.0,
            "bos_token_id": self.text.begin,
            "eos_token_id": self.text.ends,
            "head_dim": self.head_dim,
            "hidden_act": "silu",
            "hidden_size": self.hidden,
            "initializer_range": 0.02,
            "intermediate_size": self.intermediate,
            "max_position_embeddings": self.positions,
            "mlp_bias": false,
            "model_type": "llama",
            "num_attention_heads": self.heads,
            "num_hidden_layers": self.layers,
            "num_key_value_heads": self.kv_heads,
            "pretraining_tp": 1,
            "rms_norm_eps": 1e-5,
            "rope_scaling": scaling,
            "rope_theta": self.theta,
            "tie_word_embeddings": self.tied,
            "torch_dtype": "bfloat16",
            "use_cache": true,
            "vocab_size": self.text.vocabulary,
        })
    }

    fn kv_width(&self) -> usize {
        self.kv_heads * self.head_dim
    }

    fn head(&self) -> (&'static str, Vec<usize>) {
        ("lm_head", vec![self.text.vocabulary, self.hidden])
    }

    /// Mamba2's convolution, over x, B and C.
    fn conv1d(&self) -> (&'static str, Vec<usize>) {
        ("conv1d", vec![self.hidden + 2 * self.kv_width(), 1, 4])
    }

    /// Mamba2's sizes where each of its heads was one of attention's.
    fn ssm(&self) -> Value {
        json!({
            "expand": 1,
            "ngroups": self.heads,
            "d_state": self.head_dim,
        })
    }
}

/// MLA's ranks, and the width of both the rotated part of a head's key and the one without position.
pub struct Ranks {
    pub q: usize,
    pub kv: usize,
    pub qk_dim: usize,
}

impl Ranks {
    fn shapes(&self, base: &Base, kv_heads: usize) -> [(&'static str, Vec<usize>); 2] {
        [
            ("q_a_proj", vec![self.q, base.hidden]),
            ("kv_b_proj", vec![kv_heads * (self.qk_dim + base.head_dim), self.kv]),
        ]
    }
}

fn llama(base: &Base) -> Recipe {
    Recipe {
        family: Family::Llama,
        text: base.text,
        configs: vec![(CONFIG_FILE, base.config())],
        shapes: if base.tied { vec![] } else { vec![base.head()] },
    }
}

pub const ZEBRA_1B: Ranks = Ranks { q: 1344, kv: 128, qk_dim: 32 };
const ZEBRA_3B: Ranks = Ranks { q: 1536, kv: 128, qk_dim: 64 };
const ZEBRA_8B: Ranks = Ranks { q: 2048, kv: 160, qk_dim: 64 };

/// MLA in these layers, Mamba2 in the others.
pub fn zebra(base: &Base, ranks: &Ranks, mla_layers: &[usize]) -> Recipe {
    let mut ssm = base.ssm();
    ssm["repeat_kv_before_conv"] = false.into();
    let hybrid = json!({
        "hidden_size": base.hidden,
        "intermediate_size": base.intermediate,
        "hidden_act": "silu",
        "n_layer": base.layers,
        "mla_layers": mla_layers,
        "rms_norm_eps": 1e-5,
        "num_attention_heads": base.heads,
        "num_key_value_heads": base.kv_heads,
        "kv_lora_rank": ranks.kv,
        "q_lora_rank": ranks.q,
        "use_lora_layer_norm": false,
        "use_full_kv_head": false,
        "qk_rope_head_dim": ranks.qk_dim,
        "v_head_dim": base.head_dim,
        "qk_nope_head_dim": ranks.qk_dim,
        "qkv_rank_divisor": 8,
        "max_position_embeddings": base.positions,
        "rope_theta": base.theta,
        "rope_scaling": base.factor.map(|factor| json!({
            "factor": factor,
            "original_max_position_embeddings": 8192,
            "rope_type": "yarn",
        })),
        "attention_bias": false,
        "attention_dropout": 0.0,
        "rope_type": "yarn",
        "d_model": base.hidden,
        "ssm_cfg": ssm,
        "d_inner": base.hidden,
        "d_xb": base.kv_width(),
    });
    let mut shapes = ranks.shapes(base, base.kv_heads).to_vec();
    // AMD's files hold the head also where the configuration ties it to the embedding.
    shapes.extend([base.conv1d(), base.head()]);
    Recipe {
        family: Family::ZebraLlama,
        text: base.text,
        configs: vec![(CONFIG_FILE, base.config()), (HYBRID_CONFIG_FILE, hybrid)],
        shapes,
    }
}

/// MLA in every layer, with as many kv heads as query heads.
fn x_ecomla(base: &Base, ranks: &Ranks) -> Recipe {
    let mla = json!({
        "d_model": base.hidden,
        "rms_norm_eps": 1e-5,
        "vocab_size": null,
        "d_inner": base.hidden,
        "d_xb": base.kv_width(),
        "intermediate_size": base.intermediate,
        "hidden_act": "silu",
        "n_layer": base.layers,
        "attn_layers": [],
    });
    let rank = json!({"q_rank": ranks.q, "kv_rank": ranks.kv});
    let rank_list: Map<String, Value> = (0..base.layers).map(|layer| (layer.to_string(), rank.clone())).collect();
    let sizes = json!({
        "attention_bias": false,
        "attention_dropout": 0.0,
        "hidden_act": "silu",
        "hidden_size": base.hidden,
        "intermediate_size": base.intermediate,
        "kv_lora_rank": ranks.kv,
        "layer_rank_list": rank_list,
        "max_position_embeddings": base.positions,
        "model_type": "deepseek_v3",
        "num_attention_heads": base.heads,
        "q_lora_rank": ranks.q,
        "qk_nope_head_dim": ranks.qk_dim,
        "qk_rope_head_dim": ranks.qk_dim,
        "rope_scaling": base.factor.map(|factor| json!({
            "beta_fast": 32,
            "beta_slow": 1,
            "factor": factor,
            "mscale": 1.0,
            "mscale_all_dim": 0.0,
            "type": "yarn",
        })),
        "rope_theta": base.theta,
        "rope_type": "yarn",
        "use_lora_layer_norm": false,
        "v_head_dim": base.head_dim,
    });
    let mut shapes = ranks.shapes(base, base.heads).to_vec();
    shapes.push(base.head());
    Recipe {
        family: Family::XEcoMla,
        text: base.text,
        configs: vec![(CONFIG_FILE, base.config()), (MLA_CONFIG_FILE, mla), (MLA_LAYER_CONFIG_FILE, sizes)],
        shapes,
    }
}

/// The base's own attention in these layers, Mamba2 in the others.
fn mamba2_in_llama(base: &Base, attn_layers: &[usize]) -> Recipe {
    let mamba = json!({
        "d_model": base.hidden,
        "ssm_cfg": base.ssm(),
        "rms_norm_eps": 1e-5,
        "vocab_size": null,
        "d_inner": base.hidden,
        "d_xb": base.kv_width(),
        "intermediate_size": base.intermediate,
        "hidden_act": "silu",
        "n_layer": base.layers,
        "attn_layers": attn_layers,
    });
    let mut shapes = vec![base.conv1d()];
    shapes.extend((!base.tied).then(|| base.head()));
    Recipe {
        family: Family::MambaInLlama,
        text: base.text,
        configs: vec![(CONFIG_FILE, base.config()), (MAMBA_CONFIG_FILE, mamba)],
        shapes,
    }
}

/// The base's own attention in these layers, Mamba1 in the others.
fn mamba1_in_llama(base: &Base, attn_layers: &[usize]) -> Recipe {
    let mut recipe = mamba2_in_llama(base, attn_layers);
    recipe.configs[1].1["ssm_cfg"] = json!({ "expand": 1 });
    recipe.shapes.remove(0); // Mamba2's convolution
    recipe
}

/// Discrete Mamba2 in every layer, of as many heads as the base has, and states of 64.
fn llamba(base: &Base) -> Recipe {
    let config = json!({
        "model_type": "llamba",
        "d_model": base.hidden,
        "n_layer": base.layers,
        "vocab_size": base.text.vocabulary,
        "pad_vocab_size_multiple": 8,
        "tie_embeddings": base.tied,
        "lm_head_bias": false,
        "norm_epsilon": 1e-5,
        "resid_dropout": 0.0,
        "bos_token_id": base.text.begin,
        "eos_token_id": base.text.ends,
        "mlp_cfg": { "act_fn": "silu", "bias": false, "intermediate_size": base.intermediate },
        "ssm_cfg": {
            "activation": "identity",
            "bias": false,
            "chunk_size": 128,
            "d_state": 64,
            "expand": 1,
            "n_qk_heads": base.heads,
            "n_v_heads": base.heads,
        },
    });
    let shapes = if base.tied { vec![] } else { vec![base.head()] };
    Recipe { family: Family::Llamba, text: base.text, configs: vec![(CONFIG_FILE, config)], shapes }
}

fn minitron(base: &Base) -> Recipe {
    let mut config = base.config();
    for (key, value) in [
        ("architectures", json!(["NemotronForCausalLM"])),
        ("model_type", json!("nemotron")),
        ("hidden_act", json!("relu2")),
        ("norm_eps", json!(1e-5)),
        ("partial_rotary_factor", json!(0.5)),
    ] {
        config[key] = value;
    }
    let q_proj = vec![base.heads * base.head_dim, base.hidden];
    let shapes = vec![base.head(), ("q_proj", q_proj)];
    Recipe { family: Family::Minitron, text: base.text, configs: vec![(CONFIG_FILE, config)], shapes }
}
