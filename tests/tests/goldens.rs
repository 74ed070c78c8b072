//! Whole models against PyTorch: tiny random checkpoints of every form, and the trained pocket model.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use pollster::block_on;
use safetensors::SafeTensors;
use zebra_runtime::engine::CacheFormat;
use zebra_runtime::engine::probe::{NamedTensor, ProbeOptions, Values, probe};
use zebra_runtime::gpu::Gpu;
use zebra_runtime::weights::Preset;
use zebra_tests::files::TestFolder;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

/// The tensors of a fixture: f32 as they are, ids as integers.
fn fixture(path: &Path) -> BTreeMap<String, Values> {
    let bytes = std::fs::read(path).expect("the fixture is there");
    let tensors = SafeTensors::deserialize(&bytes).expect("the fixture is whole");
    let read = |t: safetensors::tensor::TensorView<'_>| match t.dtype() {
        safetensors::Dtype::F32 => Values::F32(bytemuck::pod_collect_to_vec(t.data())),
        safetensors::Dtype::I32 => {
            let ids: Vec<i32> = bytemuck::pod_collect_to_vec(t.data());
            Values::I64(ids.into_iter().map(i64::from).collect())
        }
        safetensors::Dtype::I64 => Values::I64(bytemuck::pod_collect_to_vec(t.data())),
        other => panic!("{} holds {other:?}", path.display()),
    };
    tensors.tensors().into_iter().map(|(name, t)| (name, read(t))).collect()
}

fn ids(values: &Values) -> Vec<u32> {
    match values {
        Values::I64(ids) => ids.iter().map(|&id| id as u32).collect(),
        Values::F32(_) => panic!("ids are expected"),
    }
}

fn f32s(values: &Values) -> &[f32] {
    match values {
        Values::F32(values) => values,
        Values::I64(_) => panic!("f32 are expected"),
    }
}

/// The largest difference in standard deviations of what is expected; infinite for other lengths and for NaN.
fn worst_sd(got: &[f32], expected: &[f32]) -> f64 {
    if got.len() != expected.len() {
        return f64::INFINITY;
    }
    let n = expected.len() as f64;
    let mean = expected.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
    let sd = (expected.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / n).sqrt();
    let errors = got.iter().zip(expected).map(|(&g, &e)| (f64::from(g) - f64::from(e)).abs());
    errors.fold(0.0, |worst: f64, e| if e.is_nan() { f64::INFINITY } else { worst.max(e) }) / sd
}

/// Compares tensors by name and says the worst.
fn compare(what: &str, got: &[NamedTensor], expected: &BTreeMap<String, Values>, tolerance: f64) -> Result<(), String> {
    let mut worst = (0.0, String::new());
    for tensor in got {
        let name = &tensor.name;
        let expected = expected.get(name).ok_or_else(|| format!("{what}: the fixture has no {name}"))?;
        match (&tensor.values, expected) {
            (Values::F32(got), Values::F32(expected)) => {
                let sd = worst_sd(got, expected);
                if sd >= worst.0 {
                    worst = (sd, name.clone());
                }
                if sd.is_nan() || sd > tolerance {
                    return Err(format!("{what}: {name} is {sd:.2e} sd off, at most {tolerance:.0e}"));
                }
            }
            (got, expected) if got == expected => {}
            (got, expected) => return Err(format!("{what}: {name}: {expected:?} is {got:?}")),
        }
    }
    println!("{what}: {} tensors, the worst {} by {:.1e} sd", got.len(), worst.1, worst.0);
    Ok(())
}

fn f32_probe(files: &TestFolder, prompt: &[u32], decode: usize, chunk: usize, plain: bool) -> Vec<NamedTensor> {
    let gpu = block_on(Gpu::open(None)).expect("an adapter");
    let options = ProbeOptions { preset: Preset::F32, cache: CacheFormat::F32, decode, chunk, plain };
    block_on(probe(&**files, gpu, prompt, &options)).expect("the checkpoint runs")
}

#[test]
fn tiny_checkpoints_equal_pytorch_however_the_prompt_is_cut() {
    for name in ["tiny-gqa", "tiny-mha", "tiny-lnorm", "tiny-rkbc", "tiny-dynrank"] {
        let folder = root().join("fixtures").join(name);
        let expected = fixture(&folder.join("expected.safetensors"));
        let files = TestFolder::open(&folder);
        let prompt = ids(&expected["input_ids"]);
        for (chunk, plain) in [(512, false), (1, false), (5, false), (512, true), (9, true)] {
            let got = f32_probe(&files, &prompt, 8, chunk, plain);
            let what = format!("{name} in chunks of {chunk}{}", if plain { ", plain" } else { "" });
            compare(&what, &got, &expected, 1e-4).expect("equal");
            assert_eq!(got.len(), expected.len(), "{what}: every tensor of the fixture");
        }
        // The control: another checkpoint's expectations are refused.
        let other = fixture(
            &root()
                .join("fixtures")
                .join(if name == "tiny-gqa" { "tiny-mha" } else { "tiny-gqa" })
                .join("expected.safetensors"),
        );
        let got = f32_probe(&files, &prompt, 8, 512, false);
        compare("control", &got, &other, 1e-4).expect_err("another model's tensors");
    }
}

#[test]
fn the_pocket_model_equals_pytorch() {
    let expected = fixture(&root().join("fixtures/pocket-logits.safetensors"));
    let files = TestFolder::open(&root().join("../models/zebra-pocket"));
    let (prompt, greedy) = (ids(&expected["input_ids"]), ids(&expected["greedy_ids"]));
    let start = Instant::now();
    let got = f32_probe(&files, &prompt, greedy.len() - 1, 64, false);
    println!("pocket: {} tokens in {:.1} s", prompt.len() + greedy.len() - 1, start.elapsed().as_secs_f64());
    let tensor = |name: &str| got.iter().find(|t| t.name == name).map(|t| f32s(&t.values)).expect("the probe has it");
    let vocab = f32s(&expected["greedy_logits"]).len() / greedy.len();
    let mut rows = tensor("prefill.logits")[(prompt.len() - 1) * vocab..].to_vec();
    for k in 0..greedy.len() - 1 {
        rows.extend(tensor(&format!("decode{k}.logits")));
    }
    let mut all = vec![
        NamedTensor {
            name: "prefill_logits".into(),
            shape: vec![],
            values: Values::F32(tensor("prefill.logits").into()),
        },
        NamedTensor { name: "greedy_logits".into(), shape: vec![], values: Values::F32(rows) },
    ];
    all.extend(got.iter().filter(|t| t.name.starts_with("cache.")).cloned());
    compare("pocket f32", &all, &expected, 1e-4).expect("equal");
    let fed = got.iter().find(|t| t.name == "greedy_ids").map(|t| ids(&t.values)).expect("ids");
    assert_eq!(fed, greedy[..greedy.len() - 1]);
}

#[test]
fn the_pocket_model_keeps_to_pytorch_over_1500_tokens() {
    let expected = fixture(&root().join("fixtures/pocket-logits.safetensors"));
    let files = TestFolder::open(&root().join("../models/zebra-pocket"));
    let prompt = ids(&expected["long.input_ids"]);
    let start = Instant::now();
    let got = f32_probe(&files, &prompt, 0, 64, false);
    println!("pocket long: {} tokens in {:.1} s", prompt.len(), start.elapsed().as_secs_f64());
    let logits = got.iter().find(|t| t.name == "prefill.logits").map(|t| f32s(&t.values)).expect("logits");
    let vocab = logits.len() / prompt.len();
    let nll: f64 = prompt[1..]
        .iter()
        .zip(logits.chunks_exact(vocab))
        .map(|(&next, row)| {
            let most = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let sum: f64 = row.iter().map(|&v| f64::from(v - most).exp()).sum();
            sum.ln() - f64::from(row[next as usize] - most)
        })
        .sum::<f64>()
        / (prompt.len() - 1) as f64;
    let expected_nll = f64::from(f32s(&expected["long.nll"])[0]);
    println!("pocket long: nll {nll:.6}, expected {expected_nll:.6}");
    assert!((nll - expected_nll).abs() < 1e-4, "{nll} is not {expected_nll}");
    let mut all = vec![NamedTensor {
        name: "long.last_logits".into(),
        shape: vec![],
        values: Values::F32(logits[(prompt.len() - 8) * vocab..].to_vec()),
    }];
    all.extend(
        got.iter()
            .filter(|t| t.name.ends_with(".ssm"))
            .map(|t| NamedTensor { name: format!("long.{}", t.name), ..t.clone() }),
    );
    compare("pocket long", &all, &expected, 5e-4).expect("equal");
}
