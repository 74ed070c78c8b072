//! Products: `matvec.wgsl`, `matvec_i8.wgsl`, `matmul.wgsl`.

use zebra_runtime::gpu::Gpu;
use zebra_runtime::kernels::coded::{self, Coding};
use zebra_runtime::kernels::half_rows;
use zebra_runtime::kernels::matmul_coop;
use zebra_runtime::kernels::product::{Epilogue, Norm, Product, Scratch, Width};
use zebra_runtime::kernels::rmsnorm::Columns;
use zebra_runtime::kernels::{Matrix, Target, Twins};
use zebra_runtime::weights::WeightFormat;
use zebra_tests::compare::{Tolerance, UNTOUCHED, Worst, compare};
use zebra_tests::harness::{Bench, POISON, StepBuilder, on_gpu, report, shape_of};
use zebra_tests::random::Random;
use zebra_tests::reference::product as twin;
use zebra_tests::reference::weight::{FORMATS, Weight};

use super::{Cut, Input, table, target};

const MAX_ROWS: u32 = 300;

#[derive(Debug, Clone, Copy)]
pub struct Case {
    pub format: WeightFormat,
    pub n: usize,
    pub k: usize,
    pub rows: usize,
    pub epilogue: Epilogue,
    pub width: Width,
    pub plain: bool,
    /// In f32, also where the weight is quantized.
    pub f32: bool,
    pub subgroups: bool,
    pub cut: Cut,
    /// Some of x are a thousand times the others.
    pub outliers: bool,
    pub logit_rows: bool,
    pub norm: bool,
    /// On cooperative matrices, where the adapter has them.
    pub cooperative: bool,
    /// There, k is so long for so few tiles that it is walked in parts.
    pub parts: bool,
}

impl Case {
    /// Whether its kernel rounds x to int8.
    fn rounds(&self) -> bool {
        !self.plain && !self.f32 && !self.cooperative && self.format.is_quantized()
    }
}

impl Default for Case {
    fn default() -> Self {
        Self {
            format: WeightFormat::Q8,
            n: 8,
            k: 64,
            rows: 1,
            epilogue: Epilogue::Store,
            width: Width::Single,
            plain: false,
            f32: false,
            subgroups: false,
            cut: Cut::Whole,
            outliers: false,
            logit_rows: false,
            norm: false,
            cooperative: false,
            parts: false,
        }
    }
}

const EPS: f32 = 1e-5;
const EPILOGUES: [Epilogue; 4] = [Epilogue::Store, Epilogue::Add, Epilogue::SwiGlu, Epilogue::Relu2];

/// The formats by turns, the epilogues by slower turns, with and without a norm.
pub fn varied(i: usize, n: usize, k: usize, rows: usize) -> Case {
    let epilogue = EPILOGUES[i / 4 % 4];
    let n = if epilogue == Epilogue::SwiGlu { 2 * n } else { n };
    Case { format: FORMATS[i % 4], n, k, rows, epilogue, norm: (i / 2).is_multiple_of(2), ..Case::default() }
}

pub struct Data {
    weight: Weight,
    x: Vec<f32>,
    gain: Vec<f32>,
    x_stride: usize,
    x_offset: usize,
    y: Vec<f32>,
    pub y_stride: usize,
    y_offset: usize,
}

impl Data {
    pub fn new(case: &Case) -> Self {
        let mut random = Random::new((case.n * 31 + case.k * 7 + case.rows) as u64);
        let weight = Weight::random(case.format, case.n, case.k, &mut random);
        // x is a part of wider rows; whatever else they hold must not be read.
        let padded = case.k.next_multiple_of(32);
        let (x_offset, x_stride) = if case.rows.is_multiple_of(2) { (32, padded + 64) } else { (0, padded) };
        let x_rows = if case.logit_rows { case.rows + 3 } else { case.rows };
        let mut gain = random.normals(case.k, 0.3);
        gain.iter_mut().for_each(|g| *g += 1.0);
        gain.resize(padded, 0.0);
        let mut x = vec![f32::NAN; x_rows * x_stride];
        for row in x.chunks_mut(x_stride) {
            let part = &mut row[x_offset..x_offset + padded];
            part.fill(0.0);
            part[..case.k].copy_from_slice(&random.normals(case.k, 1.0));
            if case.outliers {
                (0..3).for_each(|_| part[random.below(case.k)] *= 1e3);
            }
        }
        let outputs = if case.epilogue == Epilogue::SwiGlu { case.n / 2 } else { case.n };
        let (y_offset, y_stride) = (3, outputs + 5);
        let mut y = vec![f32::from_bits(POISON); case.rows * y_stride];
        if case.epilogue == Epilogue::Add {
            for row in y.chunks_mut(y_stride) {
                row[y_offset..y_offset + outputs].copy_from_slice(&random.normals(outputs, 1.0));
            }
        }
        Self { weight, x, gain, x_stride, x_offset, y, y_stride, y_offset }
    }

    pub fn expected(&self, case: &Case, input: Input) -> Vec<f64> {
        let untouched = |v: &f32| {
            if v.to_bits() == POISON { UNTOUCHED } else { f64::from(*v) }
        };
        let mut y: Vec<f64> = self.y.iter().map(untouched).collect();
        let mut x = self.x.clone();
        if input == Input::Altered {
            let row = self.rows(case)[0];
            x[row * self.x_stride + self.x_offset] += 0.05 * case.k as f32 + 1.0;
        }
        twin::product(
            &twin::Product {
                rows: &self.rows(case),
                x: &x,
                x_stride: self.x_stride,
                x_offset: self.x_offset,
                norm: case.norm.then_some((&self.gain[..case.k], EPS)),
                rounded: case.rounds(),
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

    /// Rows of x that the rows of y are made of: logit rows in no order.
    fn rows(&self, case: &Case) -> Vec<usize> {
        if case.logit_rows {
            (0..case.rows).map(|r| (5 * r + 2) % (case.rows + 3)).collect()
        } else {
            (0..case.rows).collect()
        }
    }

    pub fn got(&self, gpu: &Gpu, case: &Case) -> Result<Vec<f32>, String> {
        let target = target(gpu, case.subgroups, MAX_ROWS);
        let cooperative = gpu.cooperative().filter(|_| case.cooperative);
        let target = Target {
            twins: Twins {
                plain: case.plain,
                matvec_i8: case.rounds(),
                matmul_i8: case.rounds(),
                matmul_coop: cooperative,
                ..target.twins
            },
            limits: case.cut.limits(target.limits, case.format, case.n, case.k),
            slots: if case.width == Width::Batch { case.rows as u32 } else { target.slots },
            ..target
        };
        let step = if case.logit_rows {
            StepBuilder::new().segment(0, 5, case.rows + 3).logits(&self.rows(case)).build()
        } else {
            StepBuilder::new().segment(0, 5, case.rows).build()
        };
        let bench = Bench::new(gpu);
        let y = bench.state("y", &self.y);
        let gain = bench.floats("gain", &self.gain);
        let stride = case.k.next_multiple_of(32);
        let x_rows = if case.logit_rows { case.rows + 3 } else { case.rows };
        let rows = bench.floats("scratch", &vec![0.0; case.rows * stride]);
        let parts = cooperative.map_or(0, |matrices| matmul_coop::parts_bytes(matrices, case.k) as usize / 4);
        let dispatches = Product {
            step: &bench.step(&step, MAX_ROWS),
            x: Columns { buffer: &bench.floats("x", &self.x), stride: self.x_stride, offset: self.x_offset },
            x_codes: None,
            norm: case.norm.then_some(Norm { weight: &gain, eps: EPS }),
            weight: &bench.matrix("weight", &self.weight, target),
            y: Columns { buffer: &y, stride: self.y_stride, offset: self.y_offset },
            y_codes: None,
            epilogue: case.epilogue,
            logit_rows: case.logit_rows,
            scratch: Scratch {
                rows: Columns::rows(&rows, stride),
                codes: &bench.words("codes", &vec![0; coded::words(x_rows, case.k)]),
                half: &bench.words("half", &vec![0; half_rows::bytes(MAX_ROWS, case.k) as usize / 4]),
                parts: &bench.output("parts", parts),
            },
        }
        .dispatches("test", case.width, target);
        let products = match case.cut {
            Cut::Whole | Cut::Pieces => 1,
            Cut::PiecesAndDispatches => 2,
            Cut::Dispatches => 3,
        };
        let wide = case.width.is_tiled() && !case.plain;
        let prepared = usize::from(case.rounds() || wide && (case.norm || case.cooperative));
        let together = if case.parts { products } else { 0 };
        if dispatches.len() != prepared + products + together {
            let found = dispatches.len();
            return Err(format!("{found} dispatches, {prepared} + {products} + {together} are expected"));
        }
        bench.run(&dispatches, shape_of(&step))?;
        Ok(bench.read(&y))
    }
}

/// f32 sums of up to 14,336 products in 64 lanes: rounding errors of some 1e-7 of a sum's own spread, a few times that
/// at worst among some thousand sums. SwiGLU multiplies two of them, and its exp has an error of its own.
const TOLERANCE: f64 = 1e-5;

/// A tile sums products one after another: the errors grow as the square root of their number.
const TILE_TOLERANCE: f64 = 4e-5;

fn run(gpu: &Gpu, case: &Case, input: Input) -> Result<Worst, String> {
    let data = Data::new(case);
    let tolerance = if case.width.is_tiled() && !case.plain { TILE_TOLERANCE } else { TOLERANCE };
    // Of x rounded to int8 a code may be the next one where a quotient lies between two.
    let tolerance = match case.rounds() {
        true => Tolerance { nmse: 1e-7, max_sd: 5e-3 },
        false => Tolerance::sd(tolerance),
    };
    compare(&data.got(gpu, case)?, &data.expected(case, input), data.y_stride, tolerance)
}

/// One, odd, and one past what the 64 lanes take at once (512 inputs).
const SIZES: [(usize, usize); 6] = [(1, 24), (5, 96), (4, 8), (67, 520), (3, 1), (130, 545)];

#[test]
fn matvec_sizes() {
    let mut cases = Vec::new();
    for subgroups in [false, true] {
        for (i, (n, k)) in SIZES.into_iter().enumerate() {
            for format in 0..4 {
                let case = varied(4 * i + format, n, k, [1, 3][i % 2]);
                cases.push(Case { subgroups, ..case });
            }
        }
    }
    table("matvec, sizes", cases, run);
}

#[test]
fn matvec_many_rows() {
    let mut cases = Vec::new();
    for subgroups in [false, true] {
        for (i, rows) in [1, 3, 4, 5, 8, 63, 64, 65].into_iter().enumerate() {
            let case = varied(5 * i, 9, 96, rows);
            cases.push(Case { width: Width::Wide, plain: true, subgroups, ..case });
            cases.push(Case { width: Width::Narrow, subgroups, ..varied(5 * i + 1, 9, 96, rows) });
        }
    }
    table("matvec, many rows", cases, run);
}

/// x in int8 as another kernel left it, y left coded for the next: what few rows of quantized weights go through.
fn run_coded(gpu: &Gpu, case: &Case, input: Input) -> Result<Worst, String> {
    let mut data = Data::new(case);
    let outputs = data.y_stride - 5;
    // Whole rows on both sides.
    let (k, stride) = (case.k.next_multiple_of(32), outputs.next_multiple_of(32));
    let mut random = Random::new(case.n as u64);
    data.x = data.x.chunks(data.x_stride).flat_map(|row| row[data.x_offset..][..k].to_vec()).collect();
    (data.x_stride, data.x_offset) = (k, 0);
    data.y = random.normals(case.rows * stride, 1.0);
    (data.y_stride, data.y_offset) = (stride, 0);
    let next = random.normals(outputs, 1.0);

    let target = target(gpu, case.subgroups, MAX_ROWS);
    if !Product::can_code(&Matrix::new("w", case.format, case.n, case.k, &target.limits), case.epilogue, target) {
        return Err("this adapter leaves no y coded".into());
    }
    let step = match case.logit_rows {
        true => StepBuilder::new().segment(0, 5, case.rows + 3).logits(&data.rows(case)).build(),
        false => StepBuilder::new().segment(0, 5, case.rows).build(),
    };
    let bench = Bench::new(gpu);
    let (y, gain) = (bench.state("y", &data.y), bench.floats("gain", &data.gain));
    let groups = stride / 32;
    let codes = bench.output("y_codes", coded::words(case.rows, outputs));
    let unused = bench.words("scratch", &[0]);
    let dispatches =
        Product {
            step: &bench.step(&step, MAX_ROWS),
            x: Columns::rows(&bench.floats("x", &vec![f32::NAN; data.x.len()]), k),
            x_codes: Some(&bench.words(
                "x_codes",
                &twin::coded_words(&twin::coded(&data.x, k, case.norm.then_some(&data.gain)), k / 32),
            )),
            norm: case.norm.then_some(Norm { weight: &gain, eps: EPS }),
            weight: &bench.matrix("weight", &data.weight, target),
            y: Columns::rows(&y, stride),
            y_codes: Some(Coding { codes: &codes, gain: Some(&bench.floats("next", &next)) }),
            epilogue: case.epilogue,
            logit_rows: case.logit_rows,
            scratch: Scratch { rows: Columns::rows(&unused, k), codes: &unused, half: &unused, parts: &unused },
        }
        .dispatches("test", case.width, target);
    if dispatches.len() != 1 {
        return Err(format!("{} dispatches, one is expected", dispatches.len()));
    }
    bench.run(&dispatches, shape_of(&step))?;

    let expected = data.expected(case, input);
    let got = bench.read(&y);
    let of_product = matches!(case.epilogue, Epilogue::Store | Epilogue::Add);
    let worst = match of_product {
        true => compare(&got, &expected, stride, Tolerance { nmse: 1e-7, max_sd: 5e-3 })?,
        false => Worst::default(),
    };
    let mut decoded = vec![f64::NAN; expected.len()];
    let words = bench.read_words(&codes);
    for (i, group) in twin::coded_groups(&words, groups).into_iter().enumerate() {
        let (r, first) = (i / groups, i % groups * 32);
        let (scale, squares) = (f64::from(group.scale), f64::from(group.squares));
        let values: Vec<f64> = (first..first + 32)
            .map(|n| match n < outputs {
                true if of_product => f64::from(got[r * stride + n]),
                true => expected[r * stride + n],
                false => 0.0,
            })
            .collect();
        let sum: f64 = values.iter().map(|v| v * v).sum();
        if (squares - sum).abs() > if of_product { 1e-5 } else { 1e-2 } * sum {
            return Err(format!("row {r}, group {}: squares {squares}, expected {sum}", i % groups));
        }
        for (j, v) in values.iter().enumerate() {
            let code = f64::from(group.codes[j]);
            let gained = v * next.get(first + j).map_or(0.0, |g| f64::from(*g));
            // Half a step, and what the sums of an activation are off.
            if (code * scale - gained).abs() > 0.502 * scale + if of_product { 0.0 } else { 0.01 * gained.abs() } {
                return Err(format!("row {r}, output {}: {code} times {scale}, expected {gained}", first + j));
            }
            decoded[r * stride + first + j] = code * scale;
        }
    }
    Ok(worst)
}

#[test]
fn matvec_i8_coded() {
    let mut cases = Vec::new();
    for subgroups in [false, true] {
        for (i, (n, k)) in [(32, 24), (70, 96), (33, 2048), (96, 520), (5152, 64), (64, 8192)].into_iter().enumerate() {
            for j in 0..6 {
                let format = [WeightFormat::Q8, WeightFormat::Q4][j % 2];
                let epilogue = EPILOGUES[(i + j) % 4];
                let rows = [1, 3, 4, 5][(i + j) % 4];
                let width = if rows == 1 { Width::Single } else { Width::Narrow };
                let n = if epilogue == Epilogue::SwiGlu { 2 * n } else { n };
                let norm = (i + j) % 2 == 0;
                let logit_rows = epilogue == Epilogue::Store && j < 3;
                cases.push(Case {
                    format,
                    n,
                    k,
                    rows,
                    epilogue,
                    width,
                    subgroups,
                    norm,
                    logit_rows,
                    ..Case::default()
                });
            }
        }
    }
    table("matvec_i8, coded on both sides", cases, run_coded);
}

#[test]
fn matmul_tiles() {
    let mut cases = Vec::new();
    let sizes = [(1, 24), (63, 96), (64, 32), (65, 520), (130, 64), (33, 8)];
    for (i, rows) in [1, 3, 4, 5, 8, 63, 64, 65, 129].into_iter().enumerate() {
        for j in 0..4 {
            let (n, k) = sizes[(i + j) % 6];
            cases.push(Case { width: Width::Wide, ..varied(5 * i + j, n, k, rows) });
        }
    }
    table("matmul, tiles", cases, run);
}

/// Every product of the released models, (n, k). The large ones get fewer outputs, for a software adapter's sake.
pub const GEOMETRY: [(&str, usize, usize); 21] = [
    ("1B in_proj", 5152, 2048),
    ("1B out_proj", 2048, 2048),
    ("1B q_a + kv_a", 1344 + 160, 2048),
    ("1B q_b", 2048, 1344),
    ("1B gate_up", 16384, 2048),
    ("1B down", 2048, 8192),
    ("1B head", 128_256, 2048),
    ("3B in_proj", 8216, 3072),
    ("3B out_proj", 3072, 3072),
    ("3B q_a + kv_a", 1536 + 192, 3072),
    ("3B q_b", 3072, 1536),
    ("3B gate_up", 16384, 3072),
    ("3B down", 3072, 8192),
    ("3B head", 128_256, 3072),
    ("8B in_proj", 10272, 4096),
    ("8B out_proj", 4096, 4096),
    ("8B q_a + kv_a", 2048 + 224, 4096),
    ("8B q_b", 4096, 2048),
    ("8B gate_up", 28672, 4096),
    ("8B down", 4096, 14336),
    ("8B head", 128_256, 4096),
];

#[test]
fn released_widths() {
    let mut cases = Vec::new();
    for (i, (name, n, k)) in GEOMETRY.into_iter().enumerate() {
        let full = i < 2;
        let n = if full { n } else { n.min(1_000_000 / k) / 2 * 2 };
        let epilogue = match name {
            _ if name.ends_with("gate_up") => Epilogue::SwiGlu,
            _ if name.ends_with("down") || name.ends_with("out_proj") => Epilogue::Add,
            _ => Epilogue::Store,
        };
        let case = Case { format: FORMATS[3 - i % 2], n, k, rows: 1 + i % 2, epilogue, ..Case::default() };
        cases.push(Case { subgroups: true, ..case });
        cases.push(Case { n: n.min(96), format: FORMATS[i % 4], ..case });
        cases.push(Case { n: n.min(66), rows: 9, width: Width::Wide, format: FORMATS[3 - i % 4], ..case });
    }
    table("matvec and matmul, released widths", cases, run);
}

#[test]
fn outliers() {
    let mut cases = Vec::new();
    for (i, (n, k)) in [(40, 2048), (40, 520), (33, 96)].into_iter().enumerate() {
        for j in 0..4 {
            let case = Case { outliers: true, ..varied(5 * i + j, n, k, 2) };
            cases.push(Case { subgroups: true, ..case });
            cases.push(case);
            cases.push(Case { width: Width::Wide, rows: 65, ..case });
        }
    }
    table("matvec and matmul, outliers of 1e3", cases, run);
}

#[test]
fn weights_cut_by_limits() {
    let mut cases = Vec::new();
    for (i, format) in FORMATS.into_iter().enumerate() {
        for cut in [Cut::Pieces, Cut::PiecesAndDispatches, Cut::Dispatches] {
            for (width, rows) in [(Width::Narrow, 2), (Width::Wide, 66)] {
                // An odd number of groups in a row: the scales of a later part begin inside of a word.
                let case = Case { format, n: 39, k: 96, cut, width, rows, subgroups: i % 2 == 0, ..Case::default() };
                cases.push(case);
                cases.push(Case { n: 70, epilogue: Epilogue::Add, ..case });
            }
        }
        cases.push(Case { format, n: 38, k: 96, cut: Cut::Pieces, epilogue: Epilogue::SwiGlu, ..Case::default() });
        cases.push(Case {
            format,
            n: 38,
            k: 96,
            rows: 9,
            width: Width::Wide,
            cut: Cut::Pieces,
            epilogue: Epilogue::SwiGlu,
            ..Case::default()
        });
    }
    table("matvec and matmul, cut weights", cases, run);
}

/// Where int8 dot products are not what is fastest, quantized weights are multiplied in f32.
#[test]
fn quantized_weights_in_f32() {
    let mut cases = Vec::new();
    let widths = [(Width::Single, 1), (Width::Narrow, 5), (Width::Batch, 11), (Width::Wide, 70)];
    for (i, (width, rows)) in widths.into_iter().enumerate() {
        for (j, epilogue) in EPILOGUES.into_iter().enumerate() {
            for format in [WeightFormat::Q8, WeightFormat::Q4] {
                let (n, k, norm, subgroups) = (134, 545, i % 2 == 0, (i + j) % 2 == 0);
                cases.push(Case { format, n, k, rows, epilogue, width, norm, subgroups, f32: true, ..Case::default() });
            }
        }
    }
    table("matvec and matmul, quantized weights in f32", cases, run);
}

#[test]
fn logit_rows() {
    let mut cases = Vec::new();
    for (i, rows) in [1, 2, 5, 70].into_iter().enumerate() {
        let case = Case { n: 131, k: 96, logit_rows: true, norm: true, ..varied(i, 131, 96, rows) };
        cases.push(case);
        cases.push(Case { width: Width::Wide, ..case });
        cases.push(Case { width: Width::Wide, plain: true, subgroups: true, ..case });
        // Without a norm, which gathers them for a tiled product in f32.
        cases.push(Case { width: Width::Wide, f32: true, norm: false, ..case });
    }
    table("matvec and matmul, logit rows", cases, run);
}

#[test]
fn grids_that_fold() {
    // Over 65,535 workgroups along x.
    let case = Case { n: 4 * 65_535 + 6, k: 8, format: WeightFormat::Q8, ..Case::default() };
    let cases = vec![case, Case { n: 4 * 65_535 + 10, format: WeightFormat::Q4, epilogue: Epilogue::SwiGlu, ..case }];
    table("matvec, folded grids", cases, run);
}

/// `--kernels plain`: the order of a sum, and so every bit of it, is the same for any number of rows.
#[test]
fn plain_sums_do_not_depend_on_the_number_of_rows() {
    let worst = on_gpu(|gpu| {
        let mut compared = 0;
        for subgroups in [false, true] {
            for (i, format) in FORMATS.into_iter().enumerate() {
                let epilogue = EPILOGUES[i % 4];
                let wide = Case {
                    format,
                    n: 34,
                    k: 1064,
                    rows: 7,
                    epilogue,
                    plain: true,
                    norm: i % 2 == 0,
                    subgroups,
                    width: Width::Wide,
                    ..Case::default()
                };
                let data = Data::new(&wide);
                let many = data.got(gpu, &wide).expect("wide");
                for r in 0..wide.rows {
                    let narrow = Case { rows: 1, width: Width::Single, ..wide };
                    let one = Data {
                        x: data.x[r * data.x_stride..][..data.x_stride].to_vec(),
                        gain: data.gain.clone(),
                        y: data.y[r * data.y_stride..][..data.y_stride].to_vec(),
                        weight: data.weight.clone(),
                        ..data
                    };
                    let one = one.got(gpu, &narrow).expect("narrow");
                    for (a, b) in one.iter().zip(&many[r * data.y_stride..]) {
                        assert_eq!(a.to_bits(), b.to_bits(), "{format:?} row {r}: {a} alone, {b} among {}", wide.rows);
                        compared += 1;
                    }
                }
            }
        }
        compared
    });
    report(&format!("matvec, one row and seven: {worst} values equal bit for bit"));
}
