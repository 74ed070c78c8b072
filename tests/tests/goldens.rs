//! Whole models against PyTorch: tiny random checkpoints of every form, and the trained pocket model.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use pollster::block_on;
use zebra_runtime::engine::KernelChoice::{self, Auto, Plain};
use zebra_runtime::engine::choose::measure;
use zebra_runtime::engine::probe::{NamedTensor, ProbeOptions, Values, probe};
use zebra_runtime::engine::{CacheFormat, Twins};
use zebra_runtime::gpu::Gpu;
use zebra_runtime::weights::{Checkpoint, Preset};
use zebra_tests::files::TestFolder;
use zebra_tests::golden::{self, compare, f32s, ids};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

fn fixture(path: &Path) -> BTreeMap<String, Values> {
    golden::read(&std::fs::read(path).expect("the fixture is there"))
}

fn f32_probe(
    files: &TestFolder,
    prompt: &[u32],
    decode: usize,
    chunk: usize,
    kernels: KernelChoice,
) -> Vec<NamedTensor> {
    let gpu = block_on(Gpu::open(None)).expect("an adapter");
    let options = ProbeOptions { preset: Preset::F32, cache: CacheFormat::F32, decode, chunk, kernels };
    block_on(probe(&**files, gpu, prompt, &options)).expect("the checkpoint runs")
}

/// One or more of each family, see tests/golden/README.md.
const TINY: [&str; 14] = [
    "tiny-gqa",
    "tiny-mha",
    "tiny-lnorm",
    "tiny-rkbc",
    "tiny-dynrank",
    "tiny-xecomla-fixed",
    "tiny-xecomla-dynamic",
    "tiny-xecomla-smollm",
    "tiny-mambainllama",
    "tiny-mambainllama-mamba1",
    "tiny-llama",
    "tiny-llama-untied",
    "tiny-minitron",
    "tiny-llamba",
];

#[test]
fn tiny_checkpoints_equal_pytorch_however_the_prompt_is_cut() {
    for name in TINY {
        let folder = root().join("fixtures").join(name);
        let mut expected = fixture(&folder.join("expected.safetensors"));
        let files = TestFolder::open(&folder);
        let prompt = ids(&expected["input_ids"]);
        golden::without_padding(&mut expected, block_on(Checkpoint::open(&*files)).expect("it opens").config());
        for (chunk, kernels) in [(512, Auto), (1, Auto), (5, Auto), (512, Plain), (9, Plain)] {
            let got = f32_probe(&files, &prompt, 8, chunk, kernels);
            let what = format!("{name} in chunks of {chunk}, {kernels:?}");
            println!("{}", compare(&what, &got, &expected, 1e-4).expect("equal"));
            assert_eq!(got.len(), expected.len(), "{what}: every tensor of the fixture");
        }
        // The control: another checkpoint's expectations are refused.
        let other = fixture(
            &root()
                .join("fixtures")
                .join(if name == "tiny-gqa" { "tiny-mha" } else { "tiny-gqa" })
                .join("expected.safetensors"),
        );
        let got = f32_probe(&files, &prompt, 8, 512, Auto);
        compare("control", &got, &other, 1e-4).expect_err("another model's tensors");
    }
}

#[test]
fn the_pocket_model_equals_pytorch() {
    let expected = fixture(&root().join("fixtures/pocket-logits.safetensors"));
    let files = TestFolder::open(&root().join("../models/zebra-pocket"));
    let (prompt, greedy) = (ids(&expected["input_ids"]), ids(&expected["greedy_ids"]));
    let start = Instant::now();
    let got = f32_probe(&files, &prompt, greedy.len() - 1, 64, Auto);
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
    let got = f32_probe(&files, &prompt, 0, 64, Auto);
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

/// On whatever adapter, also one that is not measured when a model is loaded.
#[test]
fn twins_are_measured_and_keep_to_pytorch() {
    let gpu = block_on(Gpu::open(None)).expect("an adapter");
    assert!(gpu.has_timestamps(), "what is measured is read from the GPU's clock");
    for name in ["tiny-gqa", "tiny-mha"] {
        let folder = root().join("fixtures").join(name);
        let expected = fixture(&folder.join("expected.safetensors"));
        let files = TestFolder::open(&folder);
        let config = block_on(Checkpoint::open(&*files)).expect("it opens").config().clone();
        for preset in [Preset::F32, Preset::Q4] {
            let start = Instant::now();
            let twins = block_on(measure(&gpu, &config, preset, CacheFormat::F32)).expect("it is measured");
            println!("{name} as {preset}: {twins} in {:.2} s", start.elapsed().as_secs_f64());
            assert_eq!(twins.within(Twins::offered(&gpu)), twins, "only what is offered");
            assert_eq!(gpu.allocated().values().sum::<u64>(), 0, "it leaves no memory behind");
            assert!(gpu.held().is_some_and(|held| held.used < 1 << 20), "{:?}", gpu.held());
            let got = f32_probe(&files, &ids(&expected["input_ids"]), 8, 512, KernelChoice::Measured(twins));
            compare(name, &got, &expected, 1e-4).expect("equal");
        }
    }
}
