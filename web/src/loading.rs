//! From files to a model, to an estimate of one, or to quantized files.

use futures_util::TryFutureExt;
use serde::Serialize;
use wasm_bindgen::prelude::wasm_bindgen;
use wasm_bindgen::{JsCast, JsValue};
use zebra_runtime::engine::self_test::{Verdict, self_test};
use zebra_runtime::engine::{Engine, KernelChoice, LoadOptions, Progress};
use zebra_runtime::gpu::{Gpu, Limits, Purpose};
use zebra_runtime::model::Plan;
use zebra_runtime::weights::{Checkpoint, Preset};
use zebra_runtime::{Error, Result};

use crate::error::to_js_error;
use crate::files::{FileSink, JsFiles, JsSink, ModelFiles};
use crate::model::Zebra;
use crate::request::{JsEstimate, JsLoadRequest, LoadRequest, OnBytes, OnProgress, from_js, to_js};
use crate::time;

/// A browser's first answer is often no adapter although there is one, and after a lost device it takes a while.
const ADAPTER_ATTEMPTS: u32 = 20;
const ADAPTER_PAUSE: f64 = 150.0;

/// Newest snapshots held in wasm memory too, to go on from when a device is lost.
const MIRRORED: usize = 2;

/// What a verdict says when all kernels are right.
pub const ALL_RIGHT: &str = "ok";

/// A phase of loading, as the package's `Progress`.
#[derive(Serialize)]
#[serde(tag = "phase", rename_all = "lowercase")]
pub enum Phase {
    Config,
    Upload { loaded: f64, total: f64 },
    Compile,
    Ready,
    Recovering,
}

impl From<Progress> for Phase {
    fn from(progress: Progress) -> Self {
        match progress {
            Progress::Weights { done, total } => Phase::Upload { loaded: done as f64, total: total as f64 },
            Progress::Shaders => Phase::Compile,
        }
    }
}

/// Tells JavaScript of a phase. What its listener throws is its own concern.
pub fn tell(listener: &OnProgress, phase: impl Into<Phase>) {
    let listener: &js_sys::Function = listener.unchecked_ref();
    let _ = listener.call1(&JsValue::NULL, &to_js(&phase.into()));
}

/// Opens the GPU, reads and checks a checkpoint, uploads its weights and compiles its shaders.
///
/// # Errors
/// `{code, message, details}`, or what `files` threw.
#[wasm_bindgen]
pub async fn load(files: ModelFiles, options: JsLoadRequest, progress: OnProgress) -> Result<Zebra, JsValue> {
    let files = JsFiles::new(files);
    let loaded = async {
        let request: LoadRequest = from_js(options)?;
        let mut options = request.options()?;
        tell(&progress, Phase::Config);
        let gpu = open_gpu(request.subgroups).await?;
        let verdict = verdict(&gpu, &files, &mut options, request.self_test).await?;
        let options = LoadOptions { mirrored: MIRRORED, clock: Some(std::rc::Rc::new(time::now)), ..options };
        let engine = Engine::load(&files, gpu, &options, &mut |phase| tell(&progress, phase)).await?;
        tell(&progress, Phase::Ready);
        Ok((engine, options.kernels, request.subgroups, verdict))
    };
    let loaded = loaded.await;
    match loaded {
        Ok((engine, kernels, subgroups, verdict)) => Ok(Zebra::new(engine, files, kernels, subgroups, verdict)),
        Err(error) => Err(to_js_error(error, Some(&files))),
    }
}

/// What a model will need, from its configuration and the heads of its files.
///
/// # Errors
/// As [`load`], but for limits of the adapter: they are a part of the answer.
#[wasm_bindgen]
pub async fn estimate(files: ModelFiles, options: JsLoadRequest) -> Result<JsEstimate, JsValue> {
    #[derive(Serialize)]
    struct Estimate {
        gpu: GpuBytes,
        format: String,
        context: u32,
        parameters: f64,
        fits: bool,
        why: Option<String>,
        files: Vec<String>,
    }
    let files = JsFiles::new(files);
    let estimate = async {
        let request: LoadRequest = from_js(options)?;
        let options = request.options()?;
        let gpu = open_gpu(request.subgroups).await?;
        let checkpoint = Checkpoint::open(&files).await?;
        let (plan, why) = match options.plan(&checkpoint, &gpu) {
            Ok(plan) => (plan, None),
            Err(error @ Error::Limit { .. }) => {
                // What it would need without the limit.
                let limits = Limits { binding: u64::MAX, buffer: u64::MAX, ..gpu.limits() };
                (options.plan_within(&checkpoint, &gpu, limits)?, Some(error.to_string()))
            }
            Err(other) => return Err(other),
        };
        // It was opened for its limits only.
        gpu.destroy();
        Ok(Estimate {
            gpu: GpuBytes::of_plan(&plan),
            format: plan.options.preset.to_string(),
            context: plan.options.context,
            parameters: checkpoint.parameters() as f64,
            fits: why.is_none(),
            why,
            files: checkpoint.weight_files().to_vec(),
        })
    };
    let estimate = estimate.await;
    estimate.map(|estimate| to_js(&estimate).unchecked_into()).map_err(|error| to_js_error(error, Some(&files)))
}

/// Writes a checkpoint quantized, with the small files that go along.
///
/// # Errors
/// As [`load`], or what `sink` threw.
#[wasm_bindgen]
pub async fn quantize(files: ModelFiles, format: String, sink: FileSink, progress: OnBytes) -> Result<(), JsValue> {
    let files = JsFiles::new(files);
    let listener: &js_sys::Function = progress.unchecked_ref();
    let mut progress = |done: u64, total: u64| {
        // What the listener throws is its own concern.
        let _ = listener.call2(&JsValue::NULL, &JsValue::from(done as f64), &JsValue::from(total as f64));
    };
    let written = async {
        let preset: Preset = format.parse()?;
        let mut sink = JsSink { sink, files: &files };
        zebra_runtime::weights::quantize(&files, preset, &mut sink, &mut progress).await
    };
    written.map_err(|error| to_js_error(error, Some(&files))).await
}

/// Opens the adapter that the browser gives.
pub async fn open_gpu(subgroups: bool) -> Result<Gpu> {
    let mut attempt = 1;
    let gpu = loop {
        match Gpu::open(None).await {
            Err(Error::NoAdapter { .. }) if attempt < ADAPTER_ATTEMPTS => time::sleep(ADAPTER_PAUSE).await,
            other => break other?,
        }
        attempt += 1;
    };
    if subgroups {
        gpu.assume_subgroups();
    }
    Ok(gpu)
}

/// Tests the kernels, unless they were tested before, and falls back to plain ones where only those are right.
async fn verdict(gpu: &Gpu, files: &JsFiles, options: &mut LoadOptions, known: Option<String>) -> Result<String> {
    let verdict = match known {
        Some(known) => known,
        None if options.kernels == KernelChoice::Plain => return Ok(ALL_RIGHT.into()),
        None => {
            let plan = options.plan(&Checkpoint::open(files).await?, gpu)?;
            match self_test(gpu, plan.options.preset, options.cache).await? {
                Verdict::Right => ALL_RIGHT.into(),
                Verdict::PlainOnly(found) => found,
            }
        }
    };
    if verdict != ALL_RIGHT {
        options.kernels = KernelChoice::Plain;
    }
    Ok(verdict)
}

/// GPU bytes by purpose.
#[derive(Default, Serialize)]
pub struct GpuBytes {
    total: f64,
    weights: f64,
    latents: f64,
    states: f64,
    activations: f64,
    control: f64,
}

impl GpuBytes {
    /// What a plan will allocate.
    fn of_plan(plan: &Plan) -> Self {
        Self::of(plan.bytes())
    }

    /// Of parts by their purpose.
    pub fn of(parts: impl IntoIterator<Item = (Purpose, u64)>) -> Self {
        let mut all = Self::default();
        for (purpose, bytes) in parts {
            let bytes = bytes as f64;
            all.total += bytes;
            match purpose {
                Purpose::Weights => all.weights += bytes,
                Purpose::Latents => all.latents += bytes,
                Purpose::States => all.states += bytes,
                Purpose::Activations => all.activations += bytes,
                Purpose::Control => all.control += bytes,
            }
        }
        all
    }
}
