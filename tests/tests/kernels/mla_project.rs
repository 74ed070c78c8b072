//! `mla_project.wgsl` against the twins of the three kernels that it stands for.

use zebra_runtime::gpu::Gpu;
use zebra_runtime::kernels::Target;
use zebra_runtime::kernels::mla_latent::{CacheFormat, CacheShape};
use zebra_runtime::kernels::mla_project::MlaProject;
use zebra_runtime::kernels::rmsnorm::Columns;
use zebra_runtime::kernels::rope::turns;
use zebra_runtime::kernels::slots::Slots;
use zebra_runtime::weights::WeightFormat;
use zebra_tests::compare::{Tolerance, Worst, compare};
use zebra_tests::harness::{Bench, POISON, StepBuilder, shape_of};
use zebra_tests::random::Random;
use zebra_tests::reference::product::{coded, coded_words, decoded};
use zebra_tests::reference::rope::Rope;
use zebra_tests::reference::weight::{FORMATS, Weight};
use zebra_tests::reference::{cache, dot, mla_latent, mla_query};

use super::mla_query::{MIXERS, Mla};
use super::{Input, table, target};

const MAX_ROWS: u32 = 8;
const SLOTS: usize = 3;

#[derive(Debug, Clone, Copy)]
struct Case {
    mla: Mla,
    q_rank: usize,
    format: WeightFormat,
    /// q_a comes coded.
    coded: bool,
    subgroups: bool,
    cache: CacheFormat,
    rows: usize,
    /// Invocations of a workgroup that the kernel may plan with.
    invocations: u32,
}

/// A sum of up to 1,344 products, then one of up to 64 of such sums.
const TOLERANCE: f64 = 2e-5;

fn run(gpu: &Gpu, case: &Case, input: Input) -> Result<Worst, String> {
    let (h, latent) = (case.mla.heads, case.mla.latent);
    let s = CacheShape::mla(case.cache, latent, case.mla.rope, 300);
    let mut random = Random::new((latent + 1000 * h.heads + case.q_rank) as u64);
    let rope = Rope::new(s.rope, 1.207_944_2);
    let scale = ((h.nope + s.rope) as f32).powf(-0.5);
    let head_rows = h.nope + s.rope;
    let q_b = Weight::random(case.format, h.heads * head_rows, case.q_rank, &mut random);
    // As no preset has it in q4.
    let kv_b_format = if case.format == WeightFormat::Q4 { WeightFormat::Q8 } else { case.format };
    let kv_b = Weight::random(kv_b_format, h.kv_heads * (h.nope + h.v), latent, &mut random);
    // The seam of the turns' tables, a frozen slot, the context's last position and one over it.
    let step = StepBuilder::new().segment(2, 255, case.rows).frozen(0, 3, 1).segment(1, 299, 2).build();
    let rows = step.rows.len();
    // As the plan has it: q_a padded to 32 with what its zero rows give, the latent, k_pe.
    let c_offset = case.q_rank.next_multiple_of(32);
    let k_offset = c_offset + latent;
    let stride = (k_offset + s.rope).next_multiple_of(32);
    let mut a = random.normals(rows * stride, 1.0);
    a.chunks_mut(stride).for_each(|row| row[case.q_rank..c_offset].fill(0.0));

    let target = target(gpu, case.subgroups, MAX_ROWS);
    let mut limits = target.limits;
    limits.invocations = limits.invocations.min(case.invocations);
    limits.storage_buffers = limits.storage_buffers.max(10);
    let target = Target { limits, ..target };
    let bench = Bench::new(gpu);
    let width = 4 * s.row_quads();
    let query = bench.output("query", rows * h.heads * width);
    let latents = bench.output("latents", SLOTS * s.context * s.row_words());
    let q_b_matrix = bench.matrix("q_b", &q_b, target);
    let kv_b_matrix = bench.matrix("kv_b", &kv_b, target);
    if !MlaProject::fits(&q_b_matrix, &kv_b_matrix, h, s, case.coded, target) {
        return Err("does not fit".into());
    }
    let codes = coded_words(&coded(&a, stride, None), stride / 32);
    let a_codes = bench.words("a_codes", &codes);
    let dispatch = MlaProject {
        step: &bench.step(&step, MAX_ROWS),
        shape: s,
        heads: h,
        a: Columns::rows(&bench.floats("a", &a), stride),
        a_codes: case.coded.then_some(&a_codes),
        c_offset,
        k_offset,
        turns: &bench.floats("turns", bytemuck::cast_slice(&turns(&rope.inv_freq, rope.scale, s.context))),
        q_b: &q_b_matrix,
        kv_b: &kv_b_matrix,
        scale,
        query: &query,
        latents: &Slots::all(&latents, SLOTS as u32),
    }
    .dispatch("test", target);
    bench.run(&[dispatch], shape_of(&step))?;

    let (mut q_b, kv_b) = (q_b.values(), kv_b.values());
    if input == Input::Altered {
        q_b[0] += 1.0;
    }
    // What q_b_proj multiplies; a code is exact in f32.
    let q_a =
        if case.coded { decoded(&codes, stride / 32).into_iter().map(|(v, _)| v as f32).collect() } else { a.clone() };
    let mut expected = Vec::new();
    let mut written = vec![false; SLOTS * s.context];
    let (mut cached, mut cached_twin) = (Vec::new(), Vec::new());
    let words = bench.read_words(&latents);
    for (r, row) in step.rows.iter().enumerate() {
        let (a, q_a) = (&a[r * stride..][..stride], &q_a[r * stride..][..case.q_rank]);
        for head in 0..h.heads {
            let q: Vec<f32> = (0..head_rows)
                .map(|d| {
                    let weights = &q_b[(head * head_rows + d) * case.q_rank..][..case.q_rank];
                    dot(q_a, weights) as f32
                })
                .collect();
            let kv = head / (h.heads / h.kv_heads);
            let wk = &kv_b[kv * (h.nope + h.v) * latent..][..h.nope * latent];
            let (c, k) = mla_query::mla_query(&q, wk, latent, &rope, scale, row.position);
            let first = expected.len();
            expected.extend(c);
            expected.resize(first + 4 * s.latent_quads(), 0.0);
            expected.extend(k);
            expected.resize(first + width, 0.0);
        }
        if row.live && row.position < s.context {
            let at = row.slot * s.context + row.position;
            written[at] = true;
            let (c, k) = cache::decode(&s, &words[at * s.row_words()..][..s.row_words()]);
            cached.extend(c.into_iter().chain(k));
            let (c, k) = (&a[c_offset..c_offset + latent], &a[k_offset..k_offset + s.rope]);
            let (c, k) = mla_latent::mla_latent(c, k, &rope, row.position);
            cached_twin.extend(c.into_iter().chain(k));
        }
    }
    for (at, row) in words.chunks(s.row_words()).enumerate().filter(|(at, _)| !written[*at]) {
        if row.iter().any(|w| *w != POISON) {
            return Err(format!("cached row {at} was written"));
        }
    }
    let worst =
        compare(&bench.read(&query), &expected, width, Tolerance::sd(TOLERANCE)).map_err(|e| format!("query: {e}"))?;
    // How each format rounds is mla_latent's table's: here its numbers are in their places.
    let rounded = match case.cache {
        CacheFormat::F32 => 1e-5,
        CacheFormat::F16 => 2e-3,
        CacheFormat::Q8 => 0.05,
    };
    let stored = compare(&cached, &cached_twin, latent + s.rope, Tolerance { nmse: rounded, max_sd: rounded });
    Ok(worst.and(stored.map_err(|e| format!("cache: {e}"))?))
}

#[test]
fn mla_project() {
    let mut cases = Vec::new();
    for (i, mla) in MIXERS.into_iter().enumerate() {
        for (j, format) in FORMATS.into_iter().enumerate() {
            let cache = [CacheFormat::F32, CacheFormat::F16, CacheFormat::Q8][(i + j) % 3];
            let (q_rank, rows) = ([24, 1344, 97, 64][(i + j) % 4], [1, 3, 4][j % 3]);
            let (coded, subgroups) = (format.is_quantized(), (i + j) % 2 == 0);
            let case = Case { mla, q_rank, format, coded, subgroups, cache, rows, invocations: u32::MAX };
            cases.push(Case { invocations: 256, subgroups: !subgroups, ..case });
            cases.push(case);
            // Without codes quantized weights are multiplied in f32.
            if coded {
                cases.push(Case { coded: false, ..case });
            }
        }
    }
    table("mla_project", cases, run);
}
