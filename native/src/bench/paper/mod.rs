//! `zebra bench paper`: the models of the Zebra-Llama paper's comparison, each with random weights of its geometry, in
//! one program on one GPU. A row is a model with a batch and a prompt; rows are saved one by one, and a second run measures
//! only what is missing.

mod measure;
mod models;
mod plot;
mod rows;
mod run;
mod table;

use anyhow::{Result, bail};
use zebra_runtime::Error;
use zebra_runtime::gpu::AdapterDescription;
use zebra_runtime::kernels::mla_latent::CacheFormat;
use zebra_runtime::weights::Preset;

use self::models::{COMPARISONS, Comparison};
use self::rows::{Key, Mode, Record, Row};
use self::run::Run;
use crate::args::{PaperArgs, PaperFormat};
use crate::staging::on_interrupt;
use crate::terminal::Terminal;
use crate::{load, output};

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

/// Writes the table and the plots of what can be compared with this run's rows, of earlier runs too, and returns the
/// table.
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

#[cfg(test)]
mod tests;
