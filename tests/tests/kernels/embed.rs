//! `embed.wgsl`.

use zebra_runtime::gpu::Gpu;
use zebra_runtime::kernels::coded::{self, Coding};
use zebra_runtime::kernels::embed::{Embed, FROM_SLOT};
use zebra_runtime::kernels::{Matrix, Target};
use zebra_runtime::weights::WeightFormat;
use zebra_tests::compare::{Worst, compare_relative};
use zebra_tests::harness::{Bench, POISON, StepBuilder, shape_of, step_words};
use zebra_tests::random::Random;
use zebra_tests::reference::embed as twin;
use zebra_tests::reference::product;
use zebra_tests::reference::weight::{FORMATS, Weight};

use super::{Cut, Input, table, target};

const MAX_ROWS: u32 = 70;

#[derive(Debug, Clone, Copy)]
struct Case {
    format: WeightFormat,
    vocab: usize,
    hidden: usize,
    cut: Cut,
    /// x is left coded too.
    coded: bool,
}

fn run(gpu: &Gpu, case: &Case, input: Input) -> Result<Worst, String> {
    let mut random = Random::new((case.vocab + case.hidden) as u64);
    let mut weight = Weight::random(case.format, case.vocab, case.hidden, &mut random);
    let target = target(gpu, false, MAX_ROWS);
    let target = Target { limits: case.cut.limits(target.limits, case.format, case.vocab, case.hidden), ..target };
    // A prompt of slot 1, single rows of slots 0, 2 (frozen) and 3 whose tokens the sampler left on the GPU.
    let mut step =
        StepBuilder::new().segment(1, 9, 3).segment(0, 4, 1).frozen(2, 7, 1).segment(3, 0, 1).logits(&[2, 5]);
    step = step.segment(4, 0, 2);
    let mut step = step.build();
    for row in &mut step.rows {
        row.token = random.below(case.vocab) as u32;
    }
    // The first and the last row of the matrix.
    step.rows[0].token = 0;
    step.rows[1].token = case.vocab as u32 - 1;
    let mut slots = vec![POISON; 4 * 5];
    let mut request = step_words(&step, MAX_ROWS);
    for r in 3..6 {
        let row = step.rows[r];
        let position = row.position as u32;
        slots[4 * row.slot..][..4].copy_from_slice(&[row.token, position, u32::from(row.live), 3]);
        request[4 * (1 + r)..][..4].copy_from_slice(&[FROM_SLOT, row.slot as u32, POISON, POISON]);
    }
    let stride = case.hidden.next_multiple_of(32);
    let rows = step.rows.len();

    let bench = Bench::new(gpu);
    let tables = bench.output("step", 4 * (1 + 3 * MAX_ROWS as usize));
    let x = bench.output("x", MAX_ROWS as usize * stride);
    let (coded, gain) = (case.coded, random.normals(case.hidden, 1.0));
    let codes = bench.output("codes", coded::words(MAX_ROWS as usize, case.hidden));
    let dispatches = Embed {
        request: &bench.words("request", &request),
        slots: &bench.words("slots", &slots),
        step: &tables,
        weight: &bench.matrix("weight", &weight, target),
        x: &x,
        x_codes: coded.then_some(Coding { codes: &codes, gain: Some(&bench.floats("gain", &gain)) }),
    }
    .dispatches("test", target);
    bench.run(&dispatches, shape_of(&step))?;

    let want = step_words(&step, MAX_ROWS);
    for (i, got) in bench.read_words(&tables).chunks(4).enumerate() {
        let written = i == 0 || (i - 1) % (MAX_ROWS as usize) < rows;
        let want = if written { &want[4 * i..4 * i + 4] } else { &[POISON; 4] };
        if got != want {
            return Err(format!("step[{i}] is {got:?}, expected {want:?}"));
        }
    }
    if input == Input::Altered {
        let last = weight.words.len() - Matrix::row_bytes(case.format, case.hidden) as usize;
        weight.words[last + 1] ^= 1;
        if !weight.scales.is_empty() {
            let at = weight.scales.len() - 2 * case.hidden.div_ceil(32);
            weight.scales[at..at + 2].copy_from_slice(&0x3c00u16.to_le_bytes());
        }
    }
    let mut expected = vec![f64::NAN; rows * stride];
    twin::embed(&step, &weight.values(), case.hidden, stride, &mut expected);
    let x = bench.read(&x);
    if coded {
        let mut gain = gain;
        gain.resize(stride, 0.0);
        let want = product::coded(&x[..rows * stride], stride, Some(&gain));
        let got = product::coded_groups(&bench.read_words(&codes), stride / 32);
        for (i, (got, want)) in got.iter().zip(&want).enumerate() {
            // A quotient may be the next float, a code that lies between two the other; a sum has another order.
            let near = |got: f32, want: f32, error: f32| (got - want).abs() <= error * want;
            let off = got.codes.iter().zip(&want.codes).any(|(a, b)| a.abs_diff(*b) > 1);
            if off || !near(got.scale, want.scale, 1e-6) || !near(got.squares, want.squares, 1e-5) {
                return Err(format!("group {i} is {got:?}, expected {want:?}"));
            }
        }
    }
    // A code times a scale is exact in f32.
    compare_relative(&x[..rows * stride], &expected, stride, 0.0)
}

#[test]
fn embed() {
    let mut cases = Vec::new();
    for format in FORMATS {
        for (vocab, hidden) in [(97, 64), (31, 24), (5, 260), (50, 2048), (17, 4096)] {
            cases.push(Case { format, vocab, hidden, cut: Cut::Whole, coded: hidden % 64 == 0 });
        }
        for cut in [Cut::Pieces, Cut::PiecesAndDispatches, Cut::Dispatches] {
            cases.push(Case { format, vocab: 39, hidden: 96, cut, coded: cut == Cut::Dispatches });
        }
    }
    table("embed", cases, run);
}
