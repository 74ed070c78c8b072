//! `matmul_coop.wgsl`, on rows that `half_rows.wgsl` has made.

use std::time::{Duration, Instant};

use pollster::block_on;
use zebra_runtime::gpu::Gpu;
use zebra_runtime::kernels::Target;
use zebra_runtime::kernels::half_rows::{HalfRows, bytes};
use zebra_runtime::kernels::matmul::Epilogue;
use zebra_runtime::kernels::matmul_coop::MatMulCoop;
use zebra_runtime::kernels::rmsnorm::Columns;
use zebra_runtime::weights::WeightFormat;
use zebra_tests::compare::{Tolerance, Worst, compare};
use zebra_tests::harness::{Bench, StepBuilder, on_gpu, report, shape_of};
use zebra_tests::random::Random;
use zebra_tests::reference::weight::{FORMATS, Weight};

use super::matmul::{Case, Data, GEOMETRY, varied};
use super::{Cut, Input, table, target};

const MAX_ROWS: u32 = 300;

/// Both factors of a product are rounded to f16: by 2^-11 each at most, which is some 2e-4 of a sum's own spread whatever
/// k is, as the products are added up in f32. Where one product makes most of a sum (k of 8, or outliers) the worst of
/// some 10,000 sums comes near the most, 1e-3 of a value that may be a few spreads large.
const TOLERANCE: f64 = 4e-3;

/// SwiGLU multiplies two of them: their errors add up, and the worst of its values, some spreads large each, are
/// further off.
const GATED_TOLERANCE: f64 = 6e-3;
const GATED_WORST: f64 = 1e-2;

fn run(gpu: &Gpu, case: &Case, input: Input) -> Result<Worst, String> {
    let Some(matrices) = gpu.cooperative() else {
        return Err("this adapter has no cooperative matrices".into());
    };
    let data = Data::new(case);
    let target = target(gpu, true, MAX_ROWS);
    let target = Target { limits: case.cut.limits(target.limits, case.format, case.n, case.k), ..target };
    let step = if case.logit_rows {
        // Logit row r is of row r; what lies behind the last is not read.
        StepBuilder::new().segment(0, 5, case.rows).logits(&(0..case.rows).collect::<Vec<_>>()).build()
    } else {
        StepBuilder::new().segment(0, 5, case.rows).build()
    };
    let bench = Bench::new(gpu);
    let step_buffer = bench.step(&step, MAX_ROWS);
    let half = bench.output("half", bytes(MAX_ROWS, case.k) as usize / 4);
    let y = bench.state("y", &data.y);
    let mut dispatches = vec![
        HalfRows {
            step: &step_buffer,
            x: Columns { buffer: &bench.floats("x", &data.x), stride: data.x_stride, offset: data.x_offset },
            norm: None,
            y: &half,
            width: case.k,
            logit_rows: case.logit_rows,
        }
        .dispatch("test", target),
    ];
    dispatches.extend(
        MatMulCoop {
            step: &step_buffer,
            x: &half,
            weight: &bench.matrix("weight", &data.weight, target),
            y: Columns { buffer: &y, stride: data.y_stride, offset: data.y_offset },
            epilogue: case.epilogue,
            logit_rows: case.logit_rows,
        }
        .dispatches("test", matrices, target),
    );
    let expected = match case.cut {
        Cut::Whole | Cut::Pieces => 2,
        Cut::PiecesAndDispatches => 3,
        Cut::Dispatches => 4,
    };
    if dispatches.len() != expected {
        return Err(format!("{} dispatches, {expected} are expected", dispatches.len()));
    }
    bench.run(&dispatches, shape_of(&step))?;
    let tolerance = match case.epilogue {
        Epilogue::SwiGlu => Tolerance { max_sd: GATED_WORST, ..Tolerance::sd(GATED_TOLERANCE) },
        Epilogue::Store | Epilogue::Add => Tolerance::sd(TOLERANCE),
    };
    compare(&bench.read(&y), &data.expected(case, input), data.y_stride, tolerance)
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
            cases.push(varied(5 * i + j, n, k, rows));
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
        let case = Case { format: FORMATS[3 - i % 2], n: n.min(130), k, rows: 9, epilogue, ..Case::default() };
        cases.push(case);
        cases.push(Case { format: FORMATS[i % 4], rows: 66, n: n.min(66), ..case });
    }
    table_if_offered("matmul_coop, released widths", cases);
}

#[test]
fn matmul_coop_outliers() {
    let mut cases = Vec::new();
    for (i, (n, k)) in [(40, 2048), (40, 14_336), (33, 96), (40, 520)].into_iter().enumerate() {
        for j in 0..4 {
            let case = Case { outliers: true, ..varied(5 * i + j, n, k, 2) };
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

/// What the products of the released models reach, by timestamps: `cargo test --release -p zebra-tests --test kernels
/// matmul_coop_speed -- --ignored`.
#[test]
#[ignore = "a measurement, for a GPU"]
fn matmul_coop_speed() {
    on_gpu(|gpu| {
        let matrices = gpu.cooperative().expect("cooperative matrices");
        for rows in [512, 4096] {
            for (name, n, k) in GEOMETRY.into_iter().filter(|(name, ..)| !name.ends_with("head")) {
                let format = if name.contains("q_") { WeightFormat::Q8 } else { WeightFormat::Q4 };
                let epilogue = if name.ends_with("gate_up") { Epilogue::SwiGlu } else { Epilogue::Store };
                let outputs = if epilogue == Epilogue::SwiGlu { n / 2 } else { n };
                let mut random = Random::new(1);
                // A few rows again and again: their codes do not matter.
                let one = Weight::random(format, 16, k, &mut random);
                let weight = Weight {
                    n,
                    words: one.words.iter().copied().cycle().take(one.words.len() / 16 * n).collect(),
                    scales: one.scales.iter().copied().cycle().take(one.scales.len() / 16 * n).collect(),
                    ..one
                };
                let target = target(gpu, true, rows as u32);
                let step = StepBuilder::new().segment(0, 0, rows).build();
                let bench = Bench::new(gpu);
                let step_buffer = bench.step(&step, rows as u32);
                let x = bench.floats("x", &random.normals(k, 1.0).repeat(rows));
                let half = bench.output("half", bytes(rows as u32, k) as usize / 4);
                let y = bench.output("y", rows * outputs);
                let mut dispatches = vec![
                    HalfRows {
                        step: &step_buffer,
                        x: Columns::rows(&x, k),
                        norm: None,
                        y: &half,
                        width: k,
                        logit_rows: false,
                    }
                    .dispatch("test", target),
                ];
                let product = MatMulCoop {
                    step: &step_buffer,
                    x: &half,
                    weight: &bench.matrix("weight", &weight, target),
                    y: Columns::rows(&y, outputs),
                    epilogue,
                    logit_rows: false,
                }
                .dispatches("test", matrices, target);
                dispatches.extend((0..5).flat_map(|_| product.clone()));
                bench.run(&dispatches, shape_of(&step)).expect("it runs");
                let program = block_on(gpu.compile(&dispatches)).expect("it compiles");
                // A card that had nothing to do while the weights were made runs slowly at first.
                let start = Instant::now();
                while start.elapsed() < Duration::from_millis(300) {
                    block_on(program.run(gpu, shape_of(&step))).expect("it runs");
                }
                let times = block_on(program.profile(gpu, shape_of(&step))).expect("timestamps");
                let mut product: Vec<f64> = times[1..].iter().map(|t| t.nanoseconds).collect();
                product.sort_by(f64::total_cmp);
                let flops = 2.0 * rows as f64 * n as f64 * k as f64;
                report(&format!(
                    "{name} {format:?} {rows} x {n} x {k}: {:.1} us, {:.0} TFLOP/s; rows to f16 {:.1} us",
                    product[2] / 1e3,
                    flops / product[2] / 1e3,
                    times[0].nanoseconds / 1e3
                ));
            }
        }
    });
}
