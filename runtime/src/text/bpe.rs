//! `tokenizer.json` of a BPE tokenizer, read into the `tokenizers` crate's types in one go. The crate's own reading holds
//! the merges in forms of its own on the way, which takes twice the memory; this one knows no other model.

use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use tokenizers::models::bpe::{BPE, BpeBuilder, Vocab};
use tokenizers::{AddedToken, DecoderWrapper, NormalizerWrapper, PostProcessorWrapper, PreTokenizerWrapper, Tokenizer};

/// The file, without what it says of truncation and padding.
#[derive(Deserialize)]
pub(super) struct File {
    version: Version,
    #[serde(default)]
    added_tokens: Vec<AddedToken>,
    normalizer: Option<NormalizerWrapper>,
    pre_tokenizer: Option<PreTokenizerWrapper>,
    post_processor: Option<PostProcessorWrapper>,
    decoder: Option<DecoderWrapper>,
    model: Model,
}

/// The only version there is.
#[derive(Deserialize)]
enum Version {
    #[serde(rename = "1.0")]
    One,
}

#[derive(Deserialize)]
struct Model {
    #[serde(rename = "type")]
    kind: Option<Kind>,
    dropout: Option<f32>,
    unk_token: Option<String>,
    continuing_subword_prefix: Option<String>,
    end_of_word_suffix: Option<String>,
    fuse_unk: Option<bool>,
    byte_fallback: Option<bool>,
    ignore_merges: Option<bool>,
    vocab: Vocab,
    merges: Vec<Merge>,
}

#[derive(Deserialize)]
enum Kind {
    #[serde(rename = "BPE")]
    Bpe,
}

/// Two tokens that become one, `["a", "b"]` or in older files `"a b"`.
struct Merge(String, String);

impl<'de> Deserialize<'de> for Merge {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(MergeVisitor)
    }
}

struct MergeVisitor;

impl<'de> Visitor<'de> for MergeVisitor {
    type Value = Merge;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a pair of tokens")
    }

    fn visit_str<E: Error>(self, pair: &str) -> Result<Merge, E> {
        match pair.split_once(' ') {
            Some((a, b)) if !b.contains(' ') => Ok(Merge(a.into(), b.into())),
            _ => Err(E::custom(format!("\"{pair}\" is not a pair of tokens"))),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut pair: A) -> Result<Merge, A::Error> {
        let mut next = || pair.next_element()?.ok_or_else(|| A::Error::custom("a merge of fewer than two tokens"));
        Ok(Merge(next()?, next()?))
    }
}

impl File {
    /// Whatever is not a BPE tokenizer's file is refused.
    pub(super) fn parse(bytes: &[u8]) -> serde_json::Result<Self> {
        serde_json::from_slice(bytes)
    }

    pub(super) fn tokenizer(self) -> tokenizers::Result<Tokenizer> {
        let Self { version: Version::One, added_tokens, .. } = self;
        let mut tokenizer = Tokenizer::new(self.model.bpe()?);
        tokenizer
            .with_normalizer(self.normalizer)
            .with_pre_tokenizer(self.pre_tokenizer)
            .with_post_processor(self.post_processor)
            .with_decoder(self.decoder);
        tokenizer.add_tokens(&added_tokens);
        Ok(tokenizer)
    }
}

impl Model {
    fn bpe(self) -> tokenizers::Result<BPE> {
        let Self { kind: None | Some(Kind::Bpe), vocab, merges, .. } = self;
        let mut builder = BpeBuilder::new()
            .vocab_and_merges(vocab, merges.into_iter().map(|Merge(a, b)| (a, b)).collect())
            .fuse_unk(self.fuse_unk.unwrap_or(false))
            .byte_fallback(self.byte_fallback.unwrap_or(false))
            .ignore_merges(self.ignore_merges.unwrap_or(false));
        if let Some(dropout) = self.dropout {
            builder = builder.dropout(dropout);
        }
        if let Some(token) = self.unk_token {
            builder = builder.unk_token(token);
        }
        if let Some(prefix) = self.continuing_subword_prefix {
            builder = builder.continuing_subword_prefix(prefix);
        }
        if let Some(suffix) = self.end_of_word_suffix {
            builder = builder.end_of_word_suffix(suffix);
        }
        builder.build()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_what_the_crate_reads() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/zebra-pocket/tokenizer.json");
        let bytes = std::fs::read(path).expect("tokenizer.json");
        let read = |bytes: &[u8]| File::parse(bytes).expect("a BPE tokenizer").tokenizer().expect("tokens");
        let written = |tokenizer: Tokenizer| serde_json::to_value(&*tokenizer).expect("JSON");
        let whole = written(read(&bytes));
        let mut expected = written(Tokenizer::from_bytes(&bytes).expect("a tokenizer"));
        assert!(whole["model"]["merges"].as_array().is_some_and(|merges| merges.len() > 1000));
        assert_eq!(whole, expected);

        // The older form of merges, and the options of a model.
        let model = &mut expected["model"];
        for merge in model["merges"].as_array_mut().expect("merges") {
            *merge = format!("{} {}", merge[0].as_str().expect("a"), merge[1].as_str().expect("b")).into();
        }
        model["byte_fallback"] = true.into();
        model["fuse_unk"] = true.into();
        model["unk_token"] = "a".into();
        let older = expected.to_string();
        let expected = Tokenizer::from_bytes(&older).expect("a tokenizer");
        assert_eq!(written(read(older.as_bytes())), written(expected));
    }

    #[test]
    fn other_files_are_left_to_the_crate() {
        let file = |version: &str, kind: &str, merge: &str| {
            let model = format!(r#"{{"type":"{kind}","vocab":{{"a":0,"b":1,"ab":2}},"merges":[{merge}]}}"#);
            File::parse(format!(r#"{{"version":"{version}","model":{model}}}"#).as_bytes()).map(File::tokenizer)
        };
        for merge in [r#""a b""#, r#"["a","b"]"#] {
            assert!(matches!(file("1.0", "BPE", merge), Ok(Ok(_))), "{merge}");
        }
        assert!(file("2.0", "BPE", "").is_err() && file("1.0", "WordPiece", "").is_err());
        for merge in [r#""a""#, r#""a b c""#, r#"["a"]"#, r#"["a","b","ab"]"#] {
            assert!(file("1.0", "BPE", merge).is_err(), "{merge}");
        }
        assert!(matches!(file("1.0", "BPE", r#""a c""#), Ok(Err(_))), "no such token");
    }
}
