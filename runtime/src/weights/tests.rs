#![allow(clippy::unwrap_used)]

use std::borrow::Cow;
use std::path::PathBuf;

use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use pollster::block_on;
use serde_json::{Value, json};

use super::safetensors::Dtype;
use super::*;
use crate::config::{CONFIG_FILE, ConfigFiles, Family, HYBRID_CONFIG_FILE, MixerKind, MlpKind, ModelConfig, NormKind};
use crate::files::MemoryFiles;
use crate::{Error, Result};

/// Tensors of a safetensors file: name, type, shape, bytes.
type Tensors = Vec<(String, Dtype, Vec<usize>, Vec<u8>)>;

/// A checkpoint's files, to be spoilt one at a time.
#[derive(Clone)]
struct Folder(Vec<(String, Vec<u8>)>);

impl Folder {
    /// A checkpoint of this repository.
    fn load(path: &str) -> Self {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
        let mut files = Vec::new();
        for entry in std::fs::read_dir(&folder).unwrap() {
            let entry = entry.unwrap();
            files.push((entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap()));
        }
        Self(files)
    }

    fn tiny() -> Self {
        Self::load("tests/fixtures/tiny-gqa")
    }

    fn bytes(&mut self, name: &str) -> &mut Vec<u8> {
        &mut self.0.iter_mut().find(|(n, _)| n == name).unwrap().1
    }

    fn remove(&mut self, name: &str) {
        self.0.retain(|(n, _)| n != name);
    }

    fn json(&mut self, name: &str, edit: impl FnOnce(&mut Value)) {
        let bytes = self.bytes(name);
        let mut value = serde_json::from_slice(bytes).unwrap();
        edit(&mut value);
        *bytes = serde_json::to_vec(&value).unwrap();
    }

    /// Edits the header of a safetensors file; the data stay as they are.
    fn header(&mut self, name: &str, edit: impl FnOnce(&mut Value)) {
        let bytes = self.bytes(name);
        let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let mut header = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
        edit(&mut header);
        *bytes = with_header(&header.to_string(), &bytes[8 + length..]);
    }

    /// Replaces `model.safetensors` by one with edited tensors, written by the safetensors crate.
    fn tensors(&mut self, edit: impl FnOnce(&mut Tensors)) {
        let bytes = self.bytes("model.safetensors");
        let parsed = ::safetensors::SafeTensors::deserialize(bytes).unwrap();
        let mut list: Vec<_> = parsed
            .iter()
            .map(|(name, view)| (name.to_string(), view.dtype(), view.shape().to_vec(), view.data().to_vec()))
            .collect();
        edit(&mut list);
        let views = list.iter().map(|(name, dtype, shape, data)| {
            (name.clone(), ::safetensors::tensor::TensorView::new(*dtype, shape.clone(), data).unwrap())
        });
        *bytes = ::safetensors::serialize(views, None).unwrap();
    }

    fn memory(&self) -> MemoryFiles {
        MemoryFiles::new("test", self.0.iter().map(|(n, b)| (n.clone(), Cow::Owned(b.clone()))).collect())
    }

    fn config(&self) -> ModelConfig {
        block_on(Checkpoint::open(&self.memory())).unwrap().config().clone()
    }

    /// The message with which the checkpoint is refused.
    fn refusal(&self) -> String {
        let files = self.memory();
        match block_on(Checkpoint::open(&files)) {
            Ok(_) => panic!("a spoilt checkpoint was opened"),
            Err(error) => error.to_string(),
        }
    }
}

fn with_header(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
}

#[track_caller]
fn assert_says(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "{message:?} does not say {part:?}");
    }
}

/// Keeps a matrix whole.
#[derive(Default)]
struct Collect {
    rows: usize,
    chunks: usize,
    words: Vec<u8>,
    scales: Vec<u8>,
}

impl MatrixSink for Collect {
    fn write<'a>(&'a mut self, chunk: MatrixChunk<'a>) -> LocalBoxFuture<'a, Result<()>> {
        assert_eq!(chunk.first_row, self.rows);
        assert!(chunk.words.len() <= 8 << 20);
        self.rows += chunk.rows;
        self.chunks += 1;
        self.words.extend_from_slice(chunk.words);
        self.scales.extend_from_slice(chunk.scales);
        async { Ok(()) }.boxed_local()
    }
}

fn read_matrix(checkpoint: &Checkpoint, name: &str, n: usize, k: usize, format: WeightFormat) -> Result<Collect> {
    let mut sink = Collect::default();
    block_on(checkpoint.matrix(name, n, k, format, &mut sink))?;
    assert_eq!(sink.rows, n);
    assert_eq!(sink.words.len(), n * format.row_words(k));
    assert_eq!(sink.scales.len(), n * format.row_scales(k));
    Ok(sink)
}

/// The matrix's weights without the padding.
fn decode(matrix: &Collect, k: usize, format: WeightFormat) -> Vec<f32> {
    let mut row = vec![0.0; k.next_multiple_of(GROUP)];
    let mut all = Vec::new();
    let (w, s) = (format.row_words(k), format.row_scales(k));
    for n in 0..matrix.rows {
        format::decode_row(format, &matrix.words[n * w..][..w], &matrix.scales[n * s..][..s], &mut row);
        assert!(row[k..].iter().all(|&pad| pad == 0.0), "padding is not zero");
        all.extend_from_slice(&row[..k]);
    }
    all
}

fn rms(values: impl ExactSizeIterator<Item = f32>) -> f64 {
    let n = values.len() as f64;
    (values.map(|v| f64::from(v).powi(2)).sum::<f64>() / n).sqrt()
}

#[test]
fn fixtures_open() {
    for (name, kv_heads, normed) in [("tiny-gqa", 2, false), ("tiny-mha", 4, false), ("tiny-lnorm", 2, true)] {
        let config = Folder::load(&format!("tests/fixtures/{name}")).config();
        assert_eq!(
            (config.hidden_size, config.layers[0].mlp.intermediate_size, config.vocab_size),
            (64, 96, 97),
            "{name}"
        );
        assert_eq!(config.layers.len(), 5);
        assert!(!config.tied_head());
        for (n, layer) in config.layers.iter().enumerate() {
            match &layer.mixer.kind {
                MixerKind::Mla(c) => {
                    assert!(n == 0 || n == 3);
                    assert_eq!((c.heads, c.kv_heads, c.q_lora_rank, c.kv_lora_rank), (4, kv_heads, Some(24), 16));
                    assert_eq!((c.qk_nope_head_dim, c.qk_rope_head_dim, c.v_head_dim), (8, 8, 16));
                    assert_eq!(c.lora_layer_norm, normed);
                    assert_eq!(c.rope.softmax_scale, 0.25);
                    assert_eq!(c.rope.attention_scale, 1.346_573_6);
                }
                MixerKind::Mamba2(c) => {
                    assert_eq!((c.heads, c.head_dim, c.d_inner, c.d_xb, c.d_conv), (4, 16, 64, 32, 4));
                    assert!(!c.repeat_kv_before_conv);
                    assert_eq!((c.in_proj_rows(), c.conv_channels()), (196, 128));
                }
                _ => panic!("no Zebra-Llama has it"),
            }
        }
        assert_eq!((config.eos_token_ids.as_slice(), config.bos_token_id), ([2].as_slice(), Some(1)));
    }
}

#[test]
fn pocket_opens() {
    let folder = Folder::load("models/zebra-pocket");
    let files = folder.memory();
    let checkpoint = block_on(Checkpoint::open(&files)).unwrap();
    let config = checkpoint.config();
    assert_eq!((config.hidden_size, config.layers.len(), config.vocab_size), (384, 8, 8192));
    assert!(config.tied_head());
    assert_eq!((config.base.layers, config.base.kv_heads, config.base.head_dim), (8, 2, 64));
    assert_eq!(config.eos_token_ids, [8187, 8191]);
    assert_eq!(checkpoint.stored(), None);
    assert_eq!(checkpoint.parameters(), 33_114_072 / 2);
    assert_eq!(checkpoint.preset(None, Preset::Q8).unwrap(), Preset::Q8);
}

#[test]
fn every_tensor_of_a_fixture_is_read_as_stored() {
    let folder = Folder::tiny();
    let files = folder.memory();
    let checkpoint = block_on(Checkpoint::open(&files)).unwrap();
    let file = &folder.0.iter().find(|(n, _)| n == "model.safetensors").unwrap().1;
    let reference = ::safetensors::SafeTensors::deserialize(file).unwrap();
    assert_eq!(checkpoint.tensors().len(), reference.len());
    for spec in checkpoint.tensors() {
        let view = reference.tensor(&spec.name).unwrap();
        assert_eq!(view.shape(), spec.shape);
        let mut values = vec![0.0; view.data().len() / 4];
        format::decode_f32(view.data(), &mut values);
        match spec.shape[..] {
            [n, k] => {
                let matrix = read_matrix(&checkpoint, &spec.name, n, k, WeightFormat::F32).unwrap();
                assert_eq!(decode(&matrix, k, WeightFormat::F32), values, "{}", spec.name);
                let sd = rms(values.iter().copied());
                for (format, tolerance) in
                    [(WeightFormat::F16, 5e-4), (WeightFormat::Q8, 0.01), (WeightFormat::Q4, 0.11)]
                {
                    let matrix = read_matrix(&checkpoint, &spec.name, n, k, format).unwrap();
                    let error = rms(decode(&matrix, k, format).iter().zip(&values).map(|(a, b)| a - b));
                    assert!(error < tolerance * sd, "{} in {format}: {error} of {sd}", spec.name);
                }
            }
            _ => assert_eq!(block_on(checkpoint.vector(&spec.name, &spec.shape)).unwrap(), values),
        }
    }
}

#[test]
fn layouts_byte_by_byte() {
    // Two rows of 33: the second group is one weight and 31 of padding.
    let mut row = vec![0.0f32; 64];
    for (i, value) in row.iter_mut().take(33).enumerate() {
        *value = i as f32 - 8.0;
    }
    let encode = |format: WeightFormat, row: &[f32]| {
        let (mut words, mut scales) = (vec![0xaa; format.row_words(33)], vec![0xaa; format.row_scales(33)]);
        format::encode_row(format, row, &mut words, &mut scales);
        (words, scales)
    };

    let (words, scales) = encode(WeightFormat::F32, &row);
    assert_eq!((words.len(), scales.len()), (256, 0));
    assert_eq!(words[4 * 9..4 * 10], 1.0f32.to_le_bytes());
    let (words, _) = encode(WeightFormat::F16, &row);
    assert_eq!(words.len(), 128);
    assert_eq!(words[2 * 9..2 * 10], [0x00, 0x3c]);

    // Extreme 127 in the first group and -127 in the second: both scales are exactly 1, codes are the values.
    (row[0], row[32]) = (127.0, -127.0);
    let (words, scales) = encode(WeightFormat::Q8, &row);
    assert_eq!(scales, [0x00, 0x3c, 0x00, 0x3c]);
    let expected: Vec<u8> = row.iter().map(|&value| value as i8 as u8).collect();
    assert_eq!(words, expected);

    // Codes -8..7 in order, twice, then a lone -8: scale 0.5 gives every weight exactly.
    let mut row: Vec<f32> = (0..64).map(|i| if i < 32 { (i % 16) as f32 * 0.5 - 4.0 } else { 0.0 }).collect();
    let (words, scales) = encode(WeightFormat::Q4, &row);
    assert_eq!(scales, [0x00, 0x38, 0x00, 0x00]);
    // Byte 4j + b: element 8j + b low, 8j + 4 + b high.
    let expected: Vec<u8> =
        (0..16u8).map(|i| ((8 * (i / 4) + i % 4) % 16) | (((8 * (i / 4) + 4 + i % 4) % 16) << 4)).collect();
    assert_eq!(expected[..5], [0x40, 0x51, 0x62, 0x73, 0xc8]);
    assert_eq!(words[..16], expected);
    // Zeros are nibble 8 with a scale of 0.
    assert_eq!(words[16..], [0x88; 16]);
    row[32] = 3.0;
    let (words, scales) = encode(WeightFormat::Q4, &row);
    let mut back = vec![0.0; 64];
    format::decode_row(WeightFormat::Q4, &words, &scales, &mut back);
    assert!((back[32] - 3.0).abs() < 3.0 / 2048.0, "{}", back[32]);
    assert_eq!((&back[..32], &back[33..]), (&row[..32], &row[33..]));
}

/// A reproducible value, spread about as trained weights are.
fn weight(i: usize) -> f32 {
    let uniform = |salt: u32| {
        let mut x = (i as u32).wrapping_mul(0x9e37_79b9) ^ salt;
        for (shift, factor) in [(16, 0x7feb_352d), (15, 0x846c_a68b)] {
            x = (x ^ x >> shift).wrapping_mul(factor);
        }
        f64::from((x ^ x >> 16) >> 8) / f64::from(1 << 24)
    };
    let (u, v) = (uniform(1), uniform(2));
    (0.02 * (-2.0 * (u + 1e-9).ln()).sqrt() * (2.0 * std::f64::consts::PI * v).cos()) as f32
}

#[test]
fn quantization_errors() {
    let (n, k) = (200, 256);
    let mut errors = [0f64; 2];
    let mut at_maximum = 0f64;
    let mut energy = 0f64;
    // An error counts by the size of its weight, as the search has it.
    let counted = |w: f32, error: f32| f64::from(w.abs()) * f64::from(error).powi(2);
    for r in 0..n {
        let row: Vec<f32> = (0..k).map(|i| weight(r * k + i)).collect();
        energy += row.iter().map(|&w| counted(w, w)).sum::<f64>();
        for (format, error) in [WeightFormat::Q8, WeightFormat::Q4].into_iter().zip(&mut errors) {
            let (mut words, mut scales) = (vec![0; format.row_words(k)], vec![0; format.row_scales(k)]);
            format::encode_row(format, &row, &mut words, &mut scales);
            let mut back = vec![0.0; k];
            format::decode_row(format, &words, &scales, &mut back);
            *error += row.iter().zip(&back).map(|(a, b)| counted(*a, a - b)).sum::<f64>();
        }
        // The simple rule, for comparison: the extreme is code -8.
        for group in row.chunks(GROUP) {
            let extreme = group.iter().copied().fold(0f32, |m, v| if v.abs() > m.abs() { v } else { m });
            let scale = extreme / -8.0;
            let rounded = group.iter().map(|&w| (w, w - (w / scale).round().clamp(-8.0, 7.0) * scale));
            at_maximum += rounded.map(|(w, error)| counted(w, error)).sum::<f64>();
        }
    }
    let [q8, q4] = errors.map(|error| (error / energy).sqrt());
    let at_maximum = (at_maximum / energy).sqrt();
    println!("relative errors: q8 {q8:.5}, q4 {q4:.5} (extreme at -8: {at_maximum:.5})");
    assert!(q8 < 0.0038, "{q8}");
    assert!(q4 < 0.0560, "{q4}");
    assert!(q4 < 0.93 * at_maximum, "{q4}: the search gains nothing over {at_maximum}");
}

#[test]
fn quantization_of_extremes() {
    // A group whose scale is a subnormal f16, one whose scale rounds to zero, one with a huge outlier.
    for (values, tolerance) in [([3e-6f32, -1e-6], 0.1), ([1e-9, -1e-9], 1.0), ([1e5, -3.0], 0.01)] {
        let mut row = [0.0f32; GROUP];
        row[..2].copy_from_slice(&values);
        for format in [WeightFormat::Q8, WeightFormat::Q4] {
            assert_eq!(format::first_unfit(format, &row), None);
            let (mut words, mut scales) = (vec![0; format.row_words(GROUP)], vec![0; format.row_scales(GROUP)]);
            format::encode_row(format, &row, &mut words, &mut scales);
            let mut back = [0.0; GROUP];
            format::decode_row(format, &words, &scales, &mut back);
            let error = row.iter().zip(&back).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(error <= values[0] * tolerance, "{format} of {values:?}: {back:?}");
        }
    }
    assert_eq!(format::first_unfit(WeightFormat::F16, &[1.0, -65505.0, 0.0]), Some(1));
    assert_eq!(format::first_unfit(WeightFormat::F32, &[1.0, f32::MAX, f32::NEG_INFINITY]), Some(2));
    assert_eq!(format::first_unfit(WeightFormat::Q4, &[1e6, f32::NAN]), Some(0));
}

#[test]
fn half_floats_decode_exactly() {
    // All 65,536 of each kind, against the half crate.
    let bytes: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
    let mut f16s = vec![0.0; 1 << 16];
    format::decode_f16(&bytes, &mut f16s);
    let mut bf16s = vec![0.0; 1 << 16];
    format::decode_bf16(&bytes, &mut bf16s);
    for bits in 0..=u16::MAX {
        let (a, b) = (half::f16::from_bits(bits).to_f32(), half::bf16::from_bits(bits).to_f32());
        let (x, y) = (f16s[bits as usize], bf16s[bits as usize]);
        assert!(x.to_bits() == a.to_bits() || x.is_nan() && a.is_nan(), "f16 {bits:#x}: {x} is not {a}");
        assert!(y.to_bits() == b.to_bits() || y.is_nan() && b.is_nan(), "bf16 {bits:#x}: {y} is not {b}");
    }
}

#[test]
fn yarn_frequencies_are_those_of_the_released_models() {
    let mut folder = Folder::tiny();
    folder.json("hybrid_config.json", |h| h["rope_scaling"]["original_max_position_embeddings"] = 8192.into());
    // The 1B's rotated width of 32, without the tensors: only the two configurations and a few shapes are read.
    folder.json("hybrid_config.json", |h| h["qk_rope_head_dim"] = 32.into());
    let shape = |name: &str| match name.rsplit('.').nth(1).unwrap() {
        "q_a_proj" => Some(vec![24, 64]),
        "kv_b_proj" => Some(vec![48, 16]),
        "conv1d" => Some(vec![128, 1, 4]),
        _ => None,
    };
    let mut file = |name: &'static str| (name, folder.bytes(name).clone());
    let files = ConfigFiles::new([file(CONFIG_FILE), file(HYBRID_CONFIG_FILE)]);
    let config = ModelConfig::parse(Family::ZebraLlama, &files, &shape).unwrap();
    let MixerKind::Mla(mla) = &config.layers[0].mixer.kind else { panic!("layer 0 is MLA") };
    let expected = [
        1.0,
        0.440366626,
        0.193922758,
        0.0853971019,
        0.0376060307,
        0.0133518558,
        0.00446675764,
        0.00134479301,
        3.18197999e-4,
        1.94616387e-5,
        8.57025589e-6,
        3.77405445e-6,
        1.66196742e-6,
        7.31874934e-7,
        3.22293289e-7,
        1.41927202e-7,
    ];
    assert_eq!(mla.rope.inv_freq.len(), expected.len());
    for (found, expected) in mla.rope.inv_freq.iter().zip(expected) {
        assert!((f64::from(*found) / expected - 1.0).abs() < 2e-7, "{found} is not {expected}");
    }
    assert!((mla.rope.attention_scale - 1.346_573_6).abs() < 1e-6);
}

#[test]
fn both_schemas_give_the_same_rope() {
    let new = Folder::tiny();
    let mut old = new.clone();
    old.json("hybrid_config.json", |h| {
        h["rope_scaling"] = json!({"factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
            "original_max_position_embeddings": 64, "rope_type": "llama3"});
        h["use_fixed_rank_for_first_and_last_block"] = true.into();
        h["layer_rank_list"] = json!({"0": {"q_rank": 1, "kv_rank": 1}});
        h["q_energy_ratio"] = Value::Null;
    });
    assert_eq!(old.config(), new.config());

    let mut plain = new.clone();
    plain.json("hybrid_config.json", |h| h["rope_scaling"] = Value::Null);
    let MixerKind::Mla(mla) = &plain.config().layers[0].mixer.kind else { panic!("layer 0 is MLA") };
    assert_eq!((mla.rope.attention_scale, mla.rope.inv_freq[0]), (1.0, 1.0));
    assert!((f64::from(mla.rope.inv_freq[1]) - 5e5f64.powf(-0.25)).abs() < 1e-8);

    let mut linear = new.clone();
    linear.json("hybrid_config.json", |h| h["rope_scaling"]["rope_type"] = "linear".into());
    assert_says(&linear.refusal(), &["hybrid_config.json", "rope_scaling.rope_type", "yarn", "linear"]);
}

#[test]
fn one_matrix_for_q_and_repeat_before_conv_and_an_absent_head() {
    let mut folder = Folder::tiny();
    folder.tensors(|list| {
        list.retain(|(name, ..)| name != "lm_head.weight" && !name.contains("layers.0.mla.q_"));
        list.push(("model.layers.0.mla.q_proj.weight".into(), Dtype::F16, vec![64, 64], vec![0; 64 * 64 * 2]));
        for (name, dtype, shape, data) in list.iter_mut() {
            if name.starts_with("model.layers.1.mamba.conv1d") {
                shape[0] = 192;
                *dtype = Dtype::BF16;
                *data = vec![0; shape.iter().product::<usize>() * 2];
            }
        }
    });
    let config = folder.config();
    assert!(config.tied_head());
    let MixerKind::Mla(mla) = &config.layers[0].mixer.kind else { panic!("layer 0 is MLA") };
    assert_eq!(mla.q_lora_rank, None);
    let forms: Vec<bool> = config
        .layers
        .iter()
        .filter_map(|layer| match &layer.mixer.kind {
            MixerKind::Mamba2(c) => Some(c.repeat_kv_before_conv),
            _ => None,
        })
        .collect();
    assert_eq!(forms, [true, false, false]);

    folder.json("config.json", |c| c["tie_word_embeddings"] = false.into());
    assert_says(&folder.refusal(), &["lm_head.weight", "tie_word_embeddings", "no such tensor"]);
}

#[test]
fn wrong_configurations_are_refused() {
    type Edit = fn(&mut Value);
    let cases: [(&str, Edit, &[&str]); 16] = [
        ("config.json", |c| c["hidden_act"] = "gelu".into(), &["config.json", "hidden_act", "silu", "gelu"]),
        ("hybrid_config.json", |c| c["hidden_act"] = "relu".into(), &["hybrid_config.json", "hidden_act", "relu"]),
        ("hybrid_config.json", |c| c["attention_bias"] = true.into(), &["attention_bias", "false", "true"]),
        ("hybrid_config.json", |c| c["linear_type"] = "gdn".into(), &["linear_type", "gdn"]),
        ("hybrid_config.json", |c| c["mla_layers"] = json!([0, 5]), &["mla_layers", "below 5", "[0,5]"]),
        ("hybrid_config.json", |c| c["mla_layers"] = json!([0, 0]), &["mla_layers", "different"]),
        ("hybrid_config.json", |c| c["mla_layers"] = "0".into(), &["mla_layers", "\"0\""]),
        ("hybrid_config.json", |c| c["n_layer"] = 6.into(), &["n_layer", "5", "6"]),
        ("hybrid_config.json", |c| c["ssm_cfg"]["d_conv"] = 3.into(), &["ssm_cfg.d_conv", "4", "3"]),
        ("hybrid_config.json", |c| c["ssm_cfg"]["d_state"] = 32.into(), &["d_inner", "4 * 32", "64"]),
        ("hybrid_config.json", |c| c["ssm_cfg"]["d_state"] = 6.into(), &["ssm_cfg.d_state", "multiple of 4", "6"]),
        ("hybrid_config.json", |c| c["d_xb"] = 24.into(), &["d_xb", "divisor", "24"]),
        ("hybrid_config.json", |c| c["qk_rope_head_dim"] = (-8).into(), &["qk_rope_head_dim", "-8"]),
        ("config.json", |c| c["vocab_size"] = 1.5.into(), &["vocab_size", "1.5"]),
        ("config.json", |c| c["eos_token_id"] = "</s>".into(), &["eos_token_id", "</s>"]),
        ("config.json", |c| c["rms_norm_eps"] = Value::Null, &["rms_norm_eps", "no such key"]),
    ];
    for (file, edit, says) in cases {
        let mut folder = Folder::tiny();
        folder.json(file, edit);
        assert_says(&folder.refusal(), says);
    }
    let mut folder = Folder::tiny();
    *folder.bytes("hybrid_config.json") = b"{\"hidden_size\": 64,".to_vec();
    assert_says(&folder.refusal(), &["hybrid_config.json", "invalid JSON"]);
    *folder.bytes("hybrid_config.json") = b"[]".to_vec();
    assert_says(&folder.refusal(), &["hybrid_config.json", "a JSON object", "[]"]);
}

#[test]
fn a_llamba_opens_with_its_padding() {
    let mut folder = Folder::load("tests/fixtures/tiny-llamba");
    let config = folder.config();
    assert_eq!((config.family, config.vocab_size, config.vocab_rows), (Family::Llamba, 97, 104));
    assert_eq!((config.layers.len(), config.final_norm.eps, config.layers[1].input_norm.eps), (2, 1e-5, 1e-5));
    let MixerKind::DiscreteMamba2(m) = &config.layers[1].mixer.kind else { panic!("all are discrete Mamba2") };
    assert_eq!((m.heads, m.head_dim, m.groups, m.d_state, m.in_proj_rows()), (4, 16, 4, 8, 196));
    folder.json("config.json", |c| c["norm_epsilon"] = 1e-6.into());
    let config = folder.config();
    assert_eq!((config.final_norm.eps, config.layers[0].post_norm.eps), (1e-6, 1e-5));
    // Both matrices of the vocabulary keep q8 where the others are q4.
    let q4 = quantized(&folder, Preset::Q4);
    let files = q4.memory();
    let checkpoint = block_on(Checkpoint::open(&files)).unwrap();
    for name in ["backbone.embedding.weight", "lm_head.weight"] {
        assert!(read_matrix(&checkpoint, name, 104, 64, WeightFormat::Q8).is_ok(), "{name}");
    }
}

#[test]
fn wrong_llambas_are_refused() {
    type Edit = fn(&mut Value);
    let cases: [(Edit, &[&str]); 17] = [
        (|c| c["ssm_cfg"]["activation"] = "silu".into(), &["ssm_cfg.activation", "identity", "silu"]),
        (|c| c["ssm_cfg"]["bias"] = true.into(), &["ssm_cfg.bias", "false", "true"]),
        (|c| c["ssm_cfg"]["conv_bias"] = false.into(), &["ssm_cfg.conv_bias", "true", "false"]),
        (|c| c["ssm_cfg"]["d_conv"] = 3.into(), &["ssm_cfg.d_conv", "4", "3"]),
        (|c| c["ssm_cfg"]["d_state"] = 132.into(), &["ssm_cfg.d_state", "at most 128", "132"]),
        (|c| c["ssm_cfg"]["d_state"] = 6.into(), &["ssm_cfg.d_state", "multiple of 4", "6"]),
        (|c| c["ssm_cfg"]["n_v_heads"] = 3.into(), &["ssm_cfg.n_v_heads", "64", "3"]),
        (|c| c["ssm_cfg"]["n_v_heads"] = 32.into(), &["ssm_cfg.n_v_heads", "multiple of 4", "32"]),
        (|c| c["ssm_cfg"]["n_v_heads"] = 128.into(), &["ssm_cfg.n_v_heads", "64", "128"]),
        (|c| c["ssm_cfg"]["n_qk_heads"] = 3.into(), &["ssm_cfg.n_qk_heads", "divisor", "4", "3"]),
        (|c| c["ssm_cfg"]["expand"] = Value::Null, &["ssm_cfg.expand", "no such key"]),
        (|c| c["ssm_cfg"] = Value::Null, &["ssm_cfg", "no such key"]),
        (|c| c["mlp_cfg"]["bias"] = true.into(), &["mlp_cfg.bias", "false", "true"]),
        (|c| c["mlp_cfg"]["act_fn"] = "gelu".into(), &["mlp_cfg.act_fn", "silu", "gelu"]),
        (|c| c["lm_head_bias"] = true.into(), &["lm_head_bias", "false", "true"]),
        (|c| c["norm_epsilon"] = Value::Null, &["norm_epsilon", "no such key"]),
        (|c| c["vocab_size"] = 105.into(), &["backbone.embedding.weight", "[112, 64]", "[104, 64]"]),
    ];
    for (edit, says) in cases {
        let mut folder = Folder::load("tests/fixtures/tiny-llamba");
        folder.json("config.json", edit);
        assert_says(&folder.refusal(), says);
    }
    let mut folder = Folder::load("tests/fixtures/tiny-llamba");
    folder.tensors(|list| list.retain(|t| t.0 != "lm_head.weight"));
    assert_says(&folder.refusal(), &["lm_head.weight", "tie_embeddings is false", "no such tensor"]);
    folder.json("config.json", |c| c["tie_embeddings"] = true.into());
    assert!(folder.config().tied_head());
    folder.tensors(|list| list.retain(|t| !t.0.ends_with("1.mixer.z_bias")));
    assert_says(&folder.refusal(), &["backbone.layers.1.mixer.z_bias", "[64]", "no such tensor"]);
}

#[test]
fn other_models_are_named() {
    let only = |files: &[(&str, &str)]| {
        Folder(files.iter().map(|(name, text)| (name.to_string(), text.as_bytes().to_vec())).collect()).refusal()
    };
    let llama = r#"{"architectures": ["LlamaForCausalLM"], "model_type": "llama"}"#;
    let mistral = r#"{"architectures": ["MistralForCausalLM"], "model_type": "mistral"}"#;
    let supported = "supported: safetensors checkpoints of Zebra-Llama";
    assert_says(&only(&[]), &["no config.json", supported]);
    assert_says(&only(&[("model.Q4_0.gguf", "")]), &["model.Q4_0.gguf is a GGUF", supported]);
    assert_says(&only(&[("config.json", mistral)]), &["MistralForCausalLM", "\"mistral\"", supported]);
    assert_says(
        &only(&[("config.json", llama), ("MLA_config.json", "{}"), ("hybrid_config.json", "{}")]),
        &["different families", "hybrid_config.json, MLA_config.json"],
    );
    assert_says(
        &only(&[("config.json", llama), ("mla_layer_config.json", "{}")]),
        &["mla_layer_config.json is there without MLA_config.json"],
    );
    assert_says(&only(&[("config.json", "{}")]), &["without model_type"]);
    assert_says(&only(&[("config.json", "{")]), &["not a JSON object"]);

    let mut folder = Folder::tiny();
    folder.remove("model.safetensors");
    folder.0.retain(|(name, _)| !name.ends_with(".safetensors"));
    assert_says(&folder.refusal(), &["neither model.safetensors nor model.safetensors.index.json"]);
    folder.0.push(("pytorch_model.bin".into(), Vec::new()));
    assert_says(&folder.refusal(), &["pytorch_model.bin", "not supported"]);

    let mut folder = Folder::tiny();
    folder.tensors(|list| {
        for (name, ..) in list {
            *name = name.replace("layers.1.mamba.", "layers.1.gdn.");
        }
    });
    assert_says(
        &folder.refusal(),
        &["model.layers.1.mamba.conv1d.weight is missing", "another kind, model.layers.1.gdn"],
    );
}

#[test]
fn other_families_are_told_by_their_files() {
    let family = |name: &str| Folder::load(&format!("tests/fixtures/{name}")).config();
    for (name, expected, mixers) in [
        ("tiny-gqa", Family::ZebraLlama, "mla mamba2 mamba2 mla mamba2"),
        ("tiny-xecomla-dynamic", Family::XEcoMla, "mla mla mla"),
        ("tiny-mambainllama", Family::MambaInLlama, "mamba2 attention mamba2 attention"),
        ("tiny-llama", Family::Llama, "attention attention attention"),
    ] {
        let config = family(name);
        let found: Vec<&str> = config.layers.iter().map(|layer| layer.mixer.name()).collect();
        assert_eq!((config.family, &*found.join(" ")), (expected, mixers), "{name}");
    }
    let dynamic = family("tiny-xecomla-dynamic");
    let ranks = |layer: usize| match &dynamic.layers[layer].mixer.kind {
        MixerKind::Mla(c) => (c.q_lora_rank, c.kv_lora_rank),
        _ => panic!("MLA"),
    };
    assert_eq!([ranks(0), ranks(1), ranks(2)], [(Some(32), 24), (Some(16), 8), (Some(24), 16)]);
    let llama = family("tiny-llama");
    assert_eq!((llama.cache_elements(), llama.base_cache_elements()), (192, 192));
}

#[test]
fn what_other_families_cannot_be_is_refused() {
    type Edit = fn(&mut Value);
    let cases: [(&str, &str, Edit, &[&str]); 9] = [
        ("tiny-llama", "config.json", |c| c["attention_bias"] = true.into(), &["attention_bias", "false"]),
        ("tiny-llama", "config.json", |c| c["hidden_act"] = "gelu".into(), &["hidden_act", "silu", "gelu"]),
        (
            "tiny-llama",
            "config.json",
            |c| c["num_key_value_heads"] = 3.into(),
            &["num_key_value_heads", "divisor", "3"],
        ),
        (
            "tiny-llama",
            "config.json",
            |c| c["rope_scaling"]["rope_type"] = "longrope".into(),
            &["rope_scaling.rope_type", "llama3", "longrope"],
        ),
        (
            "tiny-llama",
            "config.json",
            |c| c["rope_scaling"]["low_freq_factor"] = 8.into(),
            &["rope_scaling.low_freq_factor", "less than", "8"],
        ),
        ("tiny-mambainllama", "mamba_config.json", |c| c["n_layer"] = 5.into(), &["mamba_config.json", "n_layer", "5"]),
        (
            "tiny-mambainllama",
            "mamba_config.json",
            |c| c["attn_layers"] = json!([1]),
            &["attn_layers", "a list with 3", "layers.3.self_attn"],
        ),
        ("tiny-xecomla-fixed", "MLA_config.json", |c| c["attn_layers"] = json!([9]), &["attn_layers", "below 3"]),
        (
            "tiny-xecomla-fixed",
            "mla_layer_config.json",
            |c| c["qk_rope_head_dim"] = 7.into(),
            &["mla_layer_config.json", "qk_rope_head_dim", "even"],
        ),
    ];
    for (fixture, file, edit, says) in cases {
        let mut folder = Folder::load(&format!("tests/fixtures/{fixture}"));
        folder.json(file, edit);
        assert_says(&folder.refusal(), says);
    }
    // What Qwen has and Llama has not.
    let mut folder = Folder::load("tests/fixtures/tiny-llama");
    folder.tensors(|list| {
        list.push(("model.layers.0.self_attn.q_norm.weight".into(), Dtype::F32, vec![16], vec![0; 64]));
    });
    assert_says(&folder.refusal(), &["model.layers.0.self_attn.q_norm.weight", "belongs to none"]);
}

#[test]
fn lying_headers_are_refused() {
    const FILE: &str = "model.safetensors";
    const Q: &str = "model.layers.0.mla.q_a_proj.weight";
    let spoilt = |edit: &dyn Fn(&mut Vec<u8>)| {
        let mut folder = Folder::tiny();
        edit(folder.bytes(FILE));
        folder.refusal()
    };
    let length = |bytes: &[u8]| u64::from_le_bytes(bytes[..8].try_into().unwrap());
    assert_says(&spoilt(&|b| b.truncate(5)), &[FILE, "truncated", "has 5"]);
    assert_says(&spoilt(&|b| b.truncate(100)), &[FILE, "the header claims", "the file has 100"]);
    assert_says(&spoilt(&|b| b.truncate(b.len() - 1)), &[FILE, "truncated"]);
    assert_says(&spoilt(&|b| b.push(0)), &[FILE, "belong to no tensor"]);
    assert_says(&spoilt(&|b| b[..8].copy_from_slice(&u64::MAX.to_le_bytes())), &[FILE, "the header claims"]);
    let shorter = |b: &mut Vec<u8>| {
        let n = length(b) - 16; // beyond the padding of spaces
        b[..8].copy_from_slice(&n.to_le_bytes());
    };
    assert_says(&spoilt(&shorter), &[FILE, "header:"]);
    assert_says(&spoilt(&|b| b[..4].copy_from_slice(b"GGUF")), &[FILE, "GGUF"]);
    assert_says(&spoilt(&|b| b[8] = 0xff), &[FILE, "header:"]);

    let lying = |edit: &dyn Fn(&mut Value)| {
        let mut folder = Folder::tiny();
        folder.header(FILE, edit);
        folder.refusal()
    };
    let offsets = |header: &Value| {
        header[Q]["data_offsets"].as_array().unwrap().iter().map(|v| v.as_u64().unwrap()).collect::<Vec<_>>()
    };
    assert_says(&lying(&|h| h[Q]["shape"] = json!([24, 65])), &[Q, "[24, 65]", "does not take"]);
    assert_says(&lying(&|h| h[Q]["shape"] = json!([u64::MAX, 2])), &[Q, "does not take"]);
    assert_says(&lying(&|h| h[Q]["dtype"] = "F99".into()), &[FILE, "F99"]);
    assert_says(&lying(&|h| h[Q]["data_offsets"] = json!([8, 0])), &[Q, "does not take"]);
    assert_says(&lying(&|h| h[Q]["data_offsets"] = json!([-4, 0])), &[FILE, "header:"]);
    let shift = |h: &mut Value, by: i64| {
        let o = offsets(h);
        h[Q]["data_offsets"] = json!([o[0] as i64 + by, o[1] as i64 + by]);
    };
    assert_says(&lying(&|h| shift(h, -4)), &["overlaps"]);
    assert_says(&lying(&|h| shift(h, 4)), &[Q, "gap"]);
    assert_says(&lying(&|h| shift(h, 1 << 40)), &["gap"]);
    let huge = |h: &mut Value| h[Q]["data_offsets"] = json!([u64::MAX - 24 * 64 * 4, u64::MAX]);
    assert_says(&lying(&huge), &["gap"]);

    let mut folder = Folder::tiny();
    let entry = r#""a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}"#;
    *folder.bytes(FILE) = with_header(&format!("{{{entry},{entry}}}"), &[0]);
    assert_says(&folder.refusal(), &["\"a\" is named twice"]);
}

#[test]
fn wrong_tensors_are_refused() {
    const Q: &str = "model.layers.0.mla.q_a_proj.weight";
    const UP: &str = "model.layers.2.mlp.up_proj.weight";
    let edited = |edit: fn(&mut Tensors)| {
        let mut folder = Folder::tiny();
        folder.tensors(edit);
        folder.refusal()
    };
    assert_says(&edited(|list| list.retain(|t| t.0 != UP)), &[UP, "[96, 64]", "no such tensor"]);
    assert_says(&edited(|list| list.retain(|t| t.0 != Q)), &[Q, "q rank", "no such tensor"]);
    let reshape = |list: &mut Tensors| {
        list.iter_mut().find(|t| t.0 == UP).unwrap().2 = vec![64, 96];
    };
    assert_says(&edited(reshape), &[UP, "[96, 64]", "[64, 96]"]);
    let deepen = |list: &mut Tensors| {
        list.iter_mut().find(|t| t.0 == UP).unwrap().2 = vec![96, 64, 1];
    };
    assert_says(&edited(deepen), &[UP, "[96, 64]", "[96, 64, 1]"]);
    let retype = |list: &mut Tensors| {
        list.iter_mut().find(|t| t.0 == UP).unwrap().1 = Dtype::I32;
    };
    assert_says(&edited(retype), &[UP, "F32, BF16 or F16", "I32"]);
    let add = |list: &mut Tensors| {
        list.push(("model.layers.7.mlp.up_proj.weight".into(), Dtype::F32, vec![1], vec![0; 4]));
    };
    assert_says(&edited(add), &["model.layers.7.mlp.up_proj.weight", "5 layers"]);
    let kv = |list: &mut Tensors| {
        let tensor = list.iter_mut().find(|t| t.0 == "model.layers.0.mla.kv_b_proj.weight").unwrap();
        tensor.2 = vec![72, 16];
        tensor.3 = vec![0; 72 * 16 * 4];
    };
    assert_says(&edited(kv), &["kv_b_proj", "kv heads", "[72, 16]"]);
}

#[test]
fn mambainllama_layers_are_what_their_tensors_say() {
    let mamba1 = || Folder::load("tests/fixtures/tiny-mambainllama-mamba1");
    let mut folder = mamba1();
    let config = folder.config();
    let kinds: Vec<&str> = config.layers.iter().map(|layer| layer.mixer.name()).collect();
    assert_eq!(kinds, ["mamba1", "attention", "mamba1"]);
    let MixerKind::Mamba1(sizes) = &config.layers[0].mixer.kind else { panic!("layer 0 is Mamba1") };
    assert_eq!((sizes.d_inner, sizes.d_xb, sizes.dt_rank), (128, 64, 4));
    // As released files have it: null, for expand times the width, which is 64 here and needs expand 2.
    folder.json("mamba_config.json", |c| c["d_inner"] = Value::Null);
    assert_says(&folder.refusal(), &["model.layers.0.mamba.in_proj_z.weight", "[64, 64]", "[128, 64]"]);
    folder.json("mamba_config.json", |c| c["ssm_cfg"]["expand"] = 2.into());
    assert_eq!(folder.config(), config);
    folder.json("mamba_config.json", |c| c["ssm_cfg"]["dt_rank"] = "auto".into());
    assert_eq!(folder.config(), config);
    assert_eq!(quantized(&folder, Preset::Q4).config(), config);

    type Edit = fn(&mut Value);
    let cases: [(&str, Edit, &[&str]); 11] = [
        ("config.json", |c| c["model_type"] = "mistral".into(), &["config.json", "model_type", "llama", "mistral"]),
        ("mamba_config.json", |c| c["attn_layers"] = json!([1, 2]), &["attn_layers", "without 2", "layers.2.mamba"]),
        ("mamba_config.json", |c| c["attn_layers"] = json!([]), &["attn_layers", "with 1", "layers.1.self_attn"]),
        ("mamba_config.json", |c| c["ssm_cfg"]["ngroups"] = 4.into(), &["ssm_cfg.ngroups", "Mamba1", "4"]),
        ("mamba_config.json", |c| c["ssm_cfg"]["d_state"] = 32.into(), &["ssm_cfg.d_state", "16", "32"]),
        ("mamba_config.json", |c| c["ssm_cfg"]["d_conv"] = 3.into(), &["ssm_cfg.d_conv", "4", "3"]),
        ("mamba_config.json", |c| c["ssm_cfg"]["dt_rank"] = 8.into(), &["layers.0.mamba.dt_proj_down", "[8, 64]"]),
        ("mamba_config.json", |c| c["ssm_cfg"]["repeat_kv_before_conv"] = false.into(), &["repeat_kv_before_conv"]),
        ("mamba_config.json", |c| c["d_xb"] = 40.into(), &["d_xb", "divisor of d_inner (128)", "40"]),
        ("mamba_config.json", |c| c["d_xb"] = 8.into(), &["d_xb", "multiple of d_state (16)", "8"]),
        ("mamba_config.json", |c| c["d_inner"] = 120.into(), &["d_inner", "multiple of d_state (16)", "120"]),
    ];
    for (file, edit, says) in cases {
        let mut folder = mamba1();
        folder.json(file, edit);
        assert_says(&folder.refusal(), says);
    }

    const BIAS: &str = "model.layers.2.mamba.dt_proj.bias";
    let mut folder = mamba1();
    folder.tensors(|list| list.retain(|t| t.0 != BIAS));
    assert_says(&folder.refusal(), &[BIAS, "[128]", "no such tensor"]);
    let mut folder = mamba1();
    folder.tensors(|list| {
        list.retain(|t| t.0 != "model.layers.2.mamba.in_proj_x.weight");
        list.push(("model.layers.2.mamba.in_proj.weight".into(), Dtype::F16, vec![8, 64], vec![0; 2 * 8 * 64]));
    });
    assert_says(&folder.refusal(), &["model.layers.2.mamba.in_proj.weight", "mamba1, as layer 0 is", "mamba2"]);
    let mut folder = Folder::load("tests/fixtures/tiny-mambainllama");
    assert!(matches!(folder.config().layers[0].mixer.kind, MixerKind::Mamba2(_)));
    folder.json("mamba_config.json", |c| c["attn_layers"] = json!([3]));
    assert_says(&folder.refusal(), &["attn_layers", "with 1", "model.layers.1.self_attn.q_proj.weight"]);
}

#[test]
fn shards_must_be_what_the_index_says() {
    const INDEX: &str = "model.safetensors.index.json";
    let mut folder = Folder::load("models/zebra-pocket");
    folder.remove("model-00002-of-00003.safetensors");
    assert_says(&folder.refusal(), &["model-00002-of-00003.safetensors", "no such file", INDEX]);

    let mut folder = Folder::load("models/zebra-pocket");
    folder.bytes("model-00002-of-00003.safetensors").truncate(1_000_000);
    assert_says(&folder.refusal(), &["model-00002-of-00003.safetensors", "truncated"]);

    let mut folder = Folder::load("models/zebra-pocket");
    let (first, third) = ("model-00001-of-00003.safetensors", "model-00003-of-00003.safetensors");
    folder.json(INDEX, |index| index["weight_map"]["model.embed_tokens.weight"] = third.into());
    assert_says(&folder.refusal(), &["model.embed_tokens.weight", third, first]);
    folder.json(INDEX, |index| index["weight_map"]["model.embed_tokens.weight"] = "../other.safetensors".into());
    assert_says(&folder.refusal(), &[INDEX, "../other.safetensors"]);
    folder.json(INDEX, |index| index["weight_map"] = 3.into());
    assert_says(&folder.refusal(), &[INDEX, "weight_map"]);

    let mut folder = Folder::load("models/zebra-pocket");
    let copy = folder.bytes(third).clone();
    folder.0.push(("copy.safetensors".into(), copy));
    folder.json(INDEX, |index| index["weight_map"]["another"] = "copy.safetensors".into());
    assert_says(&folder.refusal(), &["is stored twice"]);
}

#[test]
fn values_that_are_not_finite_are_refused_with_their_place() {
    let mut folder = Folder::tiny();
    folder.tensors(|list| {
        for (name, _, _, data) in list {
            match name.as_str() {
                "lm_head.weight" => data[4 * (3 * 64 + 5)..][..4].copy_from_slice(&f32::NAN.to_le_bytes()),
                "model.norm.weight" => data[4 * 7..][..4].copy_from_slice(&f32::NEG_INFINITY.to_le_bytes()),
                "model.embed_tokens.weight" => data[..4].copy_from_slice(&1e6f32.to_le_bytes()),
                _ => {}
            }
        }
    });
    let files = folder.memory();
    let checkpoint = block_on(Checkpoint::open(&files)).unwrap();
    let refused = |name: &str, format| match read_matrix(&checkpoint, name, 97, 64, format) {
        Ok(_) => panic!("{name} was read in {format}"),
        Err(error) => error.to_string(),
    };
    for format in WeightFormat::ALL {
        assert_says(&refused("lm_head.weight", format), &["lm_head.weight", "finite", "NaN at [3, 5]"]);
    }
    assert_says(&refused("model.embed_tokens.weight", WeightFormat::F16), &["f16 can hold", "1000000 at [0, 0]"]);
    assert!(read_matrix(&checkpoint, "model.embed_tokens.weight", 97, 64, WeightFormat::Q8).is_ok());
    let error = block_on(checkpoint.vector("model.norm.weight", &[64])).unwrap_err().to_string();
    assert_says(&error, &["model.norm.weight", "finite", "-inf at [7]"]);
    let error = block_on(checkpoint.vector("model.norm.weight", &[65])).unwrap_err().to_string();
    assert_says(&error, &["model.norm.weight", "[65]", "[64]"]);
}

#[test]
fn a_large_matrix_comes_in_chunks() {
    // 97 rows become 40,000 in one tensor of 10 MB: more than a chunk.
    let mut folder = Folder::tiny();
    folder.json("config.json", |c| c["vocab_size"] = 40_000.into());
    folder.tensors(|list| {
        for (name, _, shape, data) in list {
            if name == "lm_head.weight" || name == "model.embed_tokens.weight" {
                *shape = vec![40_000, 64];
                *data = (0..40_000 * 64).flat_map(|i| weight(i).to_le_bytes()).collect();
            }
        }
    });
    let files = folder.memory();
    let checkpoint = block_on(Checkpoint::open(&files)).unwrap();
    let matrix = read_matrix(&checkpoint, "lm_head.weight", 40_000, 64, WeightFormat::F32).unwrap();
    assert_eq!(matrix.chunks, 2);
    assert!(decode(&matrix, 64, WeightFormat::F32).into_iter().enumerate().all(|(i, w)| w == weight(i)));
}

/// Files written in pieces, to memory.
#[derive(Default)]
struct Written(Vec<(String, Vec<u8>)>);

impl ShardSink for Written {
    fn write<'a>(&'a mut self, file: &'a str, offset: u64, bytes: &'a [u8]) -> LocalBoxFuture<'a, Result<()>> {
        let at = match self.0.iter().position(|(name, _)| name == file) {
            Some(at) => at,
            None => {
                self.0.push((file.to_string(), Vec::new()));
                self.0.len() - 1
            }
        };
        let whole = &mut self.0[at].1;
        let (start, end) = (offset as usize, offset as usize + bytes.len());
        whole.resize(whole.len().max(end), 0xee);
        whole[start..end].copy_from_slice(bytes);
        async { Ok(()) }.boxed_local()
    }
}

/// A folder's tensors stored again in a preset, its other files kept.
fn quantized(folder: &Folder, preset: Preset) -> Folder {
    let files = folder.memory();
    let checkpoint = block_on(Checkpoint::open(&files)).unwrap();
    let mut written = Written::default();
    let mut steps = Vec::new();
    block_on(quantize(&files, preset, &mut written, &mut |done, total| steps.push((done, total)))).unwrap();
    assert!(steps.is_sorted() && steps.last() == Some(&(checkpoint.parameters(), checkpoint.parameters())));
    Folder(written.0)
}

#[test]
fn quantized_folders_hold_what_quantizing_at_load_gives() {
    for (path, presets) in
        [("tests/fixtures/tiny-lnorm", Preset::ALL.as_slice()), ("models/zebra-pocket", &[Preset::Q4])]
    {
        let plain = Folder::load(path);
        let plain_files = plain.memory();
        let from_plain = block_on(Checkpoint::open(&plain_files)).unwrap();
        for &preset in presets {
            let folder = quantized(&plain, preset);
            let files = folder.memory();
            let stored = block_on(Checkpoint::open(&files)).unwrap();
            assert_eq!((stored.stored(), stored.config()), (Some(preset), from_plain.config()));
            assert_eq!(stored.parameters(), from_plain.parameters());
            assert_eq!(stored.preset(None, Preset::F32).unwrap(), preset);
            for spec in stored.tensors() {
                if let [n, k] = spec.shape[..] {
                    let format = preset.format_of(&spec.name);
                    let a = read_matrix(&stored, &spec.name, n, k, format).unwrap();
                    let b = read_matrix(&from_plain, &spec.name, n, k, format).unwrap();
                    assert!(a.words == b.words && a.scales == b.scales, "{} in {preset}", spec.name);
                } else {
                    let a = block_on(stored.vector(&spec.name, &spec.shape)).unwrap();
                    assert_eq!(a, block_on(from_plain.vector(&spec.name, &spec.shape)).unwrap());
                }
            }
            // The safetensors crate, which checks what any tool would, reads the file too.
            let bytes = &folder.0.iter().find(|(name, _)| name == "model.safetensors").unwrap().1;
            let parsed = ::safetensors::SafeTensors::deserialize(bytes).unwrap();
            let (_, metadata) = ::safetensors::SafeTensors::read_metadata(bytes).unwrap();
            let metadata = metadata.metadata().as_ref().unwrap();
            assert_eq!((metadata["format"].as_str(), metadata["zebra.version"].as_str()), ("pt", "1"));
            assert_eq!(metadata["zebra.preset"], preset.name());
            let tensors: Value = serde_json::from_str(&metadata["zebra.tensors"]).unwrap();
            if path.ends_with("tiny-lnorm") && preset == Preset::Q4 {
                assert_eq!(tensors["lm_head.weight"], json!({"format": "q8", "shape": [97, 64]}));
                assert_eq!(tensors["model.layers.0.mla.out_proj.weight"]["format"], "q4");
                let codes = parsed.tensor("model.layers.0.mla.q_b_proj.weight").unwrap();
                assert_eq!((codes.dtype(), codes.shape()), (Dtype::I8, [64, 32].as_slice()));
                let codes = parsed.tensor("model.layers.0.mlp.down_proj.weight").unwrap();
                assert_eq!((codes.dtype(), codes.shape()), (Dtype::U8, [64, 48].as_slice()));
                let scales = parsed.tensor("model.layers.0.mlp.down_proj.weight_scale").unwrap();
                assert_eq!((scales.dtype(), scales.shape()), (Dtype::F16, [64, 3].as_slice()));
                let conv = parsed.tensor("model.layers.1.mamba.conv1d.weight").unwrap();
                assert_eq!((conv.dtype(), conv.shape()), (Dtype::F32, [128, 1, 4].as_slice()));
            }
        }
    }
}

#[test]
fn quantized_folders_run_in_their_format_only() {
    let q4 = quantized(&Folder::tiny(), Preset::Q4);
    let files = q4.memory();
    let checkpoint = block_on(Checkpoint::open(&files)).unwrap();
    assert_says(&checkpoint.preset(Some(Preset::Q8), Preset::Q8).unwrap_err().to_string(), &["format", "q4", "q8"]);
    let Err(error) = read_matrix(&checkpoint, "lm_head.weight", 97, 64, WeightFormat::F16) else {
        panic!("q8 codes were read as f16")
    };
    assert!(matches!(error, Error::Option { .. }));
    assert_says(&error.to_string(), &["format", "q8", "lm_head.weight", "f16"]);
    assert!(block_on(quantize(&files, Preset::Q8, &mut Written::default(), &mut |_, _| {})).is_err());

    // f16 loses nothing that matters: it may be quantized further.
    let f16 = quantized(&Folder::tiny(), Preset::F16);
    assert_eq!(quantized(&f16, Preset::Q8).config(), q4.config());
}

#[test]
fn spoilt_quantized_folders_are_refused() {
    const FILE: &str = "model.safetensors";
    const UP: &str = "model.layers.2.mlp.up_proj.weight";
    let q4 = quantized(&Folder::tiny(), Preset::Q4);

    let mut folder = q4.clone();
    let files = folder.memory();
    let layout_of = block_on(Checkpoint::open(&files)).unwrap();
    let layout = ShardLayout::new(layout_of.tensors(), Storage::Preset(Preset::Q4), ShardLayout::SHARD_BYTES);
    let place = layout.place(&scale_name(UP)).unwrap();
    // Row 5, group 1 of 2.
    folder.bytes(FILE)[place.offset as usize + 2 * (5 * 2 + 1)..][..2].copy_from_slice(&[0x00, 0x7c]);
    let files = folder.memory();
    let checkpoint = block_on(Checkpoint::open(&files)).unwrap();
    let Err(error) = read_matrix(&checkpoint, UP, 96, 64, WeightFormat::Q4) else {
        panic!("an infinite scale was read")
    };
    assert_says(&error.to_string(), &["up_proj.weight_scale", "inf at [5, 1]"]);

    let edited = |edit: &dyn Fn(&mut Value)| {
        let mut folder = q4.clone();
        folder.header(FILE, |header| edit(&mut header["__metadata__"]));
        folder.refusal()
    };
    assert_says(&edited(&|m| m["zebra.version"] = "2".into()), &["zebra.version", "\"2\"", "\"1\""]);
    assert_says(&edited(&|m| m["zebra.preset"] = "q3".into()), &["zebra.preset", "q3"]);
    assert_says(&edited(&|m| m["zebra.preset"] = "q8".into()), &["q8 in a folder of preset q8", "q4"]);
    assert_says(&edited(&|m| m["zebra.tensors"] = "[".into()), &["zebra.tensors"]);
    let unlisted = edited(&|m| m["zebra.tensors"] = "{}".into());
    assert_says(&unlisted, &["tensor"]);
    let other_shape = |m: &mut Value| {
        m["zebra.tensors"] = json!({UP: {"format": "q4", "shape": [96, 96]}}).to_string().into();
    };
    assert_says(&edited(&other_shape), &[UP, "U8 [96, 48]", "U8 [96, 32]"]);
    let missing = edited(&|m| {
        m.as_object_mut().unwrap().remove("zebra.version");
    });
    assert_says(&missing, &["zebra.version", "zebra.preset"]);
}

#[test]
fn shards_are_cut_and_indexed() {
    let folder = Folder::tiny();
    let files = folder.memory();
    let checkpoint = block_on(Checkpoint::open(&files)).unwrap();
    // Limits below a header's room put every tensor into a shard of its own.
    for (limit, count) in [(u64::MAX, 1), (0, checkpoint.tensors().len()), ((1 << 20) + 300_000, 3)] {
        let layout = ShardLayout::new(checkpoint.tensors(), Storage::Plain(Dtype::F32), limit);
        assert_eq!(layout.shards().len(), count, "limit {limit}");
        let mut written = Written::default();
        block_on(layout.write_heads(&mut written)).unwrap();
        for spec in checkpoint.tensors() {
            let place = layout.place(&spec.name).unwrap();
            assert_eq!((place.bytes, place.offset % 4), (spec.elements() * 4, 0));
            block_on(written.write(place.file, place.offset, &vec![0; place.bytes as usize])).unwrap();
        }
        let others = folder.0.iter().filter(|(name, _)| name.ends_with("config.json")).cloned();
        let copy = Folder(written.0.into_iter().chain(others).collect());
        assert_eq!(copy.config(), *checkpoint.config());
        let bytes: usize = copy.0.iter().filter(|(n, _)| n.ends_with(".safetensors")).map(|(_, b)| b.len()).sum();
        assert_eq!(bytes as u64, layout.bytes());
    }
}

const MINITRON: &str = "tests/fixtures/tiny-minitron";

#[test]
fn a_minitron_opens_in_every_form_of_its_configuration() {
    let folder = Folder::load(MINITRON);
    let config = folder.config();
    let MixerKind::Attention(attention) = &config.layers[2].mixer.kind else { panic!("all layers are attention") };
    assert_eq!((attention.heads, attention.kv_heads, attention.head_dim, attention.rotary), (6, 2, 16, 8));
    assert_eq!((config.family, config.tied_head()), (Family::Minitron, false));
    assert_eq!((config.layers[0].mlp.kind, config.layers[0].mlp.intermediate_size), (MlpKind::Relu2, 96));
    assert_eq!(config.final_norm.eps, 0.01);
    assert_eq!(config.final_norm.kind, NormKind::Layer { bias: "model.norm.bias".into() });
    assert!(config.tensors().iter().all(|t| !t.name.contains("gate_proj")));

    // Heads are wider together than the residual stream: without head_dim, q_proj says how wide.
    let mut other = folder.clone();
    other.json("config.json", |c| {
        c["head_dim"] = Value::Null;
        c["hidden_act"] = Value::Null;
        c["partial_rotary_factor"] = Value::Null;
        c["rope_theta"] = Value::Null;
        c["rope_percent"] = 0.5.into();
        c["tie_word_embeddings"] = Value::Null;
    });
    assert_eq!(other.config(), config);
    other.json("config.json", |c| {
        c["rope_percent"] = Value::Null;
        c["rope_parameters"] = json!({"partial_rotary_factor": 0.25, "rope_theta": 20_000.0, "rope_type": "default"});
    });
    let MixerKind::Attention(newer) = &other.config().layers[0].mixer.kind.clone() else { panic!("attention") };
    assert_eq!((newer.rotary, newer.rope.inv_freq.len()), (4, 2));
    assert!((f64::from(newer.rope.inv_freq[1]) - 20_000f64.powf(-0.5)).abs() < 1e-8);
    assert_eq!(newer.rope.softmax_scale, 0.25, "of the whole head");
}

#[test]
fn what_no_minitron_has_is_refused() {
    type Edit = fn(&mut Value);
    let cases: [(Edit, &[&str]); 8] = [
        (|c| c["hidden_act"] = "silu".into(), &["config.json", "hidden_act", "relu2", "silu"]),
        (|c| c["attention_bias"] = true.into(), &["config.json", "attention_bias", "false", "true"]),
        (|c| c["mlp_bias"] = true.into(), &["config.json", "mlp_bias", "false", "true"]),
        (|c| c["norm_eps"] = 0.into(), &["config.json", "norm_eps", "above 0"]),
        (|c| c["partial_rotary_factor"] = 1.5.into(), &["partial_rotary_factor", "an even part of the 16", "1.5"]),
        (|c| c["partial_rotary_factor"] = 0.2.into(), &["partial_rotary_factor", "an even part of the 16", "0.2"]),
        (|c| c["num_attention_heads"] = 3.into(), &["num_key_value_heads", "a divisor of the 3 query heads", "2"]),
        (
            |c| {
                (c["head_dim"], c["num_attention_heads"]) = (Value::Null, 10.into());
            },
            &["model.layers.0.self_attn.q_proj.weight", "10 heads", "num_attention_heads", "96 rows"],
        ),
    ];
    for (edit, says) in cases {
        let mut folder = Folder::load(MINITRON);
        folder.json("config.json", edit);
        assert_says(&folder.refusal(), says);
    }
    for name in ["model.layers.1.post_attention_layernorm.bias", "model.norm.bias", "lm_head.weight"] {
        let mut folder = Folder::load(MINITRON);
        folder.tensors(|list| list.retain(|(n, ..)| n != name));
        folder.json("config.json", |c| c["tie_word_embeddings"] = Value::Null);
        assert_says(&folder.refusal(), &[name, "no such tensor"]);
    }
}
