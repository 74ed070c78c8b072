//! `mla_attend_coop.wgsl`: what `mla_attend.wgsl` is tested with, where its rows fit.

use zebra_runtime::gpu::{Dispatch, Gpu, Limits};
use zebra_runtime::kernels::Target;
use zebra_runtime::kernels::mla_attend::MlaAttend;
use zebra_runtime::kernels::mla_attend_coop::{self, fits};
use zebra_tests::compare::Worst;
use zebra_tests::harness::{on_gpu, report};

use super::mla_attend::{Case, cases, check};
use super::{Input, table};

fn twin(kernel: &MlaAttend<'_>, gpu: &Gpu, target: Target) -> Dispatch {
    mla_attend_coop::dispatch(kernel, "test", gpu.cooperative().expect("cooperative matrices"), target)
}

fn run(gpu: &Gpu, case: &Case, input: Input) -> Result<Worst, String> {
    // Queries, weights and what int8 rows unpack to are rounded to f16, by 2^-11 at most: some 2e-4 of a score's spread,
    // by which a weight is off, relatively, and of a weight. Latents are the weighted mean of few rows or of many, which
    // is smaller than what it is made of: the worst of some 1e6 values is some ten times as far off.
    let error = 5e-3 + 5e-4 * f64::from(case.scores);
    check(gpu, case, input, [error, error], |kernel, target| twin(kernel, gpu, target))
}

#[test]
fn mla_attend_coop() {
    let offered = on_gpu(|gpu| (gpu.description().name.clone(), gpu.cooperative().map(|m| (m, gpu.limits()))));
    let (_, Some((matrices, limits))) = offered else {
        report(&format!("mla_attend_coop: NOT RUN: {} has no cooperative matrices", offered.0));
        return;
    };
    let mut cases: Vec<Case> = cases().into_iter().filter(|c| fits(c.shape(), matrices, &limits)).collect();
    // Less memory is planned with where that is enough.
    for case in &mut cases {
        let less = Limits { workgroup_memory: 38 << 10, ..limits };
        if case.memory != u32::MAX {
            case.memory = if fits(case.shape(), matrices, &less) { less.workgroup_memory } else { u32::MAX };
        }
    }
    table("mla_attend_coop", cases, run);
}
