//! Text that grows token by token, equal in the end to decoding all ids at once.

use crate::Result;
use crate::text::Tokenizer;

/// An incremental detokenizer. Text is held back while it ends inside a character: byte-level tokens may hold a part of
/// one only.
#[derive(Debug, Clone)]
pub struct TextStream {
    tokenizer: Tokenizer,
    /// The ids whose text is not final (`shown..`), after some whose text was given out (`..shown`): decoders may treat
    /// the first token of a text differently, so new ids are never decoded without the ones before.
    window: Vec<u32>,
    shown: usize,
}

impl TextStream {
    /// A stream at the start of a text.
    pub fn new(tokenizer: &Tokenizer) -> Self {
        Self { tokenizer: tokenizer.clone(), window: Vec::new(), shown: 0 }
    }

    /// The text that `id` completes: empty when it is a special token or ends inside a character.
    pub fn push(&mut self, id: u32) -> Result<String> {
        if self.tokenizer.is_special(id) {
            return Ok(String::new());
        }
        self.window.push(id);
        let text = self.pending()?;
        if text.ends_with(char::REPLACEMENT_CHARACTER) {
            return Ok(String::new());
        }
        self.window.drain(..self.shown);
        self.shown = self.window.len();
        Ok(text)
    }

    /// The text still held back, with U+FFFD for a character that was never completed. The stream starts anew.
    pub fn finish(&mut self) -> Result<String> {
        let text = self.pending()?;
        self.window.clear();
        self.shown = 0;
        Ok(text)
    }

    /// The text of the ids after `shown`.
    fn pending(&self) -> Result<String> {
        let before = self.tokenizer.decode(&self.window[..self.shown])?;
        let mut text = self.tokenizer.decode(&self.window)?;
        // What was given out ends at a character's end, so the longer text starts with it.
        let split = if text.starts_with(&before) { before.len() } else { 0 };
        Ok(text.split_off(split))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::tests::{ids, pocket_chats, pocket_tokenizer};

    fn streamed(tokenizer: &Tokenizer, ids: &[u32]) -> (Vec<String>, String) {
        let mut stream = tokenizer.stream();
        let pieces = ids.iter().map(|id| stream.push(*id).expect("text")).collect();
        let rest = stream.finish().expect("text");
        (pieces, rest)
    }

    #[test]
    fn characters_split_over_tokens_are_held_back_and_nothing_is_lost() {
        let tokenizer = pocket_tokenizer();
        for text in ["naïve – 斑马 🦓🦓, ein Zebra!", "👩‍👩‍👧‍👦", "\u{FFFD} a \u{FFFD}", "  two  spaces ", "é"]
        {
            let ids = tokenizer.encode(text, false).expect("ids");
            assert_eq!(tokenizer.decode(&ids).expect("text"), text);
            let (pieces, rest) = streamed(&tokenizer, &ids);
            assert_eq!(pieces.concat() + &rest, text);
            if !text.contains(char::REPLACEMENT_CHARACTER) {
                assert!(pieces.iter().all(|p| !p.contains(char::REPLACEMENT_CHARACTER)), "{pieces:?}");
                assert_eq!(rest, "");
            }
        }
        // The zebra is four bytes that the small vocabulary has as single tokens: the text comes with the last one.
        let zebra = tokenizer.encode("🦓", false).expect("ids");
        assert!(zebra.len() > 1);
        let (pieces, _) = streamed(&tokenizer, &zebra);
        assert_eq!(pieces.last().map(String::as_str), Some("🦓"));
        assert!(pieces[..pieces.len() - 1].iter().all(String::is_empty));
    }

    #[test]
    fn broken_bytes_come_out_as_decoding_them_at_once_does() {
        let tokenizer = pocket_tokenizer();
        let zebra = tokenizer.encode("🦓", false).expect("ids");
        let letter = tokenizer.encode("a", false).expect("ids");
        let cases = [
            zebra[..zebra.len() - 1].to_vec(),
            [&zebra[..1], &letter].concat(),
            [&zebra[1..], &zebra[1..], &letter].concat(),
            [&zebra[..2], &zebra, &letter, &zebra[..1]].concat(),
        ];
        for ids in cases {
            let (pieces, rest) = streamed(&tokenizer, &ids);
            assert_eq!(pieces.concat() + &rest, tokenizer.decode(&ids).expect("text"));
        }
    }

    #[test]
    fn answers_come_out_whole_and_special_tokens_do_not() {
        let tokenizer = pocket_tokenizer();
        for chat in pocket_chats() {
            let (pieces, rest) = streamed(&tokenizer, &ids(&chat["greedy_ids"]));
            assert_eq!(pieces.concat() + &rest, chat["greedy_text"].as_str().expect("text"));
        }
        let word = tokenizer.encode(" zebra", false).expect("ids");
        let (pieces, rest) = streamed(&tokenizer, &[&word, &[8191][..], &word].concat());
        assert_eq!(pieces.concat() + &rest, " zebra zebra");
    }
}
