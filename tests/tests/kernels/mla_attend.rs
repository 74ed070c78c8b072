//! `mla_attend.wgsl` with the parts that read a cached row, of latents and of grouped queries.

use zebra_runtime::gpu::{Dispatch, Gpu, StepShape};
use zebra_runtime::kernels::Target;
use zebra_runtime::kernels::mla_attend::{LATENT_MEMORY, MlaAttend, Spans};
use zebra_runtime::kernels::mla_latent::{CacheFormat, CacheShape};
use zebra_runtime::kernels::slots::Slots;
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
    pub shape: CacheShape,
    pub heads: usize,
    pub spans: Spans,
    /// Standard deviation of the scores.
    pub scores: f32,
    /// Workgroup memory that the kernel may plan with.
    pub memory: u32,
}

fn run(gpu: &Gpu, case: &Case, input: Input) -> Result<Worst, String> {
    // A score is a sum of f32 products: off by some 1e-7 of its own size and of what cancels in it. A weight is off by
    // that, relatively, and by its exponential.
    let error = 2e-6 * f64::from(case.scores.max(5.0));
    let how = Check { last_rows: 1, rounded: |v| v, rounded_rows: |v| v, errors: [error, error] };
    check(gpu, case, input, how, |kernel, target| kernel.dispatch("test", target))
}

/// How a kernel is compared.
#[derive(Debug, Clone, Copy)]
pub struct Check {
    /// Rows of the last segment.
    pub last_rows: usize,
    /// What the kernel makes of queries before it multiplies them.
    pub rounded: fn(f32) -> f32,
    /// And of cached numbers.
    pub rounded_rows: fn(f32) -> f32,
    /// What values and the logarithms of sums of weights may be off by, in standard deviations.
    pub errors: [f64; 2],
}

/// Runs a case on `mla_attend.wgsl` or a twin of it.
pub fn check(
    gpu: &Gpu,
    case: &Case,
    input: Input,
    how: Check,
    attend: impl Fn(&MlaAttend<'_>, Target) -> Dispatch,
) -> Result<Worst, String> {
    let s = case.shape;
    let mut random = Random::new((s.latent * 100 + s.context) as u64);
    // The first position, the ends of tiles and of the context, a frozen slot, a chunk over a seam.
    let last = s.context - 1;
    let at = |p: usize| p.min(last);
    let step = StepBuilder::new()
        .segment(2, 0, 1)
        .segment(0, at(31), 1)
        .segment(0, at(127), 1)
        .frozen(1, at(128), 1)
        .segment(1, at(254).min(last - 2), 3)
        .segment(2, last + 1 - how.last_rows.min(last), how.last_rows.min(last))
        .build();
    let rows = step.rows.len();
    let spans = case.spans.of_step(rows);

    // What lies behind a slot's last position must not be read: NaN.
    let mut cached = vec![vec![Vec::new(); s.context * s.kv_heads]; SLOTS];
    let mut words = Vec::new();
    for (slot, cached) in cached.iter_mut().enumerate() {
        let length = step.rows.iter().filter(|r| r.slot == slot).map(|r| r.position + 1).max().unwrap_or(0);
        for (i, row) in cached.iter_mut().enumerate() {
            if i / s.kv_heads < length {
                let mut latent = random.normals(s.latent, 1.0);
                if s.keys_from > 0 {
                    latent[s.values..s.keys_from].fill(0.0);
                }
                let packed = cache::encode(&s, &latent, &random.normals(s.rope, 1.0));
                let (c, k) = cache::decode(&s, &packed);
                *row = [c, k].concat().into_iter().map(how.rounded_rows).collect();
                words.extend(packed);
            } else {
                words.extend(vec![POISON; s.row_words()]);
            }
        }
    }
    let width = s.latent + s.rope - s.keys_from;
    let size = case.scores / (width as f32).sqrt();
    let queries: Vec<Vec<f32>> = (0..rows * case.heads).map(|_| random.normals(width, size)).collect();
    let mut padded = Vec::new();
    for q in &queries {
        padded.extend(&q[..s.latent - s.keys_from]);
        padded.extend(vec![0.0; 4 * s.latent_quads() - s.latent]);
        padded.extend(&q[s.latent - s.keys_from..]);
        padded.extend(vec![0.0; 4 * s.rope_quads() - s.rope]);
    }

    let target = target(gpu, false, MAX_ROWS);
    let mut limits = target.limits;
    limits.workgroup_memory = limits.workgroup_memory.min(case.memory);
    let quads = s.value_quads();
    let bench = Bench::new(gpu);
    let sums = bench.output("sums", rows * case.heads * spans * 4 * quads);
    let weights = bench.output("weights", rows * case.heads * spans * 2);
    let kernel = MlaAttend {
        step: &bench.step(&step, MAX_ROWS),
        shape: s,
        heads: case.heads,
        spans: case.spans,
        query: &bench.floats("query", &padded),
        latents: &Slots::all(&bench.words("latents", &words), SLOTS as u32),
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
                let kv_head = head / (case.heads / s.kv_heads);
                let mut seen: Vec<Vec<f32>> = (first..(first + positions).min(row.position + 1))
                    .map(|position| cached[row.slot][position * s.kv_heads + kv_head].clone())
                    .collect();
                if input == Input::Altered {
                    let end = seen.len() - 1;
                    seen[end][0] += 30.0;
                }
                let query: Vec<f32> = queries[r * case.heads + head].iter().copied().map(how.rounded).collect();
                let (o, log) = twin::mla_attend(&query, &seen, s.values, s.keys_from);
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
    let [latent, log] = how.errors.map(Tolerance::sd);
    let worst = compare(&latents, &latents_twin, 4 * quads, latent).map_err(|e| format!("values: {e}"))?;
    let logs = compare(&tops, &tops_twin, 2, log).map_err(|e| format!("weights: {e}"))?;
    Ok(worst.and(logs))
}

/// A context and its spans: a tile a span; one span of many tiles; two tiles a span; a tile too many for one; less than one.
pub fn cut(j: usize) -> (usize, Spans) {
    match j {
        0 => (300, Spans::narrow(300)),
        1 => (300, Spans::one()),
        2 => (300, Spans::new(300, 5, u32::MAX)),
        3 => (129, Spans::new(129, 4, 17)),
        _ => (5, Spans::narrow(5)),
    }
}

/// The table of both kernels.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    // (latent, rope, heads): the tiny fixtures, the released models, and sizes that are no multiple of anything; the
    // widest latent of a released model.
    let shapes =
        [(16, 8, 4), (128, 32, 32), (128, 64, 24), (160, 64, 32), (10, 6, 3), (1, 2, 1), (290, 10, 9), (816, 64, 2)];
    for (i, (latent, rope, heads)) in shapes.into_iter().enumerate() {
        for format in FORMATS {
            for j in 0..5 {
                let large = latent * heads > 1000;
                if large && (i + j) % 3 > 1 {
                    continue;
                }
                let (context, spans) = cut(j);
                let scores = [2.0, 0.1, 20.0][(i + j) % 3];
                let little = if latent > 512 { LATENT_MEMORY } else { 16384 };
                let memory = [u32::MAX, little][(i + j) % 2];
                let shape = CacheShape::mla(format, latent, rope, context);
                cases.push(Case { shape, heads, spans, scores, memory });
            }
        }
    }
    let long = Case {
        shape: CacheShape::mla(CacheFormat::F16, 16, 8, 5000),
        heads: 4,
        spans: Spans::narrow(5000),
        scores: 2.0,
        memory: u32::MAX,
    };
    cases.push(long);
    let shape = CacheShape { format: CacheFormat::Q8, ..long.shape };
    cases.push(Case { shape, spans: Spans::wide(5000), memory: 16384, ..long });
    cases.push(Case { spans: Spans::one(), ..long });
    cases.push(Case { scores: 500.0, ..long });
    cases
}

/// The same for grouped queries.
pub fn gqa_cases() -> Vec<Case> {
    let mut cases = Vec::new();
    // (kv heads, heads of each, head_dim, v_head_dim): every size of both, one that is no whole group, values of another
    // width, many heads.
    let shapes = [
        (1, 4, 16, 16),
        (2, 1, 64, 64),
        (3, 3, 64, 64),
        (8, 4, 128, 128),
        (4, 8, 80, 80),
        (2, 4, 96, 32),
        (1, 8, 128, 128),
        (5, 3, 16, 24),
        (2, 20, 32, 32),
    ];
    for (i, (kv_heads, group, head_dim, v)) in shapes.into_iter().enumerate() {
        for (f, format) in FORMATS.into_iter().enumerate() {
            for j in 0..5 {
                let large = kv_heads * group * head_dim > 1000;
                if large && (i + j + f) % 4 > 1 {
                    continue;
                }
                let (context, spans) = cut(j);
                let scores = [2.0, 0.1, 20.0][(i + j) % 3];
                let memory = [u32::MAX, 16384][(i + j + f) % 2];
                let shape = CacheShape::gqa(format, kv_heads, head_dim, v, context);
                cases.push(Case { shape, heads: kv_heads * group, spans, scores, memory });
            }
        }
    }
    let long = Case {
        shape: CacheShape::gqa(CacheFormat::Q8, 2, 64, 64, 3000),
        heads: 6,
        spans: Spans::narrow(3000),
        scores: 5.0,
        memory: u32::MAX,
    };
    cases.push(long);
    cases.push(Case { spans: Spans::one(), ..long });
    // Rows that follow one another, of which the last has spans twice as long.
    let shape = CacheShape::gqa(CacheFormat::F16, 2, 64, 64, 129);
    cases.push(Case { shape, spans: Spans::new(129, 4, u32::MAX), scores: 2.0, ..long });
    cases
}

#[test]
fn mla_attend_of_groups() {
    table("mla_attend of grouped queries", gqa_cases(), run);
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
    let mut all = vec![Spans::narrow(context), Spans::wide(context), Spans::one(), Spans::new(context, 5, 17)];
    let heavy = CacheShape::mla(CacheFormat::Q8, 816, 64, context);
    all.extend(all.clone().into_iter().map(|spans| spans.of_sums(32, heavy)));
    assert!(all[4] != all[0] && all[5] != all[1] && all[6] == all[2]);
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
