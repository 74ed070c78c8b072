//! `ssm_conv.wgsl` and `ssm_scan.wgsl`.

use zebra_runtime::gpu::Gpu;
use zebra_runtime::kernels::Target;
use zebra_runtime::kernels::coded::{self, Coding};
use zebra_runtime::kernels::ssm_conv::SsmConv;
use zebra_runtime::kernels::ssm_scan::SsmScan;
use zebra_runtime::kernels::ssm_shape::{SsmForm, SsmRows, SsmShape};
use zebra_tests::compare::{Tolerance, UNTOUCHED, Worst, compare};
use zebra_tests::harness::{Bench, StepBuilder, shape_of};
use zebra_tests::random::Random;
use zebra_tests::reference::product::decoded;
use zebra_tests::reference::step::Step;
use zebra_tests::reference::{ssm_conv as conv_twin, ssm_scan as scan_twin};

use super::{Input, table, target};

const MAX_ROWS: u32 = 160;

#[derive(Debug, Clone, Copy)]
struct Case {
    heads: usize,
    head_dim: usize,
    /// Groups of x and B, or of B and C.
    groups: usize,
    repeat_kv_before_conv: bool,
    /// N of discrete Mamba2.
    discrete: Option<usize>,
    /// On an adapter that offers no more than the 256 invocations that WebGPU promises.
    least: bool,
    steps: Steps,
    outliers: bool,
}

#[derive(Debug, Clone, Copy)]
pub enum Steps {
    /// One row of one slot.
    One,
    /// Prompts of 1, 2, 3, 4, 5 and 70 rows of several slots, in no order, one of them frozen.
    Mixed,
    /// Single rows of 7 slots, two of them frozen.
    Batch,
    /// Single rows of 70 slots, 23 of them frozen.
    Crowd,
}

/// What slots carry: `[slots]` of scanned values, then the convolution's taps.
pub struct States<'a> {
    pub before: &'a [f32],
    pub after: &'a [f64],
    /// Values of a slot, and those before its taps.
    pub size: usize,
    pub taps_offset: usize,
    /// Scanned values that are compared as one row.
    pub row: usize,
}

impl States<'_> {
    /// Slots with live rows are as expected, the others as they were.
    pub fn compare(&self, got: &[f32], step: &Step, tolerance: Tolerance) -> Result<Worst, String> {
        let mut worst = Worst::default();
        for (slot, at) in (0..self.before.len()).step_by(self.size).enumerate() {
            let (scanned, taps) = (at..at + self.taps_offset, at + self.taps_offset..at + self.size);
            if step.rows.iter().find(|r| r.slot == slot).is_some_and(|r| r.live) {
                let w = compare(&got[scanned.clone()], &self.after[scanned], self.row, tolerance);
                worst = worst.and(w.map_err(|e| format!("state of slot {slot}: {e}"))?);
            } else if got[scanned.clone()] != self.before[scanned] {
                return Err(format!("the state of slot {slot} changed, which is not live"));
            }
            // Inputs are moved, not computed.
            if let Some(i) = taps.clone().find(|i| f64::from(got[*i]) != self.after[*i]) {
                return Err(format!("slot {slot}: tap {} is {}, expected {}", i - taps.start, got[i], self.after[i]));
            }
        }
        Ok(worst)
    }
}

impl Steps {
    pub fn slots(self) -> usize {
        if matches!(self, Steps::Crowd) { 70 } else { 7 }
    }

    pub fn build(self) -> Step {
        match self {
            Steps::One => StepBuilder::new().segment(2, 11, 1).build(),
            Steps::Mixed => StepBuilder::new()
                .segment(3, 11, 3)
                .segment(0, 2, 1)
                .segment(6, 0, 70)
                .frozen(1, 40, 4)
                .segment(2, 1, 2)
                .segment(5, 100, 5)
                .build(),
            Steps::Batch | Steps::Crowd => {
                let mut step = StepBuilder::new();
                for i in 0..self.slots() {
                    let slot = (4 + 3 * i) % self.slots();
                    step = if slot % 3 == 1 { step.frozen(slot, slot, 1) } else { step.segment(slot, slot, 1) };
                }
                step.build()
            }
        }
    }
}

impl Case {
    fn shape(&self) -> SsmShape {
        let &Self { heads, head_dim, groups, repeat_kv_before_conv, .. } = self;
        let form = match self.discrete {
            Some(_) => SsmForm::Discrete { groups },
            None => SsmForm::Mamba2 { d_xb: groups * head_dim, repeat_kv_before_conv },
        };
        SsmShape { form, heads, head_dim, d_state: self.discrete.unwrap_or(head_dim) }
    }

    fn target(&self, gpu: &Gpu) -> Target {
        let mut target = target(gpu, false, MAX_ROWS);
        if self.least {
            target.limits.invocations = 256;
        }
        target
    }

    fn random(&self) -> Random {
        Random::new((self.heads * 1000 + self.head_dim) as u64)
    }

    fn zxbcdt(&self, rows: usize, stride: usize, random: &mut Random) -> Vec<f32> {
        let mut all = random.normals(rows * stride, 1.0);
        for row in all.chunks_mut(stride) {
            if self.outliers {
                (0..3).for_each(|_| row[random.below(stride)] = 1e3 * random.normal());
            }
            row[self.shape().in_proj()..].fill(f32::NAN);
        }
        all
    }
}

/// Five f32 products and a sigmoid, of which the exponential has the largest error: a few units in the last place, more
/// for large arguments (WGSL allows 3 + 2 |x|).
const CONV_TOLERANCE: f64 = 5e-6;

fn conv(gpu: &Gpu, case: &Case, input: Input) -> Result<Worst, String> {
    let (s, mut random) = (case.shape(), case.random());
    let step = case.steps.build();
    let rows = step.rows.len();
    let (in_stride, u_stride) = (s.in_proj() + 3, s.channels() + 4);
    let zxbcdt = case.zxbcdt(rows, in_stride, &mut random);
    let weight = random.normals(4 * s.channels(), 0.5);
    let bias = random.normals(s.channels(), 0.2);
    let mut state = random.normals(case.steps.slots() * s.state(), 1.0);

    let bench = Bench::new(gpu);
    let u = bench.output("u", rows * u_stride);
    let rows_of = SsmRows {
        step: &bench.step(&step, MAX_ROWS),
        shape: s,
        zxbcdt: &bench.floats("zxbcdt", &zxbcdt),
        in_stride,
        u: &u,
        u_stride,
    };
    let dispatch = SsmConv {
        rows: rows_of,
        weight: &bench.floats("weight", &weight),
        bias: &bench.floats("bias", &bias),
        state: &bench.floats("state", &state),
    }
    .dispatch("test", case.target(gpu));
    bench.run(&[dispatch], shape_of(&step))?;

    if input == Input::Altered {
        // The oldest input that the last segment's first row still sees.
        let slot = step.segments[step.segments.len() - 1].slot;
        state[slot * s.state() + s.taps_of(0) + 1] += 1.0;
    }
    let mut expected = vec![UNTOUCHED; rows * u_stride];
    conv_twin::ssm_conv(&step, &s, &zxbcdt, in_stride, &weight, &bias, &state, u_stride, &mut expected);
    compare(&bench.read(&u), &expected, u_stride, Tolerance::sd(CONV_TOLERANCE))
}

/// The state's errors fade as the state does, but where the decay is near 1 those of 70 tokens sum up: of the decay's
/// exponential the same one each time. By the head: a row of S whose x is what a convolution's terms left where they cancel
/// has no more digits than that.
const STATE_TOLERANCE: f64 = 3e-5;

/// Where S C and D x cancel in a whole head, the norm magnifies what is left with its errors, the convolution's among
/// them: few heads have far larger ones than the others. An outlier of z makes one of them the whole head.
fn scan_tolerance(outliers: bool) -> Tolerance {
    let more = if outliers { 10.0 } else { 1.0 };
    Tolerance { nmse: 1e-9 * more * more, max_sd: 4e-4 * more }
}

fn scan(gpu: &Gpu, case: &Case, input: Input) -> Result<Worst, String> {
    let (s, mut random) = (case.shape(), case.random());
    let step = case.steps.build();
    let rows = step.rows.len();
    let (in_stride, y_stride) = (s.in_proj().next_multiple_of(4) + 4, s.d_inner() + 32);
    let zxbcdt = case.zxbcdt(rows, in_stride, &mut random);
    let conv_weight = random.normals(4 * s.channels(), 0.5);
    let conv_bias = random.normals(s.channels(), 0.2);
    let mut a_log: Vec<f32> = (0..s.heads).map(|_| random.uniform(1.0, 16.0).ln()).collect();
    let mut d = random.normals(s.heads, 1.0);
    // Time steps from 1e-4 to 1, as trained models have them.
    let dt_bias: Vec<f32> = (0..s.heads).map(|_| random.uniform(-9.0, 0.5)).collect();
    let of_head = |h: usize| match case.discrete {
        Some(_) => [d[h], f32::NAN, f32::NAN, f32::NAN],
        None => [a_log[h], d[h], dt_bias[h], f32::NAN],
    };
    let heads: Vec<f32> = (0..s.heads).flat_map(of_head).collect();
    let mut weight = random.normals(s.d_inner(), 1.0);
    let state = random.normals(case.steps.slots() * s.state(), 1.0);
    let eps = 1e-5;

    let bench = Bench::new(gpu);
    let states = bench.state("state", &state);
    let y = bench.output("y", rows * y_stride);
    let mut scan = SsmScan {
        step: &bench.step(&step, MAX_ROWS),
        shape: s,
        zxbcdt: &bench.floats("zxbcdt", &zxbcdt),
        in_stride,
        conv_weight: &bench.floats("conv_weight", &conv_weight),
        conv_bias: &bench.floats("conv_bias", &conv_bias),
        heads: &bench.floats("heads", &heads),
        weight: &bench.floats("weight", &weight),
        state: &states,
        y: &y,
        y_stride,
        y_codes: None,
        eps,
    };
    let target = case.target(gpu);
    bench.run(&[scan.dispatch("test", target)], shape_of(&step))?;
    if SsmScan::can_code(s, target) {
        // Once more from the same state, y left coded: what was written is rounded.
        let (plain, again) = (bench.read(&y), bench.state("state", &state));
        let codes = bench.output("codes", coded::words(rows, y_stride));
        (scan.state, scan.y_codes) = (&again, Some(Coding { codes: &codes, gain: None }));
        bench.run(&[scan.dispatch("test", target)], shape_of(&step))?;
        for (i, (v, scale)) in decoded(&bench.read_words(&codes), y_stride / 32).into_iter().enumerate() {
            let error = (v - f64::from(plain[i])).abs();
            if i % y_stride < s.d_inner() && (error > 0.502 * scale || error.is_nan()) {
                return Err(format!("coded {v} in steps of {scale}, expected {} at {i}", plain[i]));
            }
        }
    }

    let mut after: Vec<f64> = state.iter().map(|v| f64::from(*v)).collect();
    match (input, case.steps) {
        (Input::Same, _) => {}
        // The oldest input that the last head's last value of C still sees.
        (Input::Altered, Steps::One) => after[(step.segments[0].slot + 1) * s.state() - 3] += 0.1,
        (Input::Altered, Steps::Batch) if case.discrete.is_some() => weight[s.d_inner() - 1] += 0.1,
        (Input::Altered, _) if case.discrete.is_some() => d[s.heads - 1] += 0.1,
        (Input::Altered, _) => a_log[s.heads - 1] += 0.1,
    }
    let mut expected = vec![UNTOUCHED; rows * y_stride];
    let m = scan_twin::SsmScan {
        shape: s,
        zxbcdt: &zxbcdt,
        in_stride,
        conv_weight: &conv_weight,
        conv_bias: &conv_bias,
        a_log: &a_log,
        d: &d,
        dt_bias: &dt_bias,
        weight: &weight,
        eps,
        y_stride,
    };
    scan_twin::ssm_scan(&step, &m, &mut after, &mut expected);
    let worst =
        compare(&bench.read(&y), &expected, y_stride, scan_tolerance(case.outliers)).map_err(|e| format!("y: {e}"))?;

    // Of a head with an outlier the standard deviation is far below its largest values.
    let max_sd = STATE_TOLERANCE * if case.outliers { 10.0 } else { 1.0 };
    let state_tolerance = Tolerance { max_sd, ..Tolerance::sd(STATE_TOLERANCE) };
    let slots = States {
        before: &state,
        after: &after,
        size: s.state(),
        taps_offset: s.taps_offset(),
        row: s.head_dim * s.d_state,
    };
    Ok(worst.and(slots.compare(&bench.read(&states), &step, state_tolerance)?))
}

/// (heads, head_dim, groups): the tiny fixtures, one head, sizes whose lanes or repeats are odd or whose lanes do not
/// divide a row, and what is released.
const SHAPES: [(usize, usize, usize); 13] = [
    (4, 16, 2),
    (1, 4, 1),
    (3, 12, 1),
    (6, 8, 2),
    (5, 20, 5),
    (2, 64, 1),
    (2, 68, 2),
    (2, 104, 1),
    (2, 124, 1),
    (3, 128, 1),
    (32, 64, 8),
    (24, 128, 8),
    (32, 128, 8),
];

/// (heads, head_dim, d_state, groups) of discrete Mamba2: the tiny fixture, heads wider than their state and narrower,
/// ones whose channels have more quads than their rows, and what is released.
const DISCRETE: [(usize, usize, usize, usize); 14] = [
    (4, 16, 8, 4),
    (4, 16, 8, 2),
    (1, 4, 4, 1),
    (1, 4, 128, 1),
    (2, 128, 4, 1),
    (6, 8, 16, 3),
    (3, 20, 12, 1),
    (2, 64, 64, 2),
    (2, 64, 128, 1),
    (2, 124, 68, 2),
    (3, 128, 128, 3),
    (32, 64, 64, 32),
    (32, 96, 64, 32),
    (32, 128, 64, 32),
];

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (i, (heads, head_dim, groups)) in SHAPES.into_iter().enumerate() {
        for (j, steps) in [Steps::One, Steps::Batch, Steps::Mixed, Steps::Crowd].into_iter().enumerate() {
            // The released shapes at few rows.
            if heads > 8 && j >= 2 {
                continue;
            }
            let case = Case {
                heads,
                head_dim,
                groups,
                repeat_kv_before_conv: (i + j) % 3 == 1,
                discrete: None,
                least: (i + j) % 2 == 0,
                steps,
                outliers: false,
            };
            cases.push(case);
            if heads <= 4 {
                cases.push(Case { repeat_kv_before_conv: !case.repeat_kv_before_conv, outliers: true, ..case });
                cases.push(Case { least: !case.least, ..case });
            }
        }
    }
    for (i, (heads, head_dim, d_state, groups)) in DISCRETE.into_iter().enumerate() {
        for (j, steps) in [Steps::One, Steps::Batch, Steps::Mixed, Steps::Crowd].into_iter().enumerate() {
            if heads > 8 && j >= 2 {
                continue;
            }
            let (least, discrete) = ((i + j) % 2 == 0, Some(d_state));
            let case =
                Case { heads, head_dim, groups, repeat_kv_before_conv: false, discrete, least, steps, outliers: false };
            cases.push(case);
            if heads <= 4 {
                cases.push(Case { outliers: true, ..case });
                cases.push(Case { least: !least, ..case });
            }
        }
    }
    cases
}

#[test]
fn ssm_conv() {
    table("ssm_conv", cases(), conv);
}

#[test]
fn ssm_scan() {
    table("ssm_scan", cases(), scan);
}
