//! Whether a device computes what it should. Drivers are wrong now and then, mostly about subgroups, and a wrong sum
//! gives fluent nonsense: so a small model with known logits is run through every kernel that a real one uses.
//!
//! Its weights are multiples of 1/32 up to 7/32, which q4 holds exactly, so that every format can be held to the same
//! logits: those that PyTorch computes for it.

use super::KernelChoice;
use super::probe::{ProbeOptions, Values, probe};
use crate::config::{CONFIG_FILE, HYBRID_CONFIG_FILE, ModelConfig, TensorKind, TensorSpec};
use crate::files::MemoryFiles;
use crate::gpu::Gpu;
use crate::model::CacheFormat;
use crate::weights::Preset;
use crate::weights::safetensors::{Dtype, SINGLE_FILE};
use crate::{Error, Result};

/// What a self-test found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// All kernels are right.
    Right,
    /// The plain ones are, the fast ones are not: how far off they are.
    PlainOnly(String),
}

/// Prompt tokens: one step of 64 rows, one of 6, then decoded ones.
const PROMPT: u32 = 70;
const CHUNK: usize = 64;
const DECODED: usize = 2;
const VOCAB: usize = 256;

/// Logits of PyTorch in float32 (tests/golden/zebra_ref.py): of the 64th and the 70th token and after two decoded ones,
/// each for the tokens 3, 40, 77 and so on.
const EXPECTED: [[f32; 7]; 3] = [
    [1.30346, -2.21053, 0.45867, -0.01925, 1.38879, -0.86638, -1.40423],
    [3.16527, 0.72786, 2.16954, 1.75871, 2.10499, 0.78361, 1.92881],
    [-0.12509, -0.35125, -0.26258, -1.19529, 0.42556, 0.37764, -0.21625],
];

/// Errors below this share of the logits' own size are those of int8, in weights, activations and the cache: 6% on this
/// model, whose random weights hide nothing. Kernels that are wrong are off by the logits' own size.
const TOLERANCE: f64 = 0.12;

/// Tests the kernels of a format; the plain ones only where the fast ones are wrong.
///
/// # Errors
/// [`Error::Gpu`] when the plain ones are wrong too.
pub async fn self_test(gpu: &Gpu, preset: Preset, cache: CacheFormat) -> Result<Verdict> {
    judge(preset, &gpu.description().driver, |kernels| deviation(gpu, preset, cache, kernels)).await
}

/// The verdict on a driver, by how far off its fast and its plain kernels are. A NaN is not within any tolerance.
async fn judge<F>(preset: Preset, driver: &str, deviation: impl Fn(KernelChoice) -> F) -> Result<Verdict>
where
    F: Future<Output = Result<f64>>,
{
    let fast = deviation(KernelChoice::Auto).await?;
    if fast < TOLERANCE {
        return Ok(Verdict::Right);
    }
    let found = format!("the fast kernels are off by {:.1}% as {preset}", 100.0 * fast);
    let plain = deviation(KernelChoice::Plain).await?;
    if plain < TOLERANCE {
        return Ok(Verdict::PlainOnly(found));
    }
    let reason = format!("{found}, the plain ones by {:.1}%; another driver than \"{driver}\" may help", 100.0 * plain);
    Err(Error::Gpu { what: "the kernels' self-test".into(), reason })
}

/// The root mean square error of the logits, as a share of their own root mean square.
pub async fn deviation(gpu: &Gpu, preset: Preset, cache: CacheFormat, kernels: KernelChoice) -> Result<f64> {
    let ids: Vec<u32> = (0..PROMPT).map(|i| i.wrapping_mul(2_654_435_761) >> 24).collect();
    let options = ProbeOptions { preset, cache, decode: DECODED, chunk: CHUNK, kernels };
    let tensors = probe(&checkpoint(2, &[1])?, gpu.clone(), &ids, &options).await?;
    let row = |name: &str, row: usize| {
        tensors.iter().find(|t| t.name == name).map_or([].as_slice(), |t| match &t.values {
            Values::F32(values) => &values[row * VOCAB..(row + 1) * VOCAB],
            Values::I64(_) => &[],
        })
    };
    let rows = [row("prefill.logits", CHUNK - 1), row("prefill.logits", PROMPT as usize - 1), row("decode1.logits", 0)];
    Ok(deviation_of(rows))
}

fn deviation_of(rows: [&[f32]; 3]) -> f64 {
    let (mut error, mut size) = (0.0, 0.0);
    for (found, expected) in rows.iter().zip(&EXPECTED) {
        for (found, &expected) in found.iter().skip(3).step_by(37).zip(expected) {
            let expected = f64::from(expected);
            error += (f64::from(*found) - expected).powi(2);
            size += expected * expected;
        }
    }
    f64::sqrt(error / size)
}

/// Layers with heads of 64, as the released models have.
const CONFIG: &str = r#"{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 128,
"intermediate_size": 160, "num_hidden_layers": LAYERS, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 64,
"hidden_act": "silu", "rms_norm_eps": 1e-05, "rope_theta": 500000.0, "max_position_embeddings": 512, "vocab_size": 256,
"tie_word_embeddings": true, "attention_bias": false, "mlp_bias": false, "bos_token_id": 1, "eos_token_id": 2}"#;
const HYBRID_CONFIG: &str = r#"{"hidden_size": 128, "intermediate_size": 160, "hidden_act": "silu", "n_layer": LAYERS,
"mla_layers": MLA, "rms_norm_eps": 1e-05, "num_attention_heads": 2, "num_key_value_heads": 1, "kv_lora_rank": 64,
"q_lora_rank": 96, "use_lora_layer_norm": false, "use_full_kv_head": false, "qk_rope_head_dim": 32, "v_head_dim": 64,
"qk_nope_head_dim": 32, "max_position_embeddings": 512, "rope_theta": 500000.0, "rope_scaling": null,
"attention_bias": false, "d_model": 128, "ssm_cfg": {"expand": 1, "ngroups": 2, "d_state": 64,
"repeat_kv_before_conv": false}, "d_inner": 128, "d_xb": 64}"#;

/// The tensors that the form of the model is read from.
fn shape(name: &str) -> Option<Vec<usize>> {
    match name.rsplit('.').nth(1)? {
        "q_a_proj" => Some(vec![96, 128]),
        "kv_b_proj" => Some(vec![96, 64]),
        "conv1d" => Some(vec![256, 1, 4]),
        _ => None,
    }
}

/// A model of so many layers, some of them MLA, as files.
pub fn checkpoint(layers: usize, mla_layers: &[usize]) -> Result<MemoryFiles> {
    let config = CONFIG.replace("LAYERS", &layers.to_string());
    let hybrid = HYBRID_CONFIG.replace("MLA", &format!("{mla_layers:?}")).replace("LAYERS", &layers.to_string());
    let tensors = ModelConfig::parse(config.as_bytes(), hybrid.as_bytes(), &shape)?.tensors();
    let mut header = serde_json::Map::new();
    let mut data: Vec<u8> = Vec::new();
    for tensor in &tensors {
        let start = data.len();
        data.extend(values(tensor).iter().flat_map(|v| v.to_le_bytes()));
        let entry = serde_json::json!({
            "dtype": Dtype::F32, "shape": tensor.shape, "data_offsets": [start, data.len()],
        });
        header.insert(tensor.name.clone(), entry);
    }
    let header = serde_json::Value::Object(header).to_string();
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    file.extend(data);
    Ok(MemoryFiles::new(
        "the self-test's model",
        vec![
            (CONFIG_FILE.into(), config.into_bytes().into()),
            (HYBRID_CONFIG_FILE.into(), hybrid.into_bytes().into()),
            (SINGLE_FILE.into(), file.into()),
        ],
    ))
}

/// Values that follow from a tensor's name and the place in it.
fn values(tensor: &TensorSpec) -> Vec<f32> {
    let name = tensor.name.bytes().fold(0u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    let draw = |i: usize| {
        let mut hash = name ^ (i as u32).wrapping_mul(0x9e37_79b9);
        hash = (hash ^ hash >> 16).wrapping_mul(0x85eb_ca6b);
        hash ^ hash >> 13
    };
    let code = |i: usize| (draw(i) % 15) as f32 - 7.0;
    // In -7/8..=7/8, in steps of 1/8.
    let small = |i: usize| code(i) / 8.0;
    let count = tensor.elements() as usize;
    let last = tensor.name.rsplit('.').next().unwrap_or_default();
    let parts: Vec<&str> = tensor.name.split('.').collect();
    match (tensor.kind, last) {
        // The first of each group is its largest, so that the group's scale is 1/32.
        (TensorKind::Matrix, _) => (0..count).map(|i| if i % 32 == 0 { 7.0 / 32.0 } else { code(i) / 32.0 }).collect(),
        (_, "A_log" | "D") => (0..count).map(|i| 0.5 + small(i).abs()).collect(),
        (_, "dt_bias") => (0..count).map(|i| small(i) - 2.0).collect(),
        (_, "bias") => (0..count).map(|i| small(i) / 8.0).collect(),
        _ if parts.contains(&"conv1d") => (0..count).map(small).collect(),
        _ => (0..count).map(|i| 1.0 + small(i) / 4.0).collect(),
    }
}

#[cfg(test)]
mod tests {
    use pollster::block_on;

    use super::*;

    fn rows() -> [Vec<f32>; 3] {
        EXPECTED.map(|row| {
            let mut logits = vec![9.0; VOCAB];
            logits.iter_mut().skip(3).step_by(37).zip(row).for_each(|(logit, expected)| *logit = expected);
            logits
        })
    }

    fn off(rows: &[Vec<f32>; 3]) -> f64 {
        deviation_of([&rows[0], &rows[1], &rows[2]])
    }

    #[test]
    fn one_wrong_logit_is_seen() {
        assert_eq!(off(&rows()), 0.0);
        let mut wrong = rows();
        wrong[1][40] += 1.0;
        assert!(off(&wrong) > TOLERANCE, "{}", off(&wrong));
        let mut swapped = rows();
        swapped.swap(0, 2);
        assert!(off(&swapped) > 0.5);
        let mut not_a_number = rows();
        not_a_number[2][3] = f32::NAN;
        assert!(off(&not_a_number).is_nan());
    }

    #[test]
    fn plain_kernels_run_where_only_they_are_right() {
        let verdict = |fast: f64, plain: f64| {
            block_on(judge(Preset::Q8, "a driver", |asked| async move {
                Ok(if asked == KernelChoice::Plain { plain } else { fast })
            }))
        };
        assert_eq!(verdict(0.01, f64::NAN).expect("right"), Verdict::Right);
        for fast in [0.5, f64::INFINITY, f64::NAN] {
            let Ok(Verdict::PlainOnly(why)) = verdict(fast, 0.01) else { panic!("{fast} was accepted") };
            assert!(why.contains("the fast kernels are off by"), "{why}");
            let error = verdict(fast, fast).expect_err("neither is right").to_string();
            assert!(error.contains("\"a driver\" may help"), "{error}");
        }
    }
}
