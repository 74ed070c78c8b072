//! `half_rows.wgsl`.

use half::f16;
use zebra_runtime::gpu::Gpu;
use zebra_runtime::kernels::half_rows::{HalfRows, bytes};
use zebra_runtime::kernels::product::Norm;
use zebra_runtime::kernels::rmsnorm::Columns;
use zebra_tests::compare::{UNTOUCHED, Worst, compare_each};
use zebra_tests::harness::{Bench, POISON, StepBuilder, shape_of};
use zebra_tests::random::Random;
use zebra_tests::reference::half_rows as twin;

use super::{Input, table, target};

const MAX_ROWS: u32 = 70;

#[derive(Debug, Clone, Copy)]
struct Case {
    width: usize,
    rows: usize,
    /// With a norm, of these weights' size.
    norm: Option<f32>,
    /// The size of x.
    size: f32,
    outliers: bool,
    logit_rows: bool,
}

/// Where the numbers of an eight are put.
const ORDER: [usize; 8] = [0, 2, 1, 3, 4, 6, 5, 7];

/// What a buffer of rows stands for: of each row the exponent, then its numbers.
fn numbers(words: &[u32], octs: usize) -> Vec<f32> {
    let half = |word: u32, upper: usize| f16::from_bits((word >> (16 * upper)) as u16).to_f32();
    let (exponents, rows) = words.split_at(4 * MAX_ROWS as usize);
    let mut all = Vec::new();
    for (head, row) in exponents.chunks_exact(4).zip(rows.chunks_exact(4 * octs)) {
        if head.iter().chain(row).all(|w| *w == POISON) {
            all.resize(all.len() + 1 + 8 * octs, f32::from_bits(POISON));
            continue;
        }
        let exponent = half(head[0], 0);
        all.push(exponent);
        for oct in row.chunks_exact(4) {
            let mut eight = [0.0; 8];
            for (at, place) in ORDER.into_iter().enumerate() {
                eight[place] = half(oct[at / 2], at % 2) * exponent.exp2();
            }
            all.extend(eight);
        }
    }
    all
}

fn run(gpu: &Gpu, case: &Case, input: Input) -> Result<Worst, String> {
    let mut random = Random::new((case.width + case.rows) as u64);
    let padded = case.width.next_multiple_of(32);
    let (x_offset, x_stride) = if case.rows.is_multiple_of(2) { (32, padded + 64) } else { (0, padded) };
    // What lies around x's part must not be read.
    let mut x = vec![f32::NAN; case.rows * x_stride];
    for row in x.chunks_mut(x_stride) {
        let part = &mut row[x_offset..x_offset + padded];
        part.fill(0.0);
        part[..case.width].copy_from_slice(&random.normals(case.width, case.size));
        if case.outliers {
            (0..3).for_each(|_| part[random.below(case.width)] *= 1e3);
        }
    }
    let eps = 1e-6;
    let weight = random.normals(case.width, case.norm.unwrap_or(1.0));
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
    let octs = case.width.next_multiple_of(64) / 8;
    let y = bench.output("y", bytes(MAX_ROWS, case.width) as usize / 4);
    let weights = bench.floats("weight", &weight);
    let dispatch = HalfRows {
        step: &bench.step(&step, MAX_ROWS),
        x: Columns { buffer: &bench.floats("x", &x), stride: x_stride, offset: x_offset },
        norm: case.norm.map(|_| Norm { weight: &weights, eps }),
        y: &y,
        width: case.width,
        logit_rows: case.logit_rows,
    }
    .dispatch("test", target(gpu, false, MAX_ROWS));
    bench.run(&[dispatch], shape_of(&step))?;

    if input == Input::Altered {
        x[x_offset + rows[0] * x_stride] += 3.0 * case.size;
    }
    let stride = 1 + 8 * octs;
    let mut expected = vec![UNTOUCHED; MAX_ROWS as usize * stride];
    for (out, s) in expected.chunks_mut(stride).zip(&rows) {
        out.fill(0.0);
        let x = &x[s * x_stride + x_offset..][..case.width];
        out[0] = f64::from(twin::half_rows(x, case.norm.map(|_| (&weight[..], eps)), &mut out[1..]));
    }
    let expected_exponents: Vec<f64> = expected.iter().step_by(stride).copied().collect();
    // An f16 has eleven bits; a driver may round either way. Below 2^-14 its steps stay 2^-24, of which the row's power
    // of two is taken. The norm adds rounding errors of f32.
    compare_each(&numbers(&bench.read_words(&y), octs), &expected, stride, |i, v| {
        if i % stride == 0 { 0.0 } else { v.abs() * 1.001 / 1024.0 + (expected_exponents[i / stride] - 24.0).exp2() }
    })
}

#[test]
fn half_rows() {
    let mut cases = Vec::new();
    for (i, width) in [1, 24, 32, 63, 64, 65, 257, 1344, 2048, 4096, 14_336].into_iter().enumerate() {
        let rows = [1, 2, 5, 64, 65][i % 5];
        let case = Case { width, rows, norm: None, size: 2.0, outliers: false, logit_rows: false };
        cases.push(case);
        cases.push(Case { outliers: true, size: 1e-6, ..case });
        cases.push(Case { norm: Some(1.0), ..case });
        cases.push(Case { norm: Some(0.01), outliers: true, size: 300.0, logit_rows: true, ..case });
    }
    // As large and as small as f32 has them.
    cases.push(Case { width: 96, rows: 3, norm: None, size: 1e37, outliers: false, logit_rows: true });
    cases.push(Case { width: 96, rows: 3, norm: None, size: 1e-30, outliers: false, logit_rows: false });
    table("half_rows", cases, run);
}
