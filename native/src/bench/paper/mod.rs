//! `zebra bench paper`: the models of the Zebra-Llama paper's comparison, each with random weights of its geometry, in one
//! program on one GPU. A row is a model with a batch and a prompt; rows are saved one by one, and a second run measures
//! only what is missing.

mod measure;
mod models;
mod plot;
mod rows;
mod table;

use std::path::Path;

use anyhow::{Result, bail};
use pollster::block_on;
use zebra_runtime::Error;
use zebra_runtime::engine::LoadOptions;
use zebra_runtime::files::Files;
use zebra_runtime::gpu::{AdapterDescription, Gpu};
use zebra_runtime::kernels::mla_latent::CacheFormat;
use zebra_runtime::weights::{Checkpoint, Preset};

use self::measure::measure;
use self::models::{COMPARISONS, Comparison, ModelFolder, Need, largest_batch, need};
use self::rows::{Key, Mode, Outcome, Record, Refusal, Row, Unit};
use super::COMMIT;
use crate::args::{Geometry, PaperArgs, PaperFormat};
use crate::files::FolderFiles;
use crate::load::{self, Loaded};
use crate::staging::{check_interrupt, on_interrupt};
use crate::terminal::Terminal;
use crate::{output, twins};

pub fn run(args: &PaperArgs, adapter: Option<&str>) -> Result<()> {
    let terminal = Terminal::new(false);
    models::check_names(&args.only, &args.sizes)?;
    let mut record = Record::open(&args.out)?;
    on_interrupt();
    let description = load::gpu(adapter, &terminal)?.description().clone();
    let memory = match args.memory {
        Some(bytes) => Some(bytes),
        None => models::memory(adapter)?,
    };
    let told = memory.map_or("not known".into(), |bytes| format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30)));
    terminal.note(format_args!("{} ({}), memory {told}", description.name, description.driver));

    let mut failed = Vec::new();
    for size in &args.sizes {
        let comparison = Comparison::of(*size);
        for (name, preset) in comparison.presets() {
            if !args.only.is_empty() && !args.only.iter().any(|only| only == name) {
                continue;
            }
            let keys = keys(args, name, &description);
            let all = keys.len();
            let missing: Vec<Key> = keys.into_iter().filter(|key| args.again || record.get(key).is_none()).collect();
            terminal.note(format_args!("{name}: {} of {all} rows are to be measured", missing.len()));
            let mut run = Run { args, adapter, terminal: &terminal, memory, record: &mut record, comparison };
            match run.model((name, preset), missing) {
                Ok(()) => {}
                Err(e) if matches!(e.downcast_ref(), Some(Error::Aborted)) => {
                    report(args, &record, &description.name)?;
                    let out = args.out.display();
                    return Err(e.context(format!("rows so far are in {out}; the same command goes on")));
                }
                // The others may do better.
                Err(e) => {
                    terminal.warn(format_args!("{name}: {e:#}"));
                    failed.push(name);
                }
            }
        }
    }
    output::text(&report(args, &record, &description.name)?)?;
    if failed.is_empty() { Ok(()) } else { bail!("not measured: {}", failed.join(", ")) }
}

/// Writes the table and the plots of what can be compared with this run's rows, of earlier runs too, and returns the table.
fn report(args: &PaperArgs, record: &Record, adapter: &str) -> Result<String> {
    let (format, cache) = names(args);
    let order: Vec<&str> = COMPARISONS.iter().flat_map(Comparison::names).collect();
    let mut rows: Vec<&Row> = record
        .rows()
        .iter()
        .filter(|Row { key, .. }| {
            (&*key.format, &*key.cache, key.generate, &*key.adapter) == (&*format, cache, args.generate, adapter)
        })
        .collect();
    rows.sort_by_key(|Row { key, .. }| {
        (order.iter().position(|name| *name == key.model), key.mode == Mode::Random, key.batch, key.prompt)
    });
    let table = table::markdown(&rows);
    rows::write(&args.out.join("paper.md"), &table)?;
    rows::write(&args.out.join("paper.svg"), &plot::svg(&rows))?;
    Ok(table)
}

/// The formats of weights and cache.
fn names(args: &PaperArgs) -> (String, &'static str) {
    (preset(args.format).to_string(), CacheFormat::from(args.cache).name())
}

/// The rows of a model, in the order of the table.
fn keys(args: &PaperArgs, model: &str, adapter: &AdapterDescription) -> Vec<Key> {
    let (format, cache) = names(args);
    let mut keys: Vec<Key> = Vec::new();
    for &batch in &args.batch {
        for &prompt in &args.prompt {
            let mode = match prompt {
                _ if args.random_context => Mode::Random,
                _ if prompt <= args.read_to => Mode::Read,
                _ => Mode::Shared,
            };
            let key = Key {
                model: model.into(),
                format: format.clone(),
                cache: cache.into(),
                batch,
                prompt,
                generate: args.generate,
                mode,
                adapter: adapter.name.clone(),
            };
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
    }
    keys
}

fn preset(format: PaperFormat) -> Preset {
    match format {
        PaperFormat::Q8 => Preset::Q8,
        PaperFormat::Q4 => Preset::Q4,
    }
}

/// What the rows of a model are measured with.
struct Run<'a> {
    args: &'a PaperArgs,
    adapter: Option<&'a str>,
    terminal: &'a Terminal,
    memory: Option<u64>,
    record: &'a mut Record,
    comparison: &'static Comparison,
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
    fn model(&mut self, model: (&str, Geometry), keys: Vec<Key>) -> Result<()> {
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
                self.refuse(&largest, self.refusal(&e, &largest.row).ok_or(e)?)?;
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
                Err(e) => match self.refusal(&e, &job.row) {
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

    /// What an error says of a row that is too large for the GPU; nothing where it says something else.
    fn refusal(&self, error: &anyhow::Error, row: &Row) -> Option<Refusal> {
        match error.downcast_ref()? {
            Error::Limit { what, limit, need, have, .. } => {
                let unit = if ["largest binding", "largest buffer"].contains(&limit.as_str()) {
                    Unit::Bytes
                } else {
                    Unit::Count
                };
                let what = format!("{what} (the adapter's {limit})");
                Some(Refusal { what, unit, need: *need, have: Some(*have) })
            }
            Error::OutOfMemory { .. } => Some(Refusal::of_memory(row.gpu_bytes, self.memory)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
