//! `add_parts.wgsl`.

use half::f16;
use zebra_runtime::gpu::Gpu;
use zebra_runtime::kernels::add_parts::AddParts;
use zebra_runtime::kernels::product::Epilogue;
use zebra_runtime::kernels::rmsnorm::Columns;
use zebra_tests::compare::{Tolerance, UNTOUCHED, Worst, compare};
use zebra_tests::harness::{Bench, POISON, StepBuilder, shape_of};
use zebra_tests::random::Random;
use zebra_tests::reference::add_parts as twin;

use super::{Input, table, target};

const MAX_ROWS: u32 = 70;

/// Rows of a part: those past the step's are not read.
const PART_ROWS: usize = 96;

#[derive(Debug, Clone, Copy)]
struct Case {
    splits: usize,
    n: usize,
    rows: usize,
    epilogue: Epilogue,
    /// Of the power of two that the sums lack.
    exponent: i32,
    logit_rows: bool,
}

/// A sum of up to 16 numbers of f32, scaled by a power of two. SwiGLU multiplies two of them, and its exp has an error of
/// its own; a squared one is off by twice as much.
const TOLERANCE: f64 = 2e-6;
const GATED_TOLERANCE: f64 = 1e-5;

fn run(gpu: &Gpu, case: &Case, input: Input) -> Result<Worst, String> {
    let mut random = Random::new((case.n * 31 + case.splits * 7 + case.rows) as u64);
    let columns = if case.epilogue == Epilogue::SwiGlu { 2 * case.n } else { case.n };
    let stride = columns.next_multiple_of(32) + 32;
    // What lies around the parts must not count.
    let mut parts = vec![f32::NAN; case.splits * PART_ROWS * stride];
    let at = |p: usize, r: usize| (p * PART_ROWS + r) * stride;
    let exponents: Vec<i32> = (0..case.rows).map(|_| case.exponent + random.below(5) as i32 - 2).collect();
    for p in 0..case.splits {
        for (r, exponent) in exponents.iter().enumerate() {
            // Of a size that makes the results some ones.
            let values = random.normals(columns, (-exponent as f32).exp2());
            parts[at(p, r)..][..columns].copy_from_slice(&values);
        }
    }
    let mut x = vec![POISON; 4 * MAX_ROWS as usize + 16];
    for (head, exponent) in x.chunks_exact_mut(4).zip(&exponents) {
        head[0] = u32::from(f16::from_f32(*exponent as f32).to_bits());
    }
    let (y_offset, y_stride) = (3, case.n + 5);
    let mut y = vec![f32::from_bits(POISON); case.rows * y_stride];
    if case.epilogue == Epilogue::Add {
        y.chunks_mut(y_stride).for_each(|row| row[y_offset..][..case.n].copy_from_slice(&random.normals(case.n, 1.0)));
    }

    let step = StepBuilder::new().segment(0, 5, case.rows);
    let step = if case.logit_rows { step.logits(&(0..case.rows).collect::<Vec<_>>()) } else { step }.build();
    let bench = Bench::new(gpu);
    let result = bench.state("y", &y);
    let dispatch = AddParts {
        step: &bench.step(&step, MAX_ROWS),
        x: &bench.words("x", &x),
        parts: &bench.floats("parts", &parts),
        splits: case.splits as u32,
        rows: PART_ROWS as u32,
        stride: stride as u32,
        n: case.n,
        y: Columns { buffer: &result, stride: y_stride, offset: y_offset },
        epilogue: case.epilogue,
        logit_rows: case.logit_rows,
    }
    .dispatch("test", target(gpu, false, MAX_ROWS));
    bench.run(&[dispatch], shape_of(&step))?;

    if input == Input::Altered {
        parts[at(case.splits - 1, 0)] += 3.0 * (-exponents[0] as f32).exp2();
    }
    let untouched = |v: &f32| if v.to_bits() == POISON { UNTOUCHED } else { f64::from(*v) };
    let mut expected: Vec<f64> = y.iter().map(untouched).collect();
    for (r, row) in expected.chunks_mut(y_stride).enumerate() {
        let of_row: Vec<&[f32]> = (0..case.splits).map(|p| &parts[at(p, r)..][..columns]).collect();
        twin::add_parts(&of_row, exponents[r], case.epilogue, &mut row[y_offset..][..case.n]);
    }
    let plain = matches!(case.epilogue, Epilogue::Store | Epilogue::Add);
    let tolerance = if plain { TOLERANCE } else { GATED_TOLERANCE };
    compare(&bench.read(&result), &expected, y_stride, Tolerance::sd(tolerance))
}

#[test]
fn add_parts() {
    let mut cases = Vec::new();
    for splits in [1, 2, 3, 4, 5, 8, 13, 16] {
        for (i, n) in [9, 63, 64, 255, 256, 257, 1000].into_iter().enumerate() {
            let rows = [1, 2, 48, 70][i % 4];
            let exponent = [-3, 0, 40, -100][(splits + i) % 4];
            let case = Case { splits, n, rows, epilogue: Epilogue::Store, exponent, logit_rows: i % 3 == 1 };
            cases.push(case);
            cases.push(Case { epilogue: Epilogue::Add, ..case });
            cases.push(Case { epilogue: Epilogue::SwiGlu, n: n.next_multiple_of(4), ..case });
            cases.push(Case { epilogue: Epilogue::Relu2, ..case });
        }
    }
    table("add_parts", cases, run);
}
