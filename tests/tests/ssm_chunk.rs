//! The chunked scan (ssm_states, ssm_chunk, gated_norm) against its twin, which goes token by token, and against
//! ssm_scan on the same GPU.
#![allow(clippy::unwrap_used)]

use zebra_runtime::gpu::{Buffer, Dispatch, Gpu, Limits, Purpose, StepShape};
use zebra_runtime::kernels::gated_norm::GatedNorm;
use zebra_runtime::kernels::ssm_chunk::SsmChunk;
use zebra_runtime::kernels::ssm_scan::SsmScan;
use zebra_runtime::kernels::ssm_shape::{SsmForm, SsmRows, SsmShape};
use zebra_runtime::kernels::ssm_states::SsmStates;
use zebra_runtime::kernels::{Target, Twins};
use zebra_tests::harness::StepBuilder;
use zebra_tests::reference::ssm_chunk::{Inputs, Outputs, Run, ssm_chunk};
use zebra_tests::reference::ssm_conv::ssm_conv;

/// The largest error of a head's y in a row, of a head's state, in parts of their root mean square (y's before its
/// terms cancelled). Sums of up to 160 products in f32 round to about 1e-6 of it, and exp of a GPU to 3e-6 at the decays
/// that still matter.
const TOLERANCE: f64 = 1e-5;

/// What a row more adds to the error of ssm_scan itself: it multiplies the state by an `a` rounded to f32 in every step.
const TOLERANCE_OF_A_STEP: f64 = 1e-7;

const POISON: u32 = 0x7fc0_babe;
const GUARD: u32 = 0x7fc1_600d;
const GUARD_WORDS: usize = 64;
const SLOTS: usize = 4;

/// Steps dt of a case, before softplus, and A.
#[derive(Debug, Clone, Copy)]
struct Decay {
    name: &'static str,
    dt: (f32, f32),
    a: (f32, f32),
}

/// a = exp(-A dt) of 0.999 and more: everything is remembered.
const SLOW: Decay = Decay { name: "slow", dt: (-7.5, -6.5), a: (1.0, 1.0) };
/// What trained models have.
const USUAL: Decay = Decay { name: "usual", dt: (-7.0, 1.0), a: (1.0, 16.0) };
/// What its goldens' layers have, around exp(-softplus(0)) = 0.5.
const DISCRETE: Decay = Decay { name: "discrete", dt: (-5.0, 4.0), a: (1.0, 1.0) };
/// A dt over 50 a step: nothing is remembered, and a chunk's sum of log a is below -1600.
const FAST: Decay = Decay { name: "fast", dt: (4.0, 6.0), a: (16.0, 16.0) };
/// Steps that forget everything between steps that forget nothing.
const MIXED: Decay = Decay { name: "mixed", dt: (-30.0, 30.0), a: (1.0, 16.0) };

struct Random(u64);

impl Random {
    fn uniform(&mut self, low: f32, high: f32) -> f32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        low + (high - low) * (((z ^ (z >> 31)) >> 40) as f32 / (1u32 << 24) as f32)
    }

    fn many(&mut self, n: usize, most: f32) -> Vec<f32> {
        (0..n).map(|_| self.uniform(-most, most)).collect()
    }
}

fn shape(heads: usize, head_dim: usize, repeat: usize, repeat_kv_before_conv: bool) -> SsmShape {
    let form = SsmForm::Mamba2 { d_xb: heads * head_dim / repeat, repeat_kv_before_conv };
    SsmShape { form, heads, head_dim, d_state: head_dim }
}

fn discrete(heads: usize, head_dim: usize, d_state: usize, repeat: usize) -> SsmShape {
    SsmShape { form: SsmForm::Discrete { groups: heads / repeat }, heads, head_dim, d_state }
}

fn run(slot: usize, count: usize) -> Run {
    Run { slot, count, live: true }
}

fn frozen(slot: usize, count: usize) -> Run {
    Run { live: false, ..run(slot, count) }
}

fn inputs(shape: SsmShape, runs: &[Run], decay: Decay, seed: u64) -> Inputs {
    let mut random = Random(seed);
    let rows: usize = runs.iter().map(|r| r.count).sum();
    let in_stride = shape.in_proj().next_multiple_of(32);
    let u_stride = shape.channels().next_multiple_of(32);
    let mut zxbcdt = random.many(rows * in_stride, 2.0);
    for row in zxbcdt.chunks_exact_mut(in_stride) {
        for dt in &mut row[shape.in_proj() - shape.heads..shape.in_proj()] {
            *dt = random.uniform(decay.dt.0, decay.dt.1);
        }
        row[shape.in_proj()..].fill(f32::NAN);
    }
    let conv_weight = random.many(4 * shape.channels(), 0.3);
    let conv_bias = random.many(shape.channels(), 0.5);
    let mut state = random.many(SLOTS * shape.state(), 1.0);
    for slot in state.chunks_exact_mut(shape.state()) {
        // Heads that share two of x, B and C have seen the same of them.
        let own = 4 * (shape.head_dim + 2 * shape.d_state);
        let shared = match shape.form {
            SsmForm::Mamba2 { .. } => 0..8 * shape.head_dim,
            SsmForm::Discrete { .. } => 4 * shape.head_dim..own,
        };
        for head in (0..shape.heads).filter(|head| head % shape.repeat() > 0) {
            let first = shape.taps_offset() + head / shape.repeat() * shape.repeat() * own;
            let to = shape.taps_offset() + head * own + shared.start;
            slot.copy_within(first + shared.start..first + shared.end, to);
        }
    }
    let step = runs.iter().fold(StepBuilder::new(), |step, run| step.segment(run.slot, 0, run.count)).build();
    let mut convolved = vec![f64::NAN; rows * u_stride];
    ssm_conv(&step, &shape, &zxbcdt, in_stride, &conv_weight, &conv_bias, &state, u_stride, &mut convolved);
    let u = convolved.iter().map(|v| *v as f32).collect();
    let heads = (0..shape.heads)
        .map(|_| {
            let a = random.uniform(decay.a.0, decay.a.1);
            let of_head = [a.ln(), random.uniform(-1.0, 1.5), random.uniform(-0.1, 0.1), 0.0];
            match shape.form {
                SsmForm::Mamba2 { .. } => of_head,
                // What is not D is nothing that a kernel may read.
                SsmForm::Discrete { .. } => [of_head[1], f32::NAN, f32::NAN, f32::NAN],
            }
        })
        .collect();
    Inputs {
        shape,
        runs: runs.to_vec(),
        zxbcdt,
        in_stride,
        u,
        u_stride,
        conv_weight,
        conv_bias,
        heads,
        weight: random.many(shape.d_inner(), 1.0),
        eps: 1e-5,
        state,
    }
}

fn step_words(runs: &[Run], max_rows: usize) -> Vec<u32> {
    let mut words = vec![0; 4 * (1 + 3 * max_rows)];
    let mut first = 0;
    for (i, run) in runs.iter().enumerate() {
        words[4 * (1 + max_rows + i)..][..3].copy_from_slice(&[first as u32, run.count as u32, run.slot as u32]);
        for offset in 0..run.count {
            let row = [7, run.slot as u32, 100 + offset as u32, u32::from(run.live) | (offset as u32) << 1];
            words[4 * (1 + first + offset)..][..4].copy_from_slice(&row);
        }
        first += run.count;
    }
    words[..2].copy_from_slice(&[first as u32, runs.len() as u32]);
    words
}

/// What the GPU gave, without guards.
struct Got {
    y: Vec<f32>,
    gated: Vec<f32>,
    stepped: Vec<f32>,
    state: Vec<f32>,
    stepped_state: Vec<f32>,
}

/// A buffer of one case: what it begins with, and how many words of it belong to the kernel.
struct Filled {
    buffer: Buffer,
    words: Vec<u32>,
    guarded: bool,
}

fn filled(label: &str, mut words: Vec<u32>, guarded: bool) -> Filled {
    if guarded {
        words.extend([GUARD; GUARD_WORDS]);
    }
    Filled { buffer: Buffer::new(label, 4 * words.len() as u64, Purpose::Control), words, guarded }
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

async fn read(gpu: &Gpu, from: &Filled) -> Vec<f32> {
    let bytes = gpu.read(&from.buffer, 0..4 * from.words.len() as u64).await.unwrap();
    let words: Vec<u32> = bytemuck::pod_collect_to_vec(&bytes);
    let (own, guard) = words.split_at(words.len() - GUARD_WORDS);
    assert!(
        from.guarded && guard.iter().all(|w| *w == GUARD),
        "{}: words behind its end were written",
        from.buffer.label()
    );
    own.iter().map(|w| f32::from_bits(*w)).collect()
}

async fn compute(gpu: &Gpu, m: &Inputs, limits: Limits) -> Got {
    let s = m.shape;
    let rows = m.runs.iter().map(|r| r.count).sum::<usize>();
    // Room for rows that do not run: their outputs must stay as they are.
    let max_rows = rows + 5;
    let y_stride = s.d_inner() + 4;
    let step = filled("step", step_words(&m.runs, max_rows), false);
    let zxbcdt = filled("zxbcdt", bits(&m.zxbcdt), false);
    let u = filled("u", bits(&m.u), false);
    let conv_weight = filled("conv_weight", bits(&m.conv_weight), false);
    let conv_bias = filled("conv_bias", bits(&m.conv_bias), false);
    let heads = filled("heads", bits(&m.heads.concat()), false);
    let weight = filled("weight", bits(&m.weight), false);
    let states = filled("states", vec![POISON; SsmStates::words(s, max_rows, SLOTS, &limits)], true);
    let state = filled("state", bits(&m.state), true);
    let y = filled("y", vec![POISON; max_rows * y_stride], true);
    let stepped_state = filled("stepped_state", bits(&m.state), true);
    let stepped = filled("stepped", vec![POISON; max_rows * y_stride], true);
    let read_only = [&step, &zxbcdt, &u, &conv_weight, &conv_bias, &heads, &weight];
    let all = [read_only.as_slice(), &[&states, &state, &y, &stepped_state, &stepped]].concat();
    let buffers: Vec<Buffer> = all.iter().map(|f| f.buffer.clone()).collect();
    gpu.allocate(&buffers).await.unwrap();
    for f in all {
        gpu.write(&f.buffer, 0, bytemuck::cast_slice(&f.words));
    }

    let target = Target { twins: Twins::portable(), max_rows: max_rows as u32, slots: SLOTS as u32, limits };
    let by_chunks = SsmRows {
        step: &step.buffer,
        shape: s,
        zxbcdt: &zxbcdt.buffer,
        in_stride: m.in_stride,
        u: &u.buffer,
        u_stride: m.u_stride,
    };
    let chunked = [
        SsmStates { rows: by_chunks, heads: &heads.buffer, state: &state.buffer, states: &states.buffer }
            .dispatch("test", target),
        SsmChunk { rows: by_chunks, heads: &heads.buffer, states: &states.buffer, y: &y.buffer, y_stride }
            .dispatch("test", target),
    ];
    let norm = GatedNorm {
        step: &step.buffer,
        shape: s,
        zxbcdt: &zxbcdt.buffer,
        in_stride: m.in_stride,
        weight: &weight.buffer,
        y: &y.buffer,
        y_stride,
        eps: m.eps,
    }
    .dispatch("test", target);
    let scan = SsmScan {
        step: &step.buffer,
        shape: s,
        zxbcdt: &zxbcdt.buffer,
        in_stride: m.in_stride,
        conv_weight: &conv_weight.buffer,
        conv_bias: &conv_bias.buffer,
        heads: &heads.buffer,
        weight: &weight.buffer,
        state: &stepped_state.buffer,
        y: &stepped.buffer,
        y_stride,
        y_codes: None,
        eps: m.eps,
    }
    .dispatch("test", target);
    let grid = StepShape { rows: rows as u32, segments: m.runs.len() as u32, logit_rows: 0, longest: 0 };
    let go = async |list: &[Dispatch]| gpu.compile(list).await.unwrap().run(gpu, grid).await.unwrap();
    go(&chunked).await;
    let before_norm = read(gpu, &y).await;
    go(&[norm, scan]).await;
    let only_rows = |values: Vec<f32>| -> Vec<f32> {
        let (own, rest) = values.split_at(rows * y_stride);
        assert!(rest.iter().all(|v| v.to_bits() == POISON), "rows that do not run were written");
        own.chunks_exact(y_stride)
            .flat_map(|row| {
                let (own, pad) = row.split_at(s.d_inner());
                assert!(pad.iter().all(|v| v.to_bits() == POISON), "the padding of y was written");
                own.to_vec()
            })
            .collect()
    };
    let _ = read(gpu, &states).await;
    Got {
        y: only_rows(before_norm),
        gated: only_rows(read(gpu, &y).await),
        stepped: only_rows(read(gpu, &stepped).await),
        state: read(gpu, &state).await,
        stepped_state: read(gpu, &stepped_state).await,
    }
}

/// The worst error in parts of the root mean square of its block of `block` values, times what `cancelled` there, or of
/// the value itself where it is larger.
fn worst(
    what: &str,
    got: &[f32],
    expected: &[f64],
    block: usize,
    cancelled: &[f64],
    tolerance: f64,
) -> Result<f64, String> {
    if got.len() != expected.len() || got.is_empty() {
        return Err(format!("{what}: {} values, {} are expected", got.len(), expected.len()));
    }
    let mut most = 0.0f64;
    for (b, (g, e)) in got.chunks(block).zip(expected.chunks(block)).enumerate() {
        let rms = (e.iter().map(|v| v * v).sum::<f64>() / e.len() as f64).sqrt() * cancelled.get(b).unwrap_or(&1.0);
        for (i, (g, e)) in g.iter().zip(e).enumerate() {
            // Of a value far above the others, as a state has where most is forgotten, in parts of that value: a decay
            // that is off by 1e-6 is off by as much of everything.
            let error = (f64::from(*g) - e).abs();
            let unit = rms.max(e.abs());
            // Written so that a NaN fails.
            if error.is_nan() || error > tolerance * unit {
                return Err(format!(
                    "{what}: block {b}, value {i}: {g}, {e} is expected; {:.1e} of its rms",
                    error / rms
                ));
            }
            most = most.max(if error == 0.0 { 0.0 } else { error / unit });
        }
    }
    Ok(most)
}

/// Compares all that a scan gives; slots that no live run has must be as they were, to the bit.
fn judge(m: &Inputs, got: &Got, expected: &Outputs) -> Result<String, String> {
    let s = m.shape;
    let p = s.head_dim;
    let cancelled = &expected.cancelled;
    let y = worst("y", &got.y, &expected.y, p, cancelled, TOLERANCE)?;
    let gated = worst("gated", &got.gated, &expected.gated, p, cancelled, 2.0 * TOLERANCE)?;
    let stepped: Vec<f64> = got.stepped.iter().map(|v| f64::from(*v)).collect();
    let longest = m.runs.iter().map(|r| r.count).max().unwrap_or(0);
    let by_steps = TOLERANCE + TOLERANCE_OF_A_STEP * longest as f64;
    let steps = worst("y by steps", &got.gated, &stepped, p, cancelled, 2.0 * by_steps)?;
    let mut state = 0.0f64;
    let mut states = 0;
    for slot in 0..SLOTS {
        let at = slot * s.state();
        let (scan, taps) = got.state[at..at + s.state()].split_at(s.taps_offset());
        let (scan_expected, taps_expected) = expected.state[at..at + s.state()].split_at(s.taps_offset());
        if taps.iter().zip(taps_expected).any(|(g, e)| f64::from(*g) != *e) {
            return Err(format!("slot {slot}: the convolution's inputs were not carried on"));
        }
        if m.runs.iter().any(|r| r.slot == slot && r.live) {
            states += 1;
            state = state.max(worst(&format!("state {slot}"), scan, scan_expected, p * s.d_state, &[], TOLERANCE)?);
            let stepped: Vec<f64> = got.stepped_state[at..][..s.taps_offset()].iter().map(|v| f64::from(*v)).collect();
            state = state.max(worst(&format!("state {slot} by steps"), scan, &stepped, p * s.d_state, &[], by_steps)?);
        } else if bits(scan) != bits(&m.state[at..][..s.taps_offset()]) {
            return Err(format!("slot {slot}: its state changed, and no live row is its own"));
        }
    }
    Ok(format!(
        "y {} values {y:.1e}, gated {gated:.1e}, against steps {steps:.1e}, {states} states {state:.1e}",
        got.y.len()
    ))
}

fn open() -> Gpu {
    pollster::block_on(Gpu::open(None)).unwrap()
}

/// The workgroup memory that WebGPU promises, and what this adapter has, where that makes other chunks.
fn offers(gpu: &Gpu, shape: SsmShape) -> Vec<Limits> {
    let least = Limits { workgroup_memory: 16 << 10, ..gpu.limits() };
    let mut all = vec![least, gpu.limits()];
    all.dedup_by_key(|l| SsmStates::chunk(shape, l));
    all
}

fn check(gpu: &Gpu, name: &str, m: &Inputs) {
    let expected = ssm_chunk(m);
    for limits in offers(gpu, m.shape) {
        let chunk = SsmStates::chunk(m.shape, &limits);
        let got = pollster::block_on(compute(gpu, m, limits));
        let said = judge(m, &got, &expected).unwrap_or_else(|e| panic!("{name}, chunks of {chunk}: {e}"));
        println!("{name}, chunks of {chunk}: {said}");
    }
}

#[test]
fn lengths_and_decays() {
    let gpu = open();
    for decay in [SLOW, USUAL, FAST, MIXED] {
        for head_dim in [16, 64, 128] {
            // Chunks are of 32 or 64 rows.
            for count in [1, 2, 31, 32, 33, 63, 64, 65, 100] {
                let m = inputs(shape(3, head_dim, 3, false), &[run(2, count)], decay, 11);
                check(&gpu, &format!("{} decay, head_dim {head_dim}, {count} rows", decay.name), &m);
            }
        }
    }
}

#[test]
fn a_long_prompt() {
    let gpu = open();
    for decay in [SLOW, USUAL, MIXED] {
        let m = inputs(shape(4, 64, 4, false), &[run(0, 300)], decay, 12);
        check(&gpu, &format!("{} decay, 300 rows", decay.name), &m);
    }
    let m = inputs(shape(1, 128, 1, false), &[run(1, 700)], SLOW, 12);
    check(&gpu, "head_dim 128, 700 rows", &m);
}

#[test]
fn groups_and_repetition_before_the_convolution() {
    let gpu = open();
    for (heads, repeat) in [(2, 1), (6, 3), (8, 4)] {
        for before in [false, true] {
            let m = inputs(shape(heads, 16, repeat, before), &[run(1, 45)], USUAL, 13);
            check(&gpu, &format!("{heads} heads, repeat {repeat}, before the convolution {before}"), &m);
        }
    }
}

#[test]
fn head_dims() {
    let gpu = open();
    for head_dim in (4..40).step_by(4).chain((40..=128).step_by(8)) {
        let m = inputs(shape(2, head_dim, 2, false), &[run(3, 37)], USUAL, 14);
        check(&gpu, &format!("head_dim {head_dim}"), &m);
    }
}

#[test]
fn several_segments_and_frozen_slots() {
    let gpu = open();
    let mixes: [&[Run]; 4] = [
        &[run(0, 1), run(1, 1), run(2, 1), run(3, 1)],
        &[run(2, 5), frozen(0, 1), run(1, 61), run(3, 1)],
        &[frozen(3, 40), run(0, 33), frozen(1, 2)],
        &[run(1, 31), run(0, 1), run(2, 32), run(3, 64)],
    ];
    for head_dim in [16, 64, 128] {
        for (i, runs) in mixes.iter().enumerate() {
            let m = inputs(shape(3, head_dim, 3, i % 2 == 1), runs, USUAL, 15);
            let names: Vec<String> =
                runs.iter().map(|r| format!("{}{}", r.count, if r.live { "" } else { " frozen" })).collect();
            check(&gpu, &format!("head_dim {head_dim}, segments of {}", names.join(", ")), &m);
        }
    }
}

/// A slot whose values are no numbers shares chunks with others, and their answers are as if it were alone.
#[test]
fn a_broken_slot_breaks_no_other() {
    let m = inputs(shape(4, 16, 4, false), &[run(0, 20), run(1, 3), run(2, 30)], USUAL, 16);
    let mut broken = m.clone();
    for r in 20..23 {
        broken.u[r * m.u_stride..][..m.shape.channels()].fill(f32::NAN);
        broken.u[r * m.u_stride] = f32::INFINITY;
    }
    let gpu = open();
    pollster::block_on(async {
        let (whole, got) = (compute(&gpu, &m, gpu.limits()).await, compute(&gpu, &broken, gpu.limits()).await);
        let d = m.shape.d_inner();
        let others = |y: &[f32]| [bits(&y[..20 * d]), bits(&y[23 * d..])].concat();
        assert!(got.y[20 * d..23 * d].iter().any(|v| v.is_nan()), "the broken slot computes with its values");
        assert_eq!(others(&whole.gated), others(&got.gated), "y of the others");
        for slot in [0, 2, 3] {
            let at = slot * m.shape.state();
            let of = |got: &Got| bits(&got.state[at..][..m.shape.state()]);
            assert_eq!(of(&whole), of(&got), "state of slot {slot}");
        }
        println!("a broken slot: {} values of others are the same to the bit", others(&got.gated).len());
    });
}

/// Discrete Mamba2: heads wider than their state and narrower, of the tiny fixture (16 x 8) and of what is released, and
/// B and C shared by heads.
#[test]
fn discrete_forms() {
    let gpu = open();
    for (heads, head_dim, d_state, repeat) in [
        (4, 16, 8, 1),
        (6, 8, 16, 3),
        (2, 4, 128, 1),
        (2, 128, 4, 2),
        (3, 20, 12, 1),
        (2, 64, 64, 1),
        (2, 96, 64, 1),
        (4, 128, 64, 2),
        (2, 64, 128, 1),
        (2, 124, 68, 1),
        (1, 128, 128, 1),
    ] {
        let s = discrete(heads, head_dim, d_state, repeat);
        for (i, decay) in [DISCRETE, USUAL, FAST, MIXED].into_iter().enumerate() {
            let runs: &[Run] = match i % 2 {
                0 => &[run(2, 5), frozen(0, 33), run(1, 70), run(3, 1)],
                _ => &[run(0, 100)],
            };
            let m = inputs(s, runs, decay, 18);
            check(&gpu, &format!("discrete, {heads} heads of {head_dim} x {d_state}, {} decay", decay.name), &m);
        }
    }
}

type Fault<'a> = (&'a str, &'a dyn Fn(&mut Inputs));

/// The comparison itself: each of these is a fault that a scan could have, and must be refused.
#[test]
fn faults_are_refused() {
    let m = inputs(shape(3, 16, 3, false), &[run(0, 40), frozen(1, 9)], USUAL, 17);
    let gpu = open();
    pollster::block_on(async {
        let got = compute(&gpu, &m, gpu.limits()).await;
        judge(&m, &got, &ssm_chunk(&m)).unwrap();
        let twin_of = |change: &dyn Fn(&mut Inputs)| {
            let mut other = m.clone();
            change(&mut other);
            judge(&m, &got, &ssm_chunk(&other))
        };
        let faults: [Fault<'_>; 7] = [
            ("A is off by 1e-3", &|o| o.heads.iter_mut().for_each(|h| h[0] += 1e-3)),
            ("D of a head is off by 1e-4", &|o| o.heads[1][1] += 1e-4),
            ("dt_bias is off by 1e-3", &|o| o.heads[0][2] += 1e-3),
            ("the state at the start is another slot's", &|o| {
                let n = o.shape.state();
                o.state.copy_within(2 * n..3 * n, 0);
            }),
            ("the last row is left out of the state", &|o| {
                let last = 39 * o.u_stride;
                o.u[last..last + o.shape.d_shared()].fill(0.0);
            }),
            ("a frozen slot is carried on", &|o| o.runs[1].live = true),
            ("one convolution input is another", &|o| o.zxbcdt[39 * o.in_stride + o.shape.d_inner()] += 1e-3),
        ];
        for (name, change) in faults {
            let refused = twin_of(change).expect_err(name);
            println!("refused: {name}: {refused}");
        }
    });
    let m = inputs(discrete(4, 16, 8, 2), &[run(0, 40), frozen(1, 9)], DISCRETE, 19);
    pollster::block_on(async {
        let got = compute(&gpu, &m, gpu.limits()).await;
        judge(&m, &got, &ssm_chunk(&m)).unwrap();
        let faults: [Fault<'_>; 5] = [
            ("D of a head is off by 1e-4", &|o| o.heads[1][0] += 1e-4),
            ("a bias of z is off by 1e-3", &|o| o.weight[7] += 1e-3),
            ("a decay is off by 1e-3", &|o| o.zxbcdt[20 * o.in_stride + o.shape.in_proj() - 1] += 1e-3),
            ("a z is another", &|o| o.zxbcdt[39 * o.in_stride + o.shape.z_column()] += 1e-2),
            ("one convolution input of C is another", &|o| o.zxbcdt[39 * o.in_stride + o.shape.channels() - 1] += 1e-3),
        ];
        for (name, change) in faults {
            let mut other = m.clone();
            change(&mut other);
            let refused = judge(&m, &got, &ssm_chunk(&other)).expect_err(name);
            println!("refused: discrete: {name}: {refused}");
        }
    });
}
