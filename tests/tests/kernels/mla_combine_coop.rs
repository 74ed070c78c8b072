//! `mla_combine_coop.wgsl`: what `mla_combine.wgsl` is tested with, of more rows.

use zebra_runtime::gpu::Gpu;
use zebra_runtime::kernels::mla_attend::Spans;
use zebra_runtime::kernels::mla_combine_coop::dispatch;
use zebra_runtime::kernels::mla_latent::CacheFormat;
use zebra_runtime::weights::WeightFormat;
use zebra_tests::compare::Worst;
use zebra_tests::harness::{on_gpu, report};

use super::mla_combine::{Case, Check, cases, check};
use super::{Input, table};

/// As of matmul_coop.wgsl: both factors of a product are rounded to f16.
const TOLERANCE: f64 = 4e-3;

fn run(gpu: &Gpu, case: &Case, input: Input) -> Result<Worst, String> {
    let matrices = gpu.cooperative().ok_or("this adapter has no cooperative matrices")?;
    let how = Check { cache: CacheFormat::F16, first_rows: 9, tolerance: TOLERANCE };
    check(gpu, case, input, how, |kernel, target| dispatch(kernel, "test", matrices, target))
}

#[test]
fn mla_combine_coop() {
    let (adapter, matrices) = on_gpu(|gpu| (gpu.description().name.clone(), gpu.cooperative()));
    if matrices.is_none() {
        report(&format!("mla_combine_coop: NOT RUN: {adapter} has no cooperative matrices"));
        return;
    }
    let mut all: Vec<Case> =
        cases().into_iter().filter(|case| !case.coded && case.format != WeightFormat::F32).collect();
    // One span; five; ten. A lone value may be next to nothing, of which any error is a large share.
    for (i, most) in [1, 5, 10].into_iter().enumerate() {
        for case in all.clone().into_iter().skip(i).step_by(3) {
            all.push(Case { context: 900, spans: Spans::new(900, most, u32::MAX), ..case });
        }
    }
    all.retain(|case| case.mla.heads.v > 1);
    table("mla_combine_coop", all, run);
}
