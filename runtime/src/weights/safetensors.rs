//! An index over the safetensors files of a checkpoint: where each tensor's bytes lie. Reads headers only, and believes
//! nothing in them: offsets must cover the file exactly, without gap or overlap, as the format demands.
//!
//! The `safetensors` crate's own reader needs a file in memory and holds offsets in `usize`; checkpoints here are
//! larger than the memory of a browser, so offsets are u64 and only its type names are used.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};

use crate::files::{Files, read_whole};
use crate::{Error, Result};

pub use ::safetensors::Dtype;

/// A checkpoint in one file.
pub const SINGLE_FILE: &str = "model.safetensors";
/// The list of shards of a checkpoint in many files.
pub const INDEX_FILE: &str = "model.safetensors.index.json";

/// The format's own limit on a header.
const MAX_HEADER: u64 = 100_000_000;

/// Where one tensor lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its file, as a number in [`Index::files`].
    pub file: usize,
    /// The type of its values.
    pub dtype: Dtype,
    /// Its shape, outermost first.
    pub shape: Vec<usize>,
    /// Its bytes, from the start of the file.
    pub bytes: Range<u64>,
}

/// All tensors of a checkpoint.
#[derive(Debug, Clone, Default)]
pub struct Index {
    /// The files that hold them.
    pub files: Vec<String>,
    /// The tensors by name.
    pub tensors: BTreeMap<String, Entry>,
    /// What `__metadata__` of each file says, in the order of `files`.
    pub metadata: Vec<BTreeMap<String, String>>,
}

impl Index {
    /// Reads the headers of all files: `model.safetensors`, or those that `model.safetensors.index.json` lists.
    pub async fn open(files: &dyn Files) -> Result<Self> {
        let mut index = Index::default();
        if files.size(SINGLE_FILE).await?.is_some() {
            index.add_file(files, SINGLE_FILE).await?;
            return Ok(index);
        }
        let Some(list) = read_whole(files, INDEX_FILE).await? else {
            return Err(no_weights(files).await?);
        };
        let list: ShardList = serde_json::from_slice(&list).map_err(|error| Error::Config {
            file: INDEX_FILE.into(),
            key: "weight_map".into(),
            expected: "an object from tensor names to file names".into(),
            found: error.to_string(),
        })?;
        let mut names: Vec<&String> = list.weight_map.values().collect();
        names.sort();
        names.dedup();
        for name in names {
            if name.contains(['/', '\\']) {
                return Err(Error::Config {
                    file: INDEX_FILE.into(),
                    key: "weight_map".into(),
                    expected: "names of files in the same folder".into(),
                    found: format!("\"{name}\""),
                });
            }
            index.add_file(files, name).await?;
        }
        for (tensor, file) in &list.weight_map {
            let found = index.tensors.get(tensor).map(|entry| index.files[entry.file].as_str());
            if found != Some(file) {
                return Err(Error::Tensor {
                    name: tensor.clone(),
                    expected: format!("to lie in {file} ({INDEX_FILE})"),
                    found: found.map_or("no such tensor".into(), |other| format!("in {other}")),
                });
            }
        }
        Ok(index)
    }

    async fn add_file(&mut self, files: &dyn Files, name: &str) -> Result<()> {
        let path = || format!("{}/{name}", files.describe());
        let size = files
            .size(name)
            .await?
            .ok_or_else(|| Error::File { path: path(), reason: format!("no such file, but {INDEX_FILE} lists it") })?;
        let fail = |reason: String| Error::Safetensors { file: path(), reason };
        if size < 8 {
            return Err(fail(format!("truncated: a header length of 8 bytes was expected, the file has {size}")));
        }
        let start = files.read(name, 0..8).await?;
        if start.starts_with(b"GGUF") {
            return Err(fail("this is a GGUF file, not safetensors; GGUF is not supported".into()));
        }
        let length = u64::from_le_bytes(start.as_ref().try_into().map_err(|_| fail("8 bytes were asked for".into()))?);
        if length > MAX_HEADER || length > size - 8 {
            return Err(fail(format!(
                "the header claims {length} bytes, the file has {size}: truncated or not a safetensors file"
            )));
        }
        let text = files.read(name, 8..8 + length).await?;
        let header: Header = serde_json::from_slice(&text).map_err(|error| fail(format!("header: {error}")))?;

        let data = 8 + length;
        let mut spans = Vec::with_capacity(header.tensors.len());
        for (tensor, info) in header.tensors {
            let [from, to] = info.data_offsets;
            let elements = info.shape.iter().try_fold(1u64, |product, &d| product.checked_mul(d));
            let bits = elements.and_then(|n| n.checked_mul(info.dtype.bitsize() as u64));
            if bits.is_none() || from > to || bits.map(|bits| bits.div_ceil(8)) != Some(to - from) {
                return Err(fail(format!(
                    "tensor \"{tensor}\": shape {:?} of {} does not take the bytes {from}..{to} of its data_offsets",
                    info.shape, info.dtype
                )));
            }
            let shape: Option<Vec<usize>> = info.shape.iter().map(|&d| usize::try_from(d).ok()).collect();
            let shape =
                shape.ok_or_else(|| fail(format!("tensor \"{tensor}\": shape {:?} is too large", info.shape)))?;
            spans.push((from, to, tensor.clone()));
            // Offsets are checked against the file's size below, before anyone reads by them.
            let bytes = data.saturating_add(from)..data.saturating_add(to);
            let entry = Entry { file: self.files.len(), dtype: info.dtype, shape, bytes };
            if let Some(other) = self.tensors.insert(tensor.clone(), entry) {
                let other = self.files.get(other.file).map_or(name, String::as_str);
                return Err(fail(format!("tensor \"{tensor}\" is stored twice, also in {other}")));
            }
        }
        spans.sort();
        let mut expected = 0;
        for (from, to, tensor) in &spans {
            if *from != expected {
                let what = if *from < expected { "overlaps the tensor before it" } else { "leaves a gap before it" };
                return Err(fail(format!("tensor \"{tensor}\" {what}: it begins at {from}, {expected} was expected")));
            }
            expected = *to;
        }
        if expected != size - data {
            let what = if expected > size - data { "truncated" } else { "bytes that belong to no tensor" };
            return Err(fail(format!("{what}: the header describes {expected} bytes of data, {} follow", size - data)));
        }
        self.files.push(name.to_string());
        self.metadata.push(header.metadata);
        Ok(())
    }
}

/// What to say of a folder without safetensors.
async fn no_weights(files: &dyn Files) -> Result<Error> {
    let names = files.names().await?;
    let with = |suffix: &str| names.iter().find(|name| name.to_lowercase().ends_with(suffix));
    let found = if let Some(name) = with(".gguf") {
        format!("{name} is a GGUF file, which is not supported")
    } else if let Some(name) = with(".bin").or(with(".pt")).or(with(".pth")) {
        format!("{name} is a pickled PyTorch checkpoint, which is not supported; store it as safetensors")
    } else if let Some(name) = with(".safetensors") {
        format!("{name} is there, but neither {SINGLE_FILE} nor {INDEX_FILE}")
    } else {
        format!("neither {SINGLE_FILE} nor {INDEX_FILE} is there")
    };
    Ok(Error::UnknownModel { path: files.describe(), found })
}

#[derive(Deserialize)]
struct ShardList {
    weight_map: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Info {
    dtype: Dtype,
    shape: Vec<u64>,
    data_offsets: [u64; 2],
}

/// A header, read so that a tensor named twice is an error and not the last one's word.
struct Header {
    metadata: BTreeMap<String, String>,
    tensors: BTreeMap<String, Info>,
}

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct HeaderVisitor;

        impl<'de> Visitor<'de> for HeaderVisitor {
            type Value = Header;

            fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
                f.write_str("an object of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Header, A::Error> {
                let mut header = Header { metadata: BTreeMap::new(), tensors: BTreeMap::new() };
                while let Some(name) = map.next_key::<String>()? {
                    if name == "__metadata__" {
                        header.metadata = map.next_value::<Option<_>>()?.unwrap_or_default();
                        continue;
                    }
                    let info = map.next_value()?;
                    if header.tensors.insert(name.clone(), info).is_some() {
                        return Err(serde::de::Error::custom(format!("tensor \"{name}\" is named twice")));
                    }
                }
                Ok(header)
            }
        }

        deserializer.deserialize_map(HeaderVisitor)
    }
}
