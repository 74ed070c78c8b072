//! From the command line's options to files, a GPU and a loaded model, with what the person sees on the way.

use std::rc::Rc;
use std::time::Instant;

use anyhow::Result;
use pollster::block_on;
use zebra_runtime::engine::{Clock, Engine, KernelChoice, LoadOptions, Progress};
use zebra_runtime::files::Files;
use zebra_runtime::gpu::Gpu;
use zebra_runtime::kernels::mla_latent::CacheFormat;
use zebra_runtime::weights::{Checkpoint, Preset};

use crate::args::{Cache, Format, Kernels, ModelArgs};
use crate::files::FolderFiles;
use crate::hub::{self, HubOptions};
use crate::terminal::Terminal;
use crate::{pipelines, twins};

/// Said where a chat is asked of a model that has no template for one.
pub const BASE_MODEL: &str = "This is a base model, without a chat template: it goes on with the text.";

/// An engine, the kernels it was loaded with, and how long that took; a download before it does not count.
pub struct Loaded {
    pub engine: Engine,
    pub kernels: KernelChoice,
    pub seconds: f64,
}

/// The files of `--model`: a folder, a name at the hub (downloaded when it is not in the cache), or the model inside of
/// the program.
pub fn files(model: Option<&str>, terminal: &Terminal) -> Result<Box<dyn Files>> {
    let Some(model) = model else { return Ok(Box::new(crate::embedded::files()?)) };
    let mut bar = None;
    let folder = hub::resolve(model, &HubOptions::from_env(), &mut |progress| {
        let bar = bar.get_or_insert_with(|| terminal.bytes(&format!("Downloading {model}")));
        let speed = progress.bytes_per_second / f64::from(1 << 20);
        bar.label(format!("Downloading {} ({speed:.1} MiB/s)", progress.file));
        bar.set(progress.done, progress.total);
    })?;
    Ok(Box::new(FolderFiles::open(folder)?))
}

/// The adapter, with one warning line when it is a CPU.
pub fn gpu(adapter: Option<&str>, terminal: &Terminal) -> Result<Gpu> {
    let gpu = block_on(Gpu::open(adapter))?;
    let found = gpu.description();
    if found.is_software() {
        terminal.warn(format_args!("\"{}\" is a software adapter: the CPU computes, slowly", found.name));
    }
    Ok(gpu)
}

/// What the model options ask for, with room for `slots` sequences.
pub fn options(args: &ModelArgs, slots: usize) -> LoadOptions {
    let defaults = LoadOptions::default();
    LoadOptions {
        preset: args.format.map(Preset::from),
        cache: args.cache.map_or(defaults.cache, CacheFormat::from),
        context: args.context,
        slots,
        kernels: args.kernels.into(),
        clock: Some(clock()),
        ..defaults
    }
}

/// Milliseconds from now on.
fn clock() -> Clock {
    let start = Instant::now();
    Rc::new(move || 1e3 * start.elapsed().as_secs_f64())
}

/// Loads `--model` as the model options ask.
pub fn engine(args: &ModelArgs, adapter: Option<&str>, slots: usize, terminal: &Terminal) -> Result<Loaded> {
    model(args.model.as_deref(), adapter, &options(args, slots), terminal)
}

/// Loads a model.
pub fn model(model: Option<&str>, adapter: Option<&str>, options: &LoadOptions, terminal: &Terminal) -> Result<Loaded> {
    // The files come first: a wrong path is told on a machine without a GPU, too.
    let files = files(model, terminal)?;
    from(&*files, gpu(adapter, terminal)?, options, terminal)
}

/// Loads the model of these files onto a GPU.
pub fn from(files: &dyn Files, gpu: Gpu, options: &LoadOptions, terminal: &Terminal) -> Result<Loaded> {
    let started = Instant::now();
    let bar = terminal.bytes(&format!("Loading {}", files.describe()));
    let mut progress = |progress| {
        if let Progress::Weights { done, total } = progress {
            bar.set(done, total);
        }
    };
    let kept = pipelines::begin(&gpu);
    let checkpoint = block_on(Checkpoint::open(files))?;
    let kernels = twins::choose(&gpu, &checkpoint, options)?;
    let options = LoadOptions { kernels, ..options.clone() };
    let engine = block_on(Engine::from_checkpoint(&checkpoint, gpu.clone(), &options, &mut progress))?;
    let seconds = started.elapsed().as_secs_f64();
    if let Some(kept) = kept {
        kept.update(&gpu);
    }
    Ok(Loaded { engine, kernels, seconds })
}

impl From<Format> for Preset {
    fn from(format: Format) -> Self {
        match format {
            Format::F32 => Self::F32,
            Format::F16 => Self::F16,
            Format::Q8 => Self::Q8,
            Format::Q4 => Self::Q4,
        }
    }
}

impl From<Kernels> for KernelChoice {
    fn from(kernels: Kernels) -> Self {
        match kernels {
            Kernels::Auto => Self::Auto,
            Kernels::Plain => Self::Plain,
        }
    }
}

impl From<Cache> for CacheFormat {
    fn from(cache: Cache) -> Self {
        match cache {
            Cache::F32 => Self::F32,
            Cache::F16 => Self::F16,
            Cache::Q8 => Self::Q8,
        }
    }
}
