//! `mla_attend.wgsl` with the parts that read a cached row.

use zebra_runtime::gpu::{Dispatch, Gpu, StepShape};
use zebra_runtime::kernels::Target;
use zebra_runtime::kernels::mla_attend::{MlaAttend, Spans};
use zebra_runtime::kernels::mla_latent::{CacheFormat, CacheShape};
use zebra_tests::compare::{Tolerance, UNTOUCHED, Worst, compare};
use zebra_tests::harness::{Bench, POISON, StepBuilder, shape_of};
use zebra_tests::random::Random;
use zebra_tests::reference::{cache, mla_attend as twin};

use super::mla_latent::FORMATS;
use super::{Input, table, target};

const MAX_ROWS: u32 = 24;
const SLOTS: usize = 3;

#[derive(Debug, Clone, Copy)]
pub struct Case {
    pub format: CacheFormat,
    pub latent: usize,
    pub rope: usize,
    pub heads: usize,
    pub context: usize,
    pub spans: Spans,
    /// Standard deviation of the scores.
    pub scores: f32,
    /// Workgroup memory that the kernel may plan with.
    pub memory: u32,
}

impl Case {
    pub fn shape(&self) -> CacheShape {
        CacheShape { format: self.format, latent: self.latent, rope: self.rope, context: self.context }
    }
}

fn run(gpu: &Gpu, case: &Case, input: Input) -> Result<Worst, String> {
    // A score is a sum of f32 products: off by some 1e-7 of its own size and of what cancels in it. A weight is off by
    // that, relatively, and by its exponential.
    let error = 2e-6 * f64::from(case.scores.max(5.0));
    check(gpu, case, input, [error, error], |kernel, target| kernel.dispatch("test", target))
}

/// Runs a case on `mla_attend.wgsl` or a twin of it. `errors` are what latents and the logarithms of sums of weights may
/// be off by, in standard deviations.
pub fn check(
    gpu: &Gpu,
    case: &Case,
    input: Input,
    errors: [f64; 2],
    attend: impl Fn(&MlaAttend<'_>, Target) -> Dispatch,
) -> Result<Worst, String> {
    let s = case.shape();
    let mut random = Random::new((case.latent * 100 + case.context) as u64);
    // The first position, the ends of tiles and of the context, a frozen slot, a chunk over a seam.
    let last = case.context - 1;
    let at = |p: usize| p.min(last);
    let step = StepBuilder::new()
        .segment(2, 0, 1)
        .segment(0, at(31), 1)
        .segment(0, at(127), 1)
        .frozen(1, at(128), 1)
        .segment(1, at(254).min(last - 2), 3)
        .segment(2, last, 1)
        .build();
    let rows = step.rows.len();
    let spans = case.spans.of_step(rows);

    // What lies behind a slot's last position must not be read: NaN.
    let mut cached = vec![vec![Vec::new(); case.context]; SLOTS];
    let mut words = Vec::new();
    for (slot, cached) in cached.iter_mut().enumerate() {
        let length = step.rows.iter().filter(|r| r.slot == slot).map(|r| r.position + 1).max().unwrap_or(0);
        for (position, row) in cached.iter_mut().enumerate() {
            if position < length {
                let packed = cache::encode(&s, &random.normals(s.latent, 1.0), &random.normals(s.rope, 1.0));
                let (c, k) = cache::decode(&s, &packed);
                *row = [c, k].concat();
                words.extend(packed);
            } else {
                words.extend(vec![POISON; s.row_words()]);
            }
        }
    }
    let width = s.latent + s.rope;
    let size = case.scores / (width as f32).sqrt();
    let queries: Vec<Vec<f32>> = (0..rows * case.heads).map(|_| random.normals(width, size)).collect();
    let mut padded = Vec::new();
    for q in &queries {
        padded.extend(&q[..s.latent]);
        padded.extend(vec![0.0; 4 * s.latent_quads() - s.latent]);
        padded.extend(&q[s.latent..]);
        padded.extend(vec![0.0; 4 * s.rope_quads() - s.rope]);
    }

    let target = target(gpu, false, MAX_ROWS);
    let mut limits = target.limits;
    limits.workgroup_memory = limits.workgroup_memory.min(case.memory);
    let quads = s.latent_quads();
    let bench = Bench::new(gpu);
    let sums = bench.output("sums", rows * case.heads * spans * 4 * quads);
    let weights = bench.output("weights", rows * case.heads * spans * 2);
    let kernel = MlaAttend {
        step: &bench.step(&step, MAX_ROWS),
        shape: s,
        heads: case.heads,
        spans: case.spans,
        query: &bench.floats("query", &padded),
        latents: &bench.words("latents", &words),
        sums: &sums,
        weights: &weights,
    };
    let dispatch = attend(&kernel, Target { limits, ..target });
    bench.run(&[dispatch], shape_of(&step))?;
    let (sums, weights) = (bench.read(&sums), bench.read(&weights));

    let (mut latents, mut tops) = (Vec::new(), Vec::new());
    let (mut latents_twin, mut tops_twin) = (Vec::new(), Vec::new());
    for (r, row) in step.rows.iter().enumerate() {
        for head in 0..case.heads {
            for span in 0..spans {
                let i = (r * case.heads + head) * spans + span;
                let (sum, weight) = (&sums[i * 4 * quads..][..4 * quads], &weights[2 * i..2 * i + 2]);
                let positions = case.spans.positions(row.position + 1, rows);
                let first = span * positions;
                if first > row.position {
                    latents.extend(sum);
                    tops.extend(weight);
                    latents_twin.extend(vec![UNTOUCHED; 4 * quads]);
                    tops_twin.extend([UNTOUCHED; 2]);
                    continue;
                }
                let mut seen = cached[row.slot][first..(first + positions).min(row.position + 1)].to_vec();
                if input == Input::Altered {
                    let end = seen.len() - 1;
                    seen[end][0] += 30.0;
                }
                let (o, log) = twin::mla_attend(&queries[r * case.heads + head], &seen, s.latent);
                if weight.iter().chain(sum).any(|v| v.to_bits() == POISON) {
                    return Err(format!("row {r} head {head} span {span} was not written"));
                }
                latents.extend(sum.iter().map(|v| v / weight[1]));
                latents_twin.extend(o);
                latents_twin.resize(latents.len(), 0.0);
                tops.extend([weight[0] + weight[1].ln(), 0.0]);
                tops_twin.extend([log, 0.0]);
            }
        }
    }
    let [latent, log] = errors.map(Tolerance::sd);
    let worst = compare(&latents, &latents_twin, 4 * quads, latent).map_err(|e| format!("latent: {e}"))?;
    let logs = compare(&tops, &tops_twin, 2, log).map_err(|e| format!("weights: {e}"))?;
    Ok(worst.and(logs))
}

/// The table of both kernels.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    // (latent, rope, heads): the tiny fixtures, the released models, and sizes that are no multiple of anything; the
    // widest latent there may be.
    let shapes =
        [(16, 8, 4), (128, 32, 32), (128, 64, 24), (160, 64, 32), (10, 6, 3), (1, 2, 1), (290, 10, 9), (512, 64, 2)];
    for (i, (latent, rope, heads)) in shapes.into_iter().enumerate() {
        for format in FORMATS {
            for j in 0..5 {
                let large = latent * heads > 1000;
                if large && (i + j) % 3 > 1 {
                    continue;
                }
                let (context, spans) = match j {
                    // A tile a span; one span of many tiles; two tiles a span; a tile too many for one; less than one.
                    0 => (300, Spans::narrow(300)),
                    1 => (300, Spans::one()),
                    2 => (300, Spans::new(300, 5, u32::MAX)),
                    3 => (129, Spans::new(129, 4, 17)),
                    _ => (5, Spans::narrow(5)),
                };
                let scores = [2.0, 0.1, 20.0][(i + j) % 3];
                let memory = [u32::MAX, 16384][(i + j) % 2];
                cases.push(Case { format, latent, rope, heads, context, spans, scores, memory });
            }
        }
    }
    let long = Case {
        format: CacheFormat::F16,
        latent: 16,
        rope: 8,
        heads: 4,
        context: 5000,
        spans: Spans::narrow(5000),
        scores: 2.0,
        memory: u32::MAX,
    };
    cases.push(long);
    cases.push(Case { format: CacheFormat::Q8, spans: Spans::wide(5000), memory: 16384, ..long });
    cases.push(Case { spans: Spans::one(), ..long });
    cases.push(Case { scores: 500.0, ..long });
    cases
}

#[test]
fn mla_attend() {
    table("mla_attend", cases(), run);
}

/// Spans cover a row, are no more than what buffers and the grid have room for, and follow from the row alone in a
/// narrow step.
#[test]
fn spans_cover_their_rows() {
    let context = 131_072;
    let all = [Spans::narrow(context), Spans::wide(context), Spans::one(), Spans::new(context, 5, 17)];
    for (spans, rows) in all.into_iter().flat_map(|s| [1, 3, 8, 48, 512].map(|rows| (s, rows))) {
        let room = spans.of_step(rows);
        assert!(rows * room <= spans.room(512), "{spans:?}, {rows} rows: {room} spans each");
        let mut grid = 0;
        for length in (1..5000).chain([32_767, 32_768, 32_769, context]) {
            let positions = spans.positions(length, rows);
            let count = length.div_ceil(positions);
            let shape = StepShape { rows: rows as u32, longest: length as u32, ..StepShape::default() };
            let extent = spans.extent().of(shape);
            assert!(positions.is_multiple_of(Spans::UNIT as usize) && count <= room);
            assert!(count as u32 <= extent && extent as usize <= room && grid <= extent, "{spans:?}: {length}");
            grid = extent;
        }
    }
    let narrow = Spans::narrow(context);
    assert!((1..=8).all(|rows| narrow.of_step(rows) == narrow.of_step(1)));
}
