//! `matmul_coop.wgsl`, on rows that `half_rows.wgsl` has made.

use zebra_runtime::gpu::Gpu;
use zebra_runtime::kernels::product::{Epilogue, Width};
use zebra_runtime::weights::WeightFormat;
use zebra_tests::compare::{Tolerance, Worst, compare};
use zebra_tests::harness::{on_gpu, report};
use zebra_tests::reference::weight::FORMATS;

use super::product::{Case, Data, GEOMETRY, varied};
use super::{Cut, Input, table};

/// Both factors of a product are rounded to f16: by 2^-11 each at most, which is some 2e-4 of a sum's own spread whatever
/// k is, as the products are added up in f32. Where one product makes most of a sum (k of 8, or outliers) the worst of
/// some 10,000 sums comes near the most, 1e-3 of a value that may be a few spreads large.
const TOLERANCE: f64 = 4e-3;

/// SwiGLU multiplies two of them, and ReLU² squares one: their errors add up, and the worst of its values, some spreads large each, are
/// further off.
const GATED_TOLERANCE: f64 = 7e-3;
const GATED_WORST: f64 = 1e-2;

fn run(gpu: &Gpu, case: &Case, input: Input) -> Result<Worst, String> {
    if gpu.cooperative().is_none() {
        return Err("this adapter has no cooperative matrices".into());
    }
    // Products with f32 weights are f32's.
    let format = if case.format == WeightFormat::F32 { WeightFormat::Q8 } else { case.format };
    let width = if case.width == Width::Batch { Width::Batch } else { Width::Wide };
    let case = &Case { format, width, cooperative: true, ..*case };
    let data = Data::new(case);
    let tolerance = match case.epilogue {
        Epilogue::SwiGlu | Epilogue::Relu2 => Tolerance { max_sd: GATED_WORST, ..Tolerance::sd(GATED_TOLERANCE) },
        Epilogue::Store | Epilogue::Add => Tolerance::sd(TOLERANCE),
    };
    compare(&data.got(gpu, case)?, &data.expected(case, input), data.y_stride, tolerance)
}

/// Runs a table where the adapter has cooperative matrices, and says so where it has none.
fn table_if_offered(name: &'static str, cases: Vec<Case>) {
    let (adapter, matrices) = on_gpu(|gpu| (gpu.description().name.clone(), gpu.cooperative()));
    if matrices.is_none() {
        report(&format!("{name}: NOT RUN, {} cases: {adapter} has no cooperative matrices", cases.len()));
        return;
    }
    table(name, cases, run);
}

#[test]
fn matmul_coop_tiles() {
    let mut cases = Vec::new();
    let sizes = [(1, 24), (63, 96), (64, 32), (65, 520), (130, 64), (33, 8), (128, 128), (257, 160)];
    for (i, rows) in [1, 3, 9, 63, 64, 65, 127, 128, 129, 300].into_iter().enumerate() {
        for j in 0..4 {
            let (n, k) = sizes[(i + j) % sizes.len()];
            // A lone value may be next to nothing, of which any error is a large share.
            let n = if rows == 1 { n.max(9) } else { n };
            // The other tables have the norm.
            cases.push(Case { norm: false, ..varied(5 * i + j, n, k, rows) });
        }
    }
    table_if_offered("matmul_coop, tiles", cases);
}

#[test]
fn matmul_coop_large_tiles() {
    // More than small tiles are used for.
    let mut cases = Vec::new();
    for (i, rows) in [1, 127, 128, 129].into_iter().enumerate() {
        for (j, n) in [3456, 3500, 6210].into_iter().enumerate() {
            cases.push(Case { format: FORMATS[(i + j) % 4], ..varied(4 * j, n, 96, rows) });
        }
    }
    // As many tiles are not walked in parts, however long k is.
    cases.push(Case { n: 3456, k: 1100, rows: 3, ..Case::default() });
    table_if_offered("matmul_coop, large tiles", cases);
}

#[test]
fn matmul_coop_released_widths() {
    let mut cases = Vec::new();
    for (i, (name, n, k)) in GEOMETRY.into_iter().enumerate() {
        let epilogue = match name {
            _ if name.ends_with("gate_up") => Epilogue::SwiGlu,
            _ if name.ends_with("down") || name.ends_with("out_proj") => Epilogue::Add,
            _ => Epilogue::Store,
        };
        let format = FORMATS[3 - i % 2];
        let case = Case { format, n: n.min(136), k, rows: 9, epilogue, parts: true, ..Case::default() };
        cases.push(case);
        cases.push(Case { format: FORMATS[i % 4], rows: 66, n: n.min(72), ..case });
    }
    table_if_offered("matmul_coop, released widths", cases);
}

#[test]
fn matmul_coop_outliers() {
    let mut cases = Vec::new();
    for (i, (n, k)) in [(40, 2048), (40, 14_336), (33, 96), (40, 520)].into_iter().enumerate() {
        for j in 0..4 {
            let case = Case { outliers: true, parts: k > 1024, ..varied(5 * i + j, n, k, 2) };
            cases.push(case);
            cases.push(Case { rows: 65, ..case });
        }
    }
    table_if_offered("matmul_coop, outliers of 1e3", cases);
}

#[test]
fn matmul_coop_weights_cut_by_limits() {
    let mut cases = Vec::new();
    for format in FORMATS {
        for cut in [Cut::Pieces, Cut::PiecesAndDispatches, Cut::Dispatches] {
            // An odd number of groups in a row: the scales of a later part begin inside of a word.
            let case = Case { format, n: 39, k: 96, cut, rows: 66, ..Case::default() };
            cases.push(case);
            cases.push(Case { n: 70, epilogue: Epilogue::Add, ..case });
        }
        let gated = Case { format, n: 38, k: 96, rows: 9, cut: Cut::Pieces, ..Case::default() };
        cases.push(Case { epilogue: Epilogue::SwiGlu, ..gated });
    }
    table_if_offered("matmul_coop, cut weights", cases);
}

#[test]
fn matmul_coop_logit_rows() {
    let mut cases = Vec::new();
    for (i, rows) in [1, 2, 5, 70].into_iter().enumerate() {
        cases.push(Case { logit_rows: true, ..varied(i, 131, 96, rows) });
    }
    table_if_offered("matmul_coop, logit rows", cases);
}

#[test]
fn matmul_coop_parts_of_k() {
    let mut cases = Vec::new();
    // Parts of 8 blocks of 64 or more, of one length or not; the last block whole or not; k no multiple of 32.
    let lengths = [1024, 1088, 1344, 1600, 1700, 4096];
    for (i, k) in lengths.into_iter().enumerate() {
        for (j, (n, rows)) in [(64usize, 48), (200, 33), (13, 48), (130, 70)].into_iter().enumerate() {
            // SwiGLU takes outputs by fours.
            let n = if i % 4 == 2 { n.next_multiple_of(4) } else { n };
            cases.push(Case { width: Width::Batch, parts: true, ..varied(4 * i + j, n, k, rows) });
        }
    }
    let gated = Case { width: Width::Batch, epilogue: Epilogue::SwiGlu, k: 1024, rows: 48, ..Case::default() };
    cases.push(Case { n: 2 * 66, ..gated });
    cases.push(Case { n: 2 * 68, parts: true, ..gated });
    // Of a prompt, where the rows of the plan are more than those of the step.
    for (i, rows) in [1, 31, 32, 33, 129].into_iter().enumerate() {
        let n = if rows == 1 { 64 } else { 36 };
        cases.push(Case { parts: true, ..varied(5 * i, n, 1056, rows) });
    }
    table_if_offered("matmul_coop, parts of k", cases);
}

#[test]
fn matmul_coop_parts_of_cut_weights() {
    let mut cases = Vec::new();
    for (i, format) in FORMATS.into_iter().enumerate() {
        for cut in [Cut::Pieces, Cut::PiecesAndDispatches, Cut::Dispatches] {
            // An odd number of groups in a row, and an odd number of rows in a piece.
            let case = Case { format, n: 39, k: 1056, cut, rows: 48, parts: true, ..Case::default() };
            let width = if i % 2 == 0 { Width::Batch } else { Width::Wide };
            cases.push(Case { width, ..case });
            cases.push(Case { n: 210, epilogue: Epilogue::Add, norm: true, width, ..case });
        }
    }
    table_if_offered("matmul_coop, parts of cut weights", cases);
}

#[test]
fn matmul_coop_parts_of_logit_rows() {
    let mut cases = Vec::new();
    for (i, rows) in [1, 5, 48, 70].into_iter().enumerate() {
        for width in [Width::Batch, Width::Wide] {
            let case = varied(i, 131, 1120, rows);
            cases.push(Case { logit_rows: true, width, parts: true, ..case });
        }
    }
    table_if_offered("matmul_coop, parts of logit rows", cases);
}
