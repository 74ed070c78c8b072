//! `gqa_attend_coop.wgsl`: what `mla_attend.wgsl` is tested with of grouped queries, where its rows fit, and every size of
//! group and head.

use half::f16;
use zebra_runtime::gpu::Gpu;
use zebra_runtime::kernels::gqa_attend_coop::{dispatch, fits};
use zebra_runtime::kernels::mla_attend::Spans;
use zebra_runtime::kernels::mla_latent::{CacheFormat, CacheShape};
use zebra_tests::compare::Worst;
use zebra_tests::harness::{on_gpu, report};

use super::mla_attend::{Case, Check, check, cut, gqa_cases};
use super::{Input, table};

fn run(gpu: &Gpu, case: &Case, input: Input) -> Result<Worst, String> {
    // As of mla_attend_coop.wgsl: queries and weights are rounded to f16. What int8 rows unpack to is not.
    let error = 5e-3 + 5e-4 * f64::from(case.scores);
    let rounded = |v| f16::from_f32(v).to_f32();
    let how = Check { last_rows: 1, rounded, rounded_rows: |v| v, errors: [error, error] };
    check(gpu, case, input, how, |kernel, target| {
        dispatch(kernel, "test", gpu.cooperative().expect("cooperative matrices"), target)
    })
}

/// (kv heads, heads of each, head_dim): every number of lines and of tiles, groups that do not fill them, two blocks of
/// heads; contexts of many tiles and of less than one. Scores of 20 and more rise by more than the bound from tile to
/// tile.
fn cases() -> Vec<Case> {
    let mut cases = gqa_cases();
    let shapes = [
        (1, 1, 32),
        (2, 3, 32),
        (1, 4, 64),
        (2, 8, 64),
        (1, 16, 64),
        (1, 16, 128),
        (2, 3, 128),
        (1, 9, 32),
        (1, 17, 64),
    ];
    for (i, (kv_heads, group, head_dim)) in shapes.into_iter().enumerate() {
        for (f, format) in [CacheFormat::F16, CacheFormat::Q8].into_iter().enumerate() {
            for j in 0..5 {
                let (context, spans) = cut(j);
                let scores = [2.0, 20.0, 0.1][(i + j + f) % 3];
                let shape = CacheShape::gqa(format, kv_heads, head_dim, head_dim, context);
                cases.push(Case { shape, heads: kv_heads * group, spans, scores, memory: u32::MAX });
            }
        }
    }
    for (format, scores) in [(CacheFormat::F16, 50.0), (CacheFormat::Q8, 500.0)] {
        let shape = CacheShape::gqa(format, 2, 64, 64, 3000);
        cases.push(Case { shape, heads: 8, spans: Spans::one(), scores, memory: u32::MAX });
    }
    cases
}

#[test]
fn gqa_attend_coop() {
    let offered = on_gpu(|gpu| (gpu.description().name.clone(), gpu.cooperative().map(|m| (m, gpu.limits()))));
    let (_, Some((matrices, limits))) = offered else {
        report(&format!("gqa_attend_coop: NOT RUN: {} has no cooperative matrices", offered.0));
        return;
    };
    let cases = cases().into_iter().filter(|c| fits(c.shape, matrices, &limits));
    table("gqa_attend_coop", cases.map(|case| Case { memory: u32::MAX, ..case }).collect(), run);
}
