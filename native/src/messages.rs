//! Chats in files: a JSON list of `{"role", "content"}`, with the ids of generated answers where they are known.

use std::path::Path;

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use zebra_runtime::text::Message;

#[derive(Deserialize, Serialize)]
struct Entry<'a> {
    role: std::borrow::Cow<'a, str>,
    content: std::borrow::Cow<'a, str>,
    /// Written by `/save`, so that a loaded chat goes on from the very tokens of its answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ids: Option<std::borrow::Cow<'a, [u32]>>,
}

/// Reads a chat. Keys other than those above are left alone, as other programs write more.
pub fn read(path: &Path) -> anyhow::Result<Vec<Message>> {
    let name = path.display();
    let bytes = std::fs::read(path).with_context(|| name.to_string())?;
    let text = utf8(bytes, &name.to_string())?;
    let entries: Vec<Entry> = serde_json::from_str(&text)
        .with_context(|| format!("{name}: expected a JSON list of {{\"role\", \"content\"}} with strings"))?;
    if entries.is_empty() {
        bail!("{name}: expected at least one message, found an empty list");
    }
    for (index, entry) in entries.iter().enumerate() {
        for (key, value) in [("role", &entry.role), ("content", &entry.content)] {
            if value.trim().is_empty() && (key == "role" || entry.role == "user") {
                bail!("{name}: message {index}: \"{key}\": expected text, found \"{value}\"");
            }
        }
    }
    let message = |e: Entry| Message {
        role: e.role.into_owned(),
        content: e.content.into_owned(),
        ids: e.ids.map(|ids| ids.into_owned()),
    };
    Ok(entries.into_iter().map(message).collect())
}

/// Writes a chat, so that a failure on the way leaves what was there before.
pub fn write(path: &Path, messages: &[Message]) -> anyhow::Result<()> {
    let entry = |m: &Message| {
        serde_json::to_string(&Entry {
            role: m.role.as_str().into(),
            content: m.content.as_str().into(),
            ids: m.ids.as_deref().map(Into::into),
        })
    };
    let entries = messages.iter().map(entry).collect::<Result<Vec<_>, _>>()?;
    let text = format!("[\n{}\n]\n", entries.join(",\n"));
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    std::fs::write(&partial, text)
        .and_then(|()| std::fs::rename(&partial, path))
        .with_context(|| path.display().to_string())
}

/// Text that came as bytes from `source`.
pub fn utf8(bytes: Vec<u8>, source: &str) -> anyhow::Result<String> {
    String::from_utf8(bytes).map_err(|e| {
        let at = e.utf8_error().valid_up_to();
        anyhow::anyhow!("{source}: expected UTF-8, found byte {:#04x} at {at}", e.as_bytes()[at])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chat_comes_back_as_it_was_written() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("chat.json");
        let answer = Message { ids: Some(vec![5, 7]), ..Message::new("assistant", "A \"zebra\"\n斑马") };
        let chat = [Message::new("system", ""), Message::new("user", "What?"), answer];
        write(&path, &chat).expect("written");
        assert_eq!(read(&path).expect("read"), chat);
        assert_eq!(std::fs::read_dir(folder.path()).expect("the folder").count(), 1);
    }

    #[test]
    fn a_bad_file_is_named_with_what_is_wrong() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("chat.json");
        assert!(format!("{:#}", read(&path).expect_err("missing")).contains("chat.json"));
        let cases: [(&[u8], &str); 6] = [
            (b"{}", "expected a JSON list"),
            (b"[", "expected a JSON list"),
            (b"[]", "empty list"),
            (br#"[{"role": "user"}]"#, "missing field `content`"),
            (br#"[{"role": "user", "content": " "}]"#, "message 0: \"content\""),
            (b"[{\"role\": \"user\", \"content\": \"\xff\"}]", "found byte 0xff at 30"),
        ];
        for (bytes, expected) in cases {
            std::fs::write(&path, bytes).expect("written");
            let error = format!("{:#}", read(&path).expect_err("refused"));
            assert!(error.contains("chat.json: ") && error.contains(expected), "{error}");
        }
    }
}
