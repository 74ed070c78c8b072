//! The four MLA kernels one after another against attention as the paper writes it, with expanded K and V: a prompt,
//! then single rows of two slots. It shows that they agree with each other, where their tables show each by itself.

use zebra_runtime::gpu::{Dispatch, Gpu};
use zebra_runtime::kernels::mla_attend::{MlaAttend, Spans};
use zebra_runtime::kernels::mla_combine::MlaCombine;
use zebra_runtime::kernels::mla_latent::{CacheFormat, CacheShape, MlaLatent};
use zebra_runtime::kernels::mla_query::MlaQuery;
use zebra_runtime::kernels::rmsnorm::Columns;
use zebra_runtime::kernels::rope::turns;
use zebra_runtime::kernels::slots::Slots;
use zebra_runtime::weights::WeightFormat;
use zebra_tests::compare::{Tolerance, UNTOUCHED, Worst, compare};
use zebra_tests::harness::{Bench, StepBuilder, shape_of};
use zebra_tests::random::Random;
use zebra_tests::reference::rope::Rope;
use zebra_tests::reference::weight::Weight;

use super::gqa_chain::pieces;
use super::mla_latent::FORMATS;
use super::mla_query::{MIXERS, Mla};
use super::{Input, table, target};

const MAX_ROWS: u32 = 160;

#[derive(Debug, Clone, Copy)]
struct Case {
    mla: Mla,
    cache: CacheFormat,
    spans: Spans,
    /// The two slots' rows lie in buffers of their own.
    cut: bool,
}

fn run(gpu: &Gpu, case: &Case, input: Input) -> Result<Worst, String> {
    let (h, latent, rope_dim) = (case.mla.heads, case.mla.latent, case.mla.rope);
    let s = CacheShape::mla(case.cache, latent, rope_dim, 140);
    let mut random = Random::new(latent as u64);
    let rope = Rope::new(rope_dim, 1.346_573_6);
    let scale = ((h.nope + rope_dim) as f32).powf(-0.5);
    let kv_b = Weight::random(WeightFormat::Q8, h.kv_heads * (h.nope + h.v), latent, &mut random);
    let step = StepBuilder::new().segment(1, 0, 131).segment(0, 0, 3).build();
    let rows = step.rows.len();
    let (q_stride, kv_stride) = (h.heads * (h.nope + rope_dim), latent + rope_dim);
    let q = random.normals(rows * q_stride, 1.0);
    let kv = random.normals(rows * kv_stride, 1.0);
    let spans = case.spans.of_step(rows);

    let target = target(gpu, false, MAX_ROWS);
    let bench = Bench::new(gpu);
    let step_buffer = bench.step(&step, MAX_ROWS);
    let turns = bench.floats("turns", bytemuck::cast_slice(&turns(&rope.inv_freq, rope.scale, s.context)));
    let kv_b_buffer = bench.matrix("kv_b", &kv_b, target);
    let kv_buffer = bench.floats("kv", &kv);
    let pieces = pieces(&bench, case.cut, s);
    let query = bench.output("query", MAX_ROWS as usize * h.heads * 4 * s.row_quads());
    let sums = bench.output("sums", rows * h.heads * spans * 4 * s.latent_quads());
    let weights = bench.output("weights", rows * h.heads * spans * 2);
    let o_stride = h.heads * h.v;
    let o = bench.output("o", rows * o_stride);
    let q_buffer = bench.floats("q", &q);
    let append = |latents: &Slots| {
        MlaLatent {
            step: &step_buffer,
            shape: s,
            c: Columns { buffer: &kv_buffer, stride: kv_stride, offset: 0 },
            k_pe: Columns { buffer: &kv_buffer, stride: kv_stride, offset: latent },
            turns: &turns,
            latents,
        }
        .dispatch("test", target)
    };
    let make = MlaQuery {
        step: &step_buffer,
        shape: s,
        heads: h,
        q: &q_buffer,
        q_stride,
        turns: &turns,
        kv_b: &kv_b_buffer,
        scale,
        query: &query,
    };
    let attend = |latents: &Slots| {
        MlaAttend {
            step: &step_buffer,
            shape: s,
            heads: h.heads,
            spans: case.spans,
            query: &query,
            latents,
            sums: &sums,
            weights: &weights,
        }
        .dispatch("test", target)
    };
    let combine = MlaCombine {
        step: &step_buffer,
        shape: s,
        heads: h,
        spans: case.spans,
        sums: &sums,
        weights: &weights,
        kv_b: &kv_b_buffer,
        o: &o,
        o_stride,
        codes: None,
    };
    let mut dispatches: Vec<Dispatch> = pieces.iter().map(append).collect();
    dispatches.push(make.dispatch("test", target));
    dispatches.extend(pieces.iter().map(attend));
    dispatches.push(combine.dispatch("test", target));
    bench.run(&dispatches, shape_of(&step))?;

    // K = [Wk c | rope(k_pe)], V = Wv c, softmax(q K scale) V, for each head with the K and V of its kv head.
    let values = kv_b.values();
    let product = |kv_head: usize, row: usize, c: &[f32]| -> f64 {
        let w = &values[(kv_head * (h.nope + h.v) + row) * latent..][..latent];
        w.iter().zip(c).map(|(w, c)| f64::from(*w) * f64::from(*c)).sum()
    };
    let mut expected = vec![UNTOUCHED; rows * o_stride];
    for segment in &step.segments {
        for kv_head in 0..h.kv_heads {
            let (mut keys, mut vs) = (Vec::new(), Vec::new());
            for t in 0..segment.count {
                let row = &kv[(segment.first + t) * kv_stride..][..kv_stride];
                let mut key: Vec<f64> = (0..h.nope).map(|d| product(kv_head, d, &row[..latent])).collect();
                key.extend(rope.turn(&row[latent..], t + usize::from(input == Input::Altered && t == 0)));
                keys.push(key);
                vs.push((0..h.v).map(|d| product(kv_head, h.nope + d, &row[..latent])).collect::<Vec<f64>>());
            }
            let shared = h.heads / h.kv_heads;
            for head in kv_head * shared..(kv_head + 1) * shared {
                for t in 0..segment.count {
                    let r = segment.first + t;
                    let row = &q[r * q_stride + head * (h.nope + rope_dim)..][..h.nope + rope_dim];
                    let mut full: Vec<f64> = row[..h.nope].iter().map(|v| f64::from(*v)).collect();
                    full.extend(rope.turn(&row[h.nope..], t));
                    let scores: Vec<f64> = keys[..=t]
                        .iter()
                        .map(|k| full.iter().zip(k).map(|(a, b)| a * b).sum::<f64>() * f64::from(scale))
                        .collect();
                    let total: f64 = scores.iter().map(|s| s.exp()).sum();
                    for d in 0..h.v {
                        let o: f64 = scores.iter().zip(&vs).map(|(s, v)| s.exp() / total * v[d]).sum();
                        expected[r * o_stride + head * h.v + d] = o;
                    }
                }
            }
        }
    }
    // f32: as the kernels by themselves. f16 rounds a cached number by 2^-11 of itself, evenly: 3e-4 of its spread. q8
    // rounds by half of 1 / 127 of a group's largest (2 to 2.5 sd), evenly: 0.6% of it, 1% at most with the scores'.
    let tolerance = match case.cache {
        CacheFormat::F32 => Tolerance::sd(2e-5),
        CacheFormat::F16 => Tolerance { nmse: 2e-3f64.powi(2), max_sd: 6e-3 },
        CacheFormat::Q8 => Tolerance { nmse: 0.015f64.powi(2), max_sd: 0.1 },
    };
    compare(&bench.read(&o), &expected, o_stride, tolerance)
}

#[test]
fn mla_chain() {
    let mut cases = Vec::new();
    for (i, mla) in MIXERS.into_iter().enumerate() {
        for cache in FORMATS {
            // The large ones once: each of their rows attends in each head.
            if mla.heads.heads > 20 && cache != FORMATS[i % 3] {
                continue;
            }
            let spans = [Spans::narrow(140), Spans::wide(140), Spans::one()][i % 3];
            cases.extend([false, true].map(|cut| Case { mla, cache, spans, cut }));
        }
    }
    table("mla_latent, mla_query, mla_attend, mla_combine", cases, run);
}
