//! The sampler on the GPU against its twin: what is drawn, what is reported, what becomes of the slots, and that draws
//! are distributed as they should be.

use pollster::block_on;
use zebra_runtime::engine::SamplingOptions;
use zebra_runtime::gpu::{Buffer, Dispatch, Gpu, Program, Purpose};
use zebra_runtime::kernels::Target;
use zebra_runtime::kernels::sample::{SLOT_BIAS, SLOT_HISTORY, SLOT_STOPS, Sample, SampleBuffers, Sampled};
use zebra_tests::harness::{POISON, on_gpu, report, shape_of, step_words, targets};
use zebra_tests::random::Random;
use zebra_tests::reference::sample::{self as twin, Drawn};
use zebra_tests::reference::step::{Row, Segment, Step};

/// A draw or a cut that is nearer than this to coming out otherwise may come out otherwise in f32.
const NEAR_MARGIN: f64 = 2e-4;
const NEAR_EDGE: f64 = 2e-6;
/// Guard slots, rows and words behind what may be written.
const GUARD: u32 = 0x7fc1_600d;

/// A slot as the engine would start it.
#[derive(Clone)]
struct Slot {
    options: SamplingOptions,
    /// Prompt and the answer so far.
    context: Vec<u32>,
    /// Tokens of the answer so far.
    index: usize,
    stops: Vec<u32>,
    max_tokens: u32,
    live: bool,
}

impl Slot {
    fn new(options: SamplingOptions) -> Self {
        Self { options, context: vec![0], index: 0, stops: Vec::new(), max_tokens: 1000, live: true }
    }
}

/// Slots on the GPU, and what they should be.
struct Session<'g> {
    gpu: &'g Gpu,
    vocab: usize,
    stride: usize,
    rows: usize,
    slots: Vec<Slot>,
    buffers: SampleBuffers,
    step: Buffer,
    logits: Buffer,
    program: Program,
    tally: Tally,
}

/// What was compared.
#[derive(Default)]
struct Tally {
    tokens: usize,
    /// Other tokens than the twin's, so near to it that both are right.
    near: usize,
    logprobs: usize,
    worst: f64,
    frozen: usize,
}

impl Tally {
    fn report(&self, what: &str) {
        let Tally { tokens, near, logprobs, worst, frozen } = self;
        report(&format!(
            "{what}: {tokens} tokens as the twin's ({near} differ, too near to tell), {logprobs} log probabilities within \
             {worst:.1e}, {frozen} rows of frozen slots unchanged"
        ));
        assert!(*near * 50 <= *tokens, "{what}: {near} of {tokens} draws were too near to tell");
    }
}

/// Compares one result with its twin's.
fn agree(got: &Sampled, want: &Drawn, index: usize, tally: &mut Tally) -> Result<(), String> {
    if !got.has(Sampled::SAMPLED) || got.index as usize != index {
        return Err(format!("flags {}, index {}, expected a token of index {index}", got.flags, got.index));
    }
    let differs = got.id != want.id;
    if differs && want.margin >= NEAR_MARGIN && want.cut.edge >= NEAR_EDGE {
        return Err(format!(
            "token {}, expected {} by {:.1e} (cut to {} by {:.1e})",
            got.id,
            want.id,
            want.margin,
            want.cut.tokens.len(),
            want.cut.edge
        ));
    }
    tally.tokens += 1;
    tally.near += usize::from(differs);
    let best: Vec<(u32, f32)> = got.best().collect();
    let ids: Vec<u32> = best.iter().map(|b| b.0).collect();
    if ids != want.best {
        return Err(format!("the best tokens are {ids:?}, expected {:?}", want.best));
    }
    for (id, logprob) in best.into_iter().chain([(got.id, got.logprob)]) {
        let expected = want.logprobs[id as usize];
        let error = (f64::from(logprob) - expected).abs();
        // Beyond a hundred nats an f32 has fewer digits than that.
        if error.is_nan() || error > f64::max(1e-5, 2e-7 * expected.abs()) {
            return Err(format!("token {id}: log probability {logprob}, expected {expected}"));
        }
        tally.logprobs += 1;
        if expected > -100.0 {
            tally.worst = tally.worst.max(error);
        }
    }
    Ok(())
}

impl<'g> Session<'g> {
    /// `rows` is the number of logit rows that a step has at most.
    fn new(gpu: &'g Gpu, vocab: usize, rows: usize, slots: Vec<Slot>) -> Self {
        Self::on(gpu, targets(gpu, rows as u32)[0], vocab, rows, slots)
    }

    fn on(gpu: &'g Gpu, target: Target, vocab: usize, rows: usize, slots: Vec<Slot>) -> Self {
        let stride = (vocab + 1).next_multiple_of(32);
        let buffers = SampleBuffers::new(slots.len() + 1, rows + 1);
        let control = |label: &str, words: usize| Buffer::new(label, 4 * words as u64, Purpose::Control);
        let step = control("step", 4 * (1 + 3 * rows));
        let logits = control("logits", (rows + 1) * stride);
        let mut all = buffers.buffers();
        all.extend([step.clone(), logits.clone()]);
        block_on(gpu.allocate(&all)).expect("memory");
        let sampling = Sample { step: &step, logits: &logits, stride, vocab, buffers: &buffers };
        let dispatches: Vec<Dispatch> = sampling.dispatches("sample", target);
        assert_eq!(dispatches.len(), 2);
        let program = block_on(gpu.compile(&dispatches)).expect("the shaders compile");
        let tally = Tally::default();
        let session = Self { gpu, vocab, stride, rows, slots, buffers, step, logits, program, tally };
        for buffer in session.buffers.buffers() {
            session.fill(&buffer);
        }
        for s in 0..session.slots.len() {
            session.write_slot(s);
        }
        session
    }

    fn fill(&self, buffer: &Buffer) {
        self.gpu.write(buffer, 0, bytemuck::cast_slice(&vec![GUARD; buffer.size() as usize / 4]));
    }

    fn write_slot(&self, s: usize) {
        let slot = &self.slots[s];
        let settings = slot.options.settings(self.vocab, &slot.stops, slot.max_tokens).expect("options");
        let length = slot.context.len();
        let state = [slot.context[length - 1], length as u32 - 1, u32::from(slot.live), slot.index as u32];
        let mut ring = vec![GUARD; SLOT_HISTORY];
        for (p, token) in slot.context.iter().enumerate().skip(length.saturating_sub(SLOT_HISTORY)) {
            ring[p % SLOT_HISTORY] = *token;
        }
        let b = &self.buffers;
        let at = |words: usize| 4 * (s * words) as u64;
        self.gpu.write(&b.slots, at(4), bytemuck::cast_slice(&state));
        self.gpu.write(&b.settings, at(16), bytemuck::bytes_of(&settings.slot));
        self.gpu.write(&b.bias, at(2 * SLOT_BIAS), bytemuck::cast_slice(&settings.bias));
        self.gpu.write(&b.stops, at(SLOT_STOPS), bytemuck::cast_slice(&settings.stops));
        self.gpu.write(&b.history, at(SLOT_HISTORY), bytemuck::cast_slice(&ring));
    }

    fn read(&self, buffer: &Buffer) -> Vec<u32> {
        let bytes = block_on(self.gpu.read(buffer, 0..buffer.size())).expect("readback");
        bytemuck::pod_collect_to_vec(&bytes)
    }

    /// Runs rows of (slot, whether it is drawn from) and gives their results. What may not be written is checked.
    fn run(&mut self, rows: &[(usize, bool)], logits: &[Vec<f32>]) -> Vec<Sampled> {
        assert!(rows.len() == logits.len() && rows.len() <= self.rows);
        let row = |&(slot, _): &(usize, bool)| {
            let s = &self.slots[slot];
            Row { token: 0, slot, position: s.context.len() - 1, live: s.live, offset: 0 }
        };
        let step = Step {
            rows: rows.iter().map(row).collect(),
            segments: rows.iter().enumerate().map(|(i, r)| Segment { first: i, count: 1, slot: r.0 }).collect(),
            logit_rows: (0..rows.len()).collect(),
        };
        let mut words = step_words(&step, self.rows as u32);
        for (i, r) in rows.iter().enumerate() {
            words[4 * (1 + 2 * self.rows + i) + 1] = u32::from(r.1);
        }
        self.gpu.write(&self.step, 0, bytemuck::cast_slice(&words));
        // What lies between the rows, and the row behind the last, is NaN: it must not be looked at.
        let mut all = vec![POISON; (self.rows + 1) * self.stride];
        for (l, row) in logits.iter().enumerate() {
            all[l * self.stride..][..self.vocab].copy_from_slice(bytemuck::cast_slice(row));
        }
        self.gpu.write(&self.logits, 0, bytemuck::cast_slice(&all));
        self.fill(&self.buffers.sampled);
        block_on(self.program.run(self.gpu, shape_of(&step))).expect("the step runs");

        let after = self.read(&self.logits);
        for (l, row) in after.chunks_exact(self.stride).enumerate() {
            let before = &all[l * self.stride..][..self.stride];
            let (slot, drawn) = rows.get(l).copied().unwrap_or((0, false));
            let kept = if drawn && self.slots[slot].live { self.vocab } else { 0 };
            assert_eq!(row[kept..], before[kept..], "logits of row {l} behind {kept}");
        }
        let sampled = self.read(&self.buffers.sampled);
        let words = size_of::<Sampled>() / 4;
        assert!(sampled[rows.len() * words..].iter().all(|w| *w == GUARD), "results of no row were written");
        let results: Vec<Sampled> = bytemuck::pod_collect_to_vec(&sampled[..rows.len() * words]);
        for (buffer, words) in [(&self.buffers.slots, 4), (&self.buffers.history, SLOT_HISTORY)] {
            let values = self.read(buffer);
            assert!(values[self.slots.len() * words..].iter().all(|w| *w == GUARD), "{buffer:?}: a guard was written");
        }
        results
    }

    /// Runs a step, compares every row with its twin and carries the slots on.
    fn step(&mut self, rows: &[(usize, bool)], logits: &[Vec<f32>]) -> Result<Vec<Sampled>, String> {
        let results = self.run(rows, logits);
        let states = self.read(&self.buffers.slots);
        let rings = self.read(&self.buffers.history);
        for (l, (&(s, drawn), got)) in rows.iter().zip(&results).enumerate() {
            let slot = &mut self.slots[s];
            let place = |e: String| format!("row {l}, slot {s}, {:?}: {e}", slot.options);
            if drawn && slot.live {
                let sample = twin::Sample {
                    logits: &logits[l],
                    options: &slot.options,
                    context: &slot.context,
                    index: slot.index,
                };
                agree(got, &twin::sample(sample), slot.index, &mut self.tally).map_err(place)?;
                let stopped = slot.stops.contains(&got.id);
                let length = slot.index + 1 == slot.max_tokens as usize;
                let flags = 1 + 2 * u32::from(stopped) + 4 * u32::from(length);
                if got.flags != flags {
                    return Err(place(format!("flags {}, expected {flags}", got.flags)));
                }
                slot.context.push(got.id);
                slot.index += 1;
                slot.live = !stopped && !length;
            } else {
                if got.flags != 0 {
                    return Err(place(format!("flags {} of a row that draws nothing", got.flags)));
                }
                self.tally.frozen += 1;
            }
            let length = slot.context.len();
            let state = [slot.context[length - 1], length as u32 - 1, u32::from(slot.live), slot.index as u32];
            if states[4 * s..][..4] != state {
                return Err(place(format!("its slot is {:?}, expected {state:?}", &states[4 * s..][..4])));
            }
            for p in length.saturating_sub(SLOT_HISTORY)..length {
                let found = rings[s * SLOT_HISTORY + p % SLOT_HISTORY];
                if found != slot.context[p] {
                    return Err(place(format!("position {p} holds {found}, expected {}", slot.context[p])));
                }
            }
        }
        Ok(results)
    }
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        let mut all = self.buffers.buffers();
        all.extend([self.step.clone(), self.logits.clone()]);
        self.gpu.release(&all);
    }
}

fn options() -> SamplingOptions {
    SamplingOptions::default()
}

fn all_drawn(count: usize) -> Vec<(usize, bool)> {
    (0..count).map(|s| (s, true)).collect()
}

/// Logits of several kinds: bell-shaped, peaked, with many ties, all equal, tiny, huge.
fn logits(random: &mut Random, vocab: usize, kind: usize) -> Vec<f32> {
    match kind % 6 {
        0 => random.normals(vocab, 3.0),
        1 => {
            let mut z = random.normals(vocab, 2.0);
            let best = random.below(vocab);
            z[best] = 18.0;
            z
        }
        2 => (0..vocab).map(|_| (2.0 * random.normal()).round() / 2.0).collect(),
        3 => vec![1.25; vocab],
        4 => random.normals(vocab, 1e-3),
        _ => random.normals(vocab, 1000.0),
    }
}

#[test]
fn greedy_takes_the_best_and_the_lowest_of_equals() {
    on_gpu(|gpu| {
        let targets = targets(gpu, 6);
        for (vocab, target) in
            [1, 3, 97, 8192, 128_256, 1 << 18].into_iter().flat_map(|v| targets.iter().map(move |t| (v, t)))
        {
            let mut session = Session::on(gpu, *target, vocab, 6, vec![Slot::new(SamplingOptions::greedy()); 6]);
            let mut random = Random::new(vocab as u64);
            let mut rows: Vec<Vec<f32>> = (0..6).map(|kind| logits(&mut random, vocab, kind)).collect();
            session.step(&all_drawn(6), &rows).unwrap_or_else(|e| panic!("vocab {vocab}: {e}"));
            // The same best value in several chunks; zeros of both signs over negative values; the last token.
            for id in [vocab - 1, vocab / 2, vocab / 3 + 1, vocab / 3] {
                rows[0][id.min(vocab - 1)] = 30.0;
            }
            rows[1] = vec![-1.0; vocab];
            rows[1][vocab / 2] = -0.0;
            rows[1][vocab - 1] = 0.0;
            rows[2] = vec![-3e38; vocab];
            rows[2][vocab - 1] = -2e38;
            let results = session.run(&all_drawn(6), &rows);
            let ids: Vec<u32> = results[..3].iter().map(|r| r.id).collect();
            let first = (vocab / 3).min(vocab - 1) as u32;
            assert_eq!(ids, [first, vocab as u32 / 2, vocab as u32 - 1], "vocab {vocab}");
            session.tally.report(&format!("greedy, {vocab} tokens"));
        }
    });
}

/// Every option alone and some together.
fn table() -> Vec<SamplingOptions> {
    let mut all = vec![SamplingOptions { logprobs: Some(20), ..SamplingOptions::greedy() }];
    for temperature in [0.05, 0.7, 1.0, 3.0] {
        all.push(SamplingOptions { temperature, ..options() });
        all.push(SamplingOptions { temperature, top_p: 0.9, logprobs: Some(1), ..options() });
    }
    for top_k in [1, 2, 5, 40, 128, 129, 1000, 1024] {
        all.push(SamplingOptions { top_k, ..options() });
        all.push(SamplingOptions { top_k, temperature: 5.0, logprobs: Some(20), ..options() });
    }
    for top_p in [0.0, 1e-6, 0.3, 0.95, 0.9999, 0.999_999_9] {
        all.push(SamplingOptions { top_p, ..options() });
        all.push(SamplingOptions { top_p, top_k: 50, ..options() });
    }
    for min_p in [1.0, 0.5, 0.05, 1e-5] {
        all.push(SamplingOptions { min_p, ..options() });
        all.push(SamplingOptions { min_p, top_p: 0.8, top_k: 100, temperature: 2.0, logprobs: Some(5), ..options() });
    }
    all
}

#[test]
fn every_option_draws_as_its_twin() {
    on_gpu(|gpu| {
        // Each size by the plain part that finds maxima and sums, then by the last one.
        for (vocab, steps, last) in
            [(97, 12, false), (97, 12, true), (8192, 6, false), (8192, 6, true), (128_256, 3, true)]
        {
            let slots: Vec<Slot> = table()
                .into_iter()
                .enumerate()
                .map(|(i, o)| Slot::new(SamplingOptions { seed: (i as u64) << 30 | 7, ..o }))
                .collect();
            let count = slots.len();
            let targets = targets(gpu, count as u32);
            let target = if last { targets[targets.len() - 1] } else { targets[0] };
            let mut session = Session::on(gpu, target, vocab, count, slots);
            let mut random = Random::new(vocab as u64);
            for step in 0..steps {
                let rows: Vec<Vec<f32>> = (0..count).map(|i| logits(&mut random, vocab, step + i)).collect();
                session.step(&all_drawn(count), &rows).unwrap_or_else(|e| panic!("vocab {vocab}, step {step}: {e}"));
            }
            session.tally.report(&format!("{count} option sets, {vocab} tokens"));
        }
    });
}

#[test]
fn a_cut_is_exact_whatever_the_ties() {
    on_gpu(|gpu| {
        // Values that fall into one bin of the first round, then of the second, then differ by one bit of an f32, then
        // not at all: the candidates must be the best 5 and the best 1,024 all the same.
        let vocab = 40_000;
        let spreads = [1e-2f32, 1e-5, 1e-7, 0.0];
        let cases: Vec<SamplingOptions> = [5, 1024]
            .into_iter()
            .map(|top_k| SamplingOptions { top_k, logprobs: Some(20), temperature: 50.0, ..options() })
            .collect();
        let slots = cases.iter().cloned().map(Slot::new).collect();
        let mut session = Session::new(gpu, vocab, 2, slots);
        let mut random = Random::new(5);
        for spread in spreads {
            for offset in [0.0f32, 1.0, -20.0] {
                // One token stands far above, so that all others are far from the best, or none does.
                for lone in [false, true] {
                    let row: Vec<f32> = (0..vocab)
                        .map(|i| if lone && i == 777 { 60.0 } else { offset + spread * random.normal() })
                        .collect();
                    session.step(&all_drawn(2), &[row.clone(), row]).unwrap_or_else(|e| panic!("spread {spread}: {e}"));
                }
            }
        }
        session.tally.report("ties");
    });
}

#[test]
fn penalties_follow_the_ring() {
    on_gpu(|gpu| {
        // The tokens of a context in one chunk, then in several.
        for vocab in [97, 5000] {
            let mut slots = Vec::new();
            let mut random = Random::new(11);
            for (length, index) in [(1, 0), (2, 1), (10, 4), (250, 20), (256, 256), (257, 3), (700, 0), (1000, 600)] {
                for window in [0, 1, 3, 64, 255, 256] {
                    let o = SamplingOptions {
                        repetition_penalty: [1.0, 1.3, 0.5][slots.len() % 3],
                        presence_penalty: [0.0, 0.7, -1.0][slots.len() / 3 % 3],
                        frequency_penalty: [0.0, 0.2, -0.1][slots.len() / 2 % 3],
                        penalty_window: window,
                        temperature: if slots.len() % 4 == 0 { 0.0 } else { 0.8 },
                        logprobs: Some(20),
                        seed: slots.len() as u64,
                        logit_bias: vec![
                            (3, 2.0),
                            (vocab as u32 - 1, -1.5),
                            (slots.len() as u32 % 3, -1e9 * (slots.len() % 2) as f32),
                        ],
                        ..options()
                    };
                    let context = (0..length).map(|_| (random.below(40) * (vocab / 97)) as u32).collect();
                    slots.push(Slot { context, index, max_tokens: u32::MAX, ..Slot::new(o) });
                }
            }
            let count = slots.len();
            let mut session = Session::new(gpu, vocab, count, slots);
            for step in 0..10 {
                let rows: Vec<Vec<f32>> = (0..count).map(|_| random.normals(vocab, 2.0)).collect();
                session.step(&all_drawn(count), &rows).unwrap_or_else(|e| panic!("step {step}: {e}"));
            }
            session.tally.report(&format!("penalties and biases, {count} contexts, {vocab} tokens"));
        }
    });
}

#[test]
fn a_full_table_of_biases_counts() {
    on_gpu(|gpu| {
        let vocab = 8192;
        let mut random = Random::new(3);
        let bias = |random: &mut Random| (0..SLOT_BIAS as u32).map(|i| (i * 31, random.normal() * 4.0)).collect();
        let slots = (0..4)
            .map(|i| {
                Slot::new(SamplingOptions { logit_bias: bias(&mut random), seed: i, logprobs: Some(20), ..options() })
            })
            .collect();
        let mut session = Session::new(gpu, vocab, 4, slots);
        for _ in 0..4 {
            let rows: Vec<Vec<f32>> = (0..4).map(|_| random.normals(vocab, 2.0)).collect();
            session.step(&all_drawn(4), &rows).unwrap_or_else(|e| panic!("{e}"));
        }
        session.tally.report("256 biases a slot");
    });
}

#[test]
fn stops_and_lengths_freeze_a_slot() {
    on_gpu(|gpu| {
        let vocab = 300;
        let greedy = SamplingOptions { repetition_penalty: 1.2, ..SamplingOptions::greedy() };
        let mut slots = vec![Slot::new(greedy); 5];
        slots[0].stops = vec![299, 17];
        slots[1].max_tokens = 2;
        slots[2].stops = (0..16).collect();
        slots[3].live = false;
        let mut session = Session::new(gpu, vocab, 6, slots);
        let peak = |id: usize| {
            let mut z = vec![0.0; vocab];
            z[id] = 9.0;
            z
        };
        // Slot 4 is in the step without being drawn from; rows come in no order of slots.
        let rows = [(2, true), (0, true), (4, false), (1, true), (3, true)];
        let first = session.step(&rows, &[20, 16, 40, 41, 42].map(peak)).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(first.iter().map(|r| r.flags).collect::<Vec<_>>(), [1, 1, 0, 1, 0]);
        let second = session.step(&rows, &[15, 17, 40, 41, 42].map(peak)).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(second.iter().map(|r| r.flags).collect::<Vec<_>>(), [3, 3, 0, 5, 0]);
        let third = session.step(&rows, &[30, 30, 30, 30, 30].map(peak)).unwrap_or_else(|e| panic!("{e}"));
        assert!(third.iter().all(|r| r.flags == 0));
        let only = session.step(&[(4, true)], &[peak(5)]).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!((only[0].id, only[0].flags), (5, 1));
        session.tally.report("stops and lengths");
    });
}

#[test]
fn logits_that_are_not_finite_are_told() {
    on_gpu(|gpu| {
        let kinds =
            [SamplingOptions::greedy(), options(), SamplingOptions { top_p: 0.9, logprobs: Some(20), ..options() }];
        let mut told = 0;
        for vocab in [97, 8192] {
            for bad in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                for at in [0, 50, vocab - 1] {
                    let slots: Vec<Slot> = kinds.iter().chain(&kinds).cloned().map(Slot::new).collect();
                    let mut session = Session::new(gpu, vocab, 6, slots);
                    let mut random = Random::new(1);
                    let mut rows: Vec<Vec<f32>> = (0..6).map(|_| random.normals(vocab, 2.0)).collect();
                    for row in &mut rows[..3] {
                        row[at] = bad;
                    }
                    let results = session.run(&all_drawn(6), &rows);
                    let states = session.read(&session.buffers.slots);
                    for (s, got) in results[..3].iter().enumerate() {
                        assert_eq!(got.flags, Sampled::NOT_FINITE, "{bad} at {at} of {vocab}");
                        assert_eq!(states[4 * s..][..4], [0, 0, 0, 0], "the slot is frozen where it was");
                    }
                    assert!(results[3..].iter().all(|r| r.flags == Sampled::SAMPLED), "others go on");
                    told += 3;
                }
            }
        }
        report(&format!("{told} rows with a value that is not finite were told from as many without"));
    });
}

#[test]
fn a_draw_depends_on_seed_and_index_alone() {
    on_gpu(|gpu| {
        let vocab = 97;
        let plain = SamplingOptions { seed: 9, ..options() };
        // 1,024 of 97 cut nothing: the same noise must choose the same token by the other way.
        let cut = SamplingOptions { top_k: 1024, ..plain.clone() };
        let slots = vec![Slot::new(plain.clone()), Slot::new(options()), Slot::new(plain.clone()), Slot::new(cut)];
        let mut session = Session::new(gpu, vocab, 4, slots);
        let mut random = Random::new(2);
        let mut differ = 0;
        for step in 0..40 {
            let row = random.normals(vocab, 1.0);
            let order = if step % 2 == 0 { [0, 1, 2, 3] } else { [3, 2, 1, 0] };
            let rows: Vec<(usize, bool)> = order.iter().map(|&s| (s, true)).collect();
            let results = session.run(&rows, &vec![row; 4]);
            let mut ids = [0; 4];
            for (s, got) in order.iter().zip(&results) {
                ids[*s] = got.id;
                session.slots[*s].context.push(got.id);
            }
            assert!(ids[0] == ids[2] && ids[0] == ids[3], "step {step}: {ids:?}");
            differ += usize::from(ids[0] != ids[1]);
        }
        assert!(differ > 30, "another seed gave the same token {} times in 40", 40 - differ);
        report(&format!("one seed: 120 draws in three slots the same; another seed: {differ} of 40 differ"));
    });
}

/// (sum of (observed - expected)^2 / expected, degrees of freedom); cells with fewer than 5 expected are one.
fn chi_square(counts: &[usize], probabilities: &[f64]) -> (f64, f64) {
    let draws = counts.iter().sum::<usize>() as f64;
    let (mut chi, mut cells) = (0.0, 0.0);
    let mut rest = (0.0, 0.0);
    for (&count, &p) in counts.iter().zip(probabilities) {
        let expected = draws * p;
        if expected < 5.0 {
            rest = (rest.0 + count as f64, rest.1 + expected);
        } else {
            chi += (count as f64 - expected).powi(2) / expected;
            cells += 1.0;
        }
    }
    if rest.1 > 0.0 {
        chi += (rest.0 - rest.1).powi(2) / rest.1;
        cells += 1.0;
    }
    (chi, f64::max(cells - 1.0, 1.0))
}

/// Five standard deviations above the mean of a chi-square distribution.
fn is_likely((chi, freedom): (f64, f64)) -> bool {
    chi < freedom + 5.0 * (2.0 * freedom).sqrt()
}

#[test]
fn draws_are_distributed_as_the_softmax() {
    on_gpu(|gpu| {
        let vocab = 97;
        let (slots, steps) = (64, 64);
        let mut random = Random::new(4);
        let row = random.normals(vocab, 1.5);
        let cases = [
            options(),
            SamplingOptions { temperature: 0.6, ..options() },
            SamplingOptions { temperature: 2.5, ..options() },
            SamplingOptions { top_k: 10, ..options() },
            SamplingOptions { temperature: 1.5, top_p: 0.8, ..options() },
            SamplingOptions { min_p: 0.1, ..options() },
        ];
        let distribution = |o: &SamplingOptions| {
            let drawn = twin::sample(twin::Sample { logits: &row, options: o, context: &[0], index: 0 });
            let mut p = vec![0.0; vocab];
            for (id, probability) in drawn.cut.tokens {
                p[id as usize] = probability;
            }
            p
        };
        for o in cases {
            let all = (0..slots).map(|_| Slot::new(SamplingOptions { seed: random.bits(), ..o.clone() })).collect();
            let mut session = Session::new(gpu, vocab, slots, all);
            let mut counts = vec![0; vocab];
            let mut halves = [0; 4];
            let mut last: Vec<Option<bool>> = vec![None; slots];
            let p = distribution(&o);
            // A set of tokens with about half of the probability, to look at pairs of draws, the first and second of a slot and so on.
            let mut half = 0.0;
            let mut in_half = vec![false; vocab];
            for (is_in, p) in in_half.iter_mut().zip(&p) {
                if half < 0.5 {
                    *is_in = true;
                    half += p;
                }
            }
            for _ in 0..steps {
                for (s, got) in session.run(&all_drawn(slots), &vec![row.clone(); slots]).iter().enumerate() {
                    counts[got.id as usize] += 1;
                    let now = in_half[got.id as usize];
                    match last[s].take() {
                        None => last[s] = Some(now),
                        Some(before) => halves[2 * usize::from(before) + usize::from(now)] += 1,
                    }
                    session.slots[s].context.push(got.id);
                }
            }
            assert!(
                counts.iter().zip(&p).all(|(&count, &p)| p > 0.0 || count == 0),
                "{o:?}: a token was drawn that is cut"
            );
            let found = chi_square(&counts, &p);
            assert!(is_likely(found), "{o:?}: chi-square {} of {}", found.0, found.1);
            let q = 1.0 - half;
            let pairs = chi_square(&halves, &[q * q, q * half, half * q, half * half]);
            assert!(is_likely(pairs), "{o:?}: pairs, chi-square {} of {}", pairs.0, pairs.1);
            // The control: the same counts are not those of twice the temperature.
            let other =
                chi_square(&counts, &distribution(&SamplingOptions { temperature: o.temperature * 2.0, ..o.clone() }));
            assert!(!is_likely(other), "{o:?}: the counts would do for another temperature too");
            report(&format!(
                "{} draws at temperature {}, top_k {}, top_p {}, min_p {}: chi-square {:.0} of {} (another temperature: \
                 {:.0}), pairs {:.1} of {}",
                slots * steps,
                o.temperature,
                o.top_k,
                o.top_p,
                o.min_p,
                found.0,
                found.1,
                other.0,
                pairs.0,
                pairs.1
            ));
        }
    });
}

#[test]
fn flat_draws_of_a_large_vocabulary_reach_all_of_it() {
    on_gpu(|gpu| {
        // The winners of 128,256 equal tokens have noise that an f32 of the uniform number itself could not tell apart.
        let (vocab, slots, steps) = (128_256, 16, 16);
        let mut random = Random::new(6);
        let all = (0..slots).map(|_| Slot::new(SamplingOptions { seed: random.bits(), ..options() })).collect();
        let mut session = Session::new(gpu, vocab, slots, all);
        let mut counts = vec![0; 16];
        for _ in 0..steps {
            for (s, got) in session.run(&all_drawn(slots), &vec![vec![0.5; vocab]; slots]).iter().enumerate() {
                counts[got.id as usize * 16 / vocab] += 1;
                session.slots[s].context.push(got.id);
            }
        }
        let found = chi_square(&counts, &[1.0 / 16.0; 16]);
        assert!(is_likely(found), "sixteenths {counts:?}: chi-square {}", found.0);
        report(&format!(
            "{} flat draws of {vocab}: sixteenths {counts:?}, chi-square {:.1} of {}",
            slots * steps,
            found.0,
            found.1
        ));
    });
}

#[test]
fn the_comparison_can_fail() {
    on_gpu(|gpu| {
        let vocab = 97;
        let o = SamplingOptions { logprobs: Some(5), seed: 3, ..options() };
        let mut session = Session::new(gpu, vocab, 1, vec![Slot::new(o.clone())]);
        let row = Random::new(8).normals(vocab, 1.0);
        let got = session.run(&[(0, true)], std::slice::from_ref(&row))[0];
        let judge = |got: &Sampled, row: &[f32], o: &SamplingOptions, index: usize| {
            let drawn = twin::sample(twin::Sample { logits: row, options: o, context: &[0], index });
            agree(got, &drawn, 0, &mut Tally::default())
        };
        judge(&got, &row, &o, 0).expect("what the GPU gave is right");
        let mut swapped = got;
        swapped.top.swap(0, 1);
        let scaled: Vec<f32> = row.iter().map(|v| v * 1.01).collect();
        let refused = [
            judge(&Sampled { id: (got.id + 1) % 97, ..got }, &row, &o, 0),
            judge(&Sampled { logprob: got.logprob + 2e-5, ..got }, &row, &o, 0),
            judge(&Sampled { logprob: f32::NAN, ..got }, &row, &o, 0),
            judge(&Sampled { flags: 0, ..got }, &row, &o, 0),
            judge(&Sampled { index: 1, ..got }, &row, &o, 0),
            judge(&swapped, &row, &o, 0),
            judge(&got, &scaled, &o, 0),
            // Another seed, or the next place in the answer, draws another token sooner or later; here at once.
            judge(&got, &row, &SamplingOptions { seed: 4, ..o.clone() }, 0),
            judge(&got, &row, &o, 1),
        ];
        for (i, result) in refused.iter().enumerate() {
            assert!(result.is_err(), "wrong result {i} was accepted");
        }
        report(&format!(
            "{} wrong results were refused, such as: {}",
            refused.len(),
            refused[1].clone().expect_err("it was refused")
        ));
    });
}
