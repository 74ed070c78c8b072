//! Tells the program its commit, and makes the q8 form of the pocket model that is compiled into it.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use zebra_runtime::files::MemoryFiles;
use zebra_runtime::weights::{Preset, ShardSink, quantize};

const MODEL: &str = "../models/zebra-pocket";

fn main() -> Result<()> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-env=ZEBRA_COMMIT={}", commit().unwrap_or_else(|| "unknown".into()));
    if std::env::var_os("CARGO_FEATURE_EMBED_MODEL").is_some() {
        println!("cargo::rerun-if-changed={MODEL}");
        let out = PathBuf::from(std::env::var_os("OUT_DIR").context("cargo sets OUT_DIR")?);
        embed(Path::new(MODEL), &out).with_context(|| format!("cannot embed {MODEL}"))?;
    }
    Ok(())
}

/// The commit that is built, when it is built in a checkout.
fn commit() -> Option<String> {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
        Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
    };
    for file in ["HEAD", "logs/HEAD"] {
        // A file that is missing would make every build one with changes.
        if let Some(path) = git(&["rev-parse", "--git-path", file]).filter(|path| Path::new(path).exists()) {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    git(&["rev-parse", "--short", "HEAD"])
}

/// Writes the q8 form of a checkpoint to `out`, and a list of its files for the program to include.
fn embed(folder: &Path, out: &Path) -> Result<()> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).context("a file name is not UTF-8")?.to_owned();
        files.push((name, std::fs::read(&path)?.into()));
    }
    let files = MemoryFiles::new(folder.display().to_string(), files);
    let mut embedded = Memory::default();
    pollster::block_on(quantize(&files, Preset::Q8, &mut embedded, &mut |_, _| {}))?;

    let mut list = "pub static FILES: &[(&str, &[u8])] = &[\n".to_owned();
    let target = out.join("embedded");
    std::fs::create_dir_all(&target)?;
    for (name, bytes) in &embedded.0 {
        let path = target.join(name);
        std::fs::write(&path, bytes)?;
        writeln!(list, "    ({name:?}, include_bytes!({path:?})),")?;
    }
    list.push_str("];\n");
    std::fs::write(out.join("embedded_files.rs"), list)?;
    Ok(())
}

/// Files by name.
#[derive(Default)]
struct Memory(BTreeMap<String, Vec<u8>>);

impl ShardSink for Memory {
    fn write<'a>(
        &'a mut self,
        file: &'a str,
        offset: u64,
        bytes: &'a [u8],
    ) -> LocalBoxFuture<'a, zebra_runtime::Result<()>> {
        let content = self.0.entry(file.to_owned()).or_default();
        let end = offset as usize + bytes.len();
        if content.len() < end {
            content.resize(end, 0);
        }
        content[offset as usize..end].copy_from_slice(bytes);
        async { Ok(()) }.boxed_local()
    }
}
