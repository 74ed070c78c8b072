//! The files of a checkpoint folder, read by range. Nothing here holds a file whole or knows what is inside of one.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use zebra_runtime::files::Files;
use zebra_runtime::{Error, Result};

/// A checkpoint in a folder. A file is opened at its first read and stays open, so that a folder that is replaced
/// while its tensors stream cannot mix two models inside one file.
#[derive(Debug)]
pub struct FolderFiles {
    folder: PathBuf,
    open: Mutex<HashMap<String, Arc<OpenFile>>>,
}

#[derive(Debug)]
struct OpenFile {
    file: File,
    size: u64,
}

impl FolderFiles {
    /// Fails when `folder` is missing or is not a folder.
    pub fn open(folder: impl Into<PathBuf>) -> Result<Self> {
        let folder = folder.into();
        match folder.metadata() {
            Ok(m) if m.is_dir() => Ok(Self { folder, open: Mutex::default() }),
            Ok(_) => Err(file_error(&folder, "expected a folder, found a file")),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Err(file_error(&folder, "no such folder")),
            Err(e) => Err(file_error(&folder, e)),
        }
    }

    /// The path of `name`, which an index file may have chosen: it must stay inside the folder.
    fn path_of(&self, name: &str) -> Result<PathBuf> {
        let inside = !name.is_empty() && Path::new(name).components().all(|c| matches!(c, Component::Normal(_)));
        if inside {
            Ok(self.folder.join(name))
        } else {
            Err(file_error(&self.folder, format!("the file name \"{name}\" leads out of the folder")))
        }
    }

    /// The open file, or `None` when there is none of that name.
    fn get(&self, name: &str) -> Result<Option<Arc<OpenFile>>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = open.get(name) {
            return Ok(Some(file.clone()));
        }
        let path = self.path_of(name)?;
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                // Hub caches are made of links: one whose target was deleted is damage, not an absent file.
                return match path.symlink_metadata() {
                    Ok(_) => Err(file_error(&path, "a link whose target is missing")),
                    Err(_) => Ok(None),
                };
            }
            Err(e) => return Err(file_error(&path, e)),
        };
        let metadata = file.metadata().map_err(|e| file_error(&path, e))?;
        if !metadata.is_file() {
            return Err(file_error(&path, "expected a file, found something else"));
        }
        let file = Arc::new(OpenFile { file, size: metadata.len() });
        open.insert(name.to_owned(), file.clone());
        Ok(Some(file))
    }

    fn read_now(&self, name: &str, range: Range<u64>) -> Result<Vec<u8>> {
        let path = self.path_of(name)?;
        let file = self.get(name)?.ok_or_else(|| file_error(&path, "no such file"))?;
        // Checked before anything is allocated: the range may come from a header that lies.
        if range.start > range.end || range.end > file.size {
            let Range { start, end } = range;
            return Err(file_error(&path, format!("bytes {start}..{end} were asked for, the file has {}", file.size)));
        }
        let length = usize::try_from(range.end - range.start).map_err(|e| file_error(&path, e))?;
        let mut bytes = vec![0; length];
        read_exact_at(&file.file, &mut bytes, range.start).map_err(|e| match e.kind() {
            io::ErrorKind::UnexpectedEof => file_error(&path, "became shorter while it was read"),
            _ => file_error(&path, e),
        })?;
        Ok(bytes)
    }

    fn names_now(&self) -> Result<Vec<String>> {
        let fail = |e| file_error(&self.folder, e);
        let mut names = Vec::new();
        for entry in self.folder.read_dir().map_err(fail)? {
            let entry = entry.map_err(fail)?;
            // Through links, because hub snapshots are made of them. A name that is not UTF-8 is no checkpoint's file.
            if entry.path().is_file() {
                names.extend(entry.file_name().into_string().ok());
            }
        }
        names.sort();
        Ok(names)
    }
}

impl Files for FolderFiles {
    fn size<'a>(&'a self, name: &'a str) -> LocalBoxFuture<'a, Result<Option<u64>>> {
        async move { Ok(self.get(name)?.map(|f| f.size)) }.boxed_local()
    }

    fn read<'a>(&'a self, name: &'a str, range: Range<u64>) -> LocalBoxFuture<'a, Result<Cow<'a, [u8]>>> {
        async move { self.read_now(name, range).map(Cow::Owned) }.boxed_local()
    }

    fn names(&self) -> LocalBoxFuture<'_, Result<Vec<String>>> {
        async move { self.names_now() }.boxed_local()
    }

    fn describe(&self) -> String {
        self.folder.display().to_string()
    }
}

fn file_error(path: &Path, reason: impl ToString) -> Error {
    Error::File { path: path.display().to_string(), reason: reason.to_string() }
}

#[cfg(unix)]
fn read_exact_at(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, bytes, offset)
}

#[cfg(windows)]
fn read_exact_at(file: &File, mut bytes: &mut [u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match std::os::windows::fs::FileExt::seek_read(file, bytes, offset) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => {
                bytes = &mut bytes[n..];
                offset += n as u64;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use pollster::block_on;

    fn folder() -> (tempfile::TempDir, FolderFiles) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("b.bin"), b"0123456789").unwrap();
        std::fs::write(dir.path().join("a.json"), b"{}").unwrap();
        std::fs::create_dir(dir.path().join("sub")).unwrap();
        let files = FolderFiles::open(dir.path()).unwrap();
        (dir, files)
    }

    #[test]
    fn ranges_sizes_and_names() {
        let (_dir, files) = folder();
        assert_eq!(block_on(files.names()).unwrap(), ["a.json", "b.bin"]);
        assert_eq!(block_on(files.size("b.bin")).unwrap(), Some(10));
        assert_eq!(block_on(files.size("none")).unwrap(), None);
        assert_eq!(block_on(files.read("b.bin", 3..7)).unwrap().as_ref(), b"3456");
        assert_eq!(block_on(files.read("b.bin", 10..10)).unwrap().as_ref(), b"");
    }

    #[test]
    fn errors_name_the_path() {
        let (dir, files) = folder();
        let says = |result: Result<Cow<'_, [u8]>>, words: &str| {
            let message = result.unwrap_err().to_string();
            assert!(message.contains(words) && message.contains(&*dir.path().to_string_lossy()), "{message}");
        };
        says(block_on(files.read("b.bin", 3..11)), "bytes 3..11 were asked for, the file has 10");
        says(block_on(files.read("b.bin", 0..u64::MAX)), "the file has 10");
        says(block_on(files.read("none", 0..1)), "no such file");
        says(block_on(files.read("../b.bin", 0..1)), "leads out of the folder");
        says(block_on(files.read("/etc/hostname", 0..1)), "leads out of the folder");
        let none = FolderFiles::open(dir.path().join("nothing")).unwrap_err().to_string();
        assert!(none.ends_with("nothing: no such folder"), "{none}");
        let file = FolderFiles::open(dir.path().join("a.json")).unwrap_err().to_string();
        assert!(file.ends_with("a.json: expected a folder, found a file"), "{file}");
    }

    #[test]
    #[cfg(unix)]
    fn a_link_without_its_target_is_damage() {
        let (dir, files) = folder();
        std::os::unix::fs::symlink("../gone", dir.path().join("model.safetensors")).unwrap();
        let message = block_on(files.size("model.safetensors")).unwrap_err().to_string();
        assert!(message.contains("model.safetensors: a link whose target is missing"), "{message}");
    }
}
