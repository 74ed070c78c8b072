//! `mla_query.wgsl`.

use zebra_runtime::gpu::{Dispatch, Gpu};
use zebra_runtime::kernels::Target;
use zebra_runtime::kernels::mla_latent::{CacheFormat, CacheShape};
use zebra_runtime::kernels::mla_query::{MlaHeads, MlaQuery};
use zebra_runtime::kernels::rope::turns;
use zebra_runtime::weights::WeightFormat;
use zebra_tests::compare::{Tolerance, Worst, compare};
use zebra_tests::harness::{Bench, StepBuilder, shape_of};
use zebra_tests::random::Random;
use zebra_tests::reference::mla_query as twin;
use zebra_tests::reference::rope::Rope;
use zebra_tests::reference::weight::{FORMATS, Weight};

use super::{Cut, Input, table, target};

const MAX_ROWS: u32 = 80;

/// The widths of an MLA mixer.
#[derive(Debug, Clone, Copy)]
pub struct Mla {
    pub heads: MlaHeads,
    pub latent: usize,
    pub rope: usize,
}

const fn mla(heads: usize, kv_heads: usize, nope: usize, v: usize, latent: usize, rope: usize) -> Mla {
    Mla { heads: MlaHeads { heads, kv_heads, nope, v }, latent, rope }
}

/// The tiny fixtures, the released 1B, 3B and 8B, a released X-EcoMLA, and sizes that are no multiple of anything.
pub const MIXERS: [Mla; 8] = [
    mla(4, 2, 8, 16, 16, 8),
    mla(32, 8, 32, 64, 128, 32),
    mla(24, 8, 64, 128, 128, 64),
    mla(32, 8, 64, 128, 160, 64),
    mla(2, 2, 64, 128, 816, 64),
    mla(3, 1, 5, 7, 10, 6),
    mla(1, 1, 1, 1, 1, 2),
    mla(9, 3, 33, 65, 290, 10),
];

#[derive(Debug, Clone, Copy)]
pub struct Case {
    pub mla: Mla,
    pub format: WeightFormat,
    pub cut: Cut,
    pub outliers: bool,
    pub rows: usize,
}

/// Sums of up to 64 products in f32; turns that are products of two f32 turns.
const TOLERANCE: f64 = 1e-5;

fn run(gpu: &Gpu, case: &Case, input: Input) -> Result<Worst, String> {
    check(gpu, case, input, TOLERANCE, |kernel, target| kernel.dispatch("test", target))
}

/// Runs a case on `mla_query.wgsl` or a twin of it; `tolerance` is in standard deviations.
pub fn check(
    gpu: &Gpu,
    case: &Case,
    input: Input,
    tolerance: f64,
    query_of: impl Fn(&MlaQuery<'_>, Target) -> Dispatch,
) -> Result<Worst, String> {
    let (h, latent) = (case.mla.heads, case.mla.latent);
    let s = CacheShape::mla(CacheFormat::F16, latent, case.mla.rope, 70_000);
    let mut random = Random::new((latent + 1000 * h.heads) as u64);
    let rope = Rope::new(s.rope, 1.207_944_2);
    let scale = ((h.nope + s.rope) as f32).powf(-0.5);
    let n = h.kv_heads * (h.nope + h.v);
    let kv_b = Weight::random(case.format, n, latent, &mut random);
    let step = StepBuilder::new().segment(2, 255, case.rows).frozen(0, 3, 1).segment(1, 69_999, 1).build();
    let rows = step.rows.len();
    let q_stride = (h.heads * (h.nope + s.rope)).next_multiple_of(32) + 32;
    let mut q = random.normals(rows * q_stride, 1.0);
    if case.outliers {
        (0..2 * rows).for_each(|_| {
            let i = random.below(q.len());
            q[i] *= 1e3;
        });
    }

    let target = target(gpu, false, MAX_ROWS);
    let target = Target { limits: case.cut.limits(target.limits, case.format, n, latent), ..target };
    let bench = Bench::new(gpu);
    let stride = 4 * s.row_quads();
    let query = bench.output("query", MAX_ROWS as usize * h.heads * stride);
    let kernel = MlaQuery {
        step: &bench.step(&step, MAX_ROWS),
        shape: s,
        heads: h,
        q: &bench.floats("q", &q),
        q_stride,
        turns: &bench.floats("turns", bytemuck::cast_slice(&turns(&rope.inv_freq, rope.scale, s.context))),
        kv_b: &bench.matrix("kv_b", &kv_b, target),
        scale,
        query: &query,
    };
    bench.run(&[query_of(&kernel, target)], shape_of(&step))?;

    let mut values = kv_b.values();
    if input == Input::Altered {
        values[(h.kv_heads - 1) * (h.nope + h.v) * latent] += 0.1;
    }
    let mut expected = Vec::with_capacity(rows * h.heads * stride);
    for (r, row) in step.rows.iter().enumerate() {
        for head in 0..h.heads {
            let kv = head / (h.heads / h.kv_heads);
            let wk = &values[kv * (h.nope + h.v) * latent..][..h.nope * latent];
            let q = &q[r * q_stride + head * (h.nope + s.rope)..][..h.nope + s.rope];
            let (c, k) = twin::mla_query(q, wk, latent, &rope, scale, row.position);
            let from = expected.len();
            expected.extend(c);
            expected.resize(from + 4 * s.latent_quads(), 0.0);
            expected.extend(k);
            expected.resize(from + stride, 0.0);
        }
    }
    // The absorbed and the roped part, each by its own spread.
    let got = &bench.read(&query)[..expected.len()];
    let mut worst = Worst::default();
    for part in [0..4 * s.latent_quads(), 4 * s.latent_quads()..stride] {
        let g: Vec<f32> = got.chunks(stride).flat_map(|row| &row[part.clone()]).copied().collect();
        let e: Vec<f64> = expected.chunks(stride).flat_map(|row| &row[part.clone()]).copied().collect();
        worst = worst.and(compare(&g, &e, part.len(), Tolerance::sd(tolerance))?);
    }
    Ok(worst)
}

/// The table of both kernels.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (i, mla) in MIXERS.into_iter().enumerate() {
        for format in FORMATS {
            let case = Case { mla, format, cut: Cut::Whole, outliers: false, rows: [1, 3, 9][i % 3] };
            cases.push(case);
            if i % 2 == 0 {
                cases.push(Case { outliers: true, cut: Cut::Pieces, ..case });
            }
        }
    }
    cases
}

#[test]
fn mla_query() {
    table("mla_query", cases(), run);
}
