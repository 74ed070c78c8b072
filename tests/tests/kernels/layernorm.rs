//! `layernorm.wgsl`.

use zebra_runtime::gpu::Gpu;
use zebra_runtime::kernels::coded;
use zebra_runtime::kernels::layernorm::LayerNorm;
use zebra_runtime::kernels::rmsnorm::Columns;
use zebra_tests::compare::{Tolerance, UNTOUCHED, Worst, compare};
use zebra_tests::harness::{Bench, StepBuilder, shape_of};
use zebra_tests::random::Random;
use zebra_tests::reference::layernorm as twin;
use zebra_tests::reference::product::coded_groups;

use super::{Input, table, target};

const MAX_ROWS: u32 = 70;

#[derive(Debug, Clone, Copy)]
struct Case {
    width: usize,
    rows: usize,
    subgroups: bool,
    outliers: bool,
    /// The mean of x, which has a standard deviation of 2.
    mean: f32,
    coded: bool,
    eps: f32,
}

/// A mean is off by some 1e-7 of the sizes of its values, and so is what is left of each once it is subtracted. An
/// outlier may be a hundred standard deviations, and is off by 1e-7 of itself.
fn tolerance(case: &Case) -> Tolerance {
    let even = Tolerance::sd(3e-6 * f64::from(1.0 + case.mean.abs() / 2.0));
    if case.outliers { Tolerance { max_sd: 2e-5, ..even } } else { even }
}

fn run(gpu: &Gpu, case: &Case, input: Input) -> Result<Worst, String> {
    let mut random = Random::new((case.width + case.rows) as u64);
    let padded = case.width.next_multiple_of(32);
    let (x_stride, y_stride) = (padded + 32, padded + if case.rows.is_multiple_of(2) { 64 } else { 0 });
    // What pads the rows of x must not count.
    let mut x = vec![f32::NAN; case.rows * x_stride];
    for row in x.chunks_mut(x_stride) {
        row[..case.width].copy_from_slice(&random.normals(case.width, 2.0));
        row[..case.width].iter_mut().for_each(|v| *v += case.mean);
        if case.outliers {
            (0..3).for_each(|_| row[random.below(case.width)] *= 1e3);
        }
    }
    let [weight, bias] = [0.3, 0.2].map(|size| {
        let mut values = random.normals(case.width, size);
        values.resize(padded, 0.0);
        values
    });
    let step = StepBuilder::new().segment(0, 0, case.rows).build();

    let bench = Bench::new(gpu);
    let y = bench.output("y", case.rows * y_stride);
    let codes = bench.output("codes", coded::words(case.rows, case.width));
    let dispatch = LayerNorm {
        step: &bench.step(&step, MAX_ROWS),
        x: Columns::rows(&bench.floats("x", &x), x_stride),
        weight: &bench.floats("weight", &weight),
        bias: &bench.floats("bias", &bias),
        y: Columns::rows(&y, y_stride),
        codes: case.coded.then_some(&codes),
        width: case.width,
        eps: case.eps,
    }
    .dispatch("test", target(gpu, case.subgroups, MAX_ROWS));
    bench.run(&[dispatch], shape_of(&step))?;

    let mut expected = vec![UNTOUCHED; case.rows * y_stride];
    if input == Input::Altered {
        x[case.width - 1] += 0.1 * (case.width as f32).sqrt() + 1.0;
    }
    for (x, y) in x.chunks(x_stride).zip(expected.chunks_mut(y_stride)) {
        y[..padded].fill(0.0);
        twin::layernorm(&x[..case.width], &weight[..case.width], &bias[..case.width], case.eps, y);
    }
    let got = bench.read(&y);
    if case.coded {
        let groups = padded / 32;
        for (i, group) in coded_groups(&bench.read_words(&codes), groups).into_iter().enumerate() {
            let values = &got[i / groups * y_stride + i % groups * 32..][..32];
            let most = values.iter().fold(0f32, |most, v| most.max(v.abs()));
            let squares: f64 = values.iter().map(|v| f64::from(*v).powi(2)).sum();
            if (group.scale * 127.0 - most).abs() > 1e-6 * most {
                return Err(format!("group {i}: a scale of {}, the largest value is {most}", group.scale));
            }
            if (f64::from(group.squares) - squares).abs() > 1e-5 * squares {
                return Err(format!("group {i}: squares {}, expected {squares}", group.squares));
            }
            for (code, v) in group.codes.iter().zip(values) {
                if (f32::from(*code) * group.scale - v).abs() > 0.502 * group.scale {
                    return Err(format!("group {i}: {code} times {}, expected {v}", group.scale));
                }
            }
        }
    }
    compare(&got, &expected, y_stride, tolerance(case))
}

#[test]
fn layernorm() {
    let mut cases = Vec::new();
    for subgroups in [false, true] {
        // Of one lane, of whole and broken quads and groups, one past what 256 lanes take at once, the released widths.
        for (i, width) in [64, 2, 24, 63, 255, 256, 257, 1023, 1025, 3072, 4096].into_iter().enumerate() {
            let rows = [1, 2, 5, 64, 65][i % 5];
            let (outliers, mean, eps) = (false, 0.3, 1e-5);
            let case = Case { width, rows, subgroups, outliers, mean, coded: i % 2 == 0, eps };
            cases.push(case);
            cases.push(Case { outliers: true, coded: !case.coded, eps: 1e-2, ..case });
            cases.push(Case { mean: -40.0, ..case });
        }
    }
    table("layernorm", cases, run);
}
