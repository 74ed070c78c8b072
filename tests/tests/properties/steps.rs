//! What holds of steps, on one model.

use std::cell::Cell;
use std::rc::Rc;

use pollster::block_on;
use zebra_runtime::Error;
use zebra_runtime::engine::{Engine, FinishReason, Finished, GenerateOptions, KernelChoice, LoadOptions, Piece};
use zebra_runtime::model::{MOST_STEPS, Row, Sampled, Step, Token};
use zebra_runtime::weights::Preset;

use super::{VOCAB, differ, drawn, engine, gpu, ids, options, rows, tiny};

#[test]
fn a_step_may_mix_a_prompt_with_single_rows() {
    let mut engine = engine("tiny-gqa", LoadOptions { slots: 3, logit_rows: Some(64), ..options(KernelChoice::Plain) });
    let (a, b, c) = (ids(20, 1), ids(30, 2), ids(9, 3));
    let mut alone = Vec::new();
    for (slot, prompt) in [&a, &b, &c].into_iter().enumerate() {
        alone.push(block_on(engine.model_mut().logits(&Step { rows: rows(slot, prompt, 0) }, VOCAB)).expect("runs"));
        engine.reset(slot);
    }
    // a and c are read up to their last token, which then runs beside the whole of b.
    for (slot, prompt) in [(0, &a), (2, &c)] {
        let step = Step { rows: rows(slot, &prompt[..prompt.len() - 1], 0) };
        block_on(engine.model_mut().logits(&step, VOCAB)).expect("runs");
    }
    let mut mixed = rows(0, &a[19..], 19);
    mixed.extend(rows(1, &b, 0));
    mixed.extend(rows(2, &c[8..], 8));
    let logits = block_on(engine.model_mut().logits(&Step { rows: mixed }, VOCAB)).expect("runs");
    assert_eq!(logits[0], alone[0][19]);
    assert_eq!(logits[1..31], alone[1][..]);
    assert_eq!(logits[31], alone[2][8]);
    println!("a mixed step: 32 rows of 3 slots equal to each alone");
}

#[test]
fn a_slot_that_was_filled_by_steps_can_be_forked() {
    let mut engine = engine("tiny-gqa", LoadOptions { slots: 2, ..options(KernelChoice::Auto) });
    let all = ids(31, 3);
    let quiet = |ids: &[u32]| rows(0, ids, 0).into_iter().map(|r| Row { logits: false, ..r }).collect();
    let ticket = engine.model_mut().submit(&Step { rows: quiet(&all[..30]) }).expect("a step");
    block_on(engine.model_mut().wait(ticket)).expect("it runs");
    let next = |engine: &mut Engine, slot: usize| {
        let step = Step { rows: rows(slot, &all[30..], 30) };
        block_on(engine.model_mut().logits(&step, VOCAB)).expect("it runs").remove(0)
    };
    // The control: nobody told that there are latents to copy.
    block_on(engine.fork(0, 1)).expect("forks");
    let without = next(&mut engine, 1);
    engine.assume_read(0, all[..30].to_vec());
    block_on(engine.fork(0, 1)).expect("forks");
    assert_eq!(engine.tokens(1), &all[..30]);
    let (fork, forked) = (next(&mut engine, 1), next(&mut engine, 0));
    assert_eq!(fork, forked);
    assert!(differ(&without, &forked) > 1e-3, "latents that are not there make a difference");
}

/// An engine whose clock moves on by so much each time that it is asked, which is twice a submit: so the test says how
/// long a step takes.
struct Timed {
    engine: Engine,
    asked: Rc<Cell<usize>>,
}

impl Timed {
    /// With a context of [`SHORT`] and some end tokens.
    fn new(kernels: KernelChoice, milliseconds: f64) -> Self {
        let asked = Rc::new(Cell::new(0));
        let count = asked.clone();
        let clock = move || {
            count.set(count.get() + 1);
            milliseconds * count.get() as f64
        };
        let load = LoadOptions { context: Some(SHORT), clock: Some(Rc::new(clock)), ..options(kernels) };
        let ends = serde_json::json!({ "eos_token_id": [3, 14, 15, 26, 53, 58, 79, 93] });
        let files = (*tiny("tiny-gqa")).clone().with("generation_config.json", ends.to_string().into_bytes().into());
        let engine = block_on(Engine::load(&files, gpu(), &load, &mut |_| {})).expect("the checkpoint loads");
        Self { engine, asked }
    }

    /// The pieces of an answer that is stopped after `most`, how it ended, and what the slot has read then.
    fn ask(
        &mut self,
        prompt: Option<&[u32]>,
        options: &GenerateOptions,
        most: usize,
    ) -> (Vec<Piece>, Finished, Vec<u32>) {
        let engine = &mut self.engine;
        let (pieces, done) = block_on(async {
            let mut generation = match prompt {
                Some(prompt) => engine.generate(0, prompt, options).await?,
                None => engine.resume(0, options).await?,
            };
            let mut pieces = Vec::new();
            while let Some(piece) = generation.next().await? {
                pieces.push(piece);
                if pieces.len() == most {
                    generation.stop();
                }
            }
            Ok::<_, Error>((pieces, generation.finish().await?))
        })
        .expect("an answer");
        (pieces, done, self.engine.tokens(0).to_vec())
    }

    /// The id after `read`, a slot's tokens that end somewhere in an answer that was left with steps under way: it goes on
    /// there. `path` is the prompt with the whole answer.
    fn goes_on(&mut self, read: &[u32], path: &[u32], options: &GenerateOptions) {
        assert!(path.starts_with(read), "{read:?} is no beginning of {path:?}");
        let options = GenerateOptions { max_tokens: Some(6), stop: Vec::new(), ..options.clone() };
        let (_, rest, _) = self.ask(None, &options, usize::MAX);
        assert_eq!(rest.ids, path[read.len() + 1..][..6]);
    }
}

const SHORT: usize = 72;

#[test]
fn an_answer_is_the_same_however_many_steps_a_submit_holds() {
    for kernels in [KernelChoice::Plain, KernelChoice::Auto] {
        let (mut one, mut four) = (Timed::new(kernels, 50.0), Timed::new(kernels, 0.05));
        let prompt = ids(14, 3);
        let all = usize::MAX;
        let mut both = |prompt: Option<&[u32]>, options: &GenerateOptions| {
            let (a, b) = (one.ask(prompt, options, all), four.ask(prompt, options, all));
            assert_eq!(a, b, "{kernels:?}: {prompt:?}, {:?}", options.sampling);
            b
        };

        // Up to the end of the context; the first answer measures the time of a step.
        let drawn = |most| {
            let mut options = drawn(most);
            options.sampling.logprobs = Some(3);
            options
        };
        let endless = GenerateOptions { max_tokens: None, ..drawn(0) };
        let (_, whole, read) = both(Some(&prompt), &endless);
        assert_eq!((whole.ids.len(), read.len()), (SHORT - 14 + 1, SHORT));
        assert_eq!(whole.finish_reason, FinishReason::Length);
        let path = [&prompt[..], &whole.ids].concat();

        // Every number of tokens, and on from there.
        for most in 1..=13 {
            let (_, done, read) = both(Some(&prompt), &drawn(most));
            assert_eq!(done.ids, whole.ids[..most]);
            assert_eq!(read, path[..14 + most - 1]);
            let (_, done, _) = both(None, &drawn(7));
            assert_eq!(done.ids, whole.ids[most..][..7]);
        }

        // End tokens, wherever they come in a submit.
        let mut places = [0; MOST_STEPS];
        for seed in 0..24 {
            let mut options = GenerateOptions { ignore_eos: false, ..endless.clone() };
            options.sampling.seed = seed;
            let (_, done, read) = both(Some(&prompt), &options);
            assert_eq!(read, [&prompt[..], &done.ids[..done.ids.len() - 1]].concat());
            if done.finish_reason == FinishReason::Stop && done.ids.len() > 1 {
                places[(done.ids.len() - 2) % MOST_STEPS] += 1;
            }
            if read.len() + 7 < SHORT {
                both(None, &GenerateOptions { ignore_eos: true, max_tokens: Some(5), ..options });
            }
        }
        assert!(places.iter().all(|&count| count > 0), "end tokens at {places:?}");

        // A stop text and a stop leave what runs ahead, and more of it: the slot is further then, on the same way.
        for index in 8..=12 {
            let stop = vec![one.engine.tokenizer().decode(&whole.ids[index..=index]).expect("text")];
            let options = GenerateOptions { stop, ..drawn(40) };
            let (pieces, done, read) = one.ask(Some(&prompt), &options, all);
            one.goes_on(&read, &path, &options);
            let (other_pieces, other, read) = four.ask(Some(&prompt), &options, all);
            four.goes_on(&read, &path, &options);
            assert_eq!((other_pieces, &other), (pieces, &done));
            assert_eq!(done.finish_reason, FinishReason::Stop);

            let (pieces, done, read) = one.ask(Some(&prompt), &drawn(40), index);
            one.goes_on(&read, &path, &options);
            let (other_pieces, other, read) = four.ask(Some(&prompt), &drawn(40), index);
            assert!(read.len() >= 14 + index + MOST_STEPS, "{} tokens, more than one submit ahead", read.len());
            four.goes_on(&read, &path, &options);
            assert_eq!((other_pieces, &other), (pieces, &done));
            assert_eq!((done.ids.len(), done.finish_reason), (index, FinishReason::Aborted));
        }

        // Left in the middle of a submit: nobody knows the slot's state, and nobody asks for it.
        for timed in [&mut one, &mut four] {
            block_on(async {
                let mut left = timed.engine.generate(0, &prompt, &drawn(40)).await.expect("starts");
                for _ in 0..7 {
                    left.next().await.expect("a token");
                }
            });
            assert!(matches!(block_on(timed.engine.snapshot(0)), Err(Error::Snapshot(_))));
            assert_eq!(timed.ask(Some(&prompt), &endless, all).1.ids, whole.ids);
        }

        // The control: there were as many steps to a submit as there should have been.
        for (timed, submits) in [(&mut one, 40), (&mut four, 1 + 39_usize.div_ceil(MOST_STEPS))] {
            timed.ask(Some(&prompt), &drawn(40), all);
            let before = timed.asked.get();
            timed.ask(Some(&prompt), &drawn(40), all);
            // The prompt is there already.
            assert_eq!(timed.asked.get() - before, 2 * submits, "{kernels:?}");
        }
        println!("{kernels:?}: the same answers by 1 and by {MOST_STEPS} steps a submit, ended in 5 ways");
    }
}

#[test]
fn steps_of_several_slots_in_one_submit_are_as_each_alone() {
    let mut engine = engine("tiny-gqa", LoadOptions { slots: 3, ..options(KernelChoice::Auto) });
    let mut run = |steps: &[usize]| -> Vec<Sampled> {
        let model = engine.model_mut();
        let row = |slot: u32, token, position| Row { slot, token, position, logits: true, sample: true };
        for slot in 0..3 {
            model.clear(slot);
            // The second is frozen after three tokens.
            let most = if slot == 1 { 3 } else { 100 };
            let settings = drawn(1).sampling.settings(VOCAB, &[], most).expect("options");
            model.set_sampling(slot, &settings, &[7 + slot], 0);
        }
        let first = Step { rows: (0..3).map(|slot| row(slot, Token::Id(7 + slot), 0)).collect() };
        let mut tickets = vec![model.submit(&first).expect("a step")];
        let mut position = 1;
        for &steps in steps {
            let step = Step { rows: (0..3).map(|slot| row(slot, Token::FromSlot, position)).collect() };
            tickets.push(model.submit_steps(&step, steps).expect("steps"));
            position += steps as u32;
        }
        let results = tickets.into_iter().map(|ticket| block_on(model.wait(ticket)).expect("tokens"));
        results.collect::<Vec<_>>().concat()
    };
    let alone = run(&[1; 9]);
    assert_eq!(alone.len(), 30);
    let tokens = |slot: usize| alone.iter().skip(slot).step_by(3).filter(|s| s.has(Sampled::SAMPLED)).count();
    assert_eq!([tokens(0), tokens(1), tokens(2)], [10, 3, 10]);
    for steps in [&[4, 4, 1][..], &[1, 3, 2, 3]] {
        assert_eq!(run(steps), alone, "{steps:?}");
    }
}

#[test]
fn what_a_plan_counts_is_what_is_allocated() {
    let gpu = gpu();
    let files = tiny("tiny-lnorm");
    for preset in Preset::ALL {
        let load = LoadOptions { preset: Some(preset), slots: 3, ..LoadOptions::default() };
        let planned = {
            let checkpoint = block_on(zebra_runtime::weights::Checkpoint::open(&*files)).expect("it opens");
            load.plan(&checkpoint, &gpu).expect("a plan").bytes()
        };
        let engine = block_on(Engine::load(&*files, self::gpu(), &load, &mut |_| {})).expect("it loads");
        let allocated = engine.model().gpu().allocated();
        for (purpose, bytes) in &planned {
            assert_eq!(allocated.get(purpose).copied().unwrap_or(0), *bytes, "{preset}: {}", purpose.name());
        }
        println!("{preset}: {} bytes planned and allocated", planned.iter().map(|(_, b)| b).sum::<u64>());
    }
}
