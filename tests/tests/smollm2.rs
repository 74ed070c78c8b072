//! SmolLM2-135M-Instruct, a pretrained chat model that others made, against `transformers`: the ids of prompts by the
//! model's own template, and greedy answers.
//!
//! An answer is checked all at once: read after its prompt, each of its tokens must be the likeliest after those before
//! it. That is what greedy decoding gives, in a fraction of the time that a software adapter takes for it token by token;
//! one short answer is generated, too.

use std::path::{Path, PathBuf};
use std::time::Instant;

use pollster::block_on;
use serde_json::Value;
use zebra_runtime::engine::probe::argmax;
use zebra_runtime::engine::{CacheFormat, Engine, FinishReason, GenerateOptions, LoadOptions, SamplingOptions};
use zebra_runtime::gpu::Gpu;
use zebra_runtime::model::{Row, Step, Token};
use zebra_runtime::text::Message;
use zebra_runtime::weights::Preset;
use zebra_tests::files::TestFolder;

struct Chat {
    messages: Vec<Message>,
    prompt: Vec<u32>,
    answer: Vec<u32>,
    text: String,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

fn model() -> TestFolder {
    let folder = root().join("../.tools/smollm2");
    assert!(
        folder.is_dir(),
        "SmolLM2 is not there; in the repository's folder run: python3 scripts/fetch-smollm2.py .tools/smollm2"
    );
    TestFolder::open(&folder)
}

fn chats() -> Vec<Chat> {
    let text = std::fs::read_to_string(root().join("fixtures/smollm2-chats.json")).expect("the fixture");
    let chats: Vec<Value> = serde_json::from_str(&text).expect("JSON");
    let string = |value: &Value| value.as_str().expect("a text").to_owned();
    let ids = |value: &Value| -> Vec<u32> {
        value.as_array().expect("ids").iter().map(|id| id.as_u64().expect("an id") as u32).collect()
    };
    let message = |m: &Value| Message::new(&*string(&m["role"]), &*string(&m["content"]));
    let chat = |chat: &Value| Chat {
        messages: chat["messages"].as_array().expect("messages").iter().map(message).collect(),
        prompt: ids(&chat["prompt_ids"]),
        answer: ids(&chat["greedy_ids"]),
        text: string(&chat["greedy_text"]),
    };
    chats.iter().map(chat).collect()
}

/// For each chat the likeliest token where each of its answer's stands.
fn likeliest(engine: &mut Engine, chats: &[Chat]) -> Vec<Vec<u32>> {
    let vocab = engine.config().vocab_size;
    let mut found = Vec::new();
    for chat in chats {
        engine.reset(0);
        let read = chat.prompt.iter().chain(&chat.answer[..chat.answer.len() - 1]);
        let row = |(i, &id): (usize, &u32)| Row {
            slot: 0,
            token: Token::Id(id),
            position: i as u32,
            logits: i + 1 >= chat.prompt.len(),
            sample: false,
        };
        let rows = read.enumerate().map(row).collect();
        let logits = block_on(engine.model_mut().logits(&Step { rows }, vocab)).expect("logits");
        found.push(logits.iter().map(|row| argmax(row)).collect());
    }
    engine.reset(0);
    found
}

fn engine(files: &TestFolder, preset: Preset, rows: usize) -> Engine {
    let options = LoadOptions {
        preset: Some(preset),
        cache: CacheFormat::F32,
        context: Some(256),
        chunk_rows: Some(rows as u32),
        logit_rows: Some(rows as u32),
        snapshot_budget: 0,
        ..LoadOptions::default()
    };
    let gpu = block_on(Gpu::open(None)).expect("an adapter");
    block_on(Engine::load(&**files, gpu, &options, &mut |_| {})).expect("the model loads")
}

#[test]
fn a_pretrained_model_answers_as_in_transformers() {
    let (files, mut chats) = (model(), chats());
    assert_eq!(chats.len(), 10);
    let longest = chats.iter().map(|chat| chat.prompt.len() + chat.answer.len()).max().expect("chats");
    let is_short = |chat: &&Chat| chat.answer.len() < 10;
    // f16 equals f32 in whole answers, too; their beginnings take less time.
    for (preset, tokens) in [(Preset::F32, usize::MAX), (Preset::F16, 16)] {
        let start = Instant::now();
        let mut engine = engine(&files, preset, longest);
        for Chat { messages, prompt, .. } in &chats {
            assert_eq!(&engine.encode_chat(messages).expect("a prompt"), prompt, "prompt ids of {messages:?}");
        }
        for chat in &mut chats {
            chat.answer.truncate(tokens);
        }
        for (chat, found) in chats.iter().zip(likeliest(&mut engine, &chats)) {
            assert_eq!(found, chat.answer, "{preset}: {:?}", chat.messages);
        }
        println!("SmolLM2 as {preset}: {} of {0} chats equal, {:.1} s", chats.len(), start.elapsed().as_secs_f64());
        if preset == Preset::F16 {
            generates(&mut engine, chats.iter().find(is_short).expect("a short answer"));
        } else {
            control(&mut engine, chats.iter().find(is_short).expect("a short answer"));
        }
        println!("SmolLM2 as {preset}: all in {:.1} s", start.elapsed().as_secs_f64());
    }
}

/// Token by token.
fn generates(engine: &mut Engine, chat: &Chat) {
    let options = GenerateOptions { sampling: SamplingOptions::greedy(), ..GenerateOptions::default() };
    let given = block_on(async {
        let mut generation = engine.generate(0, &chat.prompt, &options).await?;
        while generation.next().await?.is_some() {}
        generation.finish().await
    })
    .expect("an answer");
    assert_eq!((&given.ids, &given.text), (&chat.answer, &chat.text));
    assert_eq!(given.finish_reason, FinishReason::Stop);
}

/// An answer of which one token is another is told apart, and from that token on only.
fn control(engine: &mut Engine, chat: &Chat) {
    let mut answer = chat.answer.clone();
    answer[2] += 1;
    let wrong = Chat { messages: Vec::new(), prompt: chat.prompt.clone(), answer, text: String::new() };
    let found = &likeliest(engine, std::slice::from_ref(&wrong))[0];
    assert_eq!(found[..3], chat.answer[..3]);
    assert_ne!(found[3..], chat.answer[3..]);
}
