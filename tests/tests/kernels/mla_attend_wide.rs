//! `mla_attend_wide.wgsl`: what `mla_attend.wgsl` is tested with where its rows fit, and every number of matrices that a
//! subgroup may have.

use half::f16;
use zebra_runtime::gpu::{Gpu, Limits};
use zebra_runtime::kernels::mla_attend::Spans;
use zebra_runtime::kernels::mla_attend_wide::{dispatch, fits};
use zebra_runtime::kernels::mla_latent::{CacheFormat, CacheShape};
use zebra_tests::compare::Worst;
use zebra_tests::harness::{on_gpu, report};

use super::mla_attend::{Case, Check, cases, check};
use super::{Input, table};

fn run(gpu: &Gpu, case: &Case, input: Input) -> Result<Worst, String> {
    // As of mla_attend_coop.wgsl.
    let error = 5e-3 + 5e-4 * f64::from(case.scores);
    let how = Check {
        last_rows: 1,
        rounded: |v| f16::from_f32(v).to_f32(),
        rounded_rows: |v| f16::from_f32(v).to_f32(),
        errors: [error, error],
    };
    let matrices = gpu.cooperative().expect("cooperative matrices");
    check(gpu, case, input, how, |kernel, target| dispatch(kernel, "test", matrices, target))
}

#[test]
fn mla_attend_wide() {
    let offered = on_gpu(|gpu| (gpu.description().name.clone(), gpu.cooperative().map(|m| (m, gpu.limits()))));
    let (_, Some((matrices, limits))) = offered else {
        report(&format!("mla_attend_wide: NOT RUN: {} has no cooperative matrices", offered.0));
        return;
    };
    // Of 8 x 8, a latent of 512 fills what a released 816 has of 16 x 16.
    let side = matrices.side as usize;
    let mut all = cases();
    for steps in 1..=8 {
        for format in [CacheFormat::F16, CacheFormat::Q8] {
            for (latent, rope, heads) in
                [(8 * steps * side - 8, 8, 2 * side), (8 * steps * side - side - 2, side, 2 * side + 3)]
            {
                let shape = CacheShape::mla(format, latent, rope, 130);
                let scores = [0.5, 2.0, 20.0][steps % 3];
                all.push(Case { shape, heads, spans: Spans::new(130, 2, u32::MAX), scores, memory: u32::MAX });
            }
        }
    }
    // The spans of wide latents; and scores that rise from tile to tile.
    let shape = CacheShape::mla(CacheFormat::Q8, 500, 12, 3000);
    let long = Case {
        shape,
        heads: 2 * side,
        spans: Spans::narrow(3000).of_sums(32, CacheShape::mla(CacheFormat::Q8, 816, 64, 3000)),
        scores: 2.0,
        memory: u32::MAX,
    };
    all.push(long);
    all.push(Case { spans: Spans::one(), scores: 500.0, ..long });
    // With less memory a tile has half the positions.
    let less = Limits { workgroup_memory: 9 << 10, ..limits };
    for case in &mut all {
        let little = case.memory != u32::MAX && fits(case.shape, matrices, &less);
        case.memory = if little { less.workgroup_memory } else { u32::MAX };
    }
    all.retain(|case| fits(case.shape, matrices, &limits));
    table("mla_attend_wide", all, run);
}
