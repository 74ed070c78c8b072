//! Strings that end an answer, found in text that comes in pieces.

use crate::{Error, Result};

/// Finds the first stop string in streamed text and holds back what may become one. The result does not depend on how
/// the text is cut into pieces: the stop string that is complete first wins.
#[derive(Debug, Clone, Default)]
pub struct StopMatcher {
    stops: Vec<String>,
    held: String,
}

impl StopMatcher {
    /// `stops` may be empty; an empty string in it is refused, for it would stop before the first token.
    pub fn new(stops: &[String]) -> Result<Self> {
        if stops.iter().any(String::is_empty) {
            return Err(Error::Option {
                name: "stop".into(),
                expected: "a string of at least one character".into(),
                found: "an empty string".into(),
            });
        }
        Ok(Self { stops: stops.to_vec(), held: String::new() })
    }

    /// The text to show after `piece`, and the stop string that ended the answer. Neither the stop string nor anything
    /// after it is shown.
    pub fn push(&mut self, piece: &str) -> (String, Option<String>) {
        self.held.push_str(piece);
        // Of two that end at the same place the longer one hides more.
        let found = self
            .stops
            .iter()
            .filter_map(|stop| self.held.find(stop.as_str()).map(|start| (start + stop.len(), start, stop)))
            .min_by_key(|(end, start, _)| (*end, *start));
        if let Some((_, start, stop)) = found {
            let stop = stop.clone();
            self.held.truncate(start);
            return (std::mem::take(&mut self.held), Some(stop));
        }
        let keep = self.stops.iter().map(|stop| partial(&self.held, stop)).max().unwrap_or(0);
        let rest = self.held.split_off(self.held.len() - keep);
        (std::mem::replace(&mut self.held, rest), None)
    }

    /// The text still held back when the answer ended for another reason.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

/// The length in bytes of the longest end of `text` that is a proper beginning of `stop`.
fn partial(text: &str, stop: &str) -> usize {
    stop.char_indices().map(|(end, _)| end).rev().find(|end| text.ends_with(&stop[..*end])).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pushes `text` in pieces of `size` characters.
    fn run(stops: &[&str], text: &str, size: usize) -> (String, Option<String>) {
        let stops: Vec<String> = stops.iter().map(|s| (*s).into()).collect();
        let mut matcher = StopMatcher::new(&stops).expect("stop strings");
        let mut shown = String::new();
        let chars: Vec<char> = text.chars().collect();
        for piece in chars.chunks(size) {
            let (text, stopped) = matcher.push(&piece.iter().collect::<String>());
            shown += &text;
            if stopped.is_some() {
                return (shown, stopped);
            }
        }
        (shown + &matcher.finish(), None)
    }

    #[test]
    fn the_result_does_not_depend_on_the_pieces() {
        let cases: &[(&[&str], &str, &str, Option<&str>)] = &[
            (&[], "all of it", "all of it", None),
            (&["END"], "one ENDtwo", "one ", Some("END")),
            (&["END"], "an EN", "an EN", None),
            (&["aab"], "aaaab", "aa", Some("aab")),
            (&["\n\n", "ab"], "x\ny\n\nab", "x\ny", Some("\n\n")),
            (&["abc", "b"], "abc", "a", Some("b")),
            (&["abc", "c"], "abc", "", Some("abc")),
            (&["🦓!"], "é🦓🦓!", "é🦓", Some("🦓!")),
        ];
        for (stops, text, shown, stopped) in cases {
            for size in 1..=text.chars().count() {
                assert_eq!(run(stops, text, size), ((*shown).into(), stopped.map(String::from)), "{text:?} by {size}");
            }
        }
    }

    #[test]
    fn only_what_may_become_a_stop_string_is_held_back() {
        let mut matcher = StopMatcher::new(&["<end>".into()]).expect("stop strings");
        assert_eq!(matcher.push("text <e"), ("text ".into(), None));
        assert_eq!(matcher.push("nough"), ("<enough".into(), None));
        assert_eq!(matcher.push("<"), (String::new(), None));
        assert_eq!(matcher.finish(), "<");
    }

    #[test]
    fn an_empty_stop_string_is_refused() {
        let error = StopMatcher::new(&["a".into(), String::new()]).expect_err("refused").to_string();
        assert!(error.starts_with("stop: "), "{error}");
    }
}
