//! The three kernels of grouped queries one after another against attention as Llama has it: a prompt, then single rows
//! of another slot. It shows that they agree with each other, where their tables show each by itself.

use zebra_runtime::gpu::{Dispatch, Gpu};
use zebra_runtime::kernels::gqa_append::GqaAppend;
use zebra_runtime::kernels::gqa_combine::GqaCombine;
use zebra_runtime::kernels::mla_attend::{MlaAttend, Spans};
use zebra_runtime::kernels::mla_attend_coop::{StepRows, attend};
use zebra_runtime::kernels::mla_latent::{CacheFormat, CacheShape};
use zebra_runtime::kernels::rmsnorm::Columns;
use zebra_runtime::kernels::rope::turns;
use zebra_runtime::kernels::slots::Slots;
use zebra_runtime::kernels::{Target, Twins};
use zebra_tests::compare::{Tolerance, UNTOUCHED, Worst, compare};
use zebra_tests::harness::{Bench, StepBuilder, shape_of};
use zebra_tests::random::Random;
use zebra_tests::reference::gqa_append::turned;
use zebra_tests::reference::rope::Rope;

use super::gqa_append::{Gqa, MIXERS};
use super::mla_latent::FORMATS;
use super::{Input, table, target};

const MAX_ROWS: u32 = 160;

#[derive(Debug, Clone, Copy)]
struct Case {
    gqa: Gqa,
    cache: CacheFormat,
    spans: Spans,
    rows: StepRows,
    /// The two slots' rows lie in buffers of their own.
    cut: bool,
}

/// The buffers of two slots' rows: one for both, or one for each.
pub fn pieces(bench: &Bench<'_>, cut: bool, shape: CacheShape) -> Vec<Slots> {
    let words = shape.context * shape.position_words();
    if !cut {
        return vec![Slots::all(&bench.output("latents", 2 * words), 2)];
    }
    let piece = |first| Slots { buffer: bench.output("latents", words), first, count: 1 };
    (0..2).map(piece).collect()
}

fn run(gpu: &Gpu, case: &Case, input: Input) -> Result<Worst, String> {
    let Gqa { kv_heads, group, head_dim, v, rope: rope_dim } = case.gqa;
    let s = CacheShape::gqa(case.cache, kv_heads, head_dim, v, 140);
    let heads = kv_heads * group;
    let mut random = Random::new((head_dim + heads) as u64);
    let rope = Rope::new(rope_dim, 1.0);
    let scale = (head_dim as f32).powf(-0.5);
    let step = StepBuilder::new().segment(1, 0, 131).segment(0, 0, 3).build();
    let rows = step.rows.len();
    let (k_offset, v_offset) = (heads * head_dim, (heads + kv_heads) * head_dim);
    let stride = v_offset + kv_heads * v;
    let x = random.normals(rows * stride, 1.0);
    let spans = case.spans.of_step(rows);

    let twins = Twins { mla_attend_coop: gpu.cooperative(), ..Twins::portable() };
    let target = Target { twins, ..target(gpu, false, MAX_ROWS) };
    let bench = Bench::new(gpu);
    let step_buffer = bench.step(&step, MAX_ROWS);
    let mut tables = turns(&rope.inv_freq, rope.scale, s.context);
    tables.push([0.0; 2]);
    let turns = bench.floats("turns", bytemuck::cast_slice(&tables));
    let pieces = pieces(&bench, case.cut, s);
    let query = bench.output("query", rows * heads * 4 * s.key_quads());
    let sums = bench.output("sums", rows * heads * spans * 4 * s.value_quads());
    let weights = bench.output("weights", rows * heads * spans * 2);
    let o_stride = heads * v;
    let o = bench.output("o", rows * o_stride);
    let x_buffer = bench.floats("x", &x);
    let append = |latents: &Slots| {
        GqaAppend {
            step: &step_buffer,
            shape: s,
            heads: if latents.first == 0 { heads } else { 0 },
            rope: rope_dim,
            q: Columns { buffer: &x_buffer, stride, offset: 0 },
            k_offset,
            v_offset,
            turns: &turns,
            scale,
            query: &query,
            latents,
        }
        .dispatch("test", target)
    };
    let attention = |latents: &Slots| {
        attend(
            &MlaAttend {
                step: &step_buffer,
                shape: s,
                heads,
                spans: case.spans,
                query: &query,
                latents,
                sums: &sums,
                weights: &weights,
            },
            "test",
            case.rows,
            target,
        )
    };
    let combine = GqaCombine {
        step: &step_buffer,
        shape: s,
        heads,
        spans: case.spans,
        sums: &sums,
        weights: &weights,
        o: &o,
        o_stride,
        codes: None,
    };
    let mut dispatches: Vec<Dispatch> = pieces.iter().map(append).chain(pieces.iter().map(attention)).collect();
    dispatches.push(combine.dispatch("test", target));
    bench.run(&dispatches, shape_of(&step))?;

    let mut expected = vec![UNTOUCHED; rows * o_stride];
    for segment in &step.segments {
        for head in 0..heads {
            let kv_head = head / group;
            let row = |t: usize| &x[(segment.first + t) * stride..][..stride];
            let keys: Vec<Vec<f64>> = (0..segment.count)
                .map(|t| {
                    let position = t + usize::from(input == Input::Altered && t == 0);
                    turned(&row(t)[k_offset + kv_head * head_dim..][..head_dim], &rope, position)
                })
                .collect();
            for t in 0..segment.count {
                let q = turned(&row(t)[head * head_dim..][..head_dim], &rope, t);
                let scores: Vec<f64> = keys[..=t]
                    .iter()
                    .map(|k| q.iter().zip(k).map(|(a, b)| a * b).sum::<f64>() * f64::from(scale))
                    .collect();
                let total: f64 = scores.iter().map(|s| s.exp()).sum();
                for d in 0..v {
                    let value = |u: usize| f64::from(row(u)[v_offset + kv_head * v + d]);
                    let o = scores.iter().enumerate().map(|(u, s)| s.exp() / total * value(u)).sum();
                    expected[(segment.first + t) * o_stride + head * v + d] = o;
                }
            }
        }
    }
    // f32: as the kernels by themselves. f16 rounds a cached number by 2^-11 of itself, evenly; on cooperative matrices
    // queries and weights too. q8 rounds by half of 1 / 127 of a group's largest (2 to 2.5 sd), evenly: 0.6% of it, 1% at
    // most with the scores'.
    let tolerance = match case.cache {
        CacheFormat::F32 => Tolerance::sd(2e-5),
        CacheFormat::F16 => Tolerance { nmse: 2e-3f64.powi(2), max_sd: 1e-2 },
        CacheFormat::Q8 => Tolerance { nmse: 0.015f64.powi(2), max_sd: 0.1 },
    };
    compare(&bench.read(&o), &expected, o_stride, tolerance)
}

#[test]
fn gqa_chain() {
    let mut cases = Vec::new();
    for (i, gqa) in MIXERS.into_iter().enumerate().filter(|(_, gqa)| gqa.rope > 0) {
        for cache in FORMATS {
            // The large ones once: each of their rows attends in each head.
            if gqa.kv_heads * gqa.group > 20 && cache != FORMATS[i % 3] {
                continue;
            }
            let spans = [Spans::narrow(140), Spans::wide(140), Spans::one()][i % 3];
            let rows = if spans == Spans::narrow(140) { StepRows::Apart } else { StepRows::Runs };
            cases.extend([false, true].map(|cut| Case { gqa, cache, spans, rows, cut }));
        }
    }
    table("gqa_append, mla_attend, gqa_combine", cases, run);
}
