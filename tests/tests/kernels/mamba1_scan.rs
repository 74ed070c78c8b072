//! `mamba1_scan.wgsl`, with the time steps made in it and before it.

use zebra_runtime::gpu::Gpu;
use zebra_runtime::kernels::coded::{self, Coding};
use zebra_runtime::kernels::mamba1_scan::{Mamba1Scan, Mamba1Shape, STATES, TimeSteps};
use zebra_runtime::kernels::rmsnorm::Columns;
use zebra_runtime::weights::WeightFormat;
use zebra_tests::compare::{Tolerance, UNTOUCHED, Worst, compare};
use zebra_tests::harness::{Bench, shape_of};
use zebra_tests::random::Random;
use zebra_tests::reference::product::decoded;
use zebra_tests::reference::weight::{FORMATS, Weight};
use zebra_tests::reference::{dot, mamba1_scan as twin};

use super::ssm::{States, Steps};
use super::{Input, table, target};

const MAX_ROWS: u32 = 160;

#[derive(Debug, Clone, Copy)]
struct Case {
    shape: Mamba1Shape,
    /// Of dt_proj where the scan makes the time steps.
    project: Option<WeightFormat>,
    steps: Steps,
    outliers: bool,
}

/// Products and exponentials of a few units in the last place, summed over 16 states. An outlier is the larger part of
/// some sums, of which little is left where it cancels.
fn tolerance(outliers: bool) -> Tolerance {
    Tolerance::sd(if outliers { 3e-4 } else { 3e-5 })
}

fn run(gpu: &Gpu, case: &Case, input: Input) -> Result<Worst, String> {
    let s = case.shape;
    let mut random = Random::new((s.d_inner * 1000 + s.dt_rank) as u64);
    let step = case.steps.build();
    let count = step.rows.len();
    let (stride, y_stride) = (s.width().next_multiple_of(32) + 32, s.d_inner.next_multiple_of(32) + 32);
    let normals = random.normals(count * stride, 1.0);
    // Between the parts nothing is read; behind down are the products of zero rows.
    let mut rows = vec![f32::NAN; count * stride];
    for (row, normals) in rows.chunks_mut(stride).zip(normals.chunks(stride)) {
        row[..s.dt_rank.next_multiple_of(32)].fill(0.0);
        for (at, width) in s.offsets().into_iter().zip(s.parts()) {
            row[at..at + width].copy_from_slice(&normals[at..at + width]);
        }
        if case.outliers {
            let part = random.below(5);
            row[s.offsets()[part] + random.below(s.parts()[part])] = 1e3 * random.normal();
        }
    }
    let conv_weight = random.normals(4 * s.d_inner, 0.5);
    let conv_bias = random.normals(s.d_inner, 0.2);
    let d = random.normals(s.d_inner, 1.0);
    // Time steps from 1e-4 to 1, as trained models have them; the bias counts twice.
    let dt_bias: Vec<f32> = (0..s.d_inner).map(|_| random.uniform(-4.5, 0.25)).collect();
    let mut a_log: Vec<f32> = (0..STATES * s.d_inner).map(|_| random.uniform(1.0, 16.0).ln()).collect();
    let channels: Vec<f32> = (0..s.d_inner).flat_map(|c| [d[c], dt_bias[c], conv_bias[c], f32::NAN]).collect();
    let state = random.normals(case.steps.slots() * s.state(), 1.0);

    let mut target = target(gpu, false, MAX_ROWS);
    target.limits.storage_buffers = target.limits.storage_buffers.max(10);
    let bench = Bench::new(gpu);
    let weight = case.project.map(|format| Weight::random(format, s.d_inner, s.dt_rank, &mut random));
    let dt_proj = weight.as_ref().map(|weight| bench.matrix("dt_proj", weight, target));
    let raw: Vec<f64> = match &weight {
        Some(weight) => {
            let values = weight.values();
            let of_row = |row: &[f32]| -> Vec<f64> {
                values.chunks(s.dt_rank).map(|weights| dot(&row[..s.dt_rank], weights)).collect()
            };
            rows.chunks(stride).flat_map(of_row).collect()
        }
        None => random.normals(count * s.d_inner, 1.0).into_iter().map(f64::from).collect(),
    };
    let dt_stride = s.d_inner + 3;
    let mut dt_rows = vec![f32::NAN; count * dt_stride];
    for (to, from) in dt_rows.chunks_mut(dt_stride).zip(raw.chunks(s.d_inner)) {
        to.iter_mut().zip(from).for_each(|(to, from)| *to = *from as f32);
    }
    let dt_buffer = bench.floats("dt_rows", &dt_rows);
    let time_steps = match &dt_proj {
        Some(dt_proj) if Mamba1Scan::can_project(dt_proj, target) => TimeSteps::Project(dt_proj),
        Some(_) => return Err("dt_proj does not fit".into()),
        None => TimeSteps::Rows(Columns::rows(&dt_buffer, dt_stride)),
    };
    let states = bench.state("state", &state);
    let y = bench.output("y", count * y_stride);
    let rows_buffer = bench.floats("rows", &rows);
    let mut scan = Mamba1Scan {
        step: &bench.step(&step, MAX_ROWS),
        shape: s,
        rows: Columns::rows(&rows_buffer, stride),
        time_steps,
        conv_weight: &bench.floats("conv_weight", &conv_weight),
        channels: &bench.floats("channels", &channels),
        a_log: &bench.floats("a_log", &a_log),
        state: &states,
        y: Columns::rows(&y, y_stride),
        y_codes: None,
    };
    bench.run(&[scan.dispatch("test", target)], shape_of(&step))?;
    if Mamba1Scan::can_code(s, target) {
        // Once more from the same state, y left coded: what was written is rounded.
        let (plain, again) = (bench.read(&y), bench.state("state", &state));
        let codes = bench.output("codes", coded::words(count, y_stride));
        (scan.state, scan.y_codes) = (&again, Some(Coding { codes: &codes, gain: None }));
        bench.run(&[scan.dispatch("test", target)], shape_of(&step))?;
        for (i, (v, scale)) in decoded(&bench.read_words(&codes), y_stride / 32).into_iter().enumerate() {
            let error = (v - f64::from(plain[i])).abs();
            if i % y_stride < s.d_inner && (error > 0.502 * scale || error.is_nan()) {
                return Err(format!("coded {v} in steps of {scale}, expected {} at {i}", plain[i]));
            }
        }
        if bench.read(&again) != bench.read(&states) {
            return Err("coded, it leaves another state".into());
        }
    }

    let mut after: Vec<f64> = state.iter().map(|v| f64::from(*v)).collect();
    match (input, case.steps) {
        (Input::Same, _) => {}
        // The oldest input that the last channel still sees.
        (Input::Altered, Steps::One) => after[(step.segments[0].slot + 1) * s.state() - 3] += 0.1,
        (Input::Altered, _) => a_log[STATES * s.d_inner - 1] += 0.1,
    }
    let mut expected = vec![UNTOUCHED; count * y_stride];
    let m = twin::Mamba1Scan {
        shape: s,
        rows: &rows,
        stride,
        raw: &raw,
        conv_weight: &conv_weight,
        conv_bias: &conv_bias,
        dt_bias: &dt_bias,
        d: &d,
        a_log: &a_log,
        y_stride,
    };
    twin::mamba1_scan(&step, &m, &mut after, &mut expected);
    let worst =
        compare(&bench.read(&y), &expected, y_stride, tolerance(case.outliers)).map_err(|e| format!("y: {e}"))?;
    let slots = States {
        before: &state,
        after: &after,
        size: s.state(),
        taps_offset: s.taps_offset(),
        row: STATES * s.d_inner,
    };
    Ok(worst.and(slots.compare(&bench.read(&states), &step, tolerance(case.outliers))?))
}

/// (d_inner, d_xb, dt_rank): the tiny fixture, one group, groups of no whole 32, x of each channel its own, repeats
/// that are odd, ranks that leave lanes idle or ask for a second round, and what is released.
const SHAPES: [(usize, usize, usize); 9] = [
    (128, 64, 4),
    (16, 16, 1),
    (48, 16, 33),
    (96, 32, 64),
    (144, 48, 100),
    (64, 64, 8),
    (160, 32, 300),
    (3072, 1024, 192),
    (4096, 1024, 256),
];

#[test]
fn mamba1_scan() {
    let mut cases = Vec::new();
    for (i, (d_inner, d_xb, dt_rank)) in SHAPES.into_iter().enumerate() {
        let shape = Mamba1Shape { d_inner, d_xb, dt_rank };
        for (j, steps) in [Steps::One, Steps::Batch, Steps::Mixed, Steps::Crowd].into_iter().enumerate() {
            // The released shapes at few rows.
            if d_inner > 1000 && j >= 2 {
                continue;
            }
            let project = Some(FORMATS[(i + j) % FORMATS.len()]);
            let case = Case { shape, project, steps, outliers: false };
            cases.push(Case { project: None, ..case });
            if i < 4 {
                cases.push(Case { outliers: true, ..case });
            }
            cases.push(case);
        }
    }
    table("mamba1_scan", cases, run);
}
