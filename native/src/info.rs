//! `zebra info`: what a model is made of, what it needs and what this machine offers. No weight is loaded.

use std::fmt::Write;

use anyhow::Result;
use pollster::block_on;
use serde_json::{Value, json};
use zebra_runtime::config::{Layer, MixerKind, ModelConfig};
use zebra_runtime::gpu::{AdapterDescription, Gpu};
use zebra_runtime::model::{Carried, Plan};
use zebra_runtime::weights::Checkpoint;

use crate::args::InfoArgs;
use crate::terminal::Terminal;
use crate::{load, output, twins};

/// Bytes of an element of the base model's cache, to which the one in use is compared.
const F16: usize = 2;

pub fn run(args: &InfoArgs, adapter: Option<&str>) -> Result<()> {
    let terminal = Terminal::new(args.json);
    let files = load::files(args.model.model.as_deref(), &terminal)?;
    let checkpoint = block_on(Checkpoint::open(&*files))?;
    let adapters = block_on(Gpu::adapters());
    let gpu = load::gpu(adapter, &terminal)?;
    let mut options = load::options(&args.model, 1);
    options.kernels = twins::known(&gpu, &checkpoint, &options)?;
    let plan = options.plan(&checkpoint, &gpu)?;
    let kernels = twins::describe(plan.options.twins, options.kernels);
    let report = report(&files.describe(), &checkpoint, &plan, &kernels, &gpu, &adapters);
    if args.json { output::json(&report) } else { Ok(output::text(&readable(&report, checkpoint.config()))?) }
}

fn report(
    name: &str,
    checkpoint: &Checkpoint<'_>,
    plan: &Plan,
    kernels: &str,
    gpu: &Gpu,
    adapters: &[AdapterDescription],
) -> Value {
    let config = checkpoint.config();
    let bytes: serde_json::Map<String, Value> =
        plan.bytes().iter().map(|(purpose, bytes)| (purpose.name().into(), json!(bytes))).collect();
    let total: u64 = plan.bytes().iter().map(|(_, bytes)| bytes).sum();
    let count = plan.dispatches_per_token();
    json!({
        "model": name,
        "family": config.family.name(),
        "family_because": config.family.because(),
        "parameters": checkpoint.parameters(),
        "stored": checkpoint.stored().map(|p| p.to_string()),
        "format": plan.options.preset.to_string(),
        "hidden_size": config.hidden_size,
        "intermediate_size": config.layers.iter().map(|layer| layer.mlp.intermediate_size).max(),
        "vocab_size": config.vocab_size,
        "max_position_embeddings": config.max_position_embeddings,
        "tied_head": config.tied_head(),
        "layers": config.layers.iter().enumerate().map(|(i, l)| layer(i, l)).collect::<Vec<_>>(),
        "context": plan.options.context,
        "context_that_fits": context_that_fits(config, plan, gpu),
        "gpu_bytes": { "total": total, "by_purpose": bytes },
        "state_bytes_per_sequence": plan.state.recurrent_bytes(),
        "dispatches_per_token": { "total": count.total, "forced_by_limits": count.forced_by_limits },
        "kernels": kernels,
        "cache": cache(config, plan),
        "adapter": description(gpu.description()),
        "adapters": adapters.iter().map(description).collect::<Vec<_>>(),
    })
}

fn layer(index: usize, layer: &Layer) -> Value {
    let mixer = layer.mixer.name();
    match &layer.mixer.kind {
        MixerKind::Mla(m) => json!({
            "layer": index, "mixer": mixer, "heads": m.heads, "kv_heads": m.kv_heads, "q_lora_rank": m.q_lora_rank,
            "kv_lora_rank": m.kv_lora_rank, "qk_nope_head_dim": m.qk_nope_head_dim,
            "qk_rope_head_dim": m.qk_rope_head_dim, "v_head_dim": m.v_head_dim, "lora_layer_norm": m.lora_layer_norm,
        }),
        MixerKind::Attention(a) => json!({
            "layer": index, "mixer": mixer, "heads": a.heads, "kv_heads": a.kv_heads, "head_dim": a.head_dim,
            "rotary": a.rotary,
        }),
        MixerKind::DiscreteMamba2(m) => json!({
            "layer": index, "mixer": mixer, "heads": m.heads, "head_dim": m.head_dim, "d_state": m.d_state,
            "groups": m.groups, "d_inner": m.d_inner(),
        }),
        MixerKind::Mamba2(m) => json!({
            "layer": index, "mixer": mixer, "heads": m.heads, "head_dim": m.head_dim, "d_state": m.head_dim,
            "d_inner": m.d_inner, "d_xb": m.d_xb, "d_conv": m.d_conv,
            "repeat_kv_before_conv": m.repeat_kv_before_conv,
        }),
        MixerKind::Mamba1(m) => json!({
            "layer": index, "mixer": mixer, "d_state": m.d_state(), "d_inner": m.d_inner, "d_xb": m.d_xb,
            "d_conv": m.d_conv(), "dt_rank": m.dt_rank,
        }),
    }
}

/// What a token adds to the cache, beside what it adds to that of the base Transformer.
fn cache(config: &ModelConfig, plan: &Plan) -> Value {
    let (elements, base) = (config.cache_elements(), config.base_cache_elements());
    // A base that is not known has nothing, and then neither has a recurrent model's cache.
    let percent = |part: f64, whole: f64| (10_000.0 * part / whole.max(1.0)).round() / 100.0;
    let in_use = plan.state.position_bytes();
    json!({
        "bytes_per_token": F16 * elements,
        "base_bytes_per_token": F16 * base,
        "percent_of_base": percent(elements as f64, base as f64),
        "in_use": {
            "format": plan.options.cache.name(),
            "bytes_per_token": in_use,
            "percent_of_base": percent(in_use as f64, (F16 * base) as f64),
        },
    })
}

/// Positions of a slot that the adapter's largest binding can hold, which may have one slot alone; at most the model's
/// maximum.
fn context_that_fits(config: &ModelConfig, plan: &Plan, gpu: &Gpu) -> u64 {
    let limits = gpu.limits();
    let room = limits.binding.min(limits.buffer);
    let row = plan.state.layers.iter().map(Carried::position_bytes).max().unwrap_or(0);
    let most = config.max_position_embeddings as u64;
    room.checked_div(row).map_or(most, |fits| most.min(fits))
}

fn description(a: &AdapterDescription) -> Value {
    json!({
        "name": a.name, "kind": a.kind, "backend": a.backend, "driver": a.driver,
        "largest_binding": a.limits.binding, "largest_buffer": a.limits.buffer,
    })
}

fn readable(r: &Value, config: &ModelConfig) -> String {
    let mut out = String::new();
    let mib = |v: &Value| v.as_f64().unwrap_or(0.0) / f64::from(1 << 20);
    let plain = |v: &Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
    let mut line = |text: std::fmt::Arguments<'_>| {
        // A String takes everything.
        let _ = writeln!(out, "{text}");
    };
    line(format_args!("{} ({}: {})", plain(&r["model"]), plain(&r["family"]), plain(&r["family_because"])));
    line(format_args!(
        "{} parameters, hidden {}, mlp {}, vocabulary {}, context {} of {} (as many as {} fit the adapter)",
        r["parameters"],
        r["hidden_size"],
        r["intermediate_size"],
        r["vocab_size"],
        r["context"],
        r["max_position_embeddings"],
        r["context_that_fits"],
    ));
    for (i, layer) in config.layers.iter().enumerate() {
        match &layer.mixer.kind {
            MixerKind::Mla(m) => line(format_args!(
                "  {i:>2} mla       {} heads ({} kv), q rank {}, latent {} + rope {}",
                m.heads,
                m.kv_heads,
                m.q_lora_rank.map_or("none".into(), |r| r.to_string()),
                m.kv_lora_rank,
                m.qk_rope_head_dim,
            )),
            MixerKind::Attention(a) => {
                line(format_args!("  {i:>2} attention {} heads of {} ({} kv)", a.heads, a.head_dim, a.kv_heads))
            }
            MixerKind::DiscreteMamba2(m) => line(format_args!(
                "  {i:>2} discrete mamba2 {} heads of {}×{} ({} of B and C)",
                m.heads, m.head_dim, m.d_state, m.groups
            )),
            MixerKind::Mamba2(m) => {
                line(format_args!("  {i:>2} mamba2    {} heads of {}×{}", m.heads, m.head_dim, m.head_dim))
            }
            MixerKind::Mamba1(m) => {
                line(format_args!("  {i:>2} mamba1  {} channels of {}, dt rank {}", m.d_inner, m.d_state(), m.dt_rank))
            }
        }
    }
    let by = &r["gpu_bytes"]["by_purpose"];
    line(format_args!(
        "GPU memory as {}: {:.1} MiB (weights {:.1}, cache {:.1}, states {:.1}, activations {:.1}, control {:.1})",
        plain(&r["format"]),
        mib(&r["gpu_bytes"]["total"]),
        mib(&by["weights"]),
        mib(&by["latents"]),
        mib(&by["states"]),
        mib(&by["activations"]),
        mib(&by["control"]),
    ));
    let cache = &r["cache"];
    line(format_args!(
        "Cache: {} bytes a token in f16, {}% of the base Transformer's {}; as {} {} bytes, {}%; {} bytes of states a slot",
        cache["bytes_per_token"],
        cache["percent_of_base"],
        cache["base_bytes_per_token"],
        plain(&cache["in_use"]["format"]),
        cache["in_use"]["bytes_per_token"],
        cache["in_use"]["percent_of_base"],
        r["state_bytes_per_sequence"],
    ));
    line(format_args!(
        "Dispatches a token: {}, {} of them forced by the adapter's limits",
        r["dispatches_per_token"]["total"], r["dispatches_per_token"]["forced_by_limits"],
    ));
    line(format_args!("Kernels: {}", plain(&r["kernels"])));
    for (i, a) in r["adapters"].as_array().into_iter().flatten().enumerate() {
        let used = if a == &r["adapter"] { " (in use)" } else { "" };
        let (name, driver) = (plain(&a["name"]), plain(&a["driver"]));
        line(format_args!("GPU {i}: {name} [{}, {}] {driver}{used}", plain(&a["kind"]), plain(&a["backend"])));
    }
    out
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use zebra_runtime::engine::LoadOptions;

    use super::*;
    use crate::files::FolderFiles;

    #[test]
    fn every_family_is_told_with_its_layers_and_cache() {
        let gpu = block_on(Gpu::open(None)).expect("an adapter");
        for (name, family, layers, cache) in [
            (
                "tiny-gqa",
                "zebra-llama: config.json comes with hybrid_config.json",
                ["0 mla       4 heads (2 kv), q rank 24, latent 16 + rope 8", "1 mamba2    4 heads of 16×16"],
                "96 bytes a token in f16, 15.0% of the base Transformer's 640; as q8",
            ),
            (
                "tiny-xecomla-dynamic",
                "x-ecomla: config.json comes with MLA_config.json",
                ["0 mla       4 heads (4 kv), q rank 32, latent 24 + rope 8", "1 mla       4 heads (4 kv), q rank 16"],
                "144 bytes a token in f16, 37.5% of the base Transformer's 384; as q8",
            ),
            (
                "tiny-mambainllama",
                "mambainllama: config.json comes with mamba_config.json",
                ["0 mamba2    4 heads of 16×16", "1 attention 4 heads of 16 (2 kv)"],
                "256 bytes a token in f16, 50.0% of the base Transformer's 512; as q8",
            ),
            (
                "tiny-llama",
                "llama: config.json has model_type \"llama\"",
                ["0 attention 4 heads of 16 (2 kv)", "2 attention 4 heads of 16 (2 kv)"],
                "384 bytes a token in f16, 100.0% of the base Transformer's 384; as q8",
            ),
        ] {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures").join(name);
            let files = FolderFiles::open(&folder).expect("the fixture");
            let checkpoint = block_on(Checkpoint::open(&files)).expect("it opens");
            let plan = LoadOptions::default().plan(&checkpoint, &gpu).expect("it fits");
            let text = readable(&report(name, &checkpoint, &plan, "", &gpu, &[]), checkpoint.config());
            let begin = format!("{name} ({family}");
            assert!(text.starts_with(&begin), "{begin} expected: {text}");
            for words in layers.into_iter().chain([cache]) {
                assert!(text.contains(words), "{words} expected: {text}");
            }
        }
    }
}
