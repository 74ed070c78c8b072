//! Everything a checkpoint computes for given ids, as named tensors: what goldens from PyTorch are compared with.

use super::KernelChoice;
use crate::files::Files;
use crate::gpu::Gpu;
use crate::model::{CacheFormat, Kept, Model, Plan, PlanOptions, Row, Step, Token};
use crate::weights::{Checkpoint, Preset};
use crate::{Error, Result};

/// A tensor of f32 or of ids.
#[derive(Debug, Clone, PartialEq)]
pub struct NamedTensor {
    pub name: String,
    pub shape: Vec<usize>,
    pub values: Values,
}

/// The values of a [`NamedTensor`].
#[derive(Debug, Clone, PartialEq)]
pub enum Values {
    F32(Vec<f32>),
    I64(Vec<i64>),
}

/// How to probe.
#[derive(Debug, Clone)]
pub struct ProbeOptions {
    pub preset: Preset,
    pub cache: CacheFormat,
    /// Greedy tokens to decode after the prompt; end ids do not stop it.
    pub decode: usize,
    /// The prompt one row at a time instead of in chunks of this many.
    pub chunk: usize,
    pub kernels: KernelChoice,
}

/// Runs `ids` and then greedy tokens, and returns `input_ids`, `prefill.logits`, `layerN.mixer`, `layerN.out`,
/// `greedy_ids`, `decodeK.logits` (after feeding greedy id K) and `cache.N.{latent,conv,ssm}`, with a leading axis 1.
/// Opens no tokenizer.
pub async fn probe(files: &dyn Files, gpu: Gpu, ids: &[u32], options: &ProbeOptions) -> Result<Vec<NamedTensor>> {
    let checkpoint = Checkpoint::open(files).await?;
    let config = checkpoint.config().clone();
    if ids.is_empty() {
        return Err(Error::Prompt("at least one id is needed".into()));
    }
    if let Some(id) = ids.iter().find(|&&id| id as usize >= config.vocab_size) {
        return Err(Error::Prompt(format!("id {id}: expected ids below {}", config.vocab_size)));
    }
    let length = ids.len() + options.decode;
    if length > config.max_position_embeddings {
        let have = config.max_position_embeddings;
        return Err(Error::Context { need: length, have, advice: "shorten the prompt".into() });
    }
    let rows = options.chunk.clamp(1, ids.len()) as u32;
    let plan = PlanOptions {
        preset: options.preset,
        cache: options.cache,
        slots: 1,
        context: length as u32,
        max_rows: rows,
        narrow_rows: super::NARROW_ROWS,
        logit_rows: rows,
        twins: options.kernels.twins(&gpu),
    };
    let plan = Plan::new(&config, plan, gpu.limits())?;
    let mut model = Model::load(gpu, &checkpoint, plan, &mut |_, _| {}).await?;
    let (hidden, vocab) = (config.hidden_size, config.vocab_size);

    let mut logits: Vec<Vec<f32>> = Vec::new();
    let mut streams: Vec<(String, Vec<Vec<f32>>)> = Vec::new();
    for (i, chunk) in ids.chunks(rows as usize).enumerate() {
        let step = step(chunk, i * rows as usize);
        let taps = model.taps(&step, hidden, vocab).await?;
        logits.extend(taps.logits);
        if streams.is_empty() {
            streams = taps.residuals;
        } else {
            for (all, more) in streams.iter_mut().zip(taps.residuals) {
                all.1.extend(more.1);
            }
        }
    }
    let f32s =
        |name: String, shape: Vec<usize>, values: Vec<f32>| NamedTensor { name, shape, values: Values::F32(values) };
    let mut out = Vec::new();
    for pair in streams.windows(2) {
        let (name, after) = &pair[1];
        let values: Vec<f32> = if name.ends_with(".mixer") {
            // A mixer adds to the residual: its own output is what it added.
            after.iter().flatten().zip(pair[0].1.iter().flatten()).map(|(a, b)| a - b).collect()
        } else {
            after.concat()
        };
        out.push(f32s(name.clone(), vec![1, ids.len(), hidden], values));
    }
    let mut next = argmax(&logits[logits.len() - 1]);
    out.push(f32s("prefill.logits".into(), vec![1, ids.len(), vocab], logits.concat()));
    let mut greedy = Vec::new();
    for k in 0..options.decode {
        greedy.push(i64::from(next));
        let row = model.logits(&step(&[next], ids.len() + k), vocab).await?.concat();
        next = argmax(&row);
        out.push(f32s(format!("decode{k}.logits"), vec![1, 1, vocab], row));
    }
    out.push(NamedTensor {
        name: "input_ids".into(),
        shape: vec![1, ids.len()],
        values: Values::I64(ids.iter().map(|&id| i64::from(id)).collect()),
    });
    out.push(NamedTensor { name: "greedy_ids".into(), shape: vec![greedy.len()], values: Values::I64(greedy) });
    out.extend(caches(&model, options.cache, length).await?);
    Ok(out)
}

fn step(ids: &[u32], first: usize) -> Step {
    let row = |(i, &id): (usize, &u32)| Row {
        slot: 0,
        token: Token::Id(id),
        position: (first + i) as u32,
        logits: true,
        sample: false,
    };
    Step { rows: ids.iter().enumerate().map(row).collect() }
}

/// The lowest id of the largest value.
pub fn argmax(values: &[f32]) -> u32 {
    let best = values.iter().enumerate().fold((0, f32::NEG_INFINITY), |b, (i, &v)| if v > b.1 { (i, v) } else { b });
    best.0 as u32
}

/// The carried states of slot 0 in the shapes of the authors' caches. Rows are read only from an f32 cache.
async fn caches(model: &Model, format: CacheFormat, length: usize) -> Result<Vec<NamedTensor>> {
    let mut out = Vec::new();
    for (i, carried) in model.plan().state.layers.iter().enumerate() {
        if matches!(carried.kept, Kept::Rows { .. }) && format != CacheFormat::F32 {
            continue;
        }
        let (buffer, offset) = carried.of_slot(0);
        let bytes = model.gpu().read(buffer, offset..offset + carried.kept.slot_bytes()).await?;
        let words: Vec<f32> = bytemuck::pod_collect_to_vec(&bytes);
        for (name, shape, values) in model.plan().cache(i, &words, length) {
            let shape = [&[1], &shape[..]].concat();
            out.push(NamedTensor { name: format!("cache.{i}.{name}"), shape, values: Values::F32(values) });
        }
    }
    Ok(out)
}
