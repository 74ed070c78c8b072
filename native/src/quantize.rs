//! `zebra quantize`: stores a checkpoint again with quantized weights.

use std::path::Path;

use zebra_runtime::Result;
use zebra_runtime::files::Files;
use zebra_runtime::weights::{Preset, quantize};

use crate::args::{QuantizeArgs, StoredFormat};
use crate::load;
use crate::staging::{Staging, refuse_existing};
use crate::terminal::Terminal;

/// Runs the command.
pub fn run(args: &QuantizeArgs) -> anyhow::Result<()> {
    let terminal = Terminal::new(false);
    // Before gigabytes are downloaded for nothing.
    refuse_existing(&args.out)?;
    let files = load::files(Some(&args.source), &terminal)?;
    let bar = terminal.count(&format!("Quantizing {}", files.describe()), 0);
    let mut progress = |done, total| bar.set(done, total);
    pollster::block_on(quantize_files(&*files, &args.out, args.format.into(), &mut progress))?;
    drop(bar);
    terminal.note(format_args!("Wrote {}", args.out.display()));
    Ok(())
}

impl From<StoredFormat> for Preset {
    fn from(format: StoredFormat) -> Self {
        match format {
            StoredFormat::F16 => Self::F16,
            StoredFormat::Q8 => Self::Q8,
            StoredFormat::Q4 => Self::Q4,
        }
    }
}

/// Quantizes a checkpoint into the new folder `out`. `progress` gets the weights done and their total number. Whatever
/// fails leaves nothing behind.
async fn quantize_files(
    files: &dyn Files,
    out: &Path,
    preset: Preset,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<()> {
    let mut staging = Staging::begin(out)?;
    quantize(files, preset, &mut staging, progress).await?;
    staging.finish()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use zebra_runtime::weights::Checkpoint;

    use super::*;
    use crate::files::FolderFiles;

    fn quantize(src: &Path, out: &Path, preset: Preset, progress: &mut dyn FnMut(u64, u64)) -> Result<()> {
        pollster::block_on(quantize_files(&FolderFiles::open(src)?, out, preset, progress))
    }

    fn repository(path: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
    }

    #[test]
    fn the_pocket_model_becomes_a_folder_that_opens() {
        let parent = tempfile::tempdir().expect("a temporary folder");
        let (src, out) = (repository("models/zebra-pocket"), parent.path().join("pocket-q8"));
        let mut last = (0, 0);
        quantize(&src, &out, Preset::Q8, &mut |done, total| last = (done, total)).expect("quantizes");
        assert_eq!(last, (16_557_036, 16_557_036));

        let files = FolderFiles::open(&out).expect("the folder is there");
        let checkpoint = pollster::block_on(Checkpoint::open(&files)).expect("it opens");
        assert_eq!(checkpoint.stored(), Some(Preset::Q8));
        let names = pollster::block_on(files.names()).expect("names");
        let expected = [
            "LICENSE-wordnet.txt",
            "README.md",
            "config.json",
            "generation_config.json",
            "hybrid_config.json",
            "model.safetensors",
            "tokenizer.json",
            "tokenizer_config.json",
        ];
        assert_eq!(names, expected);
        for name in expected.iter().filter(|name| **name != "model.safetensors") {
            let (a, b) = (fs::read(src.join(name)), fs::read(out.join(name)));
            assert_eq!(a.expect("source"), b.expect("copy"), "{name}");
        }

        let error = quantize(&src, &out, Preset::Q8, &mut |_, _| {}).expect_err("it exists now").to_string();
        assert!(error.contains("pocket-q8: exists already"), "{error}");
        // q8 codes are no source for q4, and the refusal leaves nothing.
        let again = parent.path().join("q4");
        let error = quantize(&out, &again, Preset::Q4, &mut |_, _| {}).expect_err("it is quantized").to_string();
        assert!(error.contains("format") && error.contains("q8"), "{error}");
        assert_eq!(fs::read_dir(parent.path()).expect("readable").count(), 1);
    }

    #[test]
    fn a_bad_tensor_leaves_nothing() {
        let parent = tempfile::tempdir().expect("a temporary folder");
        let src = parent.path().join("src");
        fs::create_dir(&src).expect("creates");
        for name in ["config.json", "hybrid_config.json", "model.safetensors"] {
            fs::copy(repository("tests/fixtures/tiny-gqa").join(name), src.join(name)).expect("copies");
        }
        // The last value of the last tensor of the file.
        let weights = src.join("model.safetensors");
        let mut bytes = fs::read(&weights).expect("readable");
        let end = bytes.len();
        bytes[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
        fs::write(&weights, bytes).expect("writes");
        let out = parent.path().join("out");
        let error = quantize(&src, &out, Preset::Q4, &mut |_, _| {}).expect_err("NaN is refused").to_string();
        assert!(error.contains("NaN at ["), "{error}");
        assert_eq!(fs::read_dir(parent.path()).expect("readable").count(), 1);
    }
}
