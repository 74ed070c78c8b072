//! `gqa_combine.wgsl`.

use zebra_runtime::gpu::Gpu;
use zebra_runtime::kernels::coded;
use zebra_runtime::kernels::gqa_combine::GqaCombine;
use zebra_runtime::kernels::mla_attend::Spans;
use zebra_runtime::kernels::mla_latent::{CacheFormat, CacheShape};
use zebra_tests::compare::{Tolerance, UNTOUCHED, Worst, compare};
use zebra_tests::harness::{Bench, POISON, StepBuilder, shape_of};
use zebra_tests::random::Random;
use zebra_tests::reference::gqa_combine as twin;
use zebra_tests::reference::mla_combine::Span;

use super::mla_combine::compare_codes;
use super::{Input, table, target};

const MAX_ROWS: u32 = 12;

#[derive(Debug, Clone, Copy)]
struct Case {
    heads: usize,
    v: usize,
    context: usize,
    spans: Spans,
    /// o is left coded.
    coded: bool,
}

/// Sums of some spans in f32, and an exponential a span.
const TOLERANCE: f64 = 1e-5;

fn run(gpu: &Gpu, case: &Case, input: Input) -> Result<Worst, String> {
    let (heads, v) = (case.heads, case.v);
    let s = CacheShape::gqa(CacheFormat::F32, 1, v, v, case.context);
    let mut random = Random::new((v + 1000 * heads) as u64);
    let last = case.context - 1;
    let step = StepBuilder::new().segment(1, 0, 2.min(case.context)).segment(0, last / 2, 1).frozen(2, last, 1).build();
    let rows = step.rows.len();
    let spans = case.spans.of_step(rows);
    let reached = |position: usize| (position + 1).div_ceil(case.spans.positions(position + 1, rows));
    let stride = 4 * s.value_quads();

    // Spans that a row does not reach hold what another row left there.
    let (mut all, mut sums, mut weights) = (Vec::new(), Vec::new(), Vec::new());
    for row in &step.rows {
        for span in (0..heads).flat_map(|_| 0..spans) {
            let weight = random.uniform(1.0, 100.0);
            let part = Span { sum: random.normals(v, weight), top: 6.0 * random.normal(), weight };
            if span < reached(row.position) {
                sums.extend(&part.sum);
                sums.extend(vec![0.0; stride - v]);
                weights.extend([part.top, part.weight]);
            } else {
                sums.extend(vec![f32::from_bits(POISON); stride]);
                weights.extend([f32::from_bits(POISON); 2]);
            }
            all.push(part);
        }
    }

    if case.coded && !GqaCombine::can_code(s) {
        return Err("cannot be coded".into());
    }
    let o_stride = (heads * v).next_multiple_of(32) + 32;
    let bench = Bench::new(gpu);
    let o = bench.output("o", rows * o_stride);
    let codes = bench.output("codes", coded::words(rows, heads * v));
    let dispatch = GqaCombine {
        step: &bench.step(&step, MAX_ROWS),
        shape: s,
        heads,
        spans: case.spans,
        sums: &bench.floats("sums", &sums),
        weights: &bench.floats("weights", &weights),
        o: &o,
        o_stride,
        codes: case.coded.then_some(&codes),
    }
    .dispatch("test", target(gpu, false, MAX_ROWS));
    bench.run(&[dispatch], shape_of(&step))?;

    let mut expected = vec![UNTOUCHED; rows * o_stride];
    for (r, row) in step.rows.iter().enumerate() {
        for head in 0..heads {
            let at = (r * heads + head) * spans;
            let mut seen = all[at..at + reached(row.position)].to_vec();
            if input == Input::Altered {
                seen[0].sum.iter_mut().for_each(|v| *v *= 1.001);
            }
            let to = r * o_stride + head * v;
            expected[to..to + v].copy_from_slice(&twin::gqa_combine(&seen, v));
        }
    }
    if case.coded {
        compare(&bench.read(&o), &vec![UNTOUCHED; rows * o_stride], o_stride, Tolerance::sd(TOLERANCE))?;
        let width = heads * v;
        let expected: Vec<f64> = expected.chunks(o_stride).flat_map(|row| &row[..width]).copied().collect();
        return compare_codes(&bench.read_words(&codes), &expected, width);
    }
    compare(&bench.read(&o), &expected, o_stride, Tolerance::sd(TOLERANCE))
}

#[test]
fn gqa_combine() {
    let mut cases = Vec::new();
    let shapes: [(usize, usize); 8] = [(8, 16), (9, 64), (32, 128), (3, 80), (5, 7), (2, 96), (1, 1), (4, 256)];
    for (i, (heads, v)) in shapes.into_iter().enumerate() {
        for j in 0..6 {
            let (context, spans) = match (i + j) % 6 {
                0 => (1000, Spans::narrow(1000)),
                1 => (33, Spans::narrow(33)),
                2 => (1, Spans::narrow(1)),
                3 => (9000, Spans::narrow(9000)),
                4 => (9000, Spans::new(9000, 256, 35)),
                _ => (300, Spans::wide(300)),
            };
            let coded = v.is_multiple_of(32) && j % 2 == 1;
            cases.push(Case { heads, v, context, spans, coded });
        }
    }
    cases.push(Case { heads: 2, v: 64, context: 9000, spans: Spans::new(9000, 256, u32::MAX), coded: false });
    cases.push(Case { heads: 2, v: 64, context: 9000, spans: Spans::one(), coded: true });
    table("gqa_combine", cases, run);
}
