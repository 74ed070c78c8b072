//! Which twins of the kernels are the fastest, measured once and kept on the disk: a file for each adapter beside its
//! compiled pipelines, with a choice for each driver, format and geometry. Whatever is wrong with it, they are measured
//! again.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use pollster::block_on;
use serde::{Deserialize, Serialize};
use zebra_runtime::engine::{KernelChoice, LoadOptions, Twins, choose};
use zebra_runtime::gpu::{AdapterDescription, Gpu};
use zebra_runtime::weights::Checkpoint;

use crate::pipelines;

/// Whose choices are kept: kernels may be others in another version.
const PROGRAM: &str = concat!(env!("CARGO_PKG_VERSION"), " ", env!("ZEBRA_COMMIT"));

/// A larger file is none of ours.
const MOST_BYTES: u64 = 1 << 20;

/// What the file holds.
#[derive(Debug, Serialize, Deserialize)]
struct Choices {
    program: String,
    /// By driver and [`choose::key`].
    twins: BTreeMap<String, Twins>,
}

impl Choices {
    /// Those of this program, if there are any.
    fn read(path: &Path) -> Self {
        let size = fs::metadata(path).map_or(0, |m| m.len());
        let text = if size > MOST_BYTES { None } else { fs::read(path).ok() };
        text.and_then(|text| serde_json::from_slice(&text).ok())
            .filter(|choices: &Self| choices.program == PROGRAM)
            .unwrap_or_else(|| Self { program: PROGRAM.into(), twins: BTreeMap::new() })
    }
}

/// The place of one choice.
struct Place {
    /// None where the system has no folder for such things.
    file: Option<PathBuf>,
    key: String,
}

impl Place {
    fn new(folder: Option<PathBuf>, adapter: &AdapterDescription, key: &str) -> Self {
        let safe = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
        let name: String = format!("{}_{}", adapter.backend, adapter.name).chars().map(safe).collect();
        let file = folder.map(|folder| folder.join(format!("{name}.twins.json")));
        Self { file, key: format!("{}; {key}", adapter.driver) }
    }

    fn kept(&self) -> Option<Twins> {
        Choices::read(self.file.as_deref()?).twins.get(&self.key).copied()
    }

    /// A folder that cannot be written to costs the next start a measurement and nothing else.
    fn keep(&self, twins: Twins) {
        let Some(file) = &self.file else { return };
        let mut choices = Choices::read(file);
        choices.twins.insert(self.key.clone(), twins);
        let written = serde_json::to_vec_pretty(&choices).map_err(Into::into);
        if let Err(e) = written.and_then(|bytes| pipelines::write(file, &bytes)) {
            log::debug!("{}: measured twins are not kept: {e}", file.display());
        }
    }
}

/// The kernels to load a checkpoint with: where the options leave it to the adapter, those that were measured on it, now or
/// before.
pub fn choose(gpu: &Gpu, checkpoint: &Checkpoint<'_>, options: &LoadOptions) -> Result<KernelChoice> {
    decide(gpu, checkpoint, options, true)
}

/// As [`choose`], without a measurement: what the adapter offers where nothing is known.
pub fn known(gpu: &Gpu, checkpoint: &Checkpoint<'_>, options: &LoadOptions) -> Result<KernelChoice> {
    decide(gpu, checkpoint, options, false)
}

fn decide(gpu: &Gpu, checkpoint: &Checkpoint<'_>, options: &LoadOptions, may_measure: bool) -> Result<KernelChoice> {
    if options.kernels != KernelChoice::Auto || !choose::is_measurable(gpu) {
        return Ok(options.kernels);
    }
    let (config, preset) = (checkpoint.config(), options.plan(checkpoint, gpu)?.options.preset);
    let place = Place::new(pipelines::folder(), gpu.description(), &choose::key(config, preset, options.cache));
    Ok(found(&place, || may_measure.then(|| block_on(choose::measure(gpu, config, preset, options.cache)))))
}

/// What is kept, or else measured.
fn found(place: &Place, measure: impl FnOnce() -> Option<zebra_runtime::Result<Twins>>) -> KernelChoice {
    if let Some(twins) = place.kept() {
        return KernelChoice::Measured(twins);
    }
    match measure() {
        Some(Ok(twins)) => {
            place.keep(twins);
            KernelChoice::Measured(twins)
        }
        // What hinders the model too is told when it is loaded.
        Some(Err(e)) => {
            log::debug!("twins are not measured: {e}");
            KernelChoice::Auto
        }
        None => KernelChoice::Auto,
    }
}

/// What runs, and why, in a few words.
pub fn describe(twins: Twins, choice: KernelChoice) -> String {
    match choice {
        KernelChoice::Plain => twins.to_string(),
        KernelChoice::Auto => format!("{twins} (as offered)"),
        KernelChoice::Measured(_) => format!("{twins} (measured)"),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use zebra_runtime::Error;
    use zebra_runtime::gpu::Limits;

    use super::*;

    const CHOSEN: Twins = Twins { matmul_i8: false, ..Twins::portable() };

    fn place(folder: &Path, driver: &str, key: &str) -> Place {
        let (name, driver) = ("Some GPU/2".into(), driver.into());
        let adapter =
            AdapterDescription { name, kind: "discrete", backend: "vulkan".into(), driver, limits: Limits::LEAST };
        Place::new(Some(folder.to_owned()), &adapter, key)
    }

    /// Whether a choice had to be measured.
    fn measures(place: &Place) -> bool {
        let measured = Cell::new(false);
        let choice = found(place, || {
            measured.set(true);
            Some(Ok(CHOSEN))
        });
        assert_eq!(choice, KernelChoice::Measured(CHOSEN));
        measured.get()
    }

    #[test]
    fn a_choice_is_measured_once_for_each_driver_and_geometry() {
        let parent = tempfile::tempdir().expect("a temporary folder");
        let folder = parent.path().join("not/there/yet");
        let here = |driver, key| place(&folder, driver, key);
        assert!(measures(&here("driver 1", "q4 2048")));
        assert!(!measures(&here("driver 1", "q4 2048")));
        assert!(measures(&here("driver 2", "q4 2048")) && measures(&here("driver 1", "q8 2048")));
        assert!(!measures(&here("driver 2", "q4 2048")) && !measures(&here("driver 1", "q4 2048")));
        let names: Vec<_> =
            fs::read_dir(&folder).expect("a folder").map(|e| e.expect("an entry").file_name()).collect();
        assert_eq!(names, ["vulkan_Some_GPU_2.twins.json"], "and no temporary file");
    }

    #[test]
    fn what_is_damaged_or_of_another_version_is_measured_again() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let here = place(folder.path(), "driver", "q4 2048");
        assert!(measures(&here));
        let file = here.file.clone().expect("a file");
        let good = fs::read_to_string(&file).expect("it is there");
        let damaged = [
            String::new(),
            good[..good.len() / 2].to_owned(),
            good.replace(PROGRAM, "0.0.1 abcdef0"),
            good.replace("\"subgroups\"", "\"another\""),
            good.replace("\"matmul_i8\": false,", ""),
            good.replace("false", "0"),
        ];
        for text in damaged {
            assert_ne!(text, good);
            fs::write(&file, &text).expect("damaged");
            assert!(measures(&here), "{text}");
            assert_eq!(fs::read_to_string(&file).expect("replaced"), good);
        }
        fs::File::create(&file).and_then(|f| f.set_len(MOST_BYTES + 1)).expect("a large file");
        assert!(measures(&here));
        assert!(!measures(&here), "the control: what is whole is taken");
    }

    #[test]
    fn where_nothing_can_be_kept_it_is_measured_each_time() {
        let parent = tempfile::tempdir().expect("a temporary folder");
        let file = parent.path().join("file");
        fs::write(&file, "kept").expect("a file");
        // No folder, a file in its place, and a folder in the file's.
        let nowhere = Place { file: None, key: "q4".into() };
        let blocked = place(parent.path(), "driver", "q4");
        fs::create_dir(blocked.file.as_ref().expect("a path")).expect("a folder");
        for place in [nowhere, place(&file, "driver", "q4"), place(&file.join("below"), "driver", "q4"), blocked] {
            assert!(measures(&place) && measures(&place));
        }
        assert_eq!(fs::read(&file).expect("as it was"), b"kept");
    }

    #[test]
    fn a_measurement_that_fails_leaves_what_is_offered_and_is_not_kept() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let here = place(folder.path(), "driver", "q4");
        assert_eq!(found(&here, || Some(Err(Error::DeviceLost("gone".into())))), KernelChoice::Auto);
        assert_eq!(found(&here, || None), KernelChoice::Auto);
        assert!(measures(&here));
    }
}
