//! The checkpoint's chat template: Jinja as transformers sets it up, rendered by `minijinja`.

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Value as Jinja};
use minijinja::{Environment, ErrorKind, context};
use serde_json::Value;

use crate::files::{Files, read_whole};
use crate::text::{Message, path, read_json, token_text};
use crate::{Error, Result};

const TEMPLATE_FILE: &str = "chat_template.jinja";
const CONFIG_FILE: &str = "tokenizer_config.json";
const NAME: &str = "chat";

/// A compiled chat template with the special tokens it may write.
///
/// Like transformers: blocks trim the newline after and the blanks before them, `raise_exception` ends the rendering,
/// `break` and `continue` work, strings, lists and maps have Python's methods, `tools` and `documents` are none.
/// `strftime_now` is not defined, because the runtime has no clock: templates that ask `is defined` use their own date.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    /// `bos_token`, `eos_token`, … by name.
    special_tokens: Vec<(String, String)>,
    /// What messages call the template.
    file: String,
}

impl ChatTemplate {
    /// The template of a checkpoint: `chat_template.jinja`, else the one in `tokenizer_config.json` (a string, or a list
    /// of named ones, of which "default" is taken). `None` when there is neither.
    pub async fn load(files: &dyn Files) -> Result<Option<Self>> {
        let config = read_json(files, CONFIG_FILE).await?.unwrap_or(Value::Null);
        let (source, file) = match read_whole(files, TEMPLATE_FILE).await? {
            Some(bytes) => {
                let file = path(files, TEMPLATE_FILE);
                let source = String::from_utf8(bytes).map_err(|e| Error::Template(format!("{file}: {e}")))?;
                (source, file)
            }
            None => match template_of(&config, files)? {
                Some(source) => (source.to_owned(), path(files, CONFIG_FILE)),
                None => return Ok(None),
            },
        };
        let special_tokens = config.as_object().into_iter().flatten();
        let special_tokens = special_tokens
            .filter(|(key, _)| key.ends_with("_token"))
            .filter_map(|(key, value)| Some((key.clone(), token_text(value)?.to_owned())))
            .collect();
        Self::new(source, special_tokens, file).map(Some)
    }

    fn new(source: String, special_tokens: Vec<(String, String)>, file: String) -> Result<Self> {
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(|e| Error::Template(e.to_string()))?);
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", raise_exception);
        environment.add_filter("tojson", tojson);
        environment.add_template_owned(NAME, source).map_err(|e| Error::Template(format!("{file}: {}", reason(&e))))?;
        Ok(Self { environment, special_tokens, file })
    }

    /// The text of a chat. With `add_generation_prompt` it ends where the assistant's answer begins.
    pub fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String> {
        let chat: Vec<(&str, &str)> = messages.iter().map(|m| (m.role.as_str(), m.content.as_str())).collect();
        self.render_pairs(&chat, add_generation_prompt)
    }

    /// [`ChatTemplate::render`] of (role, content).
    pub(super) fn render_pairs(&self, chat: &[(&str, &str)], add_generation_prompt: bool) -> Result<String> {
        let fail = |e: minijinja::Error| Error::Template(format!("{}: {}", self.file, reason(&e)));
        let messages: Vec<Jinja> = chat.iter().map(|&(role, content)| context! { role, content }).collect();
        let tokens = Jinja::from_pairs(self.special_tokens.iter().map(|(name, text)| (name.as_str(), text.as_str())));
        let template = self.environment.get_template(NAME).map_err(fail)?;
        let variables = context! { messages, add_generation_prompt, tools => (), documents => (), ..tokens };
        template.render(variables).map_err(fail)
    }
}

/// The template inside `tokenizer_config.json`.
fn template_of<'a>(config: &'a Value, files: &dyn Files) -> Result<Option<&'a str>> {
    let fail = |found: String| Error::Config {
        file: path(files, CONFIG_FILE),
        key: "chat_template".into(),
        expected: "a string, or a list of {\"name\", \"template\"} with one named \"default\"".into(),
        found,
    };
    match &config["chat_template"] {
        Value::Null => Ok(None),
        Value::String(source) => Ok(Some(source)),
        Value::Array(list) => {
            let named = |entry: &&Value| entry["name"] == "default";
            let entry = list.iter().find(named).or(if list.len() == 1 { list.first() } else { None });
            let source = entry.and_then(|entry| entry["template"].as_str());
            let names: Vec<&str> = list.iter().filter_map(|entry| entry["name"].as_str()).collect();
            source.map(Some).ok_or_else(|| fail(format!("a list with the names {names:?}")))
        }
        other => Err(fail(other.to_string())),
    }
}

/// `raise_exception(message)` of transformers' templates.
fn raise_exception(message: String) -> Result<Jinja, minijinja::Error> {
    Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
}

/// transformers' `tojson`: minijinja's own, without its escapes for HTML.
fn tojson(value: &Jinja, options: Kwargs) -> Result<String, minijinja::Error> {
    let json = minijinja::filters::tojson(value, None, options)?;
    let mut rest = json.as_str().unwrap_or_default();
    let mut plain = String::with_capacity(rest.len());
    while let Some(at) = rest.find('\\') {
        plain.push_str(&rest[..at]);
        // A backslash and what it escapes are one unit: the second of two backslashes starts nothing.
        let (unit, length) = match rest.get(at..at + 6) {
            Some("\\u003c") => ("<", 6),
            Some("\\u003e") => (">", 6),
            Some("\\u0026") => ("&", 6),
            Some("\\u0027") => ("'", 6),
            _ => (&rest[at..at + 2], 2),
        };
        plain.push_str(unit);
        rest = &rest[at + length..];
    }
    plain.push_str(rest);
    Ok(plain)
}

/// minijinja's message with the line of the template, and why a missing clock is missing.
fn reason(error: &minijinja::Error) -> String {
    let mut reason = match (error.detail(), error.line()) {
        (Some(detail), Some(line)) => format!("line {line}: {detail}"),
        (Some(detail), None) => detail.to_owned(),
        (None, Some(line)) => format!("line {line}: {}", error.kind()),
        (None, None) => error.kind().to_string(),
    };
    if reason.contains("strftime_now") {
        reason += " (the runtime has no clock; write the date into the template or a message)";
    }
    reason
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::tests::{pocket_chats, pocket_with};

    fn load(replaced: &[(&str, Option<&str>)]) -> Result<Option<ChatTemplate>> {
        pollster::block_on(ChatTemplate::load(&pocket_with(replaced)))
    }

    fn render(source: &str) -> Result<String> {
        let template = load(&[("chat_template.jinja", Some(source))])?.expect("a template");
        template.render(&[Message::new("user", " Hi <'&'> ")], true)
    }

    #[test]
    fn the_chats_are_rendered_like_transformers() {
        let template = load(&[]).expect("a good template").expect("a template");
        let chats = pocket_chats();
        assert_eq!(chats.len(), 16);
        for chat in chats {
            let messages = chat["messages"].as_array().expect("messages").iter();
            let text = |value: &Value| value.as_str().expect("a string").to_owned();
            let messages: Vec<Message> =
                messages.map(|m| Message::new(text(&m["role"]), text(&m["content"]))).collect();
            assert_eq!(template.render(&messages, true).expect("a prompt"), chat["prompt"]);
        }
    }

    #[test]
    fn the_dialect_is_that_of_transformers() {
        let cases = [
            ("{% if true %}\n  a\n  {% endif %}\nb\n", "  a\nb"),
            ("{{ messages[0].content.strip().upper().startswith('HI') }}", "True"),
            ("{{ messages[0]['content'] | trim | tojson }}", "\"Hi <'&'>\""),
            ("{{ ['\\\\u003c', '\"'] | tojson }}", "[\"\\\\u003c\", \"\\\"\"]"),
            ("{% for m in [1, 2, 3] %}{% if m == 2 %}{% break %}{% endif %}{{ m }}{% endfor %}", "1"),
            (
                "{{ bos_token }}{{ eos_token }}{{ pad_token }}{{ unk_token }}",
                "<|begin_of_text|><|eot_id|><|finetune_right_pad_id|>",
            ),
            ("{{ 'date' if strftime_now is defined else 'none' }}{{ tools is none }}", "noneTrue"),
            (
                "{% set ns = namespace(x=1) %}{% for m in messages %}{% set ns.x = ns.x + 1 %}{% endfor %}{{ ns.x }}",
                "2",
            ),
            ("{{ messages[0].role }}{{ messages[1:] | length }}{{ add_generation_prompt }}", "user0True"),
        ];
        for (source, expected) in cases {
            assert_eq!(render(source).unwrap_or_else(|e| panic!("{source}: {e}")), expected, "{source}");
        }
    }

    #[test]
    fn a_broken_template_is_named_with_the_reason() {
        let cases = [
            ("a\n{% for m in messages %}", "line 2"),
            ("{{ raise_exception('Only user roles') }}", "Only user roles"),
            ("{{ strftime_now('%d %b %Y') }}", "no clock"),
            ("{{ nothing.at_all }}", "line 1"),
            ("{% include 'other' %}", "other"),
        ];
        for (source, expected) in cases {
            let error = render(source).expect_err("a broken template").to_string();
            assert!(error.contains("pocket/chat_template.jinja") && error.contains(expected), "{error}");
        }
        let error = load(&[("tokenizer_config.json", Some("{\"chat_template\": \"{{\"}"))]).expect_err("broken");
        assert!(error.to_string().contains("pocket/tokenizer_config.json"), "{error}");
        let error = load(&[("tokenizer_config.json", Some("{\"chat_template\": 3}"))]).expect_err("broken");
        assert!(error.to_string().contains("chat_template") && error.to_string().contains("found 3"), "{error}");
        let error = load(&[("tokenizer_config.json", Some("{,}"))]).expect_err("broken");
        assert!(error.to_string().contains("not valid JSON"), "{error}");
    }

    #[test]
    fn the_template_is_found_where_checkpoints_keep_it() {
        let list = r#"{"bos_token": {"content": "<s>", "special": true}, "chat_template": [
            {"name": "tool_use", "template": "tools"}, {"name": "default", "template": "{{ bos_token }}default"}]}"#;
        let only = r#"{"chat_template": [{"name": "rag", "template": "rag"}]}"#;
        let neither = r#"{"chat_template": [{"name": "a", "template": ""}, {"name": "b", "template": ""}]}"#;
        let text = |config: &str| -> Result<Option<String>> {
            let template = load(&[("tokenizer_config.json", Some(config))])?;
            template.map(|t| t.render(&[], false)).transpose()
        };
        assert_eq!(text(list).expect("a template").as_deref(), Some("<s>default"));
        assert_eq!(text(only).expect("a template").as_deref(), Some("rag"));
        assert_eq!(text("{}").expect("no template"), None);
        assert!(text(neither).expect_err("ambiguous").to_string().contains("\"a\", \"b\""));
        assert!(load(&[("tokenizer_config.json", None)]).expect("no template").is_none());
        let both = load(&[("chat_template.jinja", Some("file")), ("tokenizer_config.json", Some(list))]);
        assert_eq!(both.expect("good").expect("a template").render(&[], false).expect("text"), "file");
    }
}
