//! `mla_latent.wgsl` with `parts/rope.wgsl` and the parts that store a cached row.

use zebra_runtime::gpu::Gpu;
use zebra_runtime::kernels::mla_latent::{CacheFormat, CacheShape, MlaLatent};
use zebra_runtime::kernels::rmsnorm::Columns;
use zebra_runtime::kernels::rope::turns;
use zebra_runtime::kernels::slots::Slots;
use zebra_tests::compare::{Worst, compare_each};
use zebra_tests::harness::{Bench, POISON, StepBuilder, shape_of};
use zebra_tests::random::Random;
use zebra_tests::reference::rope::Rope;
use zebra_tests::reference::{cache, mla_latent as twin};

use super::{Input, table, target};

const MAX_ROWS: u32 = 80;
const SLOTS: usize = 3;

#[derive(Debug, Clone, Copy)]
struct Case {
    shape: CacheShape,
    outliers: bool,
}

fn run(gpu: &Gpu, case: &Case, input: Input) -> Result<Worst, String> {
    let s = case.shape;
    let mut random = Random::new((s.latent * 100 + s.rope) as u64);
    let rope = Rope::new(s.rope, 1.346_573_6);
    // The beginning, the seam of the turns' tables, a frozen slot, and the end with two rows over it.
    let seam = 254.min(s.context - 4);
    let step =
        StepBuilder::new().segment(1, 0, 3).segment(0, seam, 4).frozen(1, 3, 2).segment(2, s.context - 3, 5).build();
    let rows = step.rows.len();
    let (stride, c_offset) = (s.latent + s.rope + 9, 5);
    let k_offset = c_offset + s.latent + 1;
    let mut x = random.normals(rows * stride, 1.0);
    if case.outliers {
        (0..2 * rows).for_each(|_| {
            let i = random.below(x.len());
            x[i] = 1e3 * random.normal();
        });
        // Over an f16's range.
        x[stride + c_offset] = -1e6;
        x[stride + k_offset] = 1e6;
        // A group of nothing but zeros has a scale of zero.
        x[c_offset..c_offset + s.latent.min(32)].fill(0.0);
    }

    let bench = Bench::new(gpu);
    let x_buffer = bench.floats("x", &x);
    let latents = bench.output("latents", SLOTS * s.context * s.row_words());
    let dispatch = MlaLatent {
        step: &bench.step(&step, MAX_ROWS),
        shape: s,
        c: Columns { buffer: &x_buffer, stride, offset: c_offset },
        k_pe: Columns { buffer: &bench.floats("k_pe", &x), stride, offset: k_offset },
        turns: &bench.floats("turns", bytemuck::cast_slice(&turns(&rope.inv_freq, rope.scale, s.context))),
        latents: &Slots::all(&latents, SLOTS as u32),
    }
    .dispatch("test", target(gpu, false, MAX_ROWS));
    bench.run(&[dispatch], shape_of(&step))?;
    let words = bench.read_words(&latents);

    let mut written = vec![false; SLOTS * s.context];
    let mut worst = Worst::default();
    for (r, row) in step.rows.iter().enumerate().filter(|(_, row)| row.live && row.position < s.context) {
        let at = row.slot * s.context + row.position;
        written[at] = true;
        let (c, k) = cache::decode(&s, &words[at * s.row_words()..][..s.row_words()]);
        let position = row.position + usize::from(input == Input::Altered);
        let x = &x[r * stride..][..stride];
        let (mut c_twin, mut k_twin) =
            twin::mla_latent(&x[c_offset..c_offset + s.latent], &x[k_offset..k_offset + s.rope], &rope, position);
        // An f16 is one of the two beside the number (WGSL leaves the choice open): off by at most 2^-10 of it.
        let f16 = |e: f64| 2f64.powi(-10) * e.abs() + 2f64.powi(-24);
        // Turns are products of two f32 turns, then two products and a sum, of numbers as large as the pair.
        let rotated: Vec<f64> = (0..s.rope).map(|i| 3e-7 * k_twin[i & !1].hypot(k_twin[i | 1])).collect();
        let in_range = |v: &mut f64| {
            if s.format == CacheFormat::F16 {
                *v = v.clamp(-65504.0, 65504.0)
            }
        };
        c_twin.iter_mut().for_each(in_range);
        if s.format != CacheFormat::F32 {
            k_twin.iter_mut().for_each(|v| *v = v.clamp(-65504.0, 65504.0));
        }
        let latent = compare_each(&c, &c_twin, s.latent, |i, e| match s.format {
            CacheFormat::F32 => 0.0,
            CacheFormat::F16 => f16(e),
            // Half a code, and a scale that is off as an f16 is, at most at code 127.
            CacheFormat::Q8 => {
                let group = &c_twin[i / 32 * 32..s.latent.min(i / 32 * 32 + 32)];
                let most = group.iter().fold(0.0f64, |m, v| m.max(v.abs()));
                0.501 * most / 127.0 + f16(most)
            }
        });
        worst = worst.and(latent.map_err(|e| format!("latent of row {r}: {e}"))?);
        let roped = compare_each(&k, &k_twin, s.rope, |i, e| match s.format {
            CacheFormat::F32 => rotated[i],
            CacheFormat::F16 | CacheFormat::Q8 => rotated[i] + f16(e),
        });
        worst = worst.and(roped.map_err(|e| format!("k_pe of row {r}: {e}"))?);
    }
    for (at, row) in words.chunks(s.row_words()).enumerate() {
        if row.contains(&POISON) == written[at] {
            let (slot, position) = (at / s.context, at % s.context);
            return Err(format!(
                "slot {slot}, position {position}: {}",
                if written[at] { "unwritten words" } else { "written" }
            ));
        }
    }
    Ok(worst)
}

/// (latent, rope): the tiny fixtures, the released models, sizes that fill no quad, one quad, more than 16 quads.
pub const SHAPES: [(usize, usize); 8] =
    [(816, 64), (16, 8), (128, 32), (128, 64), (160, 64), (10, 6), (1, 2), (67, 10)];

pub const FORMATS: [CacheFormat; 3] = [CacheFormat::F32, CacheFormat::F16, CacheFormat::Q8];

#[test]
fn mla_latent() {
    let mut cases = Vec::new();
    for format in FORMATS {
        for (i, (latent, rope)) in SHAPES.into_iter().enumerate() {
            let context = [300, 257, 40, 1030][i % 4];
            let case = Case { shape: CacheShape::mla(format, latent, rope, context), outliers: false };
            cases.push(case);
            cases.push(Case { outliers: true, ..case });
        }
    }
    // The end of the released models' longest context, where an angle in f32 is off by 0.004.
    let shape = CacheShape::mla(CacheFormat::F32, 4, 32, 131_072);
    cases.push(Case { shape, outliers: false });
    table("mla_latent", cases, run);
}
