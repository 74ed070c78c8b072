//! What differs in a browser, in a browser's worker: the GPU through WebGPU, its features, a lost device, and what a
//! token costs the worker's thread. `wasm-bindgen-test-runner` runs it in headless Chromium (webdriver.json).

#![cfg(target_arch = "wasm32")]

use wasm_bindgen::prelude::wasm_bindgen;
use wasm_bindgen_test::{console_log, wasm_bindgen_test, wasm_bindgen_test_configure};
use zebra_runtime::Error;
use zebra_runtime::engine::probe::{ProbeOptions, probe};
use zebra_runtime::engine::self_test::{self, Verdict, self_test};
use zebra_runtime::engine::{CacheFormat, KernelChoice};
use zebra_runtime::files::MemoryFiles;
use zebra_runtime::gpu::Gpu;
use zebra_runtime::model::{Model, Plan, PlanOptions, Row, Step, Token, Twins};
use zebra_runtime::weights::{Checkpoint, Preset};
use zebra_tests::golden::{self, compare, ids};
use zebra_web::open_gpu;

wasm_bindgen_test_configure!(run_in_dedicated_worker);

#[wasm_bindgen(inline_js = r#"
    const original = GPUAdapter.prototype.requestDevice;
    export function request_subgroups(asked) {
      GPUAdapter.prototype.requestDevice = !asked ? original : function (descriptor) {
        const requiredFeatures = [...(descriptor?.requiredFeatures ?? [])];
        if (this.features.has("subgroups")) requiredFeatures.push("subgroups");
        return original.call(this, { ...descriptor, requiredFeatures });
      };
    }
    export function now() { return performance.now(); }
"#)]
extern "C" {
    fn request_subgroups(asked: bool);
    fn now() -> f64;
}

/// A tiny checkpoint, with the configuration files that its family has beside `config.json`, and what PyTorch computes for it.
macro_rules! tiny {
    ($name:literal $(, $config:literal)*) => {{
        let file = |name: &str, bytes: &'static [u8]| (name.to_owned(), bytes.into());
        let files = vec![
            file("config.json", include_bytes!(concat!("../../tests/fixtures/", $name, "/config.json"))),
            file("model.safetensors", include_bytes!(concat!("../../tests/fixtures/", $name, "/model.safetensors"))),
            $(file($config, include_bytes!(concat!("../../tests/fixtures/", $name, "/", $config))),)*
        ];
        let expected = include_bytes!(concat!("../../tests/fixtures/", $name, "/expected.safetensors"));
        ($name, MemoryFiles::new($name, files), golden::read(expected))
    }};
}

async fn gpu(subgroups: bool) -> Gpu {
    request_subgroups(subgroups);
    open_gpu(subgroups).await.expect("an adapter")
}

#[wasm_bindgen_test]
async fn tiny_checkpoints_equal_pytorch_in_a_browser() {
    use KernelChoice::{Auto, Plain};
    let mut all = [
        tiny!("tiny-gqa", "hybrid_config.json"),
        tiny!("tiny-mha", "hybrid_config.json"),
        tiny!("tiny-lnorm", "hybrid_config.json"),
        tiny!("tiny-xecomla-dynamic", "MLA_config.json", "mla_layer_config.json"),
        tiny!("tiny-mambainllama", "mamba_config.json"),
        tiny!("tiny-mambainllama-mamba1", "mamba_config.json"),
        tiny!("tiny-llama"),
        tiny!("tiny-llamba"),
        tiny!("tiny-minitron"),
    ];
    for (_, files, expected) in &mut all {
        golden::without_padding(expected, Checkpoint::open(files).await.expect("it opens").config());
    }
    // (checkpoint, rows of a step, kernels, subgroups)
    let runs = [(0, 512, Auto, true), (0, 5, Auto, false), (1, 512, Plain, false), (2, 5, Auto, true)];
    let others = (3..all.len()).map(|which| (which, if which % 2 == 0 { 5 } else { 512 }, Auto, which % 3 > 0));
    for (which, chunk, kernels, subgroups) in runs.into_iter().chain(others) {
        let (name, files, expected) = &all[which];
        let options = ProbeOptions { preset: Preset::F32, cache: CacheFormat::F32, decode: 8, chunk, kernels };
        let prompt = ids(&expected["input_ids"]);
        let got = probe(files, gpu(subgroups).await, &prompt, &options).await.expect("it runs");
        let what = format!("{name} in chunks of {chunk}, {kernels:?}, subgroups {subgroups}");
        console_log!("{}", compare(&what, &got, expected, 1e-4).expect("equal"));
        assert_eq!(got.len(), expected.len(), "{what}: every tensor of the fixture");
        compare("control", &got, &all[(which + 1) % all.len()].2, 1e-4).expect_err("another model's tensors");
    }
}

#[wasm_bindgen_test]
async fn the_self_test_passes_with_and_without_subgroups() {
    for (preset, subgroups) in [(Preset::Q8, true), (Preset::Q4, false)] {
        let gpu = gpu(subgroups).await;
        assert_eq!(self_test(&gpu, preset, CacheFormat::Q8).await.expect("it runs"), Verdict::Right);
        assert_eq!(gpu.allocated().values().sum::<u64>(), 0, "it leaves no memory behind");
    }
}

#[wasm_bindgen_test]
async fn a_destroyed_device_is_a_lost_one() {
    let gpu = gpu(true).await;
    self_test::deviation(&gpu, Preset::F32, CacheFormat::F32, KernelChoice::Plain).await.expect("it runs");
    gpu.destroy();
    let error =
        self_test::deviation(&gpu, Preset::F32, CacheFormat::F32, KernelChoice::Plain).await.expect_err("it is gone");
    assert!(matches!(error, Error::DeviceLost(_)), "{error}");
}

#[wasm_bindgen_test]
async fn a_token_costs_the_worker_little() {
    // As many layers of each kind as 1B-4MLA has, of next to no size.
    let files = self_test::checkpoint(16, &[0, 5, 10, 15]).expect("files");
    let gpu = gpu(true).await;
    let checkpoint = Checkpoint::open(&files).await.expect("it opens");
    let options = PlanOptions {
        preset: Preset::Q4,
        cache: CacheFormat::Q8,
        slots: 1,
        context: 512,
        max_rows: 8,
        narrow_rows: 8,
        logit_rows: 1,
        twins: Twins { subgroups: true, ..Twins::portable() },
    };
    let plan = Plan::new(checkpoint.config(), options, gpu.limits()).expect("a plan");
    let dispatches = plan.dispatches_per_token().total;
    let mut model = Model::load(gpu, &checkpoint, plan, &mut |_, _| {}).await.expect("it loads");
    let mut times = Vec::new();
    for position in 0..60 {
        let row = Row { slot: 0, token: Token::Id(position % 256), position, logits: true, sample: true };
        let started = now();
        let ticket = model.submit(&Step { rows: vec![row] }).expect("it runs");
        times.push(now() - started);
        model.wait(ticket).await.expect("it runs");
    }
    // The first ones include what the browser compiles of this module.
    let mut times = times.split_off(20);
    times.sort_by(f64::total_cmp);
    let (median, most) = (times[times.len() / 2], times[times.len() - 1]);
    console_log!(
        "a token of {dispatches} dispatches: {median:.2} ms of the worker's thread, at most {most:.2} (aim 0.5)"
    );
    assert_eq!(dispatches, 92, "as many as 1B-4MLA has natively");
}
