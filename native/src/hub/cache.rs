//! The hub cache on disk: `models--owner--name/{blobs,refs,snapshots}`. The `hf-hub` crate knows the layout; blobs that
//! are being received, links and locks are done here as Hugging Face's Python client does them.

use std::fs::{File, create_dir_all};
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use hf_hub::{Cache, CacheRepo, Repo, RepoType};
use serde_json::Value;

use super::{HubName, INDEX, SINGLE, is_commit};

pub(super) struct ModelCache {
    layout: CacheRepo,
    revision: String,
    /// `models--owner--name`.
    folder: PathBuf,
    locks: PathBuf,
}

impl ModelCache {
    pub(super) fn new(cache: &Path, name: &HubName) -> Self {
        let repo = Repo::with_revision(name.repo.clone(), RepoType::Model, name.revision.clone());
        let folder = cache.join(repo.folder_name());
        let locks = cache.join(".locks").join(repo.folder_name());
        Self { layout: Cache::new(cache.into()).repo(repo), revision: name.revision.clone(), folder, locks }
    }

    /// The folder of a commit's files.
    pub(super) fn snapshot(&self, commit: &str) -> PathBuf {
        self.layout.pointer_path(commit)
    }

    /// The snapshot that the revision stood for when it was last seen, if all of its files are here.
    pub(super) fn complete(&self) -> anyhow::Result<Option<PathBuf>> {
        let commit = if is_commit(&self.revision) {
            self.revision.clone()
        } else {
            let branch = self.folder.join("refs").join(&self.revision);
            match std::fs::read_to_string(&branch) {
                Ok(text) => text.trim().to_owned(),
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(e) => return Err(e).with_context(|| format!("{} could not be read", branch.display())),
            }
        };
        let folder = self.snapshot(&commit);
        // `exists` follows the links: a deleted blob counts as absent. Weights come last, so they vouch for the rest.
        let has = |file: &str| folder.join(file).exists();
        let whole = has("config.json")
            && if has(INDEX) { indexed(&folder.join(INDEX))?.iter().all(|w| has(w)) } else { has(SINGLE) };
        Ok(whole.then_some(folder))
    }

    /// The size of a file that is in the snapshot already.
    pub(super) fn size_in_snapshot(&self, commit: &str, name: &str) -> anyhow::Result<Option<u64>> {
        let path = self.snapshot(commit).join(name);
        match path.metadata() {
            Ok(m) => Ok(Some(m.len())),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e).with_context(|| format!("{} could not be read", path.display())),
        }
    }

    /// Where the content named by `blob` lies once it is complete.
    pub(super) fn blob(&self, blob: &str) -> PathBuf {
        self.folder.join("blobs").join(blob)
    }

    /// Where it lies until then. Its name holds the ETag: bytes of another version are never continued.
    pub(super) fn partial(&self, blob: &str) -> PathBuf {
        self.folder.join("blobs").join(format!("{blob}.incomplete"))
    }

    /// Makes the folders and keeps other programs from receiving the same blob until the file is dropped.
    pub(super) fn lock(&self, blob: &str) -> anyhow::Result<File> {
        for folder in [&self.locks, &self.folder.join("blobs")] {
            create_dir_all(folder).with_context(|| format!("{} could not be made", folder.display()))?;
        }
        let path = self.locks.join(format!("{blob}.lock"));
        let file = File::create(&path).with_context(|| format!("{} could not be made", path.display()))?;
        match fs4::FileExt::try_lock(&file) {
            Ok(()) => {}
            Err(fs4::TryLockError::WouldBlock) => {
                log::warn!("waiting for another program that downloads the same file ({})", path.display());
                fs4::FileExt::lock(&file).with_context(|| format!("{} could not be locked", path.display()))?;
            }
            // Some network file systems have no locks; the SHA-256 still tells when two programs got in each other's way.
            Err(fs4::TryLockError::Error(e)) => log::warn!("{} could not be locked: {e}", path.display()),
        }
        Ok(file)
    }

    /// Puts a blob into a snapshot under its file name.
    pub(super) fn link(&self, commit: &str, name: &str, blob: &str) -> anyhow::Result<()> {
        let link = self.snapshot(commit).join(name);
        let linked = link.parent().map_or(Ok(()), create_dir_all).and_then(|()| {
            // A link that is there points to a blob that is gone, or it would have been found.
            match std::fs::remove_file(&link) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
            let up = "../".repeat(2 + name.matches('/').count());
            make_link(Path::new(&format!("{up}blobs/{blob}")), &self.blob(blob), &link)
        });
        linked.with_context(|| format!("{} could not be made", link.display()))
    }

    /// Writes down which commit the branch stands for.
    pub(super) fn set_branch(&self, commit: &str) -> anyhow::Result<()> {
        if is_commit(&self.revision) {
            return Ok(());
        }
        self.layout
            .create_ref(commit)
            .with_context(|| format!("{}/refs/{} could not be written", self.folder.display(), self.revision))
    }
}

#[cfg(unix)]
fn make_link(relative: &Path, _blob: &Path, link: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(relative, link)
}

/// Windows lets only some users make symbolic links; a hard link costs no space either, a copy does.
#[cfg(not(unix))]
fn make_link(_relative: &Path, blob: &Path, link: &Path) -> io::Result<()> {
    std::fs::hard_link(blob, link).or_else(|_| std::fs::copy(blob, link).map(|_| ()))
}

/// The files that `model.safetensors.index.json` names, each once.
pub(super) fn indexed(index: &Path) -> anyhow::Result<Vec<String>> {
    let shown = index.display();
    let text = std::fs::read(index).with_context(|| format!("{shown} could not be read"))?;
    let json: Value = serde_json::from_slice(&text).with_context(|| format!("{shown} is not JSON"))?;
    let map =
        json["weight_map"].as_object().with_context(|| format!("{shown}: key \"weight_map\": no object found"))?;
    let mut files = Vec::new();
    for (tensor, file) in map {
        match file.as_str() {
            Some(file) if Path::new(file).components().all(|c| matches!(c, std::path::Component::Normal(_))) => {
                files.push(file.to_owned());
            }
            _ => bail!("{shown}: tensor \"{tensor}\": expected a file name, found {file}"),
        }
    }
    files.sort();
    files.dedup();
    if files.is_empty() {
        bail!("{shown}: key \"weight_map\": it names no file");
    }
    Ok(files)
}
