//! `matmul_i8.wgsl`.

use zebra_runtime::gpu::Gpu;
use zebra_runtime::kernels::Target;
use zebra_runtime::kernels::matmul_i8::MatMulI8;
use zebra_runtime::kernels::product::Epilogue;
use zebra_runtime::kernels::rmsnorm::Columns;
use zebra_runtime::weights::WeightFormat;
use zebra_tests::compare::{Tolerance, UNTOUCHED, Worst, compare};
use zebra_tests::harness::{Bench, POISON, StepBuilder, shape_of};
use zebra_tests::random::Random;
use zebra_tests::reference::matmul_i8 as twin;
use zebra_tests::reference::product::{Group, coded_words};
use zebra_tests::reference::weight::Weight;

use super::{Cut, Input, table, target};

const MAX_ROWS: u32 = 140;

const FORMATS: [WeightFormat; 2] = [WeightFormat::Q8, WeightFormat::Q4];
const EPILOGUES: [Epilogue; 4] = [Epilogue::Store, Epilogue::Add, Epilogue::SwiGlu, Epilogue::Relu2];

/// What the codes and scales of x are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Codes {
    Drawn,
    /// Some scales are a thousand times the others.
    Outliers,
    /// Every product is the largest there is.
    Largest,
}

#[derive(Debug, Clone, Copy)]
struct Case {
    format: WeightFormat,
    n: usize,
    k: usize,
    rows: usize,
    epilogue: Epilogue,
    cut: Cut,
    codes: Codes,
    logit_rows: bool,
}

impl Default for Case {
    fn default() -> Self {
        Self {
            format: WeightFormat::Q8,
            n: 64,
            k: 64,
            rows: 64,
            epilogue: Epilogue::Store,
            cut: Cut::Whole,
            codes: Codes::Drawn,
            logit_rows: false,
        }
    }
}

impl Case {
    fn outputs(&self) -> usize {
        if self.epilogue == Epilogue::SwiGlu { self.n / 2 } else { self.n }
    }
}

/// The formats by turns, the epilogues by slower turns.
fn varied(i: usize, n: usize, k: usize, rows: usize) -> Case {
    let epilogue = EPILOGUES[i / 2 % 4];
    let n = if epilogue == Epilogue::SwiGlu { 2 * n } else { n };
    Case { format: FORMATS[i % 2], n, k, rows, epilogue, ..Case::default() }
}

struct Data {
    weight: Weight,
    codes: Vec<i8>,
    scales: Vec<f32>,
    y: Vec<f32>,
    y_stride: usize,
    y_offset: usize,
}

impl Data {
    fn new(case: &Case) -> Self {
        let mut random = Random::new((case.n * 31 + case.k * 7 + case.rows) as u64);
        let mut weight = Weight::random(case.format, case.n, case.k, &mut random);
        let groups = case.k.div_ceil(32);
        let (mut codes, mut scales) = (Vec::new(), Vec::new());
        for r in 0..case.rows {
            for g in 0..groups {
                let size = random.uniform(0.5, 1.5) / 73.0;
                scales.push(match random.below(16) {
                    0 => 0.0,
                    1 if case.codes == Codes::Outliers => 1e3 * size,
                    _ => size,
                });
                codes.extend((32 * g..32 * g + 32).map(|i| match case.codes {
                    _ if i >= case.k => 0,
                    Codes::Largest => [127, -127][r % 2],
                    Codes::Drawn | Codes::Outliers => (random.below(255) as i32 - 127) as i8,
                }));
            }
        }
        if case.codes == Codes::Largest {
            weight.words.fill(if case.format == WeightFormat::Q8 { -127i8 as u8 } else { 0 });
        }
        let (y_offset, y_stride) = (3, case.outputs() + 5);
        let mut y = vec![f32::from_bits(POISON); case.rows * y_stride];
        if case.epilogue == Epilogue::Add {
            for row in y.chunks_mut(y_stride) {
                row[y_offset..y_offset + case.outputs()].copy_from_slice(&random.normals(case.outputs(), 1.0));
            }
        }
        Self { weight, codes, scales, y, y_stride, y_offset }
    }

    fn expected(&self, case: &Case, input: Input) -> Vec<f64> {
        let untouched = |v: &f32| if v.to_bits() == POISON { UNTOUCHED } else { f64::from(*v) };
        let mut y: Vec<f64> = self.y.iter().map(untouched).collect();
        let mut scales = self.scales.clone();
        if input == Input::Altered {
            scales[0] += 0.01;
        }
        twin::matmul_i8(
            &twin::MatMulI8 {
                rows: case.rows,
                codes: &self.codes,
                scales: &scales,
                weight: &self.weight.values(),
                n: case.n,
                k: case.k,
                y_stride: self.y_stride,
                y_offset: self.y_offset,
                epilogue: case.epilogue,
            },
            &mut y,
        );
        y
    }

    fn got(&self, gpu: &Gpu, case: &Case) -> Result<Vec<f32>, String> {
        let target = target(gpu, false, MAX_ROWS);
        let target = Target { limits: case.cut.limits(target.limits, case.format, case.n, case.k), ..target };
        let step = match case.logit_rows {
            // The products run over the logit rows, packed, whatever rows they are of.
            true => StepBuilder::new().segment(0, 5, case.rows + 3).logits(&vec![1; case.rows]).build(),
            false => StepBuilder::new().segment(0, 5, case.rows).build(),
        };
        let bench = Bench::new(gpu);
        let y = bench.state("y", &self.y);
        let group = |(codes, scale): (&[i8], &f32)| Group { codes: codes.to_vec(), scale: *scale, squares: f32::NAN };
        let groups: Vec<Group> = self.codes.chunks(32).zip(&self.scales).map(group).collect();
        let words = coded_words(&groups, case.k.div_ceil(32));
        let dispatches = MatMulI8 {
            step: &bench.step(&step, MAX_ROWS),
            codes: &bench.words("codes", &words),
            k: case.k,
            weight: &bench.matrix("weight", &self.weight, target),
            y: Columns { buffer: &y, stride: self.y_stride, offset: self.y_offset },
            epilogue: case.epilogue,
            logit_rows: case.logit_rows,
        }
        .dispatches("test", target);
        let expected = match case.cut {
            Cut::Whole | Cut::Pieces => 1,
            Cut::PiecesAndDispatches => 2,
            Cut::Dispatches => 3,
        };
        if dispatches.len() != expected {
            return Err(format!("{} dispatches, {expected} are expected", dispatches.len()));
        }
        bench.run(&dispatches, shape_of(&step))?;
        Ok(bench.read(&y))
    }
}

/// Sums of a group are exact; up to 448 of them are added one after another in f32.
const TOLERANCE: f64 = 1e-5;

fn run(gpu: &Gpu, case: &Case, input: Input) -> Result<Worst, String> {
    let data = Data::new(case);
    compare(&data.got(gpu, case)?, &data.expected(case, input), data.y_stride, Tolerance::sd(TOLERANCE))
}

#[test]
fn sizes() {
    let mut cases = Vec::new();
    let sizes = [(1, 24), (63, 96), (64, 32), (65, 520), (130, 64), (33, 8), (31, 1), (97, 1061)];
    for (i, rows) in [1, 3, 4, 8, 63, 64, 65, 129].into_iter().enumerate() {
        for j in 0..6 {
            let (n, k) = sizes[(i + j) % 8];
            cases.push(varied(j, n, k, rows));
        }
    }
    table("matmul_i8, sizes", cases, run);
}

/// (n, k) of the released models' products, with fewer outputs for a software adapter's sake.
#[test]
fn released_widths() {
    let mut cases = Vec::new();
    let sizes = [(96, 1344), (5152, 2048), (66, 1536), (130, 3072), (70, 4096), (96, 8192), (66, 14336)];
    for (i, (n, k)) in sizes.into_iter().enumerate() {
        for format in FORMATS {
            cases.push(Case { format, ..varied(2 * i, n, k, 3 + 64 * (i % 2)) });
        }
    }
    table("matmul_i8, released widths", cases, run);
}

#[test]
fn outliers_and_the_largest_sums() {
    let mut cases = Vec::new();
    for (i, (n, k)) in [(40, 2048), (40, 520), (33, 96)].into_iter().enumerate() {
        for j in 0..6 {
            let case = varied(i + j, n, k, 65);
            cases.push(Case { codes: Codes::Outliers, ..case });
            cases.push(Case { codes: Codes::Largest, epilogue: EPILOGUES[j % 2], ..case });
        }
    }
    table("matmul_i8, outliers of 1e3 and largest sums", cases, run);
}

#[test]
fn weights_cut_by_limits() {
    let mut cases = Vec::new();
    for format in FORMATS {
        for cut in [Cut::Pieces, Cut::PiecesAndDispatches, Cut::Dispatches] {
            // An odd number of groups in a row: the scales of a later part begin inside of a word.
            let case = Case { format, n: 39, k: 96, cut, rows: 66, ..Case::default() };
            cases.push(case);
            cases.push(Case { n: 490, rows: 2, epilogue: Epilogue::Add, ..case });
        }
        cases.push(Case {
            format,
            n: 38,
            k: 96,
            rows: 9,
            cut: Cut::Pieces,
            epilogue: Epilogue::SwiGlu,
            ..Case::default()
        });
    }
    table("matmul_i8, cut weights", cases, run);
}

#[test]
fn logit_rows() {
    let cases =
        [1, 2, 5, 70].into_iter().enumerate().map(|(i, rows)| Case { logit_rows: true, ..varied(i, 131, 96, rows) });
    table("matmul_i8, logit rows", cases.collect(), run);
}
