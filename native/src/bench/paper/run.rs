//! The rows of a model, measured one after the other: what fits, what is loaded for it, what is saved.

use anyhow::Result;
use pollster::block_on;
use zebra_runtime::Error;
use zebra_runtime::engine::LoadOptions;
use zebra_runtime::files::Files;
use zebra_runtime::gpu::Gpu;
use zebra_runtime::weights::Checkpoint;

use super::measure::measure;
use super::models::{Comparison, ModelFolder, Need, largest_batch, need};
use super::preset;
use super::rows::{Key, Outcome, Record, Refusal, Row, Unit};
use crate::args::{Geometry, PaperArgs};
use crate::bench::COMMIT;
use crate::files::FolderFiles;
use crate::load::{self, Loaded};
use crate::staging::check_interrupt;
use crate::terminal::Terminal;
use crate::twins;

/// What the rows of a model are measured with.
pub struct Run<'a> {
    pub args: &'a PaperArgs,
    pub adapter: Option<&'a str>,
    pub terminal: &'a Terminal,
    pub memory: Option<u64>,
    pub record: &'a mut Record,
    pub comparison: &'static Comparison,
}

/// A row to be measured.
struct Job {
    /// As it is saved where nothing comes of it.
    row: Row,
    /// Why it is not even tried.
    refusal: Option<Refusal>,
    /// Tokens before decoding, and room for those to come.
    depth: usize,
    context: usize,
}

impl Job {
    fn fits(&self, other: &Job) -> bool {
        self.row.key.batch <= other.row.key.batch && self.context <= other.context
    }
}

impl Run<'_> {
    /// Measures the rows of a model: it is loaded for the largest of them, which has room for others, and so on.
    pub fn model(&mut self, model: (&str, Geometry), keys: Vec<Key>) -> Result<()> {
        if keys.is_empty() {
            return Ok(());
        }
        check_interrupt()?;
        let folder = ModelFolder::get(model, self.args.format, self.args.models.as_deref(), &self.args.out)?;
        let files = FolderFiles::open(folder.path.clone())?;
        let checkpoint = block_on(Checkpoint::open(&files))?;
        let gpu = block_on(Gpu::open(self.adapter))?;
        let mut jobs = keys.into_iter().map(|key| self.job(key, &checkpoint, &gpu)).collect::<Result<Vec<_>>>()?;
        jobs.sort_by_key(|job| job.row.gpu_bytes);
        while let Some(largest) = jobs.pop() {
            check_interrupt()?;
            jobs = self.largest(largest, jobs, &files, &gpu)?;
        }
        Ok(())
    }

    fn options(&self, slots: usize, context: usize) -> LoadOptions {
        LoadOptions {
            preset: Some(preset(self.args.format)),
            cache: self.args.cache.into(),
            context: Some(context),
            slots,
            ..LoadOptions::default()
        }
    }

    /// What is known of a row without loading anything.
    fn job(&self, key: Key, checkpoint: &Checkpoint<'_>, gpu: &Gpu) -> Result<Job> {
        let config = checkpoint.config();
        let most = config.max_position_embeddings;
        let (prompt, generate) = (key.prompt as usize, key.generate as usize);
        let fits = prompt <= most && generate < most;
        // At the model's very end the prompt is shorter, so that it can be decoded from.
        let depth = if fits { prompt.min(most - generate) } else { prompt };
        let context = (depth + generate).next_multiple_of(256).min(most);
        let options = self.options(key.batch as usize, context);
        let Need { bytes, position_bytes, state_bytes } = need(checkpoint, gpu, &options)?;
        let largest = self.memory.filter(|_| fits).map(|memory| largest_batch(checkpoint, gpu, &options, memory));
        let row = Row {
            key,
            driver: gpu.description().driver.clone(),
            commit: COMMIT.into(),
            parameters: checkpoint.parameters(),
            gpu_bytes: bytes,
            cache_bytes_per_token: position_bytes,
            state_bytes_per_sequence: state_bytes,
            percent_of_llama: 100.0 * config.cache_elements() as f64 / self.comparison.llama_elements as f64,
            largest_batch: largest.transpose()?,
            outcome: Outcome::DoesNotFit(Refusal::of_memory(bytes, self.memory)),
        };
        let refusal = if !fits {
            let what = "the prompt with its answer".into();
            Some(Refusal { what, unit: Unit::Positions, need: (prompt + generate) as u64, have: Some(most as u64) })
        } else {
            self.memory.filter(|memory| bytes > *memory).map(|memory| Refusal::of_memory(bytes, Some(memory)))
        };
        Ok(Job { row, refusal, depth, context })
    }

    /// Measures a row, and those of `others` for which there is room in a model loaded for it. Returns the rest.
    fn largest(&mut self, largest: Job, others: Vec<Job>, files: &dyn Files, gpu: &Gpu) -> Result<Vec<Job>> {
        if let Some(refusal) = &largest.refusal {
            self.refuse(&largest, refusal.clone())?;
            return Ok(others);
        }
        let options = self.options(largest.row.key.batch as usize, largest.context);
        let Loaded { mut engine, kernels, .. } = match load::from(files, gpu.clone(), &options, self.terminal) {
            Ok(loaded) => loaded,
            Err(e) => {
                self.refuse(&largest, refusal(&e, &largest.row, self.memory).ok_or(e)?)?;
                return Ok(others);
            }
        };
        let kernels = twins::describe(engine.model().plan().options.twins, kernels);
        let (here, mut rest): (Vec<Job>, Vec<Job>) =
            others.into_iter().partition(|job| job.refusal.is_none() && job.fits(&largest));
        for (i, job) in std::iter::once(largest).chain(here).enumerate() {
            self.terminal.note(format_args!("{} …", job.row.key));
            match measure(&mut engine, &kernels, &job.row.key, job.depth) {
                Ok(measured) => {
                    let (speed, row) = (measured.decode_tokens_per_second, job.row);
                    self.terminal.note(format_args!("{}: {speed:.1} tokens/s", row.key));
                    self.record.put(Row { outcome: Outcome::Measured(measured), ..row })?;
                }
                Err(e) => match refusal(&e, &job.row, self.memory) {
                    // By itself it may fit.
                    Some(_) if i > 0 => rest.push(job),
                    Some(refusal) => self.refuse(&job, refusal)?,
                    None => return Err(e),
                },
            }
        }
        drop(engine);
        block_on(gpu.flush())?;
        rest.sort_by_key(|job| job.row.gpu_bytes);
        Ok(rest)
    }

    fn refuse(&mut self, job: &Job, refusal: Refusal) -> Result<()> {
        self.terminal.note(format_args!("{}: {refusal}", job.row.key));
        self.record.put(Row { outcome: Outcome::DoesNotFit(refusal), ..job.row.clone() })
    }
}

/// What an error says of a row that is too large for the GPU; nothing where it says something else.
pub fn refusal(error: &anyhow::Error, row: &Row, memory: Option<u64>) -> Option<Refusal> {
    match error.downcast_ref()? {
        Error::Limit { what, limit, need, have, .. } => {
            let bytes = ["largest binding", "largest buffer"].contains(&limit.as_str());
            let unit = if bytes { Unit::Bytes } else { Unit::Count };
            let what = format!("{what} (the adapter's {limit})");
            Some(Refusal { what, unit, need: *need, have: Some(*have) })
        }
        Error::OutOfMemory { .. } => Some(Refusal::of_memory(row.gpu_bytes, memory)),
        _ => None,
    }
}
