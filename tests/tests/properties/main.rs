//! What must hold without any oracle: however a prompt is cut, whoever else is in a batch, and wherever a slot has been
//! in between, the answer is the same.

mod answers;
mod cut;
mod families;
mod steps;

use std::path::Path;

use pollster::block_on;
use zebra_runtime::engine::{
    CacheFormat, Engine, Finished, GenerateOptions, KernelChoice, LoadOptions, SamplingOptions,
};
use zebra_runtime::gpu::Gpu;
use zebra_runtime::model::{Row, Token};
use zebra_runtime::weights::Preset;
use zebra_tests::files::TestFolder;

const VOCAB: usize = 97;

fn tiny(name: &str) -> TestFolder {
    TestFolder::with_words(&Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name), VOCAB)
}

fn gpu() -> Gpu {
    block_on(Gpu::open(None)).expect("an adapter")
}

/// Ids that repeat nothing for long.
fn ids(count: usize, seed: u32) -> Vec<u32> {
    (0..count as u32).map(|i| (i.wrapping_mul(2_654_435_761).rotate_left(seed) >> 7) % VOCAB as u32).collect()
}

fn engine(name: &str, options: LoadOptions) -> Engine {
    block_on(Engine::load(&*tiny(name), gpu(), &options, &mut |_| {})).expect("the checkpoint loads")
}

fn options(kernels: KernelChoice) -> LoadOptions {
    LoadOptions { preset: Some(Preset::F32), cache: CacheFormat::F32, kernels, ..LoadOptions::default() }
}

fn rows(slot: usize, ids: &[u32], first: usize) -> Vec<Row> {
    let row = |(i, &id): (usize, &u32)| Row {
        slot: slot as u32,
        token: Token::Id(id),
        position: (first + i) as u32,
        logits: true,
        sample: false,
    };
    ids.iter().enumerate().map(row).collect()
}

/// The largest difference in standard deviations of the second.
fn differ(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let n = b.len() as f64;
    let mean = b.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
    let sd = (b.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / n).sqrt();
    let worst = a.iter().zip(b).map(|(&a, &b)| (f64::from(a) - f64::from(b)).abs());
    worst.fold(0.0, |w: f64, e| if e.is_nan() { f64::INFINITY } else { w.max(e) }) / sd
}

fn answer(engine: &mut Engine, slot: usize, prompt: Option<&[u32]>, options: &GenerateOptions) -> Finished {
    block_on(async {
        let mut generation = match prompt {
            Some(prompt) => engine.generate(slot, prompt, options).await?,
            None => engine.resume(slot, options).await?,
        };
        while generation.next().await?.is_some() {}
        generation.finish().await
    })
    .expect("an answer")
}

fn drawn(max_tokens: usize) -> GenerateOptions {
    let sampling = SamplingOptions {
        temperature: 0.9,
        top_p: 0.95,
        repetition_penalty: 1.2,
        frequency_penalty: 0.3,
        seed: 11,
        ..SamplingOptions::default()
    };
    GenerateOptions { sampling, max_tokens: Some(max_tokens), ignore_eos: true, ..GenerateOptions::default() }
}
