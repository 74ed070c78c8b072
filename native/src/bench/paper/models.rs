//! Which models are compared, where they come from, and what they need of a GPU.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use pollster::block_on;
use tempfile::TempDir;
use zebra_runtime::Error;
use zebra_runtime::engine::LoadOptions;
use zebra_runtime::gpu::{Buffer, Gpu, Limits, Purpose};
use zebra_runtime::model::Plan;
use zebra_runtime::weights::Checkpoint;

use super::rows::{Largest, Limit};
use crate::args::{Geometry, MakeRandomArgs, PaperFormat, PaperSize, RandomFormat};
use crate::make_random;

/// The models of a size: their presets, of which this build may know only some.
pub struct Comparison {
    /// The one whose cache is the whole.
    pub llama: &'static str,
    /// Values that it caches of a token: 2 x layers x kv heads x head width.
    pub llama_elements: usize,
    /// What the paper sets out to beat, and what its models are.
    pub mamba_in_llama: &'static str,
    pub minitron: &'static str,
    pub zebras: &'static [&'static str],
    pub others: &'static [&'static str],
}

/// In the order of [`PaperSize`].
pub const COMPARISONS: [Comparison; 3] = [
    Comparison {
        llama: "llama-1b",
        llama_elements: 2 * 16 * 8 * 64,
        mamba_in_llama: "mambainllama-1b-50",
        minitron: "minitron-1b",
        zebras: &["1b-4mla", "1b-8mla"],
        others: &["x-ecomla-1b", "llamba-1b"],
    },
    Comparison {
        llama: "llama-3b",
        llama_elements: 2 * 28 * 8 * 128,
        mamba_in_llama: "mambainllama-3b-50",
        minitron: "minitron-4b",
        zebras: &["3b-6mla", "3b-14mla"],
        others: &["x-ecomla-3b", "llamba-3b"],
    },
    Comparison {
        llama: "llama-8b",
        llama_elements: 2 * 32 * 8 * 128,
        mamba_in_llama: "mambainllama-8b-50",
        minitron: "minitron-8b",
        zebras: &["8b-8mla", "8b-16mla"],
        others: &["x-ecomla-8b", "llamba-8b"],
    },
];

impl Comparison {
    pub fn of(size: PaperSize) -> &'static Self {
        &COMPARISONS[size as usize]
    }

    /// Every preset, in the order of tables, known or not.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        let fixed = [self.mamba_in_llama];
        let last = [self.minitron, self.llama];
        self.zebras.iter().copied().chain(fixed).chain(self.others.iter().copied()).chain(last)
    }

    /// Those that this build can make.
    pub fn presets(&self) -> impl Iterator<Item = (&'static str, Geometry)> {
        self.names().filter_map(|name| Some((name, Geometry::from_str(name, false).ok()?)))
    }
}

/// A model's folder, which goes away with it where nobody keeps it.
pub struct ModelFolder {
    pub path: PathBuf,
    _temporary: Option<TempDir>,
}

impl ModelFolder {
    /// The kept one, or else one that is made now: in `kept`, or for a while in `out`.
    pub fn get((name, preset): (&str, Geometry), format: PaperFormat, kept: Option<&Path>, out: &Path) -> Result<Self> {
        let (format, ending) = match format {
            PaperFormat::Q8 => (RandomFormat::Q8, "q8"),
            PaperFormat::Q4 => (RandomFormat::Q4, "q4"),
        };
        let temporary = match kept {
            Some(folder) => {
                std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
                None
            }
            None => Some(tempfile::Builder::new().prefix(".model-").tempdir_in(out)?),
        };
        let parent = temporary.as_ref().map_or_else(|| kept.unwrap_or(out), TempDir::path);
        let path = parent.join(format!("{name}-{ending}"));
        if !path.is_dir() {
            make_random::run(&MakeRandomArgs { preset, format, seed: 0, out: path.clone() })?;
        }
        Ok(Self { path, _temporary: temporary })
    }
}

/// An adapter without limits: what would be needed.
fn unlimited(gpu: &Gpu) -> Limits {
    Limits { binding: u64::MAX, buffer: u64::MAX, ..gpu.limits() }
}

/// What a model needs with so many slots of such a context.
pub struct Need {
    pub bytes: u64,
    pub position_bytes: u64,
    pub state_bytes: u64,
}

/// What a model needs, whether the adapter has it or not.
pub fn need(checkpoint: &Checkpoint<'_>, gpu: &Gpu, options: &LoadOptions) -> Result<Need, Error> {
    let plan = options.plan_within(checkpoint, gpu, unlimited(gpu))?;
    let (position_bytes, state_bytes) = (plan.state.position_bytes(), plan.state.recurrent_bytes());
    Ok(Need { bytes: total(&plan), position_bytes, state_bytes })
}

fn total(plan: &Plan) -> u64 {
    plan.bytes().iter().map(|(_, bytes)| bytes).sum()
}

/// Slots that the engine can have.
const MOST_SLOTS: usize = 1024;

/// The largest batch that fits beside the weights in so many bytes.
pub fn largest_batch(
    checkpoint: &Checkpoint<'_>,
    gpu: &Gpu,
    options: &LoadOptions,
    memory: u64,
) -> Result<Largest, Error> {
    let hindrance = |slots: usize| match (LoadOptions { slots, ..options.clone() }).plan(checkpoint, gpu) {
        Ok(plan) => Ok((total(&plan) > memory).then_some(Limit::Memory)),
        Err(Error::Limit { .. }) => Ok(Some(Limit::Binding)),
        Err(other) => Err(other),
    };
    let (mut fits, mut fails, mut by) = (0, MOST_SLOTS + 1, Limit::Slots);
    while fails - fits > 1 {
        let middle = (fits + fails) / 2;
        match hindrance(middle)? {
            None => fits = middle,
            Some(limit) => (fails, by) = (middle, limit),
        }
    }
    Ok(Largest { batch: fits as u32, by })
}

/// Bytes that are asked for at a time to find how many there are.
const PIECE: u64 = 512 << 20;
/// As many as no GPU has: whoever gives them gives what it does not have.
const MOST: u64 = 4 << 40;

/// How much memory a GPU gives to one program, found by what it refuses; `None` where the system would give its own
/// memory too.
pub fn memory(adapter: Option<&str>) -> Result<Option<u64>> {
    // A device of its own: what was refused leaves no trace on the one that measures.
    let gpu = block_on(Gpu::open(adapter))?;
    let is_own = gpu.description().kind == "discrete";
    Ok(if is_own { refused_at(&gpu, PIECE.min(gpu.limits().buffer), MOST) } else { None })
}

/// The bytes, asked for by pieces, after which a GPU refuses more; `None` where it gives `most`.
fn refused_at(gpu: &Gpu, piece: u64, most: u64) -> Option<u64> {
    let mut held: Vec<Buffer> = Vec::new();
    let bytes = loop {
        let bytes = held.len() as u64 * piece;
        if bytes >= most {
            break None;
        }
        let buffer = Buffer::new("memory probe", piece, Purpose::Control);
        match block_on(gpu.allocate(std::slice::from_ref(&buffer))) {
            Ok(()) => held.push(buffer),
            Err(Error::OutOfMemory { .. }) => break Some(bytes),
            Err(other) => {
                log::debug!("the GPU's memory is not known: {other}");
                break None;
            }
        }
    };
    gpu.release(&held);
    // Given back before anybody else asks; a device that did not survive the question has nothing to give.
    if let Err(e) = block_on(gpu.flush()) {
        log::debug!("after the question for memory: {e}");
    }
    bytes
}

/// Refuses names that no size has.
pub fn check_names(only: &[String], sizes: &[PaperSize]) -> Result<()> {
    let known: Vec<&str> = sizes.iter().flat_map(|s| Comparison::of(*s).presets()).map(|(name, _)| name).collect();
    match only.iter().find(|name| !known.contains(&name.as_str())) {
        Some(name) => bail!("--only: expected some of {}, found {name}", known.join(", ")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_size_has_its_comparison_and_names_are_used_once() {
        for size in PaperSize::value_variants() {
            let (comparison, name) = (Comparison::of(*size), size.to_possible_value().expect("a name"));
            assert!(comparison.zebras.iter().all(|zebra| zebra.starts_with(name.get_name())));
            let known: Vec<&str> = comparison.presets().map(|(name, _)| name).collect();
            let unknown: Vec<&str> = comparison.names().filter(|name| !known.contains(name)).collect();
            // There is no Minitron near 1B.
            assert_eq!(unknown, if *size == PaperSize::B1 { &["minitron-1b"][..] } else { &[] });
        }
        let all: Vec<&str> = COMPARISONS.iter().flat_map(Comparison::names).collect();
        assert!(all.len() >= 3 * 7 - 1);
        let mut unique = all.clone();
        unique.sort_unstable();
        unique.dedup();
        assert_eq!(unique.len(), all.len());
    }

    #[test]
    fn a_batch_is_as_large_as_the_memory_where_a_slot_fits_a_binding() {
        let gpu = block_on(Gpu::open(None)).expect("an adapter");
        let files = crate::embedded::files().expect("the pocket model");
        let checkpoint = block_on(Checkpoint::open(&files)).expect("it opens");
        let options = LoadOptions { context: Some(4096), ..LoadOptions::default() };
        let need = |slots: usize| {
            let need = need(&checkpoint, &gpu, &LoadOptions { slots, ..options.clone() }).expect("a plan");
            need.bytes
        };
        let slot = options.plan(&checkpoint, &gpu).expect("a plan").state.position_bytes() / 2 * 4096;
        let largest = |memory| largest_batch(&checkpoint, &gpu, &options, memory).expect("plans");
        let before = largest(need(6));
        gpu.bind_at_most(2 * slot);
        // Of the model's two caches each binding has two slots.
        assert_eq!(largest(need(6)), before);
        assert_eq!(before, Largest { batch: 6, by: Limit::Memory });
        // The states are not cut.
        assert_eq!(largest(u64::MAX).by, Limit::Binding);
        gpu.bind_at_most(slot - 16);
        assert_eq!(largest(need(6)), Largest { batch: 0, by: Limit::Binding });
    }

    #[test]
    fn the_question_for_memory_is_given_back() {
        let gpu = block_on(Gpu::open(None)).expect("an adapter");
        assert_eq!(refused_at(&gpu, 32 << 20, 64 << 20), None, "nothing was refused");
        assert_eq!(gpu.allocated().values().sum::<u64>(), 0);
        assert!(gpu.held().is_none_or(|held| held.used < 1 << 20), "{:?}", gpu.held());
        // Whose size is over a limit is told apart from one that memory is missing for.
        assert_eq!(refused_at(&gpu, gpu.limits().buffer + 16, u64::MAX), None);
    }

    #[test]
    fn names_of_no_size_are_refused() {
        let only = |name: &str| check_names(&[name.to_owned()], &[PaperSize::B8]);
        assert!(only("8b-8mla").is_ok());
        for name in ["1b-4mla", "llama", ""] {
            let error = only(name).expect_err("refused").to_string();
            assert!(error.starts_with("--only: expected some of 8b-8mla, "), "{error}");
        }
    }
}
