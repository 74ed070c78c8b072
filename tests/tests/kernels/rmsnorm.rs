//! `rmsnorm.wgsl`.

use zebra_runtime::gpu::Gpu;
use zebra_runtime::kernels::rmsnorm::{Columns, RmsNorm};
use zebra_tests::compare::{UNTOUCHED, Worst, compare_relative};
use zebra_tests::harness::{Bench, StepBuilder, shape_of};
use zebra_tests::random::Random;
use zebra_tests::reference::rmsnorm as twin;

use super::{Input, table, target};

const MAX_ROWS: u32 = 70;

#[derive(Debug, Clone, Copy)]
struct Case {
    width: usize,
    rows: usize,
    subgroups: bool,
    outliers: bool,
    logit_rows: bool,
    eps: f32,
}

/// The sum of squares is of one sign, so that its relative error stays below some 1e-6 at any width; then a square root
/// (halving it) and two products.
const TOLERANCE: f64 = 3e-6;

fn run(gpu: &Gpu, case: &Case, input: Input) -> Result<Worst, String> {
    let mut random = Random::new((case.width + case.rows) as u64);
    let (x_stride, x_offset) = (case.width + 7, if case.rows.is_multiple_of(2) { 4 } else { 0 });
    let (y_stride, y_offset) = (case.width.next_multiple_of(32) + 32, 1);
    let mut x = random.normals(case.rows * x_stride, 2.0);
    if case.outliers {
        (0..4 * case.rows).for_each(|_| {
            let i = random.below(x.len());
            x[i] *= 1e3;
        });
    }
    let weight = random.normals(case.width, 1.0);
    // Logit rows come in any order, some rows more than once.
    let rows: Vec<usize> = if case.logit_rows {
        (0..case.rows).map(|_| random.below(case.rows)).collect()
    } else {
        (0..case.rows).collect()
    };
    let mut step = StepBuilder::new().segment(0, 0, case.rows);
    if case.logit_rows {
        step = step.logits(&rows);
    }
    let step = step.build();

    let bench = Bench::new(gpu);
    let y = bench.output("y", case.rows * y_stride);
    let dispatch = RmsNorm {
        step: &bench.step(&step, MAX_ROWS),
        x: Columns { buffer: &bench.floats("x", &x), stride: x_stride, offset: x_offset },
        weight: &bench.floats("weight", &weight),
        y: Columns { buffer: &y, stride: y_stride, offset: y_offset },
        width: case.width,
        eps: case.eps,
        logit_rows: case.logit_rows,
    }
    .dispatch("test", target(gpu, case.subgroups, MAX_ROWS));
    bench.run(&[dispatch], shape_of(&step))?;

    let mut expected = vec![UNTOUCHED; case.rows * y_stride];
    if input == Input::Altered {
        x[x_offset + rows[0] * x_stride] *= 1.5;
    }
    for (r, s) in rows.iter().enumerate() {
        let x = &x[s * x_stride + x_offset..][..case.width];
        twin::rmsnorm(x, &weight, case.eps, &mut expected[r * y_stride + y_offset..]);
    }
    compare_relative(&bench.read(&y), &expected, y_stride, TOLERANCE)
}

#[test]
fn rmsnorm() {
    let mut cases = Vec::new();
    for subgroups in [false, true] {
        for (i, width) in [1, 24, 63, 255, 256, 257, 1344, 2048, 3072, 4096].into_iter().enumerate() {
            let rows = [1, 2, 5, 64, 65][i % 5];
            let case = Case { width, rows, subgroups, outliers: false, logit_rows: false, eps: 1e-5 };
            cases.push(case);
            cases.push(Case { outliers: true, logit_rows: true, eps: 1e-6, ..case });
        }
    }
    table("rmsnorm", cases, run);
}
