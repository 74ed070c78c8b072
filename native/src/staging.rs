//! An output folder that appears whole or not at all: everything is written into a temporary folder beside it, which
//! is renamed at the end and removed when anything fails before, Ctrl-C included.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use zebra_runtime::weights::ShardSink;
use zebra_runtime::{Error, Result};

/// Set by Ctrl-C (and a termination signal): the next write answers [`Error::Aborted`].
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// The folder in the making.
pub struct Staging {
    target: PathBuf,
    /// `None` once it has become the target.
    temporary: Option<PathBuf>,
    open: HashMap<String, File>,
}

impl Staging {
    /// Begins a folder that will be `target`, which must not exist while its parent must.
    pub fn begin(target: &Path) -> Result<Self> {
        let name = target.file_name().ok_or_else(|| failed(target, "expected the path of a new folder"))?;
        refuse_existing(target)?;
        on_interrupt();
        let mut hidden = std::ffi::OsString::from(".");
        hidden.push(name);
        hidden.push(format!(".partial-{}", std::process::id()));
        let temporary = target.with_file_name(hidden);
        match fs::create_dir(&temporary) {
            Ok(()) => {}
            // The process id is ours: a killed run of the same id left this.
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                fs::remove_dir_all(&temporary)
                    .and_then(|()| fs::create_dir(&temporary))
                    .map_err(|e| failed(&temporary, e))?;
            }
            Err(e) => return Err(failed(target, format!("cannot create a folder here: {e}"))),
        }
        Ok(Self { target: target.to_path_buf(), temporary: Some(temporary), open: HashMap::new() })
    }

    /// Flushes every file to the disk and gives the folder its name.
    pub fn finish(mut self) -> Result<()> {
        for (name, file) in self.open.drain() {
            file.sync_data().map_err(|e| failed(&self.target.join(name), e))?;
        }
        check_interrupt()?;
        refuse_existing(&self.target)?;
        if let Some(temporary) = &self.temporary {
            fs::rename(temporary, &self.target).map_err(|e| failed(&self.target, e))?;
            self.temporary = None;
        }
        Ok(())
    }

    /// Puts `bytes` at `offset` of a file, which begins with its first piece.
    pub fn write(&mut self, file: &str, offset: u64, bytes: &[u8]) -> Result<()> {
        check_interrupt()?;
        // The message names the file as it was to be, not the temporary one, which is gone when it is read.
        self.put(file, offset, bytes).map_err(|e| failed(&self.target.join(file), e))
    }

    fn put(&mut self, name: &str, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let file = match self.open.get_mut(name) {
            Some(file) => file,
            None => {
                let folder = self.temporary.as_deref().unwrap_or(&self.target);
                let file = File::create_new(folder.join(name))?;
                self.open.entry(name.to_string()).or_insert(file)
            }
        };
        file.seek(SeekFrom::Start(offset))?;
        file.write_all(bytes)
    }
}

impl ShardSink for Staging {
    fn write<'a>(&'a mut self, file: &'a str, offset: u64, bytes: &'a [u8]) -> LocalBoxFuture<'a, Result<()>> {
        async move { Staging::write(self, file, offset, bytes) }.boxed_local()
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // Closed first: some systems do not remove an open file.
        self.open.clear();
        if let Some(temporary) = self.temporary.take() {
            if let Err(e) = fs::remove_dir_all(&temporary) {
                log::warn!("{}: cannot be removed: {e}", temporary.display());
            }
        }
    }
}

fn failed(path: &Path, reason: impl ToString) -> Error {
    Error::File { path: path.display().to_string(), reason: reason.to_string() }
}

/// Nothing is ever overwritten.
pub fn refuse_existing(target: &Path) -> Result<()> {
    // A link that leads nowhere exists too.
    match target.symlink_metadata() {
        Ok(_) => Err(failed(target, "exists already; nothing is overwritten: remove it or choose another name")),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(failed(target, e)),
    }
}

/// Whether somebody wants it to stop, once [`on_interrupt`] was called.
pub fn check_interrupt() -> Result<()> {
    if INTERRUPTED.load(Ordering::SeqCst) { Err(Error::Aborted) } else { Ok(()) }
}

/// From now on Ctrl-C is something to be asked for.
pub fn on_interrupt() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        if let Err(e) = ctrlc::set_handler(|| INTERRUPTED.store(true, Ordering::SeqCst)) {
            log::warn!("Ctrl-C will leave a temporary folder behind: {e}");
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(folder)
            .expect("the folder is readable")
            .map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"))
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_folder_appears_at_the_end_or_not_at_all() {
        let parent = tempfile::tempdir().expect("a temporary folder");
        let target = parent.path().join("out");
        let mut staging = Staging::begin(&target).expect("begins");
        staging.write("b", 3, b"def").expect("writes");
        staging.write("b", 0, b"abc").expect("writes");
        assert!(!target.exists());
        staging.finish().expect("finishes");
        assert_eq!(fs::read(target.join("b")).expect("readable"), b"abcdef");
        assert_eq!(names(parent.path()), ["out"]);

        let Err(error) = Staging::begin(&target) else { panic!("an existing folder was accepted") };
        assert!(error.to_string().contains("exists already"), "{error}");

        let other = parent.path().join("other");
        let mut staging = Staging::begin(&other).expect("begins");
        staging.write("a", 0, b"a").expect("writes");
        drop(staging);
        assert_eq!(names(parent.path()), ["out"]);

        // What appears meanwhile is not overwritten.
        let mut staging = Staging::begin(&other).expect("begins");
        staging.write("a", 0, b"a").expect("writes");
        fs::write(&other, "kept").expect("writes");
        assert!(staging.finish().is_err());
        assert_eq!(fs::read(&other).expect("readable"), b"kept");
        assert_eq!(names(parent.path()), ["other", "out"]);

        assert!(Staging::begin(&parent.path().join("no/such/parent")).is_err());
        assert!(Staging::begin(Path::new("..")).is_err());
    }
}
