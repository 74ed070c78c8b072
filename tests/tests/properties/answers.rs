//! What holds of answers, on one model.

use std::cell::Cell;
use std::path::Path;
use std::rc::Rc;

use pollster::block_on;
use safetensors::tensor::{SafeTensors, TensorView, serialize};
use zebra_runtime::Error;
use zebra_runtime::engine::{
    CacheFormat, Engine, FinishReason, GenerateOptions, KernelChoice, LoadOptions, SamplingOptions,
};
use zebra_runtime::files::{MemoryFiles, read_whole};
use zebra_runtime::model::Step;
use zebra_runtime::weights::Preset;
use zebra_tests::files::TestFolder;

use super::{VOCAB, answer, drawn, engine, gpu, ids, options, rows, tiny};

/// Rows of the head that pad its vocabulary win every comparison here, if they are compared.
#[test]
fn padding_is_never_sampled() {
    let files = tiny("tiny-llamba");
    let whole = block_on(read_whole(&*files, "model.safetensors")).expect("it is read").expect("it is there");
    let tensors = SafeTensors::deserialize(&whole).expect("it is whole");
    let mut spoilt: Vec<_> =
        tensors.iter().map(|(n, t)| (n, t.dtype(), t.shape().to_vec(), t.data().to_vec())).collect();
    let head = spoilt.iter_mut().find(|(name, ..)| *name == "lm_head.weight").expect("a head");
    let row = 4 * head.2[1];
    assert_eq!(head.2[0], 104);
    for i in VOCAB..104 {
        // One with each sign of every hidden value.
        let value: f32 = if i % 2 == 0 { 1e3 } else { -1e3 };
        head.3[i * row..][..row].copy_from_slice(&value.to_le_bytes().repeat(row / 4));
    }
    let views = spoilt.iter().map(|(n, t, s, d)| (*n, TensorView::new(*t, s.clone(), d).expect("as it was")));
    let spoilt = (*files).clone().with("model.safetensors", serialize(views, None).expect("bytes").into());
    let load = |files: &MemoryFiles, kernels| {
        block_on(Engine::load(files, gpu(), &options(kernels), &mut |_| {})).expect("the checkpoint loads")
    };
    for kernels in [KernelChoice::Plain, KernelChoice::Auto] {
        let (mut engine, mut other) = (load(&files, kernels), load(&spoilt, kernels));
        let greedy = GenerateOptions { sampling: SamplingOptions::greedy(), ..drawn(40) };
        for options in [drawn(40), greedy] {
            let got = answer(&mut other, 0, Some(&ids(9, 4)), &options);
            assert_eq!(got.ids.len(), 40);
            assert_eq!(got.ids, answer(&mut engine, 0, Some(&ids(9, 4)), &options).ids);
        }
        let refused = block_on(engine.generate(0, &[5, VOCAB as u32], &drawn(1))).err();
        assert!(matches!(refused, Some(Error::Prompt(_))), "the embedding's padding is no token: {refused:?}");
        // The control: the head's other rows do matter, and the padded ones are computed.
        let step = Step { rows: rows(0, &[3], 0) };
        let logits = block_on(other.model_mut().logits(&step, 104)).expect("runs").remove(0);
        let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        assert!(logits[..VOCAB].iter().all(|v| *v < most), "a padded row has the largest logit: {most}");
    }
}

#[test]
fn a_continued_chat_reads_only_what_is_new() {
    let mut engine = engine("tiny-gqa", options(KernelChoice::Plain));
    let prompt = ids(50, 2);
    let first = answer(&mut engine, 0, Some(&prompt), &drawn(12));
    assert_eq!((first.cached_tokens, first.prompt_tokens), (0, 50));
    let next = [&prompt[..], &first.ids, &ids(10, 8)].concat();
    let second = answer(&mut engine, 0, Some(&next), &drawn(12));
    // Everything that was read: the prompt and all generated tokens but the last.
    assert_eq!(second.cached_tokens, 50 + 11);
    // Another end of the first message: back to the snapshot before the last prompt token.
    let edited = [&prompt[..], &ids(7, 4)].concat();
    let third = answer(&mut engine, 0, Some(&edited), &drawn(12));
    assert_eq!(third.cached_tokens, 49);
    let mut fresh = self::engine("tiny-gqa", options(KernelChoice::Plain));
    assert_eq!(answer(&mut fresh, 0, Some(&next), &drawn(12)).ids, second.ids);
    fresh.reset(0);
    assert_eq!(answer(&mut fresh, 0, Some(&edited), &drawn(12)).ids, third.ids);
    println!(
        "continued and edited chats: {} and {} tokens not read again, the same ids",
        second.cached_tokens, third.cached_tokens
    );
}

#[test]
fn the_context_is_reached_and_its_end_refused() {
    let mut engine = engine("tiny-gqa", LoadOptions { context: Some(4096), ..options(KernelChoice::Auto) });
    let long = ids(4097, 6);
    let greedy =
        GenerateOptions { sampling: SamplingOptions::greedy(), ignore_eos: true, ..GenerateOptions::default() };
    let last = answer(&mut engine, 0, Some(&long[..4090]), &greedy);
    assert_eq!((last.ids.len(), last.finish_reason), (7, FinishReason::Length));
    assert_eq!(engine.tokens(0).len(), 4096);
    let refused = block_on(engine.generate(0, &long, &greedy)).err();
    assert!(matches!(refused, Some(Error::Context { need: 4097, have: 4096, .. })), "{refused:?}");
    let again = answer(&mut engine, 0, Some(&long[..10]), &drawn(5));
    assert_eq!(again.ids.len(), 5);
    println!("4,096 positions: a prompt of 4,090 and 7 tokens more; 4,097 are refused");
}

#[test]
fn cutting_and_batching_never_change_a_plain_id() {
    let prompt = ids(130, 7);
    let mut all = Vec::new();
    for chunk in [1, 7, 64, 65, 130] {
        let load = LoadOptions { chunk_rows: Some(chunk), ..options(KernelChoice::Plain) };
        all.push(answer(&mut engine("tiny-gqa", load), 0, Some(&prompt), &drawn(24)).ids);
    }
    assert!(all.iter().all(|ids| *ids == all[0]), "{all:?}");
    println!("plain kernels: the same 24 drawn ids for 5 ways to cut the prompt");
}

#[test]
fn an_answer_left_in_the_middle_leaves_no_trace() {
    let mut engine = engine("tiny-gqa", options(KernelChoice::Plain));
    let prompt = ids(33, 1);
    let whole = answer(&mut engine, 0, Some(&prompt), &drawn(16));
    block_on(async {
        let mut left = engine.generate(0, &prompt, &drawn(16)).await.expect("starts");
        left.next().await.expect("a token");
    });
    assert!(matches!(block_on(engine.snapshot(0)), Err(Error::Snapshot(_))));
    assert_eq!(answer(&mut engine, 0, Some(&prompt), &drawn(16)).ids, whole.ids);
    let stopped = block_on(async {
        let mut stopped = engine.generate(0, &prompt, &drawn(16)).await.expect("starts");
        stopped.next().await.expect("a token");
        stopped.stop();
        assert_eq!(stopped.next().await.expect("the end"), None);
        stopped.finish().await.expect("ends")
    });
    assert_eq!((stopped.ids.len(), stopped.finish_reason), (1, FinishReason::Aborted));
    assert_eq!(answer(&mut engine, 0, Some(&prompt), &drawn(16)).ids, whole.ids);
}

#[test]
fn an_answer_goes_on_where_a_lost_device_left_it() {
    // 40 tokens are known from a first answer, so that the second starts from a snapshot; the clock cuts its prompt.
    let time = Rc::new(Cell::new(0.0));
    let clock = time.clone();
    let options = LoadOptions {
        preset: Some(Preset::Q8),
        cache: CacheFormat::Q8,
        mirrored: 2,
        clock: Some(Rc::new(move || {
            clock.set(clock.get() + 30.0);
            clock.get()
        })),
        ..LoadOptions::default()
    };
    let files = tiny("tiny-gqa");
    for sampling in [SamplingOptions::greedy(), SamplingOptions { temperature: 1.0, seed: 11, ..Default::default() }] {
        let ask = |answered: &[u32]| GenerateOptions {
            sampling: sampling.clone(),
            max_tokens: Some(30),
            ignore_eos: true,
            answered: answered.to_vec(),
            ..GenerateOptions::default()
        };
        // Ended by a stop text, as only what ends by itself leaves a snapshot.
        let start = |engine: &mut Engine| {
            let stop = vec![engine.tokenizer().decode(&[5]).expect("text")];
            let options = GenerateOptions { stop, max_tokens: Some(200), ..ask(&[]) };
            answer(engine, 0, Some(&ids(40, 3)), &options)
        };
        let mut engine = engine("tiny-gqa", options.clone());
        let first = start(&mut engine);
        let prompt = [ids(40, 3), first.ids.clone(), ids(90, 6)].concat();
        let whole = answer(&mut engine, 0, Some(&prompt), &ask(&[]));
        assert!(whole.cached_tokens >= 39, "{} tokens were known", whole.cached_tokens);

        // The same again up to 12 tokens, whose device is then destroyed with others under way.
        let mut engine = self::engine("tiny-gqa", options.clone());
        start(&mut engine);
        let gpu = engine.model().gpu().clone();
        let mut got = Vec::new();
        let request = ask(&[]);
        let mut generation = block_on(engine.generate(0, &prompt, &request)).expect("starts");
        let lost = loop {
            match block_on(generation.next()) {
                Ok(piece) => got.push(piece.expect("30 tokens").id),
                Err(error) => break error,
            }
            if got.len() == 12 {
                gpu.destroy();
            }
        };
        assert!(matches!(lost, Error::DeviceLost(_)), "{lost}");
        drop(generation);
        let refused = block_on(engine.generate(0, &prompt, &request)).err().expect("the device is gone");
        assert!(matches!(refused, Error::DeviceLost(_)), "{refused}");

        block_on(engine.revive(&*files, self::gpu(), &mut |_| {})).expect("it comes back");
        let rest = answer(&mut engine, 0, Some(&prompt), &ask(&got));
        assert_eq!(rest, whole, "{} tokens came before the loss", got.len());
        println!(
            "lost after {} of {} tokens, {} cached: the same answer",
            got.len(),
            whole.ids.len(),
            rest.cached_tokens
        );
        let other = answer(&mut engine, 0, Some(&ids(50, 2)), &ask(&[]));
        assert_ne!(other.ids, whole.ids, "the control: another prompt has another answer");
    }
}

#[test]
fn a_text_that_cannot_fit_is_refused_before_it_is_cut_into_tokens() {
    let engine = engine("tiny-gqa", options(KernelChoice::Auto));
    let text = "t1 ".repeat(4 << 20);
    let error = engine.encode(&text).expect_err("12 MB in a context of 4,096");
    assert!(matches!(error, Error::Context { have: 4096, .. }), "{error}");
    assert_eq!(engine.encode("t1 t2").expect("ids"), [1, 2]);
}

#[test]
fn a_tokenizer_of_another_vocabulary_is_refused() {
    let refusal = |words| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/tiny-gqa");
        let files = TestFolder::with_words(&path, words);
        match block_on(Engine::load(&*files, gpu(), &options(KernelChoice::Auto), &mut |_| {})) {
            Ok(_) => panic!("{words} tokens were taken"),
            Err(error) => error.to_string(),
        }
    };
    assert_eq!(
        refusal(VOCAB + 1),
        "config.json: key \"vocab_size\": expected a number above 97, the last id of tokenizer.json, found 97"
    );
    // The model's end token is 2.
    assert_eq!(
        refusal(2),
        "config.json: key \"eos_token_id\": expected ids of tokenizer.json, which ends at 1, found 2"
    );
}
