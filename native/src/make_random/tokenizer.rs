//! A tokenizer of a released model's size: byte-level BPE in Llama 3's form with the model's special tokens and a
//! synthetic vocabulary.

use serde_json::{Map, Value, json};
use zebra_runtime::{Error, Result};

/// A tokenizer's sizes, special tokens and files.
pub struct Text {
    /// Tokens, the special ones included.
    pub vocabulary: usize,
    /// As many as the model has, in round figures: they are most of a tokenizer's memory.
    pub merges: usize,
    /// In the order of their ids.
    pub specials: fn() -> Vec<String>,
    /// The first one's id: 0, or that after the ordinary tokens.
    pub first_special: u32,
    pub begin: u32,
    /// Tokens that end an answer.
    pub ends: &'static [u32],
    /// Whether every text gets `begin` in front.
    pub begins: bool,
    /// `tokenizer_config.json`.
    config: fn() -> Result<Value>,
    /// Of `generation_config.json`: temperature and top_p.
    sampling: Option<(f64, f64)>,
}

/// The ends are `<|end_of_text|>`, `<|eom_id|>` and `<|eot_id|>`.
pub const LLAMA_3: Text = Text {
    vocabulary: 128_256,
    merges: 280_000,
    specials: llama_3_specials,
    first_special: 128_000,
    begin: 128_000,
    ends: &[128_001, 128_008, 128_009],
    begins: true,
    config: llama_3_config,
    sampling: Some((0.6, 0.9)),
};

pub const SMOLLM_2: Text = Text {
    vocabulary: 49_152,
    merges: 48_900,
    specials: smollm_2_specials,
    first_special: 0,
    begin: 1,
    ends: &[2],
    begins: false,
    config: smollm_2_config,
    sampling: None,
};

/// Of Minitron: base models, with no chat template.
pub const NEMOTRON: Text = Text {
    vocabulary: 256_000,
    merges: 250_000,
    specials: nemotron_specials,
    first_special: 0,
    begin: 2,
    ends: &[3],
    begins: true,
    config: nemotron_config,
    sampling: None,
};

impl Text {
    /// `generation_config.json`.
    pub fn generation_config(&self) -> Value {
        let mut config = json!({ "bos_token_id": self.begin, "eos_token_id": self.ends });
        if let Some((temperature, top_p)) = self.sampling {
            config["do_sample"] = true.into();
            config["temperature"] = temperature.into();
            config["top_p"] = top_p.into();
        }
        config
    }

    /// `tokenizer_config.json`.
    pub fn tokenizer_config(&self) -> Result<Value> {
        (self.config)()
    }
}

/// The pocket model's, whose chat template is AMD's, with AMD's `model_max_length`.
fn llama_3_config() -> Result<Value> {
    const POCKET: &str = include_str!("../../../models/zebra-pocket/tokenizer_config.json");
    let mut config: Value = serde_json::from_str(POCKET).map_err(|e| Error::Tokenizer(e.to_string()))?;
    config["model_max_length"] = 2048.into();
    config["pad_token"] = "<|eot_id|>".into();
    Ok(config)
}

fn smollm_2_config() -> Result<Value> {
    const TEMPLATE: &str = "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + \
         message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";
    Ok(json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|im_start|>",
        "eos_token": "<|im_end|>",
        "pad_token": "<|im_end|>",
        "model_max_length": 8192,
        "chat_template": TEMPLATE,
    }))
}

fn nemotron_config() -> Result<Value> {
    Ok(json!({ "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>" }))
}

fn nemotron_specials() -> Vec<String> {
    ["<unk>", "<pad>", "<s>", "</s>"].map(String::from).to_vec()
}

fn smollm_2_specials() -> Vec<String> {
    let named = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"];
    let others = (3..17).map(|i| format!("<|special_{i}|>"));
    named.into_iter().map(String::from).chain(others).collect()
}

fn llama_3_specials() -> Vec<String> {
    let named = [
        "<|begin_of_text|>",
        "<|end_of_text|>",
        "<|reserved_special_token_0|>",
        "<|reserved_special_token_1|>",
        "<|finetune_right_pad_id|>",
        "<|reserved_special_token_2|>",
        "<|start_header_id|>",
        "<|end_header_id|>",
        "<|eom_id|>",
        "<|eot_id|>",
        "<|python_tag|>",
    ];
    let reserved = (3..).map(|i| format!("<|reserved_special_token_{i}|>"));
    named.into_iter().map(String::from).chain(reserved).take(256).collect()
}

/// The letter that byte-level BPE writes for each byte, in the order of token ids: printable ones as they are, the rest
/// from U+0100 on.
fn byte_letters() -> Vec<char> {
    let printable = |byte: &u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    let shown = (0..=u8::MAX).filter(printable).map(char::from);
    let hidden = (0..=u8::MAX).filter(|byte| !printable(byte)).zip('\u{100}'..).map(|(_, letter)| letter);
    shown.chain(hidden).collect()
}

/// A space, in that alphabet.
const SPACE: char = 'Ġ';

/// The tokens beyond single bytes: strings of letters, shorter and commoner letters first, each alone and after a space,
/// so that every part of a token is a token too.
fn synthetic_tokens(count: usize) -> Vec<String> {
    const LETTERS: &str = "etaoinsrhldcumfpgwybvkxjqz";
    /// Letters that the first strings of four are made of.
    const COMMON: usize = 14;
    let strings = |letters: &'static str, length: u32| {
        let letters: Vec<char> = letters.chars().collect();
        (0..letters.len().pow(length)).map(move |mut i| {
            let mut string = String::new();
            for _ in 0..length {
                string.insert(0, letters[i % letters.len()]);
                i /= letters.len();
            }
            string
        })
    };
    let is_common = |string: &String| string.chars().all(|c| LETTERS[..COMMON].contains(c));
    let short = (1..=3).flat_map(|length| strings(LETTERS, length));
    let long = strings(&LETTERS[..COMMON], 4).chain(strings(LETTERS, 4).filter(|string| !is_common(string)));
    short
        .chain(long)
        .flat_map(|string| {
            let after_space = format!("{SPACE}{string}");
            let alone = (string.len() > 1).then_some(string);
            alone.into_iter().chain([after_space])
        })
        .take(count)
        .collect()
}

/// The places where a token falls into two, at most three of them: before the last letter, after the first, between.
fn cuts(token: &str) -> Vec<usize> {
    let inner: Vec<usize> = token.char_indices().skip(1).map(|(at, _)| at).collect();
    match inner[..] {
        [] => Vec::new(),
        [only] => vec![only],
        [first, last] => vec![last, first],
        [first, second, .., last] => vec![last, first, second],
    }
}

/// Pairs of tokens that join to a token: one of each, then a second and a third until there are enough; shorter tokens
/// first, as training finds them.
fn merges(tokens: &[String], count: usize) -> Vec<(&str, &str)> {
    let mut room = count;
    let mut of_rank = [0, 1, 2].map(|rank| {
        let taken = tokens.iter().filter(|token| cuts(token).len() > rank).count().min(room);
        room -= taken;
        taken
    });
    let mut merges = Vec::with_capacity(count);
    for token in tokens {
        for (cut, left) in cuts(token).into_iter().zip(&mut of_rank) {
            if *left > 0 {
                *left -= 1;
                merges.push(token.split_at(cut));
            }
        }
    }
    merges
}

/// `tokenizer.json`, with Llama 3's pattern.
pub fn tokenizer(text: &Text) -> String {
    const PATTERN: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
    let letters = byte_letters();
    let specials = (text.specials)();
    let tokens = synthetic_tokens(text.vocabulary - specials.len() - letters.len());
    let names = letters.iter().map(char::to_string).chain(tokens.iter().cloned());
    // Those in front are in the vocabulary, too; those behind it only beside it.
    let front = if text.first_special == 0 { &specials[..] } else { &[] };
    let names = front.iter().cloned().chain(names);
    let vocabulary: Map<String, Value> = names.zip(0u32..).map(|(name, id)| (name, id.into())).collect();
    let added: Vec<Value> = specials
        .iter()
        .zip(text.first_special..)
        .map(|(content, id)| {
            json!({
                "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": true,
            })
        })
        .collect();
    let begin = &specials[(text.begin - text.first_special) as usize];
    let byte_level = |add_prefix_space: bool, trim_offsets: bool, use_regex: bool| {
        json!({
            "type": "ByteLevel", "add_prefix_space": add_prefix_space, "trim_offsets": trim_offsets,
            "use_regex": use_regex,
        })
    };
    let begins = json!({"SpecialToken": {"id": begin, "type_id": 0}});
    let sequence = |id: &str, type_id: u32| json!({"Sequence": {"id": id, "type_id": type_id}});
    let post_processor = text.begins.then(|| {
        json!({
            "type": "Sequence",
            "processors": [
                byte_level(true, false, true),
                {
                    "type": "TemplateProcessing",
                    "single": [begins, sequence("A", 0)],
                    "pair": [begins, sequence("A", 0), begins, sequence("B", 1)],
                    "special_tokens": {begin: {"id": begin, "ids": [text.begin], "tokens": [begin]}},
                },
            ],
        })
    });
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": null,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": PATTERN}, "behavior": "Isolated", "invert": false},
                byte_level(false, true, false),
            ],
        },
        "post_processor": post_processor,
        "decoder": byte_level(true, true, true),
        "model": {
            "type": "BPE",
            "dropout": null,
            "unk_token": null,
            "continuing_subword_prefix": null,
            "end_of_word_suffix": null,
            "fuse_unk": false,
            "byte_fallback": false,
            "ignore_merges": true,
            "vocab": vocabulary,
            "merges": merges(&tokens, text.merges),
        },
    })
    .to_string()
}
