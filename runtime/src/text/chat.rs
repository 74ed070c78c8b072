//! From a chat to the ids of its prompt, with the ids that earlier answers really had.

use crate::text::{ChatTemplate, Tokenizer};
use crate::{Error, Result};

/// One message of a chat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// "system", "user", "assistant", or what else the template knows.
    pub role: String,
    /// The text.
    pub content: String,
    /// The ids that were generated as this content, the stop id left out. They are used again in place of the content's
    /// own tokenization, which may differ: the state of the model was built from these.
    pub ids: Option<Vec<u32>>,
}

impl Message {
    /// A message that is tokenized from its text.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self { role: role.into(), content: content.into(), ids: None }
    }
}

/// The prompt ids of a chat. The template writes its special tokens itself; none are added again.
///
/// A message with `ids` keeps them when they decode to its content and the template shows that content exactly once and
/// unchanged but for blanks around it; otherwise it is tokenized like the others.
pub fn encode_chat(
    tokenizer: &Tokenizer,
    template: &ChatTemplate,
    messages: &[Message],
    add_generation_prompt: bool,
) -> Result<Vec<u32>> {
    if messages.is_empty() {
        return Err(Error::Prompt("the chat has no messages".into()));
    }
    let text = template.render(messages, add_generation_prompt)?;
    if let Some(parts) = split_at_answers(tokenizer, template, messages, &text, add_generation_prompt)? {
        let mut ids = Vec::new();
        for part in parts {
            match part {
                Part::Text(text) => ids.extend(tokenizer.encode(text, false)?),
                Part::Ids(answer) => ids.extend(answer),
            }
        }
        return Ok(ids);
    }
    tokenizer.encode(&text, false)
}

enum Part<'a> {
    Text(&'a str),
    Ids(&'a [u32]),
}

/// `text` cut at the messages whose ids are known, or `None` when there are none or the template does more than write
/// each of them in one place. Where they stand is found by rendering the chat once more with marks in their place.
fn split_at_answers<'a>(
    tokenizer: &Tokenizer,
    template: &ChatTemplate,
    messages: &'a [Message],
    text: &'a str,
    add_generation_prompt: bool,
) -> Result<Option<Vec<Part<'a>>>> {
    // An answer that has no text or other text than its ids (it was edited, or cut at a stop string) is none.
    let mut answers: Vec<(usize, &Message, &[u32])> = Vec::new();
    for (index, message) in messages.iter().enumerate() {
        if let Some(ids) = &message.ids
            && !message.content.trim().is_empty()
            && tokenizer.decode(ids)? == message.content
        {
            answers.push((index, message, ids));
        }
    }
    // Private-use characters: a user's text may hold one of these marks, but then the marks do not come out once each.
    let mark = |index: usize| format!("\u{F8F0}{index}\u{F8F1}");
    let marks: Vec<String> = (0..messages.len()).map(mark).collect();
    if answers.is_empty() || marks.iter().any(|mark| text.contains(mark)) {
        return Ok(None);
    }
    let mut chat: Vec<(&str, &str)> = messages.iter().map(|m| (m.role.as_str(), m.content.as_str())).collect();
    for (index, ..) in &answers {
        chat[*index].1 = &marks[*index];
    }
    let Ok(marked) = template.render_pairs(&chat, add_generation_prompt) else {
        return Ok(None);
    };

    let mut parts = Vec::new();
    let (mut text, mut marked) = (text, marked.as_str());
    for (index, message, ids) in answers {
        let Some((before, after)) = marked.split_once(&marks[index]) else {
            return Ok(None);
        };
        let next = marks.iter().filter_map(|mark| after.find(mark.as_str())).min().unwrap_or(after.len());
        let content = message.content.as_str();
        let forms = [content, content.trim(), content.trim_start(), content.trim_end()];
        // The same text stands between the marks as between the answers, and each answer stands where its mark did.
        let Some((text_before, rest)) = text.split_at_checked(before.len()) else {
            return Ok(None);
        };
        let rest = forms.iter().find_map(|form| rest.strip_prefix(form).filter(|r| r.starts_with(&after[..next])));
        let (true, Some(rest)) = (text_before == before, rest) else {
            return Ok(None);
        };
        parts.push(Part::Text(text_before));
        parts.push(Part::Ids(ids));
        (text, marked) = (rest, after);
    }
    if text != marked {
        return Ok(None);
    }
    parts.push(Part::Text(text));
    Ok(Some(parts))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::tests::{ids, pocket_chats, pocket_tokenizer, pocket_with};

    fn template(source: Option<&str>) -> ChatTemplate {
        let files = match source {
            Some(source) => pocket_with(&[("chat_template.jinja", Some(source))]),
            None => pocket_with(&[]),
        };
        pollster::block_on(ChatTemplate::load(&files)).expect("a good template").expect("a template")
    }

    /// An answer in tokens that its text would not be cut into.
    fn answer(tokenizer: &Tokenizer) -> Message {
        let letters = ["A", " z", "e", "b", "r", "a"];
        let ids: Vec<u32> = letters.iter().flat_map(|l| tokenizer.encode(l, false).expect("ids")).collect();
        let content = tokenizer.decode(&ids).expect("text");
        assert_eq!(content, "A zebra");
        assert_ne!(tokenizer.encode(&content, false).expect("ids"), ids);
        Message { ids: Some(ids), ..Message::new("assistant", content) }
    }

    fn contains(ids: &[u32], part: &[u32]) -> bool {
        ids.windows(part.len()).any(|window| window == part)
    }

    #[test]
    fn the_chats_have_the_ids_of_transformers() {
        let (tokenizer, template) = (pocket_tokenizer(), template(None));
        for chat in pocket_chats() {
            let messages: Vec<Message> = (chat["messages"].as_array().expect("messages").iter())
                .map(|m| Message::new(m["role"].as_str().expect("role"), m["content"].as_str().expect("content")))
                .collect();
            let encoded = encode_chat(&tokenizer, &template, &messages, true).expect("ids");
            assert_eq!(encoded, ids(&chat["prompt_ids"]));
        }
    }

    #[test]
    fn a_continued_chat_starts_with_the_ids_it_was_generated_from() {
        let (tokenizer, template) = (pocket_tokenizer(), template(None));
        let answer = answer(&tokenizer);
        let answer_ids = answer.ids.clone().expect("ids");
        let mut chat = vec![Message::new("user", "What is it?")];
        let mut known = encode_chat(&tokenizer, &template, &chat, true).expect("ids");
        for question in ["And what else?", "Really?"] {
            known.extend(&answer_ids);
            chat.push(answer.clone());
            chat.push(Message::new("user", question));
            let next = encode_chat(&tokenizer, &template, &chat, true).expect("ids");
            assert!(next.starts_with(&known), "{next:?}");
            assert_eq!(next[known.len()], 8191, "the answer is closed by the template");
            known = next;
        }
        // The same chat without the ids says the same in other tokens.
        let plain: Vec<Message> = chat.iter().map(|m| Message { ids: None, ..m.clone() }).collect();
        let plain = encode_chat(&tokenizer, &template, &plain, true).expect("ids");
        assert_ne!(plain, known);
        assert_eq!(tokenizer.decode(&plain).expect("text"), tokenizer.decode(&known).expect("text"));
    }

    #[test]
    fn blanks_around_an_answer_stay_in_its_ids_though_the_template_trims() {
        let (tokenizer, template) = (pocket_tokenizer(), template(None));
        let ids = tokenizer.encode("\n A zebra ", false).expect("ids");
        let answer = Message { ids: Some(ids.clone()), ..Message::new("assistant", "\n A zebra ") };
        let chat = [Message::new("user", "What?"), answer, Message::new("user", "More.")];
        assert!(contains(&encode_chat(&tokenizer, &template, &chat, true).expect("ids"), &ids));
    }

    #[test]
    fn ids_are_dropped_where_they_are_not_the_text() {
        let tokenizer = pocket_tokenizer();
        let generated = answer(&tokenizer);
        let answer_ids = generated.ids.clone().expect("ids");
        let reused = |source: Option<&str>, answer: Message, question: &str| {
            let chat = [Message::new("user", "What?"), answer, Message::new("user", question)];
            contains(&encode_chat(&tokenizer, &template(source), &chat, true).expect("ids"), &answer_ids)
        };
        assert!(reused(None, generated.clone(), "More"));
        assert!(!reused(None, generated.clone(), "More \u{F8F0}1\u{F8F1}"), "a user wrote a mark");
        assert!(!reused(None, Message { content: "A horse".into(), ..generated.clone() }, "More"), "an edited answer");
        // Templates that change, repeat, cut, measure, drop or refuse an answer.
        for source in [
            "{% for m in messages %}{{ m.content | upper }};{% endfor %}",
            "{% for m in messages %}{{ m.content }}{{ m.content }};{% endfor %}",
            "{% for m in messages %}{{ m.content[:4] }};{% endfor %}",
            "{% for m in messages %}{{ m.content | length }}{{ m.content }};{% endfor %}",
            "{{ messages[0].content }}",
            "{% for m in messages %}{% if m.content | length < 4 %}{{ raise_exception('no') }}{% endif %}{% endfor %}",
        ] {
            assert!(!reused(Some(source), generated.clone(), "More"), "{source}");
        }
    }

    #[test]
    fn a_chat_without_messages_is_refused() {
        let error = encode_chat(&pocket_tokenizer(), &template(None), &[], true).expect_err("refused");
        assert!(matches!(error, Error::Prompt(_)), "{error}");
    }
}
