//! `mla_attend_coop.wgsl`: what `mla_attend.wgsl` is tested with, where its rows fit.

use half::f16;
use zebra_runtime::gpu::{Dispatch, Gpu, Limits};
use zebra_runtime::kernels::Target;
use zebra_runtime::kernels::mla_attend::MlaAttend;
use zebra_runtime::kernels::mla_attend_coop::{self, StepRows, fits};
use zebra_tests::compare::Worst;
use zebra_tests::harness::{on_gpu, report};

use super::mla_attend::{Case, Check, cases, check, gqa_cases};
use super::{Input, table};

fn twin(kernel: &MlaAttend<'_>, gpu: &Gpu, rows: StepRows, target: Target) -> Dispatch {
    mla_attend_coop::dispatch(kernel, "test", rows, gpu.cooperative().expect("cooperative matrices"), target)
}

fn run(gpu: &Gpu, case: &Case, input: Input) -> Result<Worst, String> {
    run_rows(gpu, case, input, StepRows::Apart)
}

/// A workgroup has several rows of a segment.
fn run_runs(gpu: &Gpu, case: &Case, input: Input) -> Result<Worst, String> {
    run_rows(gpu, case, input, StepRows::Runs)
}

fn run_rows(gpu: &Gpu, case: &Case, input: Input, rows: StepRows) -> Result<Worst, String> {
    // Queries and what int8 rows unpack to are rounded to f16: the twin gets them so, as where two positions share most of
    // the weight, large scores make much of it. Weights are rounded by 2^-11 at most, relatively. A value is the weighted
    // mean of few rows or of many, which is smaller than what it is made of: the worst of some 1e6 is some ten times as
    // far off. An adapter may round an f16 to the other of its neighbours: large scores have room for that.
    let error = 5e-3 + 5e-4 * f64::from(case.scores);
    let how = Check {
        last_rows: if rows == StepRows::Runs { 13 } else { 1 },
        rounded: |v| f16::from_f32(v).to_f32(),
        rounded_rows: |v| f16::from_f32(v).to_f32(),
        errors: [error, error],
    };
    check(gpu, case, input, how, |kernel, target| twin(kernel, gpu, rows, target))
}

#[test]
fn mla_attend_coop() {
    on_matrices("mla_attend_coop", cases(), run);
}

#[test]
fn mla_attend_coop_of_groups() {
    on_matrices("mla_attend_coop of grouped queries", gqa_cases(), run);
}

#[test]
fn mla_attend_coop_of_runs() {
    let mut all = gqa_cases();
    all.extend(cases().into_iter().filter(|case| case.heads <= 4));
    on_matrices("mla_attend_coop of several rows", all, run_runs);
}

fn on_matrices(name: &'static str, cases: Vec<Case>, run: fn(&Gpu, &Case, Input) -> Result<Worst, String>) {
    let offered = on_gpu(|gpu| (gpu.description().name.clone(), gpu.cooperative().map(|m| (m, gpu.limits()))));
    let (_, Some((matrices, limits))) = offered else {
        report(&format!("{name}: NOT RUN: {} has no cooperative matrices", offered.0));
        return;
    };
    let mut cases: Vec<Case> = cases.into_iter().filter(|c| fits(c.shape, matrices, &limits)).collect();
    // Less memory is planned with where that is enough.
    for case in &mut cases {
        let less = Limits { workgroup_memory: 38 << 10, ..limits };
        if case.memory != u32::MAX {
            case.memory = if fits(case.shape, matrices, &less) { less.workgroup_memory } else { u32::MAX };
        }
    }
    table(name, cases, run);
}
