//! A checkpoint folder for tests, read whole: fixtures are small.

use std::ops::Deref;
use std::path::Path;

use zebra_runtime::files::MemoryFiles;

/// The files of a folder.
#[derive(Debug)]
pub struct TestFolder(MemoryFiles);

impl TestFolder {
    /// # Panics
    /// When the folder cannot be read.
    pub fn open(path: &Path) -> Self {
        let entries = std::fs::read_dir(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let files = entries
            .map(|entry| {
                let path = entry.expect("a readable folder").path();
                let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
                (path.file_name().expect("a file").to_string_lossy().into_owned(), bytes.into())
            })
            .collect();
        Self(MemoryFiles::new(path.display().to_string(), files))
    }

    /// A folder without a tokenizer, with one whose token i is the word "ti".
    ///
    /// # Panics
    /// When the folder cannot be read.
    pub fn with_words(path: &Path, vocab: usize) -> Self {
        let words: serde_json::Map<String, serde_json::Value> =
            (0..vocab).map(|i| (format!("t{i}"), i.into())).collect();
        let tokenizer = serde_json::json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
            "pre_tokenizer": { "type": "Whitespace" }, "post_processor": null, "decoder": null,
            "model": { "type": "WordLevel", "vocab": words, "unk_token": "t0" },
        });
        let Self(files) = Self::open(path);
        Self(files.with("tokenizer.json", tokenizer.to_string().into_bytes().into()))
    }
}

impl Deref for TestFolder {
    type Target = MemoryFiles;

    fn deref(&self) -> &MemoryFiles {
        &self.0
    }
}
