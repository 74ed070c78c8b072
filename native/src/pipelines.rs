//! Compiled pipelines on the disk, so that the next start need not compile them: a file for each adapter, in the folder
//! where the system keeps what a program can do without. Whatever is wrong with it, the pipelines are compiled.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use pollster::block_on;
use zebra_runtime::gpu::Gpu;

/// A larger file is begun anew: pipelines that no kernel asks for any more are never taken out of it.
const MOST_BYTES: u64 = 64 << 20;

/// The file of an adapter.
pub struct Kept {
    path: PathBuf,
}

/// Has a device begin with what is kept for its adapter; `None` where nothing can be. To be called before any shader is
/// compiled.
pub fn begin(gpu: &Gpu) -> Option<Kept> {
    begin_in(&folder()?, gpu)
}

fn begin_in(folder: &Path, gpu: &Gpu) -> Option<Kept> {
    let kept = Kept { path: folder.join(gpu.pipeline_cache_name()?) };
    block_on(gpu.keep_pipelines(kept.read().as_deref()));
    Some(kept)
}

impl Kept {
    fn read(&self) -> Option<Vec<u8>> {
        let size = fs::metadata(&self.path).ok()?.len();
        if size > MOST_BYTES { None } else { fs::read(&self.path).ok() }
    }

    /// Keeps what a device has compiled, when there is something new. A full disk or a folder that cannot be written to
    /// costs the next start some time and nothing else.
    pub fn update(&self, gpu: &Gpu) {
        let Some(bytes) = gpu.compiled_pipelines() else { return };
        if self.read().is_some_and(|kept| kept == bytes) {
            return;
        }
        if let Err(e) = write(&self.path, &bytes) {
            log::debug!("{}: compiled pipelines are not kept: {e}", self.path.display());
        }
    }
}

/// The file is there whole or not at all, whoever reads or writes it at the same time.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(bytes)?;
    file.persist(path)?;
    Ok(())
}

/// The folder of this program's cached files; none where the system has no such place.
pub fn folder() -> Option<PathBuf> {
    let variable = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let folder = if cfg!(windows) {
        variable("LOCALAPPDATA")
    } else {
        variable("XDG_CACHE_HOME").or_else(|| variable("HOME").map(|home| home.join(".cache")))
    };
    folder.map(|folder| folder.join("zebra"))
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use zebra_runtime::engine::CacheFormat;
    use zebra_runtime::engine::self_test::{Verdict, self_test};
    use zebra_runtime::weights::Preset;

    use super::*;

    /// A run of the program: kernels are compiled and their results checked.
    fn run(folder: &Path) -> Kept {
        let gpu = block_on(Gpu::open(None)).expect("an adapter");
        let kept = begin_in(folder, &gpu).expect("an adapter whose pipelines can be kept");
        assert_eq!(block_on(self_test(&gpu, Preset::Q8, CacheFormat::Q8)).expect("it runs"), Verdict::Right);
        kept.update(&gpu);
        kept
    }

    #[test]
    fn pipelines_are_kept_and_damage_is_replaced() {
        let parent = tempfile::tempdir().expect("a temporary folder");
        let folder = parent.path().join("not/there/yet");
        let kept = run(&folder);
        let first = fs::read(&kept.path).expect("what the first run left");
        // Mesa's software driver leaves its header and no pipeline.
        assert!(first.len() > 64, "{} bytes", first.len());
        let names = || fs::read_dir(&folder).expect("a folder").count();

        // What is not new is not written.
        let long_ago = SystemTime::UNIX_EPOCH;
        fs::File::options().append(true).open(&kept.path).and_then(|f| f.set_modified(long_ago)).expect("a new time");
        run(&folder);
        assert_eq!(fs::metadata(&kept.path).and_then(|m| m.modified()).expect("a time"), long_ago);

        let cut = first[..first.len() / 2].to_vec();
        let mut changed = first.clone();
        changed[first.len() / 2] ^= 1;
        for damaged in [cut, changed, b"something else".to_vec(), Vec::new()] {
            fs::write(&kept.path, &damaged).expect("damaged");
            run(&folder);
            assert_eq!(fs::read(&kept.path).expect("replaced").len(), first.len());
        }
        // Too large to be right.
        fs::File::create(&kept.path).and_then(|f| f.set_len(MOST_BYTES + 1)).expect("a large file");
        run(&folder);
        assert_eq!((fs::read(&kept.path).expect("replaced").len(), names()), (first.len(), 1));
    }

    #[test]
    fn a_folder_that_cannot_be_does_no_harm() {
        let parent = tempfile::tempdir().expect("a temporary folder");
        let file = parent.path().join("file");
        fs::write(&file, "kept").expect("a file");
        run(&file);
        run(&file.join("below"));
        // A folder in the file's place.
        let kept = run(parent.path());
        fs::remove_file(&kept.path).and_then(|()| fs::create_dir(&kept.path)).expect("a folder");
        fs::write(kept.path.join("full"), "").expect("a file in it");
        run(parent.path());
        assert_eq!(fs::read(&file).expect("as it was"), b"kept");
        assert_eq!(fs::read_dir(parent.path()).expect("a folder").count(), 2, "no temporary file is left");
    }
}
