//! Where the files of a checkpoint come from. The runtime reads ranges through this trait and holds no file whole; a
//! folder, bytes compiled into a binary and a browser's storage each implement it outside of this crate or below.

use std::borrow::Cow;
use std::ops::Range;

use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;

use crate::{Error, Result};

/// The files of one checkpoint, read by name and range. Futures are local: nothing here asks for threads.
pub trait Files {
    /// The size of a file in bytes, or `None` when there is no such file.
    fn size<'a>(&'a self, name: &'a str) -> LocalBoxFuture<'a, Result<Option<u64>>>;

    /// Exactly the bytes of `range`. A range past the end of the file is an [`Error::File`].
    fn read<'a>(&'a self, name: &'a str, range: Range<u64>) -> LocalBoxFuture<'a, Result<Cow<'a, [u8]>>>;

    /// The names of all files at the top of the checkpoint, sorted.
    fn names(&self) -> LocalBoxFuture<'_, Result<Vec<String>>>;

    /// How a message names this checkpoint: a path, a hub name.
    fn describe(&self) -> String;
}

/// Reads a whole small file (a configuration, a tokenizer); `None` when there is none.
pub async fn read_whole(files: &dyn Files, name: &str) -> Result<Option<Vec<u8>>> {
    const PART: u64 = 8 << 20;
    let Some(size) = files.size(name).await? else { return Ok(None) };
    let mut whole = files.read(name, 0..size.min(PART)).await?.into_owned();
    while (whole.len() as u64) < size {
        let at = whole.len() as u64;
        whole.extend_from_slice(&files.read(name, at..size.min(at + PART)).await?);
    }
    Ok(Some(whole))
}

/// Files that are already in memory, such as a model compiled into the binary.
#[derive(Debug, Clone)]
pub struct MemoryFiles {
    name: String,
    files: Vec<(String, Cow<'static, [u8]>)>,
}

impl MemoryFiles {
    /// `name` is what messages call it; `files` are (file name, bytes).
    pub fn new(name: impl Into<String>, files: Vec<(String, Cow<'static, [u8]>)>) -> Self {
        Self { name: name.into(), files }
    }

    /// The same files and one more, in place of one of its name.
    pub fn with(mut self, name: &str, bytes: Cow<'static, [u8]>) -> Self {
        self.files.retain(|(n, _)| n != name);
        self.files.push((name.into(), bytes));
        self
    }

    fn find(&self, name: &str) -> Option<&[u8]> {
        self.files.iter().find(|(n, _)| n == name).map(|(_, bytes)| bytes.as_ref())
    }
}

impl Files for MemoryFiles {
    fn size<'a>(&'a self, name: &'a str) -> LocalBoxFuture<'a, Result<Option<u64>>> {
        async move { Ok(self.find(name).map(|b| b.len() as u64)) }.boxed_local()
    }

    fn read<'a>(&'a self, name: &'a str, range: Range<u64>) -> LocalBoxFuture<'a, Result<Cow<'a, [u8]>>> {
        async move {
            let fail = |reason: String| Error::File { path: format!("{}/{name}", self.name), reason };
            let bytes = self.find(name).ok_or_else(|| fail("no such file".into()))?;
            let part = bytes.get(range.start as usize..range.end as usize).ok_or_else(|| {
                fail(format!("bytes {}..{} were asked for, the file has {}", range.start, range.end, bytes.len()))
            })?;
            Ok(Cow::Borrowed(part))
        }
        .boxed_local()
    }

    fn names(&self) -> LocalBoxFuture<'_, Result<Vec<String>>> {
        let mut names: Vec<String> = self.files.iter().map(|(n, _)| n.clone()).collect();
        names.sort();
        async move { Ok(names) }.boxed_local()
    }

    fn describe(&self) -> String {
        self.name.clone()
    }
}
