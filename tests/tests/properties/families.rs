//! What holds of a model of every family.

use std::iter::zip;

use pollster::block_on;
use zebra_runtime::engine::probe::{NamedTensor, ProbeOptions, Values, probe};
use zebra_runtime::engine::{CacheFormat, Engine, KernelChoice, LoadOptions};
use zebra_runtime::model::Step;
use zebra_runtime::weights::Preset;

use super::{VOCAB, answer, differ, drawn, engine, gpu, ids, options, rows, tiny};

/// A model of each family and of each kind of mixer.
const FAMILIES: [&str; 7] = [
    "tiny-gqa",
    "tiny-xecomla-dynamic",
    "tiny-mambainllama",
    "tiny-mambainllama-mamba1",
    "tiny-llama",
    "tiny-minitron",
    "tiny-llamba",
];

/// The largest difference of any tensor, in standard deviations. Ids must be the same.
fn most_different(a: &[NamedTensor], b: &[NamedTensor]) -> f64 {
    assert_eq!(a.len(), b.len());
    let mut worst: f64 = 0.0;
    for (a, b) in a.iter().zip(b) {
        match (&a.values, &b.values) {
            (Values::F32(a), Values::F32(b)) => worst = worst.max(differ(a, b)),
            (a, b) => assert_eq!(a, b),
        }
    }
    worst
}

#[test]
fn a_prompt_may_be_cut_anywhere_in_every_format() {
    // What goes into a product on int8 dot products is rounded, not everywhere the same for few rows and many, and random
    // weights of so few columns hide nothing of it. What is wired wrongly is off by 4 to 6 sd in the worst of its values.
    let formats = [
        // Into a third of the chunks that the scan of prompts has.
        (Preset::F32, 130, &[7, 64, 65, 130][..], 1e-4),
        (Preset::F16, 70, &[7, 70], 1e-4),
        (Preset::Q8, 70, &[7, 70], 1.0),
        (Preset::Q4, 70, &[7, 70], 1.0),
    ];
    for name in FAMILIES {
        let files = tiny(name);
        for (preset, length, chunks, tolerance) in formats {
            let prompt = ids(length, 3);
            // Whose products are rounded may draw other tokens.
            let is_rounded = matches!(preset, Preset::Q8 | Preset::Q4);
            let run = |kernels, chunk| {
                let decode = if is_rounded { 0 } else { 3 };
                let options = ProbeOptions { preset, cache: CacheFormat::F32, decode, chunk, kernels };
                block_on(probe(&*files, gpu(), &prompt, &options)).expect("it runs")
            };
            let exact = run(KernelChoice::Plain, 1);
            assert_eq!(most_different(&run(KernelChoice::Plain, 33), &exact), 0.0, "{name} {preset}");
            let alone = run(KernelChoice::Auto, 1);
            let worst: Vec<f64> =
                chunks.iter().map(|chunk| most_different(&run(KernelChoice::Auto, *chunk), &alone)).collect();
            let rounded = most_different(&alone, &exact);
            println!("{name} {preset}: chunks of {chunks:?} within {worst:.5?} sd; {rounded:.3} sd from plain");
            assert!(worst.iter().all(|w| *w <= tolerance), "{name} {preset}: {worst:.5?} sd");
            // What int8 rounds is judged on trained weights.
            assert!(is_rounded || rounded <= tolerance, "{name} {preset}: {rounded:.5} sd from plain");
        }
    }
}

/// Logits of some decode steps of every slot, after prompts of different lengths.
pub fn batch_logits(engine: &mut Engine, prompts: &[Vec<u32>], together: bool) -> Vec<Vec<f32>> {
    let mut all = vec![Vec::new(); prompts.len()];
    for (slot, prompt) in prompts.iter().enumerate() {
        engine.reset(slot);
        // Together, the prompts go in one step each but the last token of all, which makes the batch.
        block_on(engine.model_mut().logits(&Step { rows: rows(slot, &prompt[..prompt.len() - 4], 0) }, VOCAB))
            .expect("runs");
    }
    for k in 0..4 {
        let at = |prompt: &Vec<u32>| prompt.len() - 4 + k;
        if together {
            let step = prompts.iter().enumerate().flat_map(|(s, p)| rows(s, &p[at(p)..=at(p)], at(p))).collect();
            let logits = block_on(engine.model_mut().logits(&Step { rows: step }, VOCAB)).expect("runs");
            for (all, row) in all.iter_mut().zip(logits) {
                all.extend(row);
            }
        } else {
            for (s, p) in prompts.iter().enumerate() {
                let step = Step { rows: rows(s, &p[at(p)..=at(p)], at(p)) };
                all[s].extend(block_on(engine.model_mut().logits(&step, VOCAB)).expect("runs").concat());
            }
        }
    }
    all
}

#[test]
fn a_batch_is_each_alone() {
    for name in FAMILIES {
        for (kernels, count, exact) in [
            (KernelChoice::Plain, 12, true),
            (KernelChoice::Auto, 8, true),   // the narrow kernels alone and together
            (KernelChoice::Auto, 12, false), // narrow alone, wide together
        ] {
            let mut engine = engine(name, LoadOptions { slots: count, logit_rows: Some(64), ..options(kernels) });
            let prompts: Vec<Vec<u32>> = (0..count).map(|i| ids(5 + 4 * i, i as u32)).collect();
            let alone = batch_logits(&mut engine, &prompts, false);
            let together = batch_logits(&mut engine, &prompts, true);
            let mut rows: Vec<f64> =
                zip(together.concat().chunks(VOCAB), alone.concat().chunks(VOCAB)).map(|(a, b)| differ(a, b)).collect();
            rows.sort_by(f64::total_cmp);
            let (most, worst) = (rows[rows.len() * 9 / 10], rows[rows.len() - 1]);
            let what = format!("{name}, {count} slots, {kernels:?}");
            println!("{what}: together as alone, 90% of rows within {most:.1e} sd, all within {worst:.1e}");
            if exact {
                assert_eq!(worst, 0.0, "{what}");
            } else {
                // Other kernels round otherwise. Where a head's gated output nearly vanishes its norm multiplies that: a few
                // rows of 48 may be off by a hundred times as much.
                assert!(most <= 1e-5 && worst <= 1e-3, "{what}: {most:.2e} sd, {worst:.2e} sd");
            }
            // The control: another slot's logits are not these.
            assert!(differ(&together[0], &alone[1]) > 0.1, "{what}");
        }
    }
}

#[test]
fn a_restored_or_forked_slot_never_left() {
    for name in FAMILIES {
        for cache in [CacheFormat::F32, CacheFormat::F16, CacheFormat::Q8] {
            let mut engine = engine(name, LoadOptions { cache, slots: 2, ..options(KernelChoice::Auto) });
            let (a, c) = (ids(40, 5), ids(60, 9));
            let straight = answer(&mut engine, 0, Some(&a), &drawn(20));
            engine.reset(0);

            // To A and six tokens on, then to B; back to A and to C, which overwrites the latents of B; back to A and to B.
            let first = answer(&mut engine, 0, Some(&a), &drawn(6));
            assert_eq!(first.ids, straight.ids[..6]);
            let at_a = block_on(engine.snapshot(0)).expect("a snapshot");
            let to_b = answer(&mut engine, 0, None, &drawn(14));
            assert_eq!(to_b.ids, straight.ids[6..], "{name}, {cache:?}: going on");
            let at_b = block_on(engine.snapshot(0)).expect("a snapshot");
            let after_b = answer(&mut engine, 0, None, &drawn(10));
            engine.restore(0, &at_a).expect("restores");
            answer(&mut engine, 0, Some(&c), &drawn(9));
            engine.restore(0, &at_b).expect("restores");
            assert_eq!(answer(&mut engine, 0, None, &drawn(10)).ids, after_b.ids, "{name}, {cache:?}: back to B");
            engine.restore(0, &at_a).expect("restores");
            assert_eq!(answer(&mut engine, 0, None, &drawn(14)).ids, straight.ids[6..], "{name}, {cache:?}: back to A");

            // By way of host memory, into another slot.
            block_on(at_a.mirror()).expect("is copied");
            at_a.leave_gpu();
            assert_eq!(at_a.gpu_bytes(), 0);
            answer(&mut engine, 1, Some(&c), &drawn(30));
            engine.restore(1, &at_a).expect("restores");
            assert_eq!(
                answer(&mut engine, 1, None, &drawn(14)).ids,
                straight.ids[6..],
                "{name}, {cache:?}: from the host"
            );

            // A fork goes its own way and leaves the other as it was.
            engine.restore(0, &at_b).expect("restores");
            block_on(engine.fork(0, 1)).expect("forks");
            assert_eq!(answer(&mut engine, 1, None, &drawn(10)).ids, after_b.ids, "{name}, {cache:?}: the fork");
            assert_eq!(answer(&mut engine, 0, None, &drawn(10)).ids, after_b.ids, "{name}, {cache:?}: the forked");
            println!(
                "{name}, {cache:?}: A to B, back, to C, back to B, by the host and by a fork: the same {} ids",
                straight.ids.len()
            );
            assert_ne!(to_b.ids, after_b.ids[..].to_vec(), "the control: other tokens differ");
        }
    }
}
