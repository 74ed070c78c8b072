//! The pocket model's chats in every format: prompt ids and greedy ids as PyTorch has them.

use std::path::{Path, PathBuf};

use pollster::block_on;
use serde_json::Value;
use zebra_runtime::engine::{CacheFormat, Engine, GenerateOptions, LoadOptions, SamplingOptions};
use zebra_runtime::gpu::Gpu;
use zebra_runtime::text::Message;
use zebra_runtime::weights::Preset;
use zebra_tests::files::TestFolder;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().expect("ids").iter().map(|id| id.as_u64().expect("an id") as u32).collect()
}

/// How many of the chats have the expected ids.
fn equal_chats(preset: Preset, cache: CacheFormat) -> (usize, usize) {
    let text = std::fs::read_to_string(root().join("fixtures/pocket-chats.json")).expect("the fixture");
    let chats: Vec<Value> = serde_json::from_str(&text).expect("JSON");
    let gpu = block_on(Gpu::open(None)).expect("an adapter");
    let options = LoadOptions { preset: Some(preset), cache, snapshot_budget: 0, ..LoadOptions::default() };
    let files = TestFolder::open(&root().join("../models/zebra-pocket"));
    let mut engine = block_on(Engine::load(&*files, gpu, &options, &mut |_| {})).expect("the model loads");
    let options = GenerateOptions { sampling: SamplingOptions::greedy(), ..GenerateOptions::default() };
    let mut equal = 0;
    for chat in &chats {
        let message =
            |m: &Value| Message::new(m["role"].as_str().expect("a role"), m["content"].as_str().expect("a content"));
        let messages: Vec<Message> = chat["messages"].as_array().expect("messages").iter().map(message).collect();
        let prompt = engine.encode_chat(&messages).expect("a prompt");
        assert_eq!(prompt, ids(&chat["prompt_ids"]), "prompt ids of {messages:?}");
        let expected = ids(&chat["greedy_ids"]);
        let given = block_on(async {
            let limit = GenerateOptions { max_tokens: Some(expected.len()), ..options.clone() };
            let mut generation = engine.generate(0, &prompt, &limit).await?;
            while generation.next().await?.is_some() {}
            generation.finish().await
        })
        .expect("an answer");
        if given.ids == expected {
            assert_eq!(given.text, chat["greedy_text"].as_str().expect("a text"));
            equal += 1;
        } else {
            println!("{preset} {}: {} instead of {}", cache.name(), given.text, chat["greedy_text"]);
        }
    }
    println!("{preset} weights, {} cache: {equal} of {} chats equal", cache.name(), chats.len());
    (equal, chats.len())
}

#[test]
fn f32_and_f16_and_q8_weights_change_no_id() {
    for (preset, cache) in [
        (Preset::F32, CacheFormat::F32),
        (Preset::F16, CacheFormat::F16),
        (Preset::F16, CacheFormat::Q8),
        (Preset::Q8, CacheFormat::Q8),
    ] {
        let (equal, all) = equal_chats(preset, cache);
        assert_eq!(equal, all, "{preset} weights, {} cache", cache.name());
    }
}

#[test]
fn q4_weights_change_few() {
    let (equal, all) = equal_chats(Preset::Q4, CacheFormat::Q8);
    assert!(all == 16 && equal >= 12, "{equal} of {all}");
}
