//! `zebra eval logits`: everything a checkpoint computes for given ids, as a safetensors file.

use anyhow::{Context, Result};
use pollster::block_on;
use safetensors::tensor::{Dtype, TensorView};
use zebra_runtime::engine::CacheFormat;
use zebra_runtime::engine::probe::{ProbeOptions, Values, probe};
use zebra_runtime::weights::Preset;

use crate::args::LogitsArgs;
use crate::terminal::Terminal;
use crate::{load, output};

/// Rows of a prompt that run together.
const CHUNK: usize = 64;

pub fn run(args: &LogitsArgs, adapter: Option<&str>) -> Result<()> {
    let terminal = Terminal::new(args.json);
    let files = load::files(args.model.model.as_deref(), &terminal)?;
    let gpu = load::gpu(adapter, &terminal)?;
    let options = ProbeOptions {
        preset: args.model.format.map_or(Preset::F32, Preset::from),
        cache: args.model.cache.map_or(CacheFormat::F32, CacheFormat::from),
        decode: args.decode,
        chunk: if args.step_by_step { 1 } else { CHUNK },
        kernels: args.model.kernels.into(),
    };
    let tensors = block_on(probe(&*files, gpu, &args.ids, &options))?;
    let bytes: Vec<Vec<u8>> = tensors
        .iter()
        .map(|t| match &t.values {
            Values::F32(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Values::I64(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
        })
        .collect();
    let mut views = Vec::with_capacity(tensors.len());
    for (t, bytes) in tensors.iter().zip(&bytes) {
        let dtype = if matches!(t.values, Values::F32(_)) { Dtype::F32 } else { Dtype::I64 };
        views.push((t.name.as_str(), TensorView::new(dtype, t.shape.clone(), bytes)?));
    }
    safetensors::serialize_to_file(views, None, &args.dump)
        .with_context(|| format!("cannot write {}", args.dump.display()))?;
    let greedy = tensors.iter().find_map(|t| match &t.values {
        Values::I64(ids) if t.name == "greedy_ids" => Some(ids),
        _ => None,
    });
    if args.json {
        return output::json(&serde_json::json!({
            "dump": args.dump, "tensors": tensors.len(), "greedy_ids": greedy,
        }));
    }
    terminal.note(format_args!("{} tensors written to {}", tensors.len(), args.dump.display()));
    Ok(())
}
