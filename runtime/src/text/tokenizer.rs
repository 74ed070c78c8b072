//! The checkpoint's own `tokenizer.json`, run by the `tokenizers` crate.

use std::rc::Rc;

use crate::files::{Files, read_whole};
use crate::text::{TextStream, bpe, path};
use crate::{Error, Result};

const FILE: &str = "tokenizer.json";

/// Text to token ids and back. Clones share the vocabulary.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    inner: Rc<tokenizers::Tokenizer>,
}

impl Tokenizer {
    /// Reads `tokenizer.json`. What the file says about truncation and padding is dropped: a prompt is never cut silently.
    pub async fn load(files: &dyn Files) -> Result<Self> {
        let fail = |reason: String| Error::Tokenizer(format!("{}: {reason}", path(files, FILE)));
        let bytes = read_whole(files, FILE).await?.ok_or_else(|| fail("no such file".into()))?;
        // A BPE model, as all of these are, is read at once; the crate's own reading holds any model in a form of its own
        // first, of ten times the file's size: 100 MB for a vocabulary of 128,000.
        let read = match bpe::File::parse(&bytes) {
            Ok(file) => {
                drop(bytes);
                file.tokenizer()
            }
            Err(_) => tokenizers::Tokenizer::from_bytes(&bytes),
        };
        let mut inner = read.map_err(|e| fail(e.to_string()))?;
        inner.with_truncation(None).map_err(|e| fail(e.to_string()))?;
        inner.with_padding(None);
        Ok(Self { inner: Rc::new(inner) })
    }

    /// The ids of `text`. `add_special_tokens` adds what the tokenizer puts around a text (the begin token); a rendered
    /// chat template holds those already. Special tokens written out in `text` become their ids.
    pub fn encode(&self, text: &str, add_special_tokens: bool) -> Result<Vec<u32>> {
        let encoding = self.inner.encode_fast(text, add_special_tokens).map_err(|e| Error::Tokenizer(e.to_string()))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The text of `ids`, without special tokens. Bytes that are no UTF-8 become U+FFFD.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        self.inner.decode(ids, true).map_err(|e| Error::Tokenizer(e.to_string()))
    }

    /// Decodes ids that come one by one.
    pub fn stream(&self) -> TextStream {
        TextStream::new(self)
    }

    /// The number of tokens, added ones included.
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// The largest id of a token, of an ordinary vocabulary without gaps.
    pub fn last_id(&self) -> Option<u32> {
        let added = self.inner.get_added_vocabulary().get_added_tokens_decoder().keys().max();
        let ordinary = (self.inner.get_vocab_size(false) as u32).checked_sub(1);
        added.copied().max(ordinary)
    }

    /// The token of an id as the vocabulary writes it (bytes in the byte-level alphabet, not as text).
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// The bytes of an id's text: of a token that holds a part of a character only, those. Special tokens have those of
    /// their name.
    pub fn bytes(&self, id: u32) -> Vec<u8> {
        let Some(token) = self.token(id) else { return Vec::new() };
        if self.inner.get_added_vocabulary().simple_id_to_token(id).is_some() {
            return token.into_bytes();
        }
        // Other tokens are written in GPT-2's alphabet, a letter for each byte.
        token.chars().map(byte_of).collect::<Option<_>>().unwrap_or_else(|| token.into_bytes())
    }

    /// The id of a token as the vocabulary writes it.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// Whether [`Tokenizer::decode`] leaves this id out.
    pub fn is_special(&self, id: u32) -> bool {
        let added = self.inner.get_added_vocabulary();
        added.simple_id_to_token(id).is_some_and(|token| added.is_special_token(&token))
    }
}

/// The byte that a letter of GPT-2's byte-level alphabet stands for: printable ones stand for themselves, the others are
/// U+0100 and on, in their order.
fn byte_of(letter: char) -> Option<u8> {
    let printable = |byte: &u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    match u8::try_from(letter) {
        Ok(byte) => Some(byte).filter(printable),
        Err(_) => (0..=u8::MAX).filter(|byte| !printable(byte)).nth(letter as usize - 0x100),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::tests::{ids, pocket_chats, pocket_tokenizer, pocket_with};

    #[test]
    fn tokens_have_the_bytes_of_their_text() {
        let tokenizer = pocket_tokenizer();
        for text in ["A zebra, naïve – 斑马 🦓\n\t", "\u{0} \u{7f} \u{ad}"] {
            let ids = tokenizer.encode(text, false).expect("ids");
            let bytes: Vec<u8> = ids.iter().flat_map(|&id| tokenizer.bytes(id)).collect();
            assert_eq!(bytes, text.as_bytes());
        }
        assert_eq!(tokenizer.bytes(8191), b"<|eot_id|>");
        assert_eq!(tokenizer.bytes(99_999), b"");
    }

    #[test]
    fn the_chats_are_encoded_and_decoded_like_transformers() {
        let tokenizer = pocket_tokenizer();
        for chat in pocket_chats() {
            let prompt = chat["prompt"].as_str().expect("a prompt");
            assert_eq!(tokenizer.encode(prompt, false).expect("ids"), ids(&chat["prompt_ids"]));
            assert_eq!(tokenizer.decode(&ids(&chat["greedy_ids"])).expect("text"), chat["greedy_text"]);
        }
    }

    #[test]
    fn special_tokens_are_added_on_demand_and_left_out_of_text() {
        let tokenizer = pocket_tokenizer();
        let plain = tokenizer.encode("A zebra", false).expect("ids");
        let added = tokenizer.encode("A zebra", true).expect("ids");
        assert_eq!(added, [&[8186], plain.as_slice()].concat());
        assert_eq!(tokenizer.decode(&added).expect("text"), "A zebra");
        assert!(tokenizer.is_special(8186) && !tokenizer.is_special(plain[0]));
        assert_eq!(tokenizer.id("<|eot_id|>"), Some(8191));
        assert_eq!(tokenizer.token(8191).as_deref(), Some("<|eot_id|>"));
        assert_eq!(tokenizer.vocab_size(), 8192);
    }

    #[test]
    fn truncation_in_the_file_does_not_cut_a_prompt() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/zebra-pocket/tokenizer.json");
        let text = std::fs::read_to_string(folder).expect("tokenizer.json");
        let limit = r#""truncation": {"direction":"Right","max_length":3,"strategy":"LongestFirst","stride":0}"#;
        let cut = text.replacen("\"truncation\": null", limit, 1);
        assert_ne!(cut, text);
        let files = pocket_with(&[("tokenizer.json", Some(&cut))]);
        let tokenizer = pollster::block_on(Tokenizer::load(&files)).expect("a tokenizer");
        assert!(tokenizer.encode("one two three four five six", false).expect("ids").len() >= 6);
    }

    #[test]
    fn a_broken_file_is_named_with_the_reason() {
        for (text, reason) in [(None, "no such file"), (Some("{\"model\":"), "EOF"), (Some("{}"), "Model missing")] {
            let files = pocket_with(&[("tokenizer.json", text)]);
            let error = pollster::block_on(Tokenizer::load(&files)).expect_err("a broken tokenizer").to_string();
            assert!(error.contains("pocket/tokenizer.json") && error.contains(reason), "{error}");
        }
    }
}
