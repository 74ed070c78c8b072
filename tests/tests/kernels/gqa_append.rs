//! `gqa_append.wgsl` with `parts/rope.wgsl` by halves and the parts that store a cached row.

use zebra_runtime::gpu::Gpu;
use zebra_runtime::kernels::gqa_append::GqaAppend;
use zebra_runtime::kernels::mla_latent::{CacheFormat, CacheShape};
use zebra_runtime::kernels::rmsnorm::Columns;
use zebra_runtime::kernels::rope::turns;
use zebra_runtime::kernels::slots::Slots;
use zebra_tests::compare::{Worst, compare_each};
use zebra_tests::harness::{Bench, POISON, StepBuilder, shape_of};
use zebra_tests::random::Random;
use zebra_tests::reference::rope::Rope;
use zebra_tests::reference::{cache, gqa_append as twin};

use super::mla_latent::FORMATS;
use super::{Input, table, target};

const MAX_ROWS: u32 = 80;
const SLOTS: usize = 3;

/// The widths of a mixer of grouped queries.
#[derive(Debug, Clone, Copy)]
pub struct Gqa {
    pub kv_heads: usize,
    /// Query heads of each.
    pub group: usize,
    pub head_dim: usize,
    pub v: usize,
    /// Elements of a head that are turned.
    pub rope: usize,
}

const fn gqa(kv_heads: usize, group: usize, head_dim: usize, v: usize, rope: usize) -> Gqa {
    Gqa { kv_heads, group, head_dim, v, rope }
}

/// A tiny one, SmolLM2's and Llama 8B's; heads of 80, a part of them turned or none; values of another width, and sizes
/// that fill no quad.
pub const MIXERS: [Gqa; 8] = [
    gqa(2, 4, 16, 16, 16),
    gqa(3, 3, 64, 64, 64),
    gqa(8, 4, 128, 128, 128),
    gqa(4, 8, 80, 80, 32),
    gqa(5, 1, 80, 80, 20),
    gqa(1, 2, 96, 32, 96),
    gqa(2, 1, 64, 64, 0),
    gqa(1, 3, 10, 7, 6),
];

#[derive(Debug, Clone, Copy)]
struct Case {
    gqa: Gqa,
    format: CacheFormat,
    context: usize,
    outliers: bool,
}

/// An f16 is one of the two beside the number (WGSL leaves the choice open): off by at most 2^-10 of it.
fn f16(e: f64) -> f64 {
    2f64.powi(-10) * e.abs() + 2f64.powi(-24)
}

fn run(gpu: &Gpu, case: &Case, input: Input) -> Result<Worst, String> {
    let Gqa { kv_heads, group, head_dim, v, rope: turned } = case.gqa;
    let s = CacheShape::gqa(case.format, kv_heads, head_dim, v, case.context);
    let heads = kv_heads * group;
    let mut random = Random::new((head_dim * 100 + heads) as u64);
    let rope = Rope::new(turned, 1.346_573_6);
    let scale = (head_dim as f32).powf(-0.5);
    // The beginning, the seam of the turns' tables, a frozen slot, and the end with two rows over it.
    let seam = 254.min(s.context - 4);
    let step =
        StepBuilder::new().segment(1, 0, 3).segment(0, seam, 4).frozen(1, 3, 2).segment(2, s.context - 3, 5).build();
    let rows = step.rows.len();
    let q_offset = 3;
    let k_offset = q_offset + heads * head_dim + 5;
    let v_offset = k_offset + kv_heads * head_dim + 2;
    let stride = v_offset + kv_heads * v + 9;
    let mut x = random.normals(rows * stride, 1.0);
    if case.outliers {
        (0..2 * rows).for_each(|_| {
            let i = random.below(x.len());
            x[i] = 1e3 * random.normal();
        });
        // Over an f16's range; a group of nothing but zeros has a scale of zero.
        x[stride + k_offset] = 1e6;
        x[stride + v_offset] = -1e6;
        x[v_offset..v_offset + v.min(32)].fill(0.0);
    }

    let bench = Bench::new(gpu);
    let latents = bench.output("latents", SLOTS * s.context * s.position_words());
    let query = bench.output("query", rows * heads * 4 * s.key_quads());
    let mut tables = turns(&rope.inv_freq, rope.scale, s.context);
    if turned == 0 {
        tables.push([0.0; 2]);
    }
    let dispatch = GqaAppend {
        step: &bench.step(&step, MAX_ROWS),
        shape: s,
        heads,
        rope: turned,
        q: Columns { buffer: &bench.floats("x", &x), stride, offset: q_offset },
        k_offset,
        v_offset,
        turns: &bench.floats("turns", bytemuck::cast_slice(&tables)),
        scale,
        query: &query,
        latents: &Slots::all(&latents, SLOTS as u32),
    }
    .dispatch("test", target(gpu, false, MAX_ROWS));
    bench.run(&[dispatch], shape_of(&step))?;
    let (words, queries) = (bench.read_words(&latents), bench.read(&query));

    // Turns are products of two f32 turns, then two products and a sum, of numbers as large as the pair.
    let off_by_turning = |e: &[f64]| -> Vec<f64> {
        let half = turned / 2;
        let of = |i: usize| if i < turned { 4e-7 * e[i % half].hypot(e[i % half + half]) } else { 0.0 };
        (0..e.len()).map(of).collect()
    };
    let mut written = vec![false; SLOTS * s.context * kv_heads];
    let mut worst = Worst::default();
    for (r, row) in step.rows.iter().enumerate() {
        let position = row.position + usize::from(input == Input::Altered);
        let x = &x[r * stride..][..stride];
        // The turns' tables end with the context.
        for h in (0..heads).filter(|_| row.position < s.context) {
            let mut e = twin::turned(&x[q_offset + h * head_dim..][..head_dim], &rope, position);
            e.iter_mut().for_each(|v| *v *= f64::from(scale));
            let off = off_by_turning(&e);
            e.resize(4 * s.key_quads(), 0.0);
            let got = &queries[(r * heads + h) * e.len()..][..e.len()];
            let near = compare_each(got, &e, e.len(), |i, e| off.get(i).copied().unwrap_or(0.0) + 1e-7 * e.abs());
            worst = worst.and(near.map_err(|e| format!("head {h} of row {r}: {e}"))?);
        }
        if !row.live || row.position >= s.context {
            continue;
        }
        for g in 0..kv_heads {
            let at = (row.slot * s.context + row.position) * kv_heads + g;
            written[at] = true;
            let (columns, _) = cache::decode(&s, &words[at * s.row_words()..][..s.row_words()]);
            let mut e: Vec<f64> = x[v_offset + g * v..][..v].iter().map(|v| f64::from(*v)).collect();
            e.resize(s.keys_from, 0.0);
            let key = twin::turned(&x[k_offset + g * head_dim..][..head_dim], &rope, position);
            let mut off = vec![0.0; e.len()];
            off.extend(off_by_turning(&key));
            e.extend(key);
            if s.format == CacheFormat::F16 {
                e.iter_mut().for_each(|v| *v = v.clamp(-65504.0, 65504.0));
            }
            let near = compare_each(&columns, &e, e.len(), |i, number| match s.format {
                CacheFormat::F32 => off[i],
                CacheFormat::F16 => off[i] + f16(number),
                // Half a code, and a scale that is off as an f16 is, at most at code 127.
                CacheFormat::Q8 => {
                    let group = &e[i / 32 * 32..e.len().min(i / 32 * 32 + 32)];
                    let most = group.iter().fold(0.0f64, |m, v| m.max(v.abs()));
                    off[i] + 0.501 * most / 127.0 + f16(most)
                }
            });
            worst = worst.and(near.map_err(|e| format!("kv head {g} of row {r}: {e}"))?);
        }
    }
    for (at, row) in words.chunks(s.row_words()).enumerate() {
        if row.contains(&POISON) == written[at] {
            let (slot, position) = (at / kv_heads / s.context, at / kv_heads % s.context);
            return Err(format!(
                "slot {slot}, position {position}: {}",
                if written[at] { "unwritten words" } else { "written" }
            ));
        }
    }
    Ok(worst)
}

#[test]
fn gqa_append() {
    let mut cases = Vec::new();
    for format in FORMATS {
        for (i, gqa) in MIXERS.into_iter().enumerate() {
            let context = [300, 257, 40, 1030][i % 4];
            let case = Case { gqa, format, context, outliers: false };
            cases.push(case);
            cases.push(Case { outliers: true, ..case });
        }
    }
    // The end of a long context, where an angle in f32 is off by 0.004.
    let gqa = gqa(1, 1, 32, 4, 32);
    cases.push(Case { gqa, format: CacheFormat::F32, context: 131_072, outliers: false });
    table("gqa_append", cases, run);
}
