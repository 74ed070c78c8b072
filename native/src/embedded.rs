//! The model inside of the program: the pocket model, whose q8 form the build script makes.

use anyhow::Result;
use zebra_runtime::files::MemoryFiles;

#[cfg(feature = "embed-model")]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/embedded_files.rs"));
}

/// Its files.
#[cfg(feature = "embed-model")]
pub fn files() -> Result<MemoryFiles> {
    let files = generated::FILES.iter().map(|(name, bytes)| ((*name).to_owned(), (*bytes).into()));
    Ok(MemoryFiles::new("zebra-pocket", files.collect()))
}

/// A program built without one says how to give one.
#[cfg(not(feature = "embed-model"))]
pub fn files() -> Result<MemoryFiles> {
    anyhow::bail!("this program was built without a model inside: give one by --model FOLDER or --model OWNER/NAME")
}
