//! `quantize_rows.wgsl`.

use zebra_runtime::gpu::Gpu;
use zebra_runtime::kernels::coded;
use zebra_runtime::kernels::product::Norm;
use zebra_runtime::kernels::quantize_rows::QuantizeRows;
use zebra_runtime::kernels::rmsnorm::Columns;
use zebra_tests::compare::{Worst, compare_each, compare_relative};
use zebra_tests::harness::{Bench, POISON, StepBuilder, on_gpu, report, shape_of};
use zebra_tests::random::Random;
use zebra_tests::reference::product::coded_groups;
use zebra_tests::reference::quantize_rows as twin;

use super::{Input, table, target};

const MAX_ROWS: u32 = 140;
const EPS: f32 = 1e-5;

#[derive(Debug, Clone, Copy, Default)]
struct Case {
    width: usize,
    rows: usize,
    norm: bool,
    subgroups: bool,
    /// Some of x are a thousand times the others.
    outliers: bool,
    logit_rows: bool,
}

impl Case {
    fn groups(&self) -> usize {
        self.width.div_ceil(32)
    }

    /// Rows of x that are taken: logit rows in no order, some never, one twice.
    fn taken(&self) -> Vec<usize> {
        match self.logit_rows {
            true => (0..self.rows).map(|r| (5 * r + 2) % (self.rows + 3)).collect(),
            false => (0..self.rows).collect(),
        }
    }
}

struct Data {
    x: Vec<f32>,
    x_stride: usize,
    x_offset: usize,
    /// In whole quads.
    weight: Vec<f32>,
}

impl Data {
    fn new(case: &Case) -> Self {
        let mut random = Random::new((case.width * 7 + case.rows) as u64);
        // x is a part of wider rows; whatever else they hold must not be read.
        let (x_offset, more) = if case.rows.is_multiple_of(2) { (4, 12) } else { (0, 0) };
        let x_stride = case.width.next_multiple_of(4) + more;
        let rows = if case.logit_rows { case.rows + 3 } else { case.rows };
        let mut x = vec![f32::NAN; rows * x_stride];
        for row in x.chunks_mut(x_stride) {
            let part = &mut row[x_offset..x_offset + case.width];
            part.copy_from_slice(&random.normals(case.width, 2.0));
            if case.outliers {
                (0..3).for_each(|_| part[random.below(case.width)] *= 1e3);
            }
            // Some groups are all zero.
            for group in part.chunks_mut(32).skip(1) {
                if random.below(8) == 0 {
                    group.fill(0.0);
                }
            }
        }
        let mut weight = random.normals(case.width, 1.0);
        weight.resize(case.width.next_multiple_of(4), 0.0);
        Self { x, x_stride, x_offset, weight }
    }

    /// Codes, as floats, and scales.
    fn got(&self, gpu: &Gpu, case: &Case) -> Result<(Vec<f32>, Vec<f32>), String> {
        let step = match case.logit_rows {
            true => StepBuilder::new().segment(0, 5, case.rows + 3).logits(&case.taken()).build(),
            false => StepBuilder::new().segment(0, 5, case.rows).build(),
        };
        let bench = Bench::new(gpu);
        let codes = bench.output("codes", coded::words(case.rows, case.width));
        let weight = bench.floats("weight", &self.weight);
        let dispatch = QuantizeRows {
            step: &bench.step(&step, MAX_ROWS),
            x: Columns { buffer: &bench.floats("x", &self.x), stride: self.x_stride, offset: self.x_offset },
            norm: case.norm.then_some(Norm { weight: &weight, eps: EPS }),
            codes: &codes,
            width: case.width,
            logit_rows: case.logit_rows,
        }
        .dispatch("test", target(gpu, case.subgroups, MAX_ROWS));
        bench.run(&[dispatch], shape_of(&step))?;
        let groups = coded_groups(&bench.read_words(&codes), case.groups());
        if groups.iter().any(|group| group.squares.to_bits() != POISON) {
            return Err("a sum of squares was written".into());
        }
        let scales = groups.iter().map(|group| group.scale).collect();
        Ok((groups.iter().flat_map(|group| group.codes.iter().map(|c| f32::from(*c))).collect(), scales))
    }
}

/// A code is half a step off at most, and a little where f32 finds the quotient at the border of two codes.
const CODE: f64 = 0.5 + 1e-4;

/// A quotient; with a norm the relative error of its factor besides (see the table of rmsnorm).
const SCALE: f64 = 3e-6;

fn run(gpu: &Gpu, case: &Case, input: Input) -> Result<Worst, String> {
    let data = Data::new(case);
    let mut x = data.x.clone();
    if input == Input::Altered {
        x[case.taken()[0] * data.x_stride + data.x_offset] += 30.0;
    }
    let mut quotients = vec![f64::NAN; case.rows * case.groups() * 32];
    let mut scales = vec![f64::NAN; case.rows * case.groups()];
    twin::quantize_rows(
        &twin::QuantizeRows {
            rows: &case.taken(),
            x: &x,
            x_stride: data.x_stride,
            x_offset: data.x_offset,
            width: case.width,
            norm: case.norm.then_some((&data.weight[..case.width], EPS)),
        },
        &mut quotients,
        &mut scales,
    );
    let (got_codes, got_scales) = data.got(gpu, case)?;
    let scales = compare_relative(&got_scales, &scales, case.groups(), SCALE).map_err(|e| format!("scales: {e}"))?;
    // A code's distance from its quotient is no error of the kernel: what is reported is the scales'.
    compare_each(&got_codes, &quotients, case.groups() * 32, |_, _| CODE).map_err(|e| format!("codes: {e}"))?;
    Ok(scales)
}

#[test]
fn quantize_rows() {
    let mut cases = Vec::new();
    let widths = [1, 4, 24, 31, 32, 33, 63, 255, 257, 520, 1030, 2049];
    for (i, width) in widths.into_iter().enumerate() {
        let rows = [1, 2, 5, 64, 129][i % 5];
        let case = Case { width, rows, ..Case::default() };
        cases.push(case);
        cases.push(Case { outliers: true, logit_rows: true, ..case });
        for subgroups in [false, true] {
            cases.push(Case { norm: true, subgroups, ..case });
            cases.push(Case { norm: true, subgroups, outliers: true, logit_rows: true, ..case });
        }
    }
    table("quantize_rows", cases, run);
}

#[test]
fn released_widths() {
    let mut cases = Vec::new();
    for (i, width) in [128, 160, 1344, 1536, 2048, 3072, 4096, 8192, 14336].into_iter().enumerate() {
        let case = Case { width, rows: 2 + i % 2, ..Case::default() };
        cases.push(case);
        cases.push(Case { norm: true, subgroups: i % 2 == 0, ..case });
    }
    table("quantize_rows, released widths", cases, run);
}

/// They end, spoil no other row, and show: a scale is no number either.
#[test]
fn values_that_are_no_numbers() {
    on_gpu(|gpu| {
        for norm in [false, true] {
            let case = Case { width: 96, rows: 7, norm, ..Case::default() };
            let mut data = Data::new(&case);
            let (usual_codes, usual_scales) = data.got(gpu, &case).expect("numbers");
            let strange = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, 1e-38, 1e-42];
            for (r, v) in strange.into_iter().enumerate() {
                data.x[r * data.x_stride + data.x_offset + 40] = v;
                if r >= 4 {
                    data.x[r * data.x_stride + data.x_offset..][..96].fill(v);
                }
            }
            let (codes, scales) = data.got(gpu, &case).expect("the kernel ends");
            assert!(codes.iter().all(|code| code.abs() <= 128.0), "{codes:?}");
            for r in 0..3 {
                assert!(!scales[3 * r + 1].is_finite(), "row {r}: {:?}", &scales[3 * r..][..3]);
            }
            for r in 3..6 {
                assert!(scales[3 * r..][..3].iter().all(|s| s.is_finite()), "row {r}: {:?}", &scales[3 * r..][..3]);
            }
            assert_eq!(codes[6 * 96..], usual_codes[6 * 96..]);
            assert_eq!(scales[6 * 3..], usual_scales[6 * 3..]);
        }
    });
    report("quantize_rows: 6 kinds of strange values, with and without a norm");
}
