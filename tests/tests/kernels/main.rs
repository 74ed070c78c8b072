//! Tables of cases: every kernel on the GPU against its CPU twin. See `table` for what a case goes through.

mod add_parts;
mod embed;
mod gqa_append;
mod gqa_attend;
mod gqa_chain;
mod gqa_combine;
mod half_rows;
mod layernorm;
mod mamba1_scan;
mod matmul_coop;
mod matmul_i8;
mod mla_attend;
mod mla_attend_coop;
mod mla_attend_wide;
mod mla_chain;
mod mla_combine;
mod mla_combine_coop;
mod mla_latent;
mod mla_project;
mod mla_query;
mod mla_query_coop;
mod product;
mod quantize_rows;
mod read_bandwidth;
mod rmsnorm;
mod ssm;

use std::fmt::Debug;

use zebra_runtime::gpu::{Gpu, Limits};
use zebra_runtime::kernels::{Matrix, Target, Twins};
use zebra_runtime::weights::WeightFormat;
use zebra_tests::compare::Worst;
use zebra_tests::harness::{on_gpu, report};

/// Whether the twin is given what the GPU got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Input {
    Same,
    /// One number of the twin's input is another: the comparison must fail.
    Altered,
}

/// Runs every case, and the first and the last one once more with an altered input, which must not pass.
fn table<C: Debug + Send + 'static>(
    kernel: &'static str,
    cases: Vec<C>,
    run: fn(&Gpu, &C, Input) -> Result<Worst, String>,
) {
    assert!(!cases.is_empty(), "{kernel}: no case");
    let (count, worst) = on_gpu(move |gpu| {
        let mut worst = Worst::default();
        let mut failures = Vec::new();
        for case in &cases {
            match run(gpu, case, Input::Same) {
                Ok(w) => worst = worst.and(w),
                Err(e) => failures.push(format!("{case:?}: {e}")),
            }
        }
        assert!(
            failures.is_empty(),
            "{kernel}: {} of {} cases fail\n{}",
            failures.len(),
            cases.len(),
            failures.join("\n")
        );
        for case in [&cases[0], &cases[cases.len() - 1]] {
            assert!(run(gpu, case, Input::Altered).is_err(), "{kernel}: {case:?}: an altered input passes");
        }
        (cases.len(), worst)
    });
    assert!(worst.values > 0, "{kernel}: nothing was compared");
    report(&format!("{kernel}: {count} cases, {worst}, 2 controls refused"));
}

/// How a weight is cut by limits that are smaller than this adapter's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    Whole,
    /// Three pieces in one dispatch.
    Pieces,
    /// Seven pieces: four in a dispatch, three in another.
    PiecesAndDispatches,
    /// Three pieces, each in a dispatch of its own.
    Dispatches,
}

impl Cut {
    fn limits(self, limits: Limits, format: WeightFormat, n: usize, k: usize) -> Limits {
        let pieces = match self {
            Cut::Whole => return limits,
            Cut::Pieces | Cut::Dispatches => 3,
            Cut::PiecesAndDispatches => 7,
        };
        let storage_buffers = if self == Cut::Dispatches { 5 } else { limits.storage_buffers };
        let binding = n.div_ceil(pieces) as u64 * Matrix::row_bytes(format, k);
        Limits { binding, storage_buffers, ..limits }
    }
}

/// A target of this GPU, with subgroups where it has them and they are asked for.
fn target(gpu: &Gpu, subgroups: bool, max_rows: u32) -> Target {
    Target {
        twins: Twins { subgroups: subgroups && gpu.has_subgroups(), ..Twins::portable() },
        slots: max_rows,
        max_rows,
        limits: gpu.limits(),
    }
}
