//! `zebra make-random`: a checkpoint of a released model's exact geometry with random weights, to measure sizes and
//! speed with where the released weights cannot be had. Codes and scales of the quantized formats are drawn directly:
//! nothing is quantized, and several gigabytes take seconds.

use serde_json::{Map, Value, json};
use zebra_runtime::config::{
    CONFIG_FILE, ConfigFiles, Family, HYBRID_CONFIG_FILE, ModelConfig, TensorKind, TensorSpec,
};
use zebra_runtime::weights::safetensors::Dtype;
use zebra_runtime::weights::{Place, Preset, ShardLayout, Storage, WeightFormat, scale_name};
use zebra_runtime::{Error, Result};

use crate::args::{Geometry, MakeRandomArgs, RandomFormat};
use crate::staging::Staging;
use crate::terminal::Terminal;

/// Runs the command.
pub fn run(args: &MakeRandomArgs) -> anyhow::Result<()> {
    let terminal = Terminal::new(false);
    let bar = terminal.bytes(&format!("Writing {}", args.out.display()));
    make(&sizes(args.preset), args, &mut |done, total| bar.set(done, total))?;
    drop(bar);
    terminal.note(format_args!("Wrote {}", args.out.display()));
    Ok(())
}

/// Makes the folder. `progress` gets the bytes of weights written and their total number. Whatever fails leaves
/// nothing behind.
fn make(sizes: &Sizes, args: &MakeRandomArgs, progress: &mut dyn FnMut(u64, u64)) -> Result<()> {
    let mut staging = Staging::begin(&args.out)?;
    let text = |value: &Value| format!("{value:#}\n");
    let (config, hybrid) = (text(&sizes.config()), text(&sizes.hybrid_config()));
    for (name, content) in [
        (CONFIG_FILE, &config),
        (HYBRID_CONFIG_FILE, &hybrid),
        ("generation_config.json", &text(&generation_config())),
        ("tokenizer_config.json", &text(&tokenizer_config()?)),
        ("tokenizer.json", &tokenizer()),
    ] {
        staging.write(name, 0, content.as_bytes())?;
    }

    let shape = |name: &str| sizes.shape(name);
    let files = ConfigFiles::new([(CONFIG_FILE, config.into_bytes()), (HYBRID_CONFIG_FILE, hybrid.into_bytes())]);
    let specs = ModelConfig::parse(Family::ZebraLlama, &files, &shape)?.tensors();
    let (storage, shard_bytes) = match args.format {
        // One file, larger than 4 GiB, is what AMD's own tools leave behind.
        RandomFormat::F32 => (Storage::Plain(Dtype::F32), u64::MAX),
        RandomFormat::Bf16 => (Storage::Plain(Dtype::BF16), u64::MAX),
        RandomFormat::Q8 => (Storage::Preset(Preset::Q8), ShardLayout::SHARD_BYTES),
        RandomFormat::Q4 => (Storage::Preset(Preset::Q4), ShardLayout::SHARD_BYTES),
    };
    let layout = ShardLayout::new(&specs, storage, shard_bytes);
    pollster::block_on(layout.write_heads(&mut staging))?;
    let heads = layout.shards().iter().map(|shard| shard.head.len() as u64).sum();
    let mut writer =
        Writer { staging: &mut staging, block: vec![0; BLOCK], done: heads, total: layout.bytes(), progress };
    for (i, spec) in specs.iter().enumerate() {
        let mut random = Random::new(args.seed, i as u64);
        for (values, place) in draws(spec, storage, &layout, &mut random) {
            writer.fill(place, &values, &mut random)?;
        }
    }
    staging.finish()
}

/// A released model's sizes.
struct Sizes {
    hidden: usize,
    intermediate: usize,
    heads: usize,
    head_dim: usize,
    layers: usize,
    mla_layers: &'static [usize],
    q_rank: usize,
    kv_rank: usize,
    /// Of both the rotated part and the one without position.
    qk_dim: usize,
    d_xb: usize,
    factor: f64,
    tied: bool,
}

const KV_HEADS: usize = 8;
const VOCABULARY: usize = 128_256;
const EVEN: &[usize] = &[0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30];

const ONE_B: Sizes = Sizes {
    hidden: 2048,
    intermediate: 8192,
    heads: 32,
    head_dim: 64,
    layers: 16,
    mla_layers: &[0, 5, 10, 14],
    q_rank: 1344,
    kv_rank: 128,
    qk_dim: 32,
    d_xb: 512,
    factor: 32.0,
    tied: true,
};

const THREE_B: Sizes = Sizes {
    hidden: 3072,
    intermediate: 8192,
    heads: 24,
    head_dim: 128,
    layers: 28,
    mla_layers: &[0, 5, 10, 16, 21, 26],
    q_rank: 1536,
    kv_rank: 128,
    qk_dim: 64,
    d_xb: 1024,
    factor: 32.0,
    tied: true,
};

const EIGHT_B: Sizes = Sizes {
    hidden: 4096,
    intermediate: 14336,
    heads: 32,
    head_dim: 128,
    layers: 32,
    mla_layers: &[0, 4, 8, 12, 16, 20, 25, 30],
    q_rank: 2048,
    kv_rank: 160,
    qk_dim: 64,
    d_xb: 1024,
    factor: 8.0,
    tied: false,
};

fn sizes(model: Geometry) -> Sizes {
    match model {
        Geometry::B1Mla4 => ONE_B,
        Geometry::B1Mla8 => Sizes { mla_layers: EVEN.split_at(8).0, ..ONE_B },
        Geometry::B3Mla6 => THREE_B,
        Geometry::B3Mla14 => Sizes { mla_layers: EVEN.split_at(14).0, ..THREE_B },
        Geometry::B8Mla8 => EIGHT_B,
        Geometry::B8Mla16 => Sizes { mla_layers: EVEN, ..EIGHT_B },
    }
}

impl Sizes {
    /// The base Llama's configuration, as Meta writes it.
    fn config(&self) -> Value {
        json!({
            "architectures": ["LlamaForCausalLM"],
            "attention_bias": false,
            "attention_dropout": 0.0,
            "bos_token_id": BEGIN_OF_TEXT,
            "eos_token_id": END_TOKENS,
            "head_dim": self.head_dim,
            "hidden_act": "silu",
            "hidden_size": self.hidden,
            "initializer_range": 0.02,
            "intermediate_size": self.intermediate,
            "max_position_embeddings": 131_072,
            "mlp_bias": false,
            "model_type": "llama",
            "num_attention_heads": self.heads,
            "num_hidden_layers": self.layers,
            "num_key_value_heads": KV_HEADS,
            "pretraining_tp": 1,
            "rms_norm_eps": 1e-5,
            "rope_scaling": {
                "factor": self.factor,
                "high_freq_factor": 4.0,
                "low_freq_factor": 1.0,
                "original_max_position_embeddings": 8192,
                "rope_type": "llama3",
            },
            "rope_theta": 500_000.0,
            "tie_word_embeddings": self.tied,
            "torch_dtype": "bfloat16",
            "use_cache": true,
            "vocab_size": VOCABULARY,
        })
    }

    /// AMD's part of it.
    fn hybrid_config(&self) -> Value {
        json!({
            "hidden_size": self.hidden,
            "intermediate_size": self.intermediate,
            "hidden_act": "silu",
            "n_layer": self.layers,
            "mla_layers": self.mla_layers,
            "rms_norm_eps": 1e-5,
            "num_attention_heads": self.heads,
            "num_key_value_heads": KV_HEADS,
            "kv_lora_rank": self.kv_rank,
            "q_lora_rank": self.q_rank,
            "use_lora_layer_norm": false,
            "use_full_kv_head": false,
            "qk_rope_head_dim": self.qk_dim,
            "v_head_dim": self.head_dim,
            "qk_nope_head_dim": self.qk_dim,
            "qkv_rank_divisor": 8,
            "max_position_embeddings": 131_072,
            "rope_theta": 500_000.0,
            "rope_scaling": {
                "factor": self.factor,
                "original_max_position_embeddings": 8192,
                "rope_type": "yarn",
            },
            "attention_bias": false,
            "attention_dropout": 0.0,
            "rope_type": "yarn",
            "d_model": self.hidden,
            "ssm_cfg": {
                "expand": 1,
                "ngroups": self.heads,
                "d_state": self.head_dim,
                "repeat_kv_before_conv": false,
            },
            "d_inner": self.hidden,
            "d_xb": self.d_xb,
        })
    }

    /// The shapes that a configuration is read with: of the tensors that decide on ranks, kv heads and channels.
    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        match name.rsplit('.').nth(1)? {
            // AMD's files hold the head also where the configuration ties it to the embedding.
            "lm_head" => Some(vec![VOCABULARY, self.hidden]),
            "q_a_proj" => Some(vec![self.q_rank, self.hidden]),
            "kv_b_proj" => Some(vec![KV_HEADS * (self.qk_dim + self.head_dim), self.kv_rank]),
            "conv1d" => Some(vec![self.hidden + 2 * self.d_xb, 1, 4]),
            _ => None,
        }
    }
}

/// How the bytes of a stored tensor are drawn.
enum Values {
    /// These numbers, in this type.
    Given(Vec<f32>, Dtype),
    /// Floats of a uniform distribution around 0 with this standard deviation.
    F32(f32),
    /// The same as bf16.
    Bf16(f32),
    /// int8 codes, uniform in -127..=127.
    Q8Codes,
    /// int4 codes, uniform in -8..=7.
    Q4Codes,
    /// f16 scales, each one of these.
    Scales(Box<[[u8; 2]; 256]>),
}

/// What a tensor's stored parts are filled with. Linear maps keep the variance of what they get (standard deviation
/// 1 / sqrt(inputs)), so activations neither vanish nor explode; the state-space values are those of Mamba2's own
/// initialization.
fn draws<'a>(
    spec: &TensorSpec,
    storage: Storage,
    layout: &'a ShardLayout,
    random: &mut Random,
) -> Vec<(Values, Place<'a>)> {
    let place = |name: &str| layout.place(name).expect("the layout was made for these tensors");
    let deviation = match (spec.kind, spec.shape.as_slice()) {
        (TensorKind::Matrix, &[_, inputs]) => 1.0 / (inputs as f32).sqrt(),
        _ => {
            let dtype = if let Storage::Plain(dtype) = storage { dtype } else { Dtype::F32 };
            return vec![(Values::Given(small_tensor(spec, random), dtype), place(&spec.name))];
        }
    };
    let preset = match storage {
        Storage::Plain(Dtype::BF16) => return vec![(Values::Bf16(deviation), place(&spec.name))],
        Storage::Plain(_) => return vec![(Values::F32(deviation), place(&spec.name))],
        Storage::Preset(preset) => preset,
    };
    // The codes' own standard deviations: of -127..=127 and of -8..=7 about 0.
    let (codes, of_codes) = match preset.format_of(&spec.name) {
        WeightFormat::Q4 => (Values::Q4Codes, 21.5f32.sqrt()),
        _ => (Values::Q8Codes, 73.6),
    };
    // Real scales differ from group to group. Their sign is drawn too: the mean of q4 codes is -1/2, and equal signs
    // would push all outputs to one side.
    let scales = std::array::from_fn(|i| {
        let sign = if i % 2 == 0 { 1.0 } else { -1.0 };
        half::f16::from_f32(sign * deviation / of_codes * (0.75 + 0.5 * i as f32 / 255.0)).to_le_bytes()
    });
    vec![(codes, place(&spec.name)), (Values::Scales(Box::new(scales)), place(&scale_name(&spec.name)))]
}

/// The values of a norm, a convolution or one of Mamba2's per-head parameters.
fn small_tensor(spec: &TensorSpec, random: &mut Random) -> Vec<f32> {
    let count = spec.elements() as usize;
    let parts: Vec<&str> = spec.name.rsplit('.').collect();
    let mut drawn = |draw: fn(f64) -> f64| (0..count).map(|_| draw(random.uniform()) as f32).collect();
    match parts[0] {
        "A_log" => drawn(|u| (1.0 + 15.0 * u).ln()),
        // The inverse of softplus, for steps spread evenly in the logarithm from 0.001 to 0.1.
        "dt_bias" => drawn(|u| {
            let dt = 0.001 * 100f64.powf(u);
            dt + (-(-dt).exp_m1()).ln()
        }),
        // As dt_bias, which Mamba1 adds twice.
        "bias" if parts[1] == "dt_proj" => drawn(|u| {
            let dt = 0.001 * 100f64.powf(u);
            0.5 * (dt + (-(-dt).exp_m1()).ln())
        }),
        "bias" => vec![0.0; count],
        // Four taps: a standard deviation of 1/2.
        "weight" if parts[1] == "conv1d" => drawn(|u| (u - 0.5) * 3f64.sqrt()),
        _ => vec![1.0; count],
    }
}

/// Bytes that are drawn and written at a time.
const BLOCK: usize = 8 << 20;

struct Writer<'a> {
    staging: &'a mut Staging,
    block: Vec<u8>,
    done: u64,
    total: u64,
    progress: &'a mut dyn FnMut(u64, u64),
}

impl Writer<'_> {
    fn fill(&mut self, place: Place<'_>, values: &Values, random: &mut Random) -> Result<()> {
        let mut at = 0;
        while at < place.bytes {
            let bytes = (place.bytes - at).min(BLOCK as u64) as usize;
            let block = &mut self.block[..bytes];
            match values {
                Values::Given(list, Dtype::BF16) => {
                    // Rounded to nearest by the addition of half a step.
                    let halves = list.iter().map(|value| ((value.to_bits() + 0x8000) >> 16) as u16);
                    block.copy_from_slice(&halves.flat_map(u16::to_le_bytes).collect::<Vec<u8>>());
                }
                Values::Given(list, _) => {
                    block.copy_from_slice(&list.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>());
                }
                Values::F32(deviation) => {
                    let width = 2.0 * 3f32.sqrt() * deviation;
                    random.fill(block);
                    for four in block.chunks_exact_mut(4) {
                        let bits = u32::from_le_bytes([four[0], four[1], four[2], four[3]]);
                        // A float from 1 to 2 out of 23 random bits.
                        let value = (f32::from_bits(0x3f80_0000 | bits >> 9) - 1.5) * width;
                        four.copy_from_slice(&value.to_le_bytes());
                    }
                }
                Values::Bf16(deviation) => {
                    let step = 3f32.sqrt() * deviation / 32_768.0;
                    random.fill(block);
                    for two in block.chunks_exact_mut(2) {
                        let value = f32::from(i16::from_le_bytes([two[0], two[1]])) * step;
                        two.copy_from_slice(&((value.to_bits() >> 16) as u16).to_le_bytes());
                    }
                }
                Values::Q8Codes => {
                    random.fill(block);
                    for code in block {
                        // -128 is no code.
                        *code = if *code == 0x80 { 0x81 } else { *code };
                    }
                }
                Values::Q4Codes => random.fill(block),
                Values::Scales(table) => {
                    random.fill(block);
                    for two in block.chunks_exact_mut(2) {
                        let scale = table[usize::from(two[0])];
                        two.copy_from_slice(&scale);
                    }
                }
            }
            self.staging.write(place.file, place.offset + at, &self.block[..bytes])?;
            at += bytes as u64;
            self.done += bytes as u64;
            (self.progress)(self.done, self.total);
        }
        Ok(())
    }
}

/// Eight xorshift64 generators side by side, so that filling memory vectorizes. Good enough for weights, and for nothing
/// that needs better.
struct Random([u64; 8]);

impl Random {
    /// Generators of their own for each tensor, so that files do not depend on the order of drawing.
    fn new(seed: u64, stream: u64) -> Self {
        // splitmix64 spreads neighbouring seeds.
        let mut state = seed ^ stream.wrapping_mul(0xd134_2543_de82_ef95);
        Self(std::array::from_fn(|_| {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = state;
            z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
            (z ^ z >> 31) | 1 // never the fixed point 0
        }))
    }

    fn step(&mut self) {
        for lane in &mut self.0 {
            *lane ^= *lane << 13;
            *lane ^= *lane >> 7;
            *lane ^= *lane << 17;
        }
    }

    fn fill(&mut self, bytes: &mut [u8]) {
        let mut whole = bytes.chunks_exact_mut(64);
        for chunk in &mut whole {
            self.step();
            for (eight, lane) in chunk.chunks_exact_mut(8).zip(self.0) {
                eight.copy_from_slice(&lane.to_le_bytes());
            }
        }
        self.step();
        for (byte, random) in whole.into_remainder().iter_mut().zip(self.0.iter().flat_map(|lane| lane.to_le_bytes())) {
            *byte = random;
        }
    }

    /// From 0 to 1.
    fn uniform(&mut self) -> f64 {
        self.step();
        (self.0[0] >> 11) as f64 / (1u64 << 53) as f64
    }
}

const BEGIN_OF_TEXT: u32 = 128_000;
/// `<|end_of_text|>`, `<|eom_id|>`, `<|eot_id|>`.
const END_TOKENS: [u32; 3] = [128_001, 128_008, 128_009];
/// Ordinary tokens; the special ones follow.
const BASE_VOCABULARY: usize = 128_000;
/// As many as Llama 3 has, in round figures: they are most of a tokenizer's memory.
const MERGES: usize = 280_000;

fn generation_config() -> Value {
    json!({
        "bos_token_id": BEGIN_OF_TEXT,
        "do_sample": true,
        "eos_token_id": END_TOKENS,
        "temperature": 0.6,
        "top_p": 0.9,
    })
}

/// The pocket model's, whose chat template is AMD's, with AMD's `model_max_length`.
fn tokenizer_config() -> Result<Value> {
    const POCKET: &str = include_str!("../../models/zebra-pocket/tokenizer_config.json");
    let mut config: Value = serde_json::from_str(POCKET).map_err(|e| Error::Tokenizer(e.to_string()))?;
    config["model_max_length"] = 2048.into();
    config["pad_token"] = "<|eot_id|>".into();
    Ok(config)
}

/// Llama 3's special tokens, in the order of their ids.
fn special_tokens() -> Vec<String> {
    let named = [
        "<|begin_of_text|>",
        "<|end_of_text|>",
        "<|reserved_special_token_0|>",
        "<|reserved_special_token_1|>",
        "<|finetune_right_pad_id|>",
        "<|reserved_special_token_2|>",
        "<|start_header_id|>",
        "<|end_header_id|>",
        "<|eom_id|>",
        "<|eot_id|>",
        "<|python_tag|>",
    ];
    let reserved = (3..).map(|i| format!("<|reserved_special_token_{i}|>"));
    named.into_iter().map(String::from).chain(reserved).take(VOCABULARY - BASE_VOCABULARY).collect()
}

/// The letter that byte-level BPE writes for each byte, in the order of token ids: printable ones as they are, the rest
/// from U+0100 on.
fn byte_letters() -> Vec<char> {
    let printable = |byte: &u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    let shown = (0..=u8::MAX).filter(printable).map(char::from);
    let hidden = (0..=u8::MAX).filter(|byte| !printable(byte)).zip('\u{100}'..).map(|(_, letter)| letter);
    shown.chain(hidden).collect()
}

/// A space, in that alphabet.
const SPACE: char = 'Ġ';

/// The tokens beyond single bytes: strings of letters, shorter and commoner letters first, each alone and after a space,
/// so that every part of a token is a token too.
fn synthetic_tokens(count: usize) -> Vec<String> {
    const LETTERS: &str = "etaoinsrhldcumfpgwybvkxjqz";
    /// Letters that the first strings of four are made of.
    const COMMON: usize = 14;
    let strings = |letters: &'static str, length: u32| {
        let letters: Vec<char> = letters.chars().collect();
        (0..letters.len().pow(length)).map(move |mut i| {
            let mut string = String::new();
            for _ in 0..length {
                string.insert(0, letters[i % letters.len()]);
                i /= letters.len();
            }
            string
        })
    };
    let is_common = |string: &String| string.chars().all(|c| LETTERS[..COMMON].contains(c));
    let short = (1..=3).flat_map(|length| strings(LETTERS, length));
    let long = strings(&LETTERS[..COMMON], 4).chain(strings(LETTERS, 4).filter(|string| !is_common(string)));
    short
        .chain(long)
        .flat_map(|string| {
            let after_space = format!("{SPACE}{string}");
            let alone = (string.len() > 1).then_some(string);
            alone.into_iter().chain([after_space])
        })
        .take(count)
        .collect()
}

/// The places where a token falls into two, at most three of them: before the last letter, after the first, between.
fn cuts(token: &str) -> Vec<usize> {
    let inner: Vec<usize> = token.char_indices().skip(1).map(|(at, _)| at).collect();
    match inner[..] {
        [] => Vec::new(),
        [only] => vec![only],
        [first, last] => vec![last, first],
        [first, second, .., last] => vec![last, first, second],
    }
}

/// Pairs of tokens that join to a token, two of each where it has them and a third until there are enough; shorter
/// tokens first, as training finds them.
fn merges(tokens: &[String], count: usize) -> Vec<(&str, &str)> {
    let two_each: usize = tokens.iter().map(|token| cuts(token).len().min(2)).sum();
    let mut more = count.saturating_sub(two_each);
    let mut merges = Vec::with_capacity(count);
    for token in tokens {
        let mut cuts = cuts(token);
        if cuts.len() == 3 && more == 0 {
            cuts.pop();
        } else if cuts.len() == 3 {
            more -= 1;
        }
        merges.extend(cuts.into_iter().map(|cut| token.split_at(cut)));
    }
    merges
}

/// A `tokenizer.json` in Llama 3's form: byte-level BPE with its pattern and special tokens, and a synthetic vocabulary.
fn tokenizer() -> String {
    const PATTERN: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
    let letters = byte_letters();
    let tokens = synthetic_tokens(BASE_VOCABULARY - letters.len());
    let names = letters.iter().map(char::to_string).chain(tokens.iter().cloned());
    let vocabulary: Map<String, Value> = names.zip(0u32..).map(|(name, id)| (name, id.into())).collect();
    let specials = special_tokens();
    let added: Vec<Value> = specials
        .iter()
        .zip(BEGIN_OF_TEXT..)
        .map(|(content, id)| {
            json!({
                "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": true,
            })
        })
        .collect();
    let begin = &specials[0];
    let byte_level = |add_prefix_space: bool, trim_offsets: bool, use_regex: bool| {
        json!({
            "type": "ByteLevel", "add_prefix_space": add_prefix_space, "trim_offsets": trim_offsets,
            "use_regex": use_regex,
        })
    };
    let begins = json!({"SpecialToken": {"id": begin, "type_id": 0}});
    let sequence = |id: &str, type_id: u32| json!({"Sequence": {"id": id, "type_id": type_id}});
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": null,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": PATTERN}, "behavior": "Isolated", "invert": false},
                byte_level(false, true, false),
            ],
        },
        "post_processor": {
            "type": "Sequence",
            "processors": [
                byte_level(true, false, true),
                {
                    "type": "TemplateProcessing",
                    "single": [begins, sequence("A", 0)],
                    "pair": [begins, sequence("A", 0), begins, sequence("B", 1)],
                    "special_tokens": {begin: {"id": begin, "ids": [BEGIN_OF_TEXT], "tokens": [begin]}},
                },
            ],
        },
        "decoder": byte_level(true, true, true),
        "model": {
            "type": "BPE",
            "dropout": null,
            "unk_token": null,
            "continuing_subword_prefix": null,
            "end_of_word_suffix": null,
            "fuse_unk": false,
            "byte_fallback": false,
            "ignore_merges": true,
            "vocab": vocabulary,
            "merges": merges(&tokens, MERGES),
        },
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::fs;

    use clap::ValueEnum;
    use futures_util::FutureExt;
    use futures_util::future::LocalBoxFuture;
    use zebra_runtime::config::MixerKind;
    use zebra_runtime::engine::{CacheFormat, LoadOptions};
    use zebra_runtime::files::{Files, MemoryFiles};
    use zebra_runtime::gpu::{Cooperative, Gpu, Limits, Purpose};
    use zebra_runtime::model::{Model, Plan, PlanOptions, Row, Step, Token, Twins};
    use zebra_runtime::text::Tokenizer;
    use zebra_runtime::weights::{Checkpoint, GROUP, MatrixChunk, MatrixSink, format};

    use super::*;
    use crate::files::FolderFiles;

    fn specs(sizes: &Sizes) -> (ModelConfig, Vec<TensorSpec>) {
        let (config, hybrid) = (sizes.config().to_string(), sizes.hybrid_config().to_string());
        let files = ConfigFiles::new([(CONFIG_FILE, config.into_bytes()), (HYBRID_CONFIG_FILE, hybrid.into_bytes())]);
        let config = ModelConfig::parse(Family::ZebraLlama, &files, &|name| sizes.shape(name));
        let config = config.expect("a released geometry is valid");
        let specs = config.tensors();
        (config, specs)
    }

    #[test]
    fn geometries_are_the_released_ones() {
        // Parameters with a separate head, latent values per token, and MLA layers, as AMD's tables give them.
        let expected = [
            ("1b-4mla", 1.2857 + 0.2627, 640, 4, 199),
            ("1b-8mla", 1.2671 + 0.2627, 1280, 8, 187),
            ("3b-6mla", 3.3896 + 0.3940, 1152, 6, 349),
            ("3b-14mla", 3.2692 + 0.3940, 2688, 14, 325),
            ("8b-8mla", 8.3791, 1792, 8, 395),
            ("8b-16mla", 8.1857, 3584, 16, 371),
        ];
        for (model, (name, billions, latent, mla, tensors)) in Geometry::value_variants().iter().zip(expected) {
            assert_eq!(model.to_possible_value().map(|value| value.get_name().to_owned()).as_deref(), Some(name));
            let (config, specs) = specs(&sizes(*model));
            let parameters: u64 = specs.iter().map(TensorSpec::elements).sum();
            assert!((parameters as f64 / 1e9 - billions).abs() < 1.1e-4, "{name}: {parameters}");
            assert_eq!(specs.len(), tensors, "{name}");
            let latents: Vec<usize> = config
                .layers
                .iter()
                .filter_map(|layer| match &layer.mixer.kind {
                    MixerKind::Mla(mla) => Some(mla.latent_dim()),
                    MixerKind::Mamba2(_)
                    | MixerKind::Mamba1(_)
                    | MixerKind::DiscreteMamba2(_)
                    | MixerKind::Attention(_) => None,
                })
                .collect();
            assert_eq!((latents.len(), latents.iter().sum::<usize>()), (mla, latent), "{name}");
        }
    }

    #[test]
    fn activations_of_a_prompts_chunk_are_small() {
        const MOST: u64 = 200_000_000;
        let limits = Limits {
            binding: 2 << 30,
            buffer: 1 << 40,
            workgroups: 65_535,
            workgroup_memory: 48 << 10,
            invocations: 1024,
            storage_buffers: 1 << 20,
            uniform_alignment: 64,
            subgroup: 32,
        };
        let activations = |model, slots, context, logit_rows, twins| {
            // What the program asks for on a GPU, see `LoadOptions`.
            let options = PlanOptions {
                preset: Preset::Q4,
                cache: CacheFormat::Q8,
                slots,
                context,
                max_rows: 512,
                narrow_rows: 8,
                logit_rows,
                twins,
            };
            let plan = Plan::new(&specs(&sizes(model)).0, options, limits).expect("it fits");
            plan.bytes().iter().find(|(purpose, _)| *purpose == Purpose::Activations).expect("some").1
        };
        let matrices = Some(Cooperative { side: 16, lanes: 32 });
        let units = Twins { subgroups: true, matmul_coop: matrices, mla_attend_coop: matrices, ..Twins::portable() };
        for model in [Geometry::B8Mla8, Geometry::B8Mla16] {
            for twins in [units, Twins { subgroups: true, ..Twins::portable() }, Twins::plain()] {
                for (slots, context) in [(1, 4096), (1, 131_072), (48, 4352)] {
                    let bytes = activations(model, slots, context, slots, twins);
                    println!("{model:?}, {slots} slots of {context}: {:.1} MB", bytes as f64 / 1e6);
                    // A step may hold a row of each slot: the chunked scan then a layer's state of each, and it asks for logits.
                    let most = MOST + u64::from(slots - 1) * (5 << 19);
                    assert!(bytes <= most, "{model:?}, {slots} slots of {context}, {twins}: {bytes}");
                }
            }
        }
        // Only because few rows ask for logits.
        assert!(activations(Geometry::B8Mla8, 1, 4096, 512, units) > MOST);
    }

    #[test]
    fn the_gpu_holds_what_was_planned() {
        const MIB: u64 = 1 << 20;
        let parent = tempfile::tempdir().expect("a temporary folder");
        let out = parent.path().join("model");
        make(
            &SMALL,
            &MakeRandomArgs { preset: Geometry::B1Mla4, format: RandomFormat::Q4, seed: 7, out: out.clone() },
            &mut |_, _| {},
        )
        .expect("makes");
        let folder = FolderFiles::open(&out).expect("the folder is there");
        for files in [&folder as &dyn Files, &crate::embedded::files().expect("the pocket model")] {
            let gpu = pollster::block_on(Gpu::open(None)).expect("an adapter");
            let checkpoint = pollster::block_on(Checkpoint::open(files)).expect("it opens");
            let plan = LoadOptions::default().plan(&checkpoint, &gpu).expect("it fits");
            let planned: u64 = plan.bytes().iter().map(|(_, bytes)| bytes).sum();
            let model = pollster::block_on(Model::load(gpu.clone(), &checkpoint, plan, &mut |_, _| {}));
            let mut model = model.expect("it loads");
            let row = Row { slot: 0, token: Token::Id(1), position: 0, logits: true, sample: true };
            let ticket = model.submit(&Step { rows: vec![row] }).expect("a step");
            pollster::block_on(model.wait(ticket)).expect("a token");

            let held = gpu.held().expect("an allocator that tells");
            let what = format!("{}: {planned} planned, {held:?}", files.describe());
            println!("{what}");
            assert_eq!(gpu.allocated().values().sum::<u64>(), planned, "{what}");
            // Beside what is planned: parameters, and the buffers that tokens come back in.
            assert!((planned..planned + planned / 20 + MIB).contains(&held.used), "{what}");
            // The last block is not full.
            assert!(held.reserved <= planned + planned / 20 + 64 * MIB, "{what}");
            drop(model);
            assert!(gpu.held().is_some_and(|left| left.used < 4 * MIB), "{what}: {:?} are left", gpu.held());
        }
    }

    /// A geometry that tests can write to the disk: the 1B's form, two layers of it.
    const SMALL: Sizes = Sizes {
        hidden: 256,
        intermediate: 512,
        heads: 8,
        head_dim: 32,
        layers: 2,
        mla_layers: &[1],
        q_rank: 96,
        d_xb: 128,
        ..ONE_B
    };

    /// Mean and standard deviation of a matrix.
    struct Moments(WeightFormat, usize, f64, f64, usize);

    impl MatrixSink for Moments {
        fn write<'a>(&'a mut self, chunk: MatrixChunk<'a>) -> LocalBoxFuture<'a, Result<()>> {
            let (format, k) = (self.0, self.1);
            let mut row = vec![0.0; k.next_multiple_of(GROUP)];
            let (w, s) = (format.row_words(k), format.row_scales(k));
            for r in 0..chunk.rows {
                format::decode_row(format, &chunk.words[r * w..][..w], &chunk.scales[r * s..][..s], &mut row);
                for &value in &row[..k] {
                    self.2 += f64::from(value);
                    self.3 += f64::from(value).powi(2);
                    self.4 += 1;
                }
            }
            async { Ok(()) }.boxed_local()
        }
    }

    #[test]
    fn random_folders_open_and_have_sensible_weights() {
        let parent = tempfile::tempdir().expect("a temporary folder");
        for format in [RandomFormat::F32, RandomFormat::Bf16, RandomFormat::Q8, RandomFormat::Q4] {
            let out = parent.path().join(format!("{format:?}"));
            let args = MakeRandomArgs { preset: Geometry::B1Mla4, format, seed: 7, out: out.clone() };
            let mut last = (0, 1);
            make(&SMALL, &args, &mut |done, total| last = (done, total)).expect("makes");
            let weights = fs::metadata(out.join("model.safetensors")).expect("one file").len();
            assert_eq!(last, (weights, weights));

            let files = FolderFiles::open(&out).expect("the folder is there");
            let checkpoint = pollster::block_on(Checkpoint::open(&files)).expect("it opens");
            for spec in checkpoint.tensors() {
                if let [n, k] = spec.shape[..] {
                    let format = checkpoint.stored().unwrap_or(Preset::F32).format_of(&spec.name);
                    let mut sink = Moments(format, k, 0.0, 0.0, 0);
                    pollster::block_on(checkpoint.matrix(&spec.name, n, k, format, &mut sink)).expect("finite");
                    let count = sink.4 as f64;
                    let deviation = (sink.3 / count).sqrt() * (k as f64).sqrt();
                    let mean = sink.2 / count * (k as f64).sqrt() * count.sqrt();
                    // The mean of so many draws around 0, and their deviation, in units of what is expected.
                    assert!((deviation - 1.0).abs() < 0.05, "{} {format}: {deviation}", spec.name);
                    assert!(mean.abs() < 6.0, "{} {format}: {mean}", spec.name);
                } else {
                    let values = pollster::block_on(checkpoint.vector(&spec.name, &spec.shape)).expect("finite");
                    let within = |low: f32, high: f32| values.iter().all(|v| (low..=high).contains(v));
                    let ok = match spec.name.rsplit('.').next() {
                        Some("A_log") => within(0.0, 16f32.ln() + 0.01),
                        Some("dt_bias") => within(-6.95, -2.2),
                        Some("bias") => within(0.0, 0.0),
                        _ if spec.name.contains("conv1d") => within(-0.9, 0.9) && !within(-0.5, 0.5),
                        _ => within(1.0, 1.0),
                    };
                    assert!(ok, "{}: {:?}", spec.name, &values[..4.min(values.len())]);
                }
            }
        }
        // The same seed gives the same file, another one another.
        let file = |name: &str, seed| {
            let args = MakeRandomArgs {
                preset: Geometry::B1Mla4,
                format: RandomFormat::Q4,
                seed,
                out: parent.path().join(name),
            };
            make(&SMALL, &args, &mut |_, _| {}).expect("makes");
            fs::read(args.out.join("model.safetensors")).expect("readable")
        };
        let (a, b) = (file("a", 7), file("b", 8));
        assert!(a == fs::read(parent.path().join("Q4/model.safetensors")).expect("readable"));
        assert!(a != b);
    }

    #[test]
    fn the_tokenizer_is_whole() {
        let json = tokenizer();
        let value: Value = serde_json::from_str(&json).expect("JSON");
        let vocabulary = value["model"]["vocab"].as_object().expect("an object");
        assert_eq!(vocabulary.len(), BASE_VOCABULARY);
        let ids: HashSet<u64> = vocabulary.values().filter_map(Value::as_u64).collect();
        assert_eq!((ids.len(), ids.iter().max()), (BASE_VOCABULARY, Some(&(BASE_VOCABULARY as u64 - 1))));
        let list = value["model"]["merges"].as_array().expect("a list");
        assert_eq!(list.len(), MERGES);
        assert_eq!(list.iter().collect::<HashSet<_>>().len(), MERGES, "a pair occurs twice");
        for pair in list {
            let [a, b] = [0, 1].map(|i| pair[i].as_str().expect("a token"));
            assert!([a, b, &format!("{a}{b}")].iter().all(|token| vocabulary.contains_key(*token)), "{pair}");
        }

        let files = MemoryFiles::new("random", vec![("tokenizer.json".into(), json.into_bytes().into())]);
        let tokenizer = pollster::block_on(Tokenizer::load(&files)).expect("it loads");
        assert_eq!(tokenizer.vocab_size(), VOCABULARY);
        for (token, id) in [
            ("<|begin_of_text|>", 128_000),
            ("<|end_of_text|>", 128_001),
            ("<|finetune_right_pad_id|>", 128_004),
            ("<|start_header_id|>", 128_006),
            ("<|end_header_id|>", 128_007),
            ("<|eom_id|>", 128_008),
            ("<|eot_id|>", 128_009),
            ("<|python_tag|>", 128_010),
            ("<|reserved_special_token_247|>", 128_255),
        ] {
            assert_eq!(tokenizer.id(token), Some(id), "{token}");
        }
        let text = "What is a zebra? Ünïcödé, 12345 🦓\n\tdone";
        let ids = tokenizer.encode(text, true).expect("encodes");
        assert_eq!(ids[0], BEGIN_OF_TEXT);
        assert!(ids.len() < text.len(), "{} ids for {} bytes", ids.len(), text.len());
        assert_eq!(tokenizer.decode(&ids).expect("decodes"), text);
    }
}
