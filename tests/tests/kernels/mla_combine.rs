//! `mla_combine.wgsl`.

use zebra_runtime::gpu::{Dispatch, Gpu};
use zebra_runtime::kernels::Target;
use zebra_runtime::kernels::coded;
use zebra_runtime::kernels::mla_attend::Spans;
use zebra_runtime::kernels::mla_combine::MlaCombine;
use zebra_runtime::kernels::mla_latent::{CacheFormat, CacheShape};
use zebra_runtime::weights::WeightFormat;
use zebra_tests::compare::{Tolerance, UNTOUCHED, Worst, compare, compare_each, compare_relative};
use zebra_tests::harness::{Bench, POISON, StepBuilder, shape_of};
use zebra_tests::random::Random;
use zebra_tests::reference::mla_combine::{self as twin, Span};
use zebra_tests::reference::product::coded_groups;
use zebra_tests::reference::weight::{FORMATS, Weight};

use super::mla_query::{MIXERS, Mla};
use super::{Cut, Input, table, target};

const MAX_ROWS: u32 = 12;

#[derive(Debug, Clone, Copy)]
pub struct Case {
    pub mla: Mla,
    pub format: WeightFormat,
    pub cut: Cut,
    pub context: usize,
    pub spans: Spans,
    /// o is left coded.
    pub coded: bool,
}

/// Sums of some spans and of up to 290 products in f32, and an exponential a span.
const TOLERANCE: f64 = 1e-5;

fn run(gpu: &Gpu, case: &Case, input: Input) -> Result<Worst, String> {
    let how = Check { cache: CacheFormat::F32, first_rows: 2, tolerance: TOLERANCE };
    check(gpu, case, input, how, |kernel, target| kernel.dispatch("test", target))
}

/// How a kernel is compared.
#[derive(Debug, Clone, Copy)]
pub struct Check {
    pub cache: CacheFormat,
    /// Rows of the first segment.
    pub first_rows: usize,
    /// In standard deviations.
    pub tolerance: f64,
}

/// Runs a case on `mla_combine.wgsl` or a twin of it.
pub fn check(
    gpu: &Gpu,
    case: &Case,
    input: Input,
    how: Check,
    combine: impl Fn(&MlaCombine<'_>, Target) -> Dispatch,
) -> Result<Worst, String> {
    let (h, latent) = (case.mla.heads, case.mla.latent);
    let s = CacheShape::mla(how.cache, latent, case.mla.rope, case.context);
    let mut random = Random::new((latent + 1000 * h.heads) as u64);
    let n = h.kv_heads * (h.nope + h.v);
    let kv_b = Weight::random(case.format, n, latent, &mut random);
    let last = case.context - 1;
    let first_rows = how.first_rows.min(case.context);
    let step = StepBuilder::new().segment(1, 0, first_rows).segment(0, last / 2, 1).frozen(2, last, 1).build();
    let rows = step.rows.len();
    let spans = case.spans.of_step(rows);
    let reached = |position: usize| (position + 1).div_ceil(case.spans.positions(position + 1, rows));
    let stride = 4 * s.latent_quads();

    // Spans that a row does not reach hold what another row left there.
    let all: Vec<Span> = (0..rows * h.heads * spans)
        .map(|_| {
            let weight = random.uniform(1.0, 100.0);
            Span { sum: random.normals(latent, weight), top: 6.0 * random.normal(), weight }
        })
        .collect();
    let (mut sums, mut weights) = (Vec::new(), Vec::new());
    for span in &all {
        sums.extend(&span.sum);
        sums.extend(vec![0.0; stride - latent]);
        weights.extend([span.top, span.weight]);
    }
    for (i, row) in step.rows.iter().enumerate() {
        for head in 0..h.heads {
            for span in reached(row.position)..spans {
                let at = (i * h.heads + head) * spans + span;
                weights[2 * at..2 * at + 2].fill(f32::from_bits(POISON));
                sums[at * stride..(at + 1) * stride].fill(f32::from_bits(POISON));
            }
        }
    }

    let target = target(gpu, false, MAX_ROWS);
    let target = Target { limits: case.cut.limits(target.limits, case.format, n, latent), ..target };
    if case.coded && !MlaCombine::can_code(h) {
        return Err("cannot be coded".into());
    }
    let o_stride = (h.heads * h.v).next_multiple_of(32) + 32;
    let bench = Bench::new(gpu);
    let o = bench.output("o", rows * o_stride);
    let codes = bench.output("codes", coded::words(rows, h.heads * h.v));
    let kernel = MlaCombine {
        step: &bench.step(&step, MAX_ROWS),
        shape: s,
        heads: h,
        spans: case.spans,
        sums: &bench.floats("sums", &sums),
        weights: &bench.floats("weights", &weights),
        kv_b: &bench.matrix("kv_b", &kv_b, target),
        o: &o,
        o_stride,
        codes: case.coded.then_some(&codes),
    };
    bench.run(&[combine(&kernel, target)], shape_of(&step))?;

    let values = kv_b.values();
    let mut expected = vec![UNTOUCHED; rows * o_stride];
    for (r, row) in step.rows.iter().enumerate() {
        for head in 0..h.heads {
            let kv = head / (h.heads / h.kv_heads);
            let wv = &values[(kv * (h.nope + h.v) + h.nope) * latent..][..h.v * latent];
            let at = (r * h.heads + head) * spans;
            let mut seen = all[at..at + reached(row.position)].to_vec();
            if input == Input::Altered {
                seen[0].sum.iter_mut().for_each(|v| *v *= 1.0 + 100.0 * how.tolerance as f32);
            }
            let to = r * o_stride + head * h.v;
            for (e, v) in expected[to..].iter_mut().zip(twin::mla_combine(&seen, wv, latent)) {
                *e = v;
            }
        }
    }
    if case.coded {
        compare(&bench.read(&o), &vec![UNTOUCHED; rows * o_stride], o_stride, Tolerance::sd(how.tolerance))?;
        let width = h.heads * h.v;
        let expected: Vec<f64> = expected.chunks(o_stride).flat_map(|row| &row[..width]).copied().collect();
        return compare_codes(&bench.read_words(&codes), &expected, width);
    }
    compare(&bench.read(&o), &expected, o_stride, Tolerance::sd(how.tolerance))
}

/// Coded rows against what they were rounded from: values within half a step, and of each group its step and its sum of
/// squares.
pub fn compare_codes(codes: &[u32], expected: &[f64], width: usize) -> Result<Worst, String> {
    let groups = coded_groups(codes, width / 32);
    let values: Vec<f32> = groups.iter().flat_map(|g| g.codes.iter().map(|c| f32::from(*c) * g.scale)).collect();
    let (mut units, mut units_twin, mut steps) = (Vec::new(), Vec::new(), Vec::new());
    for (group, e) in groups.iter().zip(expected.chunks(32)) {
        let step = e.iter().fold(0f64, |top, v| top.max(v.abs())) / 127.0;
        units.extend([group.scale, group.squares]);
        units_twin.extend([step, e.iter().map(|v| v * v).sum()]);
        steps.push(step);
    }
    let worst =
        compare_each(&values, expected, width, |i, _| 0.501 * steps[i / 32]).map_err(|e| format!("codes: {e}"))?;
    compare_relative(&units, &units_twin, 2, 1e-4).map_err(|e| format!("steps and squares: {e}"))?;
    Ok(worst)
}

/// The table of both kernels.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (i, mla) in MIXERS.into_iter().enumerate() {
        for (j, format) in FORMATS.into_iter().enumerate() {
            let (context, spans) = match (i + j) % 6 {
                0 => (1000, Spans::narrow(1000)),
                1 => (32, Spans::narrow(32)),
                2 => (33, Spans::narrow(33)),
                3 => (1, Spans::narrow(1)),
                4 => (9000, Spans::narrow(9000)),
                _ => (9000, Spans::new(9000, 256, 35)),
            };
            let case = Case { mla, format, cut: Cut::Whole, context, spans, coded: false };
            cases.push(case);
            if MlaCombine::can_code(mla.heads) {
                cases.push(Case { coded: true, ..case });
            }
            if mla.latent < 128 {
                cases.push(Case { cut: Cut::Pieces, context: 600, spans: Spans::narrow(600), ..case });
            }
            // More spans than a plan has, and one alone.
            if i + j == 1 {
                cases.push(Case { context: 9000, spans: Spans::new(9000, 256, u32::MAX), ..case });
                cases.push(Case { context: 9000, spans: Spans::one(), ..case });
            }
        }
    }
    // The last one is a control too.
    if let Some(case) = cases.iter().find(|case| case.coded).copied() {
        cases.push(case);
    }
    cases
}

#[test]
fn mla_combine() {
    table("mla_combine", cases(), run);
}
