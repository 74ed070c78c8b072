//! `mla_query_coop.wgsl`: what `mla_query.wgsl` is tested with, where queries are whole quads.

use zebra_runtime::gpu::Gpu;
use zebra_runtime::kernels::mla_query_coop::dispatch;
use zebra_runtime::weights::WeightFormat;
use zebra_tests::compare::Worst;
use zebra_tests::harness::{on_gpu, report};

use super::mla_query::{Case, cases, check};
use super::{Input, table};

/// As of matmul_coop.wgsl: both factors of a product are rounded to f16.
const TOLERANCE: f64 = 4e-3;

fn run(gpu: &Gpu, case: &Case, input: Input) -> Result<Worst, String> {
    let matrices = gpu.cooperative().ok_or("this adapter has no cooperative matrices")?;
    check(gpu, case, input, TOLERANCE, |kernel, target| dispatch(kernel, "test", matrices, target))
}

#[test]
fn mla_query_coop() {
    let (adapter, matrices) = on_gpu(|gpu| (gpu.description().name.clone(), gpu.cooperative()));
    if matrices.is_none() {
        report(&format!("mla_query_coop: NOT RUN: {adapter} has no cooperative matrices"));
        return;
    }
    let mut all = cases();
    all.retain(|case| case.format != WeightFormat::F32);
    // Rows that fill no workgroup, or several.
    for case in all.clone() {
        all.push(Case { rows: if case.rows > 9 { 3 } else { 70 }, ..case });
    }
    all.retain(|case| case.mla.heads.nope.is_multiple_of(4) && case.mla.rope.is_multiple_of(4));
    table("mla_query_coop", all, run);
}
