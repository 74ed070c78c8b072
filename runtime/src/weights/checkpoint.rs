//! A checkpoint, plain as AMD stores it or quantized by this crate: checked as a whole when it is opened, then streamed
//! tensor by tensor into the layouts of [`super::format`].

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::LocalBoxFuture;
use serde::{Deserialize, Serialize};

use super::format::{self, GROUP, Preset, WeightFormat};
use super::safetensors::{Dtype, Entry, Index};
use crate::config::{CONFIG_FILES, ConfigFiles, Family, ModelConfig, TensorKind, TensorSpec};
use crate::files::{Files, read_whole};
use crate::{Error, Result};

/// Most bytes of a file, and of words of a chunk, that are in memory at a time.
const CHUNK_BYTES: usize = 8 << 20;

/// Keys of `__metadata__` in quantized files.
pub(super) const VERSION_KEY: &str = "zebra.version";
pub(super) const PRESET_KEY: &str = "zebra.preset";
pub(super) const TENSORS_KEY: &str = "zebra.tensors";
/// The form of quantized files that this crate writes and reads.
pub(super) const VERSION: &str = "1";
/// What follows a quantized tensor's name in the name of its scales.
pub(super) const SCALE_SUFFIX: &str = "_scale";

/// An entry of the metadata's `zebra.tensors`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct QuantizedTensor {
    pub format: String,
    pub shape: Vec<usize>,
}

/// Some whole rows of a matrix, laid out as [`super::format`] says.
#[derive(Debug, Clone, Copy)]
pub struct MatrixChunk<'a> {
    /// The first of the rows.
    pub first_row: usize,
    /// How many rows.
    pub rows: usize,
    /// Their words, at most 8 MiB.
    pub words: &'a [u8],
    /// Their scales: empty for f32 and f16.
    pub scales: &'a [u8],
}

/// Takes a matrix, chunk after chunk, first row first.
pub trait MatrixSink {
    /// Takes the next rows.
    fn write<'a>(&'a mut self, chunk: MatrixChunk<'a>) -> LocalBoxFuture<'a, Result<()>>;
}

/// How a tensor is stored.
#[derive(Debug, Clone)]
enum Stored {
    /// Floats.
    Plain(Entry),
    /// Codes and scales of a matrix `[N, K]`.
    Quantized { format: WeightFormat, shape: [usize; 2], words: Entry, scales: Entry },
}

impl Stored {
    /// The shape of the tensor that it stands for.
    fn shape(&self) -> &[usize] {
        match self {
            Stored::Plain(entry) => &entry.shape,
            Stored::Quantized { shape, .. } => shape,
        }
    }
}

/// An opened checkpoint: all of its headers agree with its configuration and with the sizes of its files.
pub struct Checkpoint<'a> {
    files: &'a dyn Files,
    file_names: Vec<String>,
    tensors: BTreeMap<String, Stored>,
    config: ModelConfig,
    specs: Vec<TensorSpec>,
    stored: Option<Preset>,
}

impl<'a> Checkpoint<'a> {
    /// Reads the configuration and every header, and checks names, shapes, types and offsets of all tensors.
    pub async fn open(files: &'a dyn Files) -> Result<Checkpoint<'a>> {
        let (family, configs) = read_configs(files).await?;
        let index = Index::open(files).await?;
        let stored = stored_preset(&index)?;
        let file_names = index.files.clone();
        let tensors = match stored {
            Some(_) => pair_quantized(index)?,
            None => index.tensors.into_iter().map(|(name, entry)| (name, Stored::Plain(entry))).collect(),
        };
        let shape = |name: &str| tensors.get(name).map(|tensor| tensor.shape().to_vec());
        let config =
            ModelConfig::parse(family, &configs, &shape).map_err(|error| explain_mixers(error, &tensors, files))?;
        let specs = config.tensors();
        check_tensors(&specs, &tensors, stored, &config).map_err(|error| explain_mixers(error, &tensors, files))?;
        Ok(Checkpoint { files, file_names, tensors, config, specs, stored })
    }

    /// Where it was opened.
    pub fn files(&self) -> &'a dyn Files {
        self.files
    }

    /// The model's configuration.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The names of the files that hold tensors.
    pub fn weight_files(&self) -> &[String] {
        &self.file_names
    }

    /// The preset of a folder that `zebra quantize` wrote, `None` for a plain checkpoint.
    pub fn stored(&self) -> Option<Preset> {
        self.stored
    }

    /// The tensors, in the order of the forward pass.
    pub fn tensors(&self) -> &[TensorSpec] {
        &self.specs
    }

    /// Weights of the model, the embedding counted once and a separate head with it.
    pub fn parameters(&self) -> u64 {
        self.specs.iter().map(TensorSpec::elements).sum()
    }

    /// The preset to run with: the asked one, else the stored one, else `default`. Codes cannot be turned into another
    /// format without losing twice, so a q8 or q4 folder runs as it is; f16 is as good a source as any.
    pub fn preset(&self, asked: Option<Preset>, default: Preset) -> Result<Preset> {
        match (self.stored, asked) {
            (Some(stored @ (Preset::Q8 | Preset::Q4)), Some(asked)) if stored != asked => Err(Error::Option {
                name: "format".into(),
                expected: format!("{stored}, as {} is quantized, or the plain checkpoint", self.files.describe()),
                found: asked.to_string(),
            }),
            (stored, asked) => Ok(asked.or(stored).unwrap_or(default)),
        }
    }

    /// A small tensor as f32. NaN and infinity are refused.
    pub async fn vector(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let entry = match self.find(name, shape)? {
            Stored::Plain(entry) => entry,
            Stored::Quantized { format, .. } => {
                return Err(wrong_tensor(name, "F32, BF16 or F16".into(), format.to_string()));
            }
        };
        let bytes = self.files.read(&self.file_names[entry.file], entry.bytes.clone()).await?;
        let mut values = vec![0.0; shape.iter().product()];
        decode(name, entry.dtype, &bytes, &mut values)?;
        if let Some(at) = format::first_unfit(WeightFormat::F32, &values) {
            return Err(unfit(name, WeightFormat::F32, values[at], format!("[{at}]")));
        }
        Ok(values)
    }

    /// Streams the matrix `[n, k]` to `sink` in `format`, quantizing on the way where it is stored plain. Values that
    /// the format cannot hold (NaN, infinity, too large for f16 scales) are refused with their place.
    pub async fn matrix(
        &self,
        name: &str,
        n: usize,
        k: usize,
        format: WeightFormat,
        sink: &mut dyn MatrixSink,
    ) -> Result<()> {
        match self.find(name, &[n, k])? {
            Stored::Plain(entry) => self.convert(name, entry, [n, k], format, sink).await,
            Stored::Quantized { format: stored, words, scales, .. } if *stored == format => {
                self.copy(name, words, scales, [n, k], format, sink).await
            }
            Stored::Quantized { format: stored, .. } => Err(Error::Option {
                name: "format".into(),
                expected: format!("{stored} for \"{name}\", as it is stored, or the plain checkpoint"),
                found: format.to_string(),
            }),
        }
    }

    /// A plain matrix, converted row by row.
    async fn convert(
        &self,
        name: &str,
        entry: &Entry,
        [n, k]: [usize; 2],
        format: WeightFormat,
        sink: &mut dyn MatrixSink,
    ) -> Result<()> {
        let row_bytes = k * entry.dtype.bitsize() / 8;
        let (row_words, row_scales) = (format.row_words(k), format.row_scales(k));
        let most_rows = (CHUNK_BYTES / row_bytes.max(row_words)).clamp(1, n);
        let mut row = vec![0.0; k.next_multiple_of(GROUP)];
        let mut words = vec![0; most_rows * row_words];
        let mut scales = vec![0; most_rows * row_scales];
        for first_row in (0..n).step_by(most_rows) {
            let rows = most_rows.min(n - first_row);
            let start = entry.bytes.start + (first_row * row_bytes) as u64;
            let range = start..start + (rows * row_bytes) as u64;
            let bytes = self.files.read(&self.file_names[entry.file], range).await?;
            for r in 0..rows {
                decode(name, entry.dtype, &bytes[r * row_bytes..][..row_bytes], &mut row[..k])?;
                if let Some(at) = format::first_unfit(format, &row) {
                    return Err(unfit(name, format, row[at], format!("[{}, {at}]", first_row + r)));
                }
                let (words, scales) = (&mut words[r * row_words..], &mut scales[r * row_scales..]);
                format::encode_row(format, &row, &mut words[..row_words], &mut scales[..row_scales]);
            }
            // What was read is not needed while the sink waits for the GPU.
            drop(bytes);
            let chunk = MatrixChunk {
                first_row,
                rows,
                words: &words[..rows * row_words],
                scales: &scales[..rows * row_scales],
            };
            sink.write(chunk).await?;
        }
        Ok(())
    }

    /// A quantized matrix, as it is; its scales are checked, its codes have no wrong value.
    async fn copy(
        &self,
        name: &str,
        words: &Entry,
        scales: &Entry,
        [n, k]: [usize; 2],
        format: WeightFormat,
        sink: &mut dyn MatrixSink,
    ) -> Result<()> {
        let (row_words, row_scales) = (format.row_words(k), format.row_scales(k));
        let groups = row_scales / 2;
        let most_rows = (CHUNK_BYTES / row_words).clamp(1, n);
        for first_row in (0..n).step_by(most_rows) {
            let rows = most_rows.min(n - first_row);
            let part = |entry: &Entry, row_bytes: usize| {
                let start = entry.bytes.start + (first_row * row_bytes) as u64;
                start..start + (rows * row_bytes) as u64
            };
            let scale_bytes = self.files.read(&self.file_names[scales.file], part(scales, row_scales)).await?;
            let is_special = |b: &[u8]| b[1] & 0x7c == 0x7c;
            if let Some(at) = scale_bytes.chunks_exact(2).position(is_special) {
                let value = half::f16::from_le_bytes([scale_bytes[2 * at], scale_bytes[2 * at + 1]]).to_f32();
                let place = format!("[{}, {}]", first_row + at / groups, at % groups);
                return Err(unfit(&format!("{name}{SCALE_SUFFIX}"), WeightFormat::F32, value, place));
            }
            let word_bytes = self.files.read(&self.file_names[words.file], part(words, row_words)).await?;
            sink.write(MatrixChunk { first_row, rows, words: &word_bytes, scales: &scale_bytes }).await?;
        }
        Ok(())
    }

    fn find(&self, name: &str, shape: &[usize]) -> Result<&Stored> {
        let stored = self.tensors.get(name);
        match stored {
            Some(stored) if stored.shape() == shape => Ok(stored),
            _ => Err(wrong_tensor(name, format!("shape {shape:?}"), describe_shape(stored))),
        }
    }
}

fn wrong_tensor(name: &str, expected: String, found: String) -> Error {
    Error::Tensor { name: name.into(), expected, found }
}

fn describe_shape(stored: Option<&Stored>) -> String {
    stored.map_or("no such tensor".into(), |stored| format!("shape {:?}", stored.shape()))
}

/// The error for a value that a format cannot hold.
fn unfit(name: &str, format: WeightFormat, value: f32, place: String) -> Error {
    let expected = if value.is_finite() { format!("values that {format} can hold") } else { "finite values".into() };
    wrong_tensor(name, expected, format!("{value} at {place}"))
}

fn decode(name: &str, dtype: Dtype, bytes: &[u8], values: &mut [f32]) -> Result<()> {
    match dtype {
        Dtype::F32 => format::decode_f32(bytes, values),
        Dtype::BF16 => format::decode_bf16(bytes, values),
        Dtype::F16 => format::decode_f16(bytes, values),
        other => return Err(wrong_tensor(name, "F32, BF16 or F16".into(), other.to_string())),
    }
    Ok(())
}

/// The configuration files and the family that they tell, or what kind of model this seems to be instead.
async fn read_configs(files: &dyn Files) -> Result<(Family, ConfigFiles)> {
    let mut found = Vec::new();
    for name in CONFIG_FILES {
        found.extend(read_whole(files, name).await?.map(|bytes| (name, bytes)));
    }
    let nothing = found.is_empty();
    let configs = ConfigFiles::new(found);
    match Family::find(&configs) {
        Ok(family) => Ok((family, configs)),
        Err(mut found) => {
            let names = files.names().await?;
            if let Some(name) = names.iter().find(|name| nothing && name.to_lowercase().ends_with(".gguf")) {
                found = format!("{name} is a GGUF file, which is not supported");
            }
            Err(Error::UnknownModel { path: files.describe(), found })
        }
    }
}

/// The preset that the files' metadata name, if any.
fn stored_preset(index: &Index) -> Result<Option<Preset>> {
    let mut stored: Option<Option<Preset>> = None;
    for (file, metadata) in index.files.iter().zip(&index.metadata) {
        let fail = |reason: String| Error::Safetensors { file: file.clone(), reason };
        let preset = match (metadata.get(VERSION_KEY), metadata.get(PRESET_KEY)) {
            (None, None) => None,
            (Some(version), Some(preset)) if version == VERSION => match Preset::parse(preset) {
                Some(preset) => Some(preset),
                None => {
                    return Err(fail(format!("metadata {PRESET_KEY}: \"{preset}\" is no preset of version {VERSION}")));
                }
            },
            (Some(version), _) if version != VERSION => {
                return Err(fail(format!(
                    "metadata {VERSION_KEY}: \"{version}\" was found, this program reads \"{VERSION}\""
                )));
            }
            _ => {
                return Err(fail(format!("metadata needs both {VERSION_KEY} and {PRESET_KEY}, or none")));
            }
        };
        if stored.is_some_and(|other| other != preset) {
            return Err(fail(format!("metadata {PRESET_KEY} is not that of {}", index.files[0])));
        }
        stored = Some(preset);
    }
    Ok(stored.flatten())
}

/// Joins codes and scales to the matrices that the metadata describe.
fn pair_quantized(index: Index) -> Result<BTreeMap<String, Stored>> {
    let Index { files, mut tensors, metadata } = index;
    let mut paired = BTreeMap::new();
    for (file, metadata) in files.iter().zip(&metadata) {
        let fail = |reason: String| Error::Safetensors { file: file.clone(), reason };
        let list = metadata.get(TENSORS_KEY).map_or("{}", String::as_str);
        let list: BTreeMap<String, QuantizedTensor> =
            serde_json::from_str(list).map_err(|error| fail(format!("metadata {TENSORS_KEY}: {error}")))?;
        for (name, QuantizedTensor { format, shape }) in list {
            let known = WeightFormat::parse(&format);
            let (Some(format), &[n, k]) = (known, shape.as_slice()) else {
                return Err(fail(format!("metadata {TENSORS_KEY}: \"{name}\": {format} {shape:?} is not known")));
            };
            if !format.is_quantized() {
                continue;
            }
            let code_type = if format == WeightFormat::Q8 { Dtype::I8 } else { Dtype::U8 };
            let mut take = |name: String, dtype: Dtype, columns: usize| -> Result<Entry> {
                let expected = format!("{dtype} [{n}, {columns}], as {TENSORS_KEY} says");
                match tensors.remove(&name) {
                    Some(entry) if entry.dtype == dtype && entry.shape == [n, columns] => Ok(entry),
                    Some(entry) => Err(wrong_tensor(&name, expected, format!("{} {:?}", entry.dtype, entry.shape))),
                    None => Err(wrong_tensor(&name, expected, "no such tensor".into())),
                }
            };
            let groups = k.div_ceil(GROUP);
            let words = take(name.clone(), code_type, groups * format.row_words(GROUP))?;
            let scales = take(format!("{name}{SCALE_SUFFIX}"), Dtype::F16, groups)?;
            paired.insert(name, Stored::Quantized { format, shape: [n, k], words, scales });
        }
    }
    paired.extend(tensors.into_iter().map(|(name, entry)| (name, Stored::Plain(entry))));
    Ok(paired)
}

/// A layer whose mixer is of another kind than the configuration says fails for lack of that one's tensors; this says so.
fn explain_mixers(error: Error, tensors: &BTreeMap<String, Stored>, files: &dyn Files) -> Error {
    let Error::Tensor { name, found, .. } = &error else {
        return error;
    };
    let parts: Vec<&str> = name.splitn(5, '.').collect();
    let ([model, layers, n, missing, _], "no such tensor") = (&parts[..], found.as_str()) else {
        return error;
    };
    let prefix = format!("{model}.{layers}.{n}.");
    let others = ["mlp", "input_layernorm", "post_attention_layernorm"];
    if others.contains(missing) {
        return error;
    }
    let modules: BTreeSet<&str> = tensors
        .keys()
        .filter_map(|name| name.strip_prefix(&prefix)?.split('.').next())
        .filter(|module| !others.contains(module) && module != missing)
        .collect();
    if modules.is_empty() {
        return error;
    }
    let modules: Vec<String> = modules.into_iter().map(|module| format!("{prefix}{module}")).collect();
    let found = format!("{name} is missing, and there is a mixer of another kind, {}", modules.join(", "));
    Error::UnknownModel { path: files.describe(), found }
}

/// Every tensor that the configuration asks for is there with its shape and a usable type, and no other.
fn check_tensors(
    specs: &[TensorSpec],
    tensors: &BTreeMap<String, Stored>,
    stored: Option<Preset>,
    config: &ModelConfig,
) -> Result<()> {
    for TensorSpec { name, shape, kind } in specs {
        let found = tensors.get(name);
        let Some(tensor) = found.filter(|tensor| tensor.shape() == shape) else {
            return Err(wrong_tensor(name, format!("shape {shape:?}"), describe_shape(found)));
        };
        match tensor {
            Stored::Plain(entry) if !matches!(entry.dtype, Dtype::F32 | Dtype::BF16 | Dtype::F16) => {
                return Err(wrong_tensor(name, "F32, BF16 or F16".into(), entry.dtype.to_string()));
            }
            Stored::Quantized { format, .. } if *kind == TensorKind::Vector => {
                return Err(wrong_tensor(name, "F32, BF16 or F16".into(), format.to_string()));
            }
            _ => {}
        }
        // A quantized folder holds what its preset says, so that no matrix fails later, halfway through an upload.
        if let (Some(preset), TensorKind::Matrix) = (stored, kind) {
            let expected = preset.format_of(name);
            let found = match tensor {
                Stored::Quantized { format, .. } => *format,
                Stored::Plain(entry) if entry.dtype == Dtype::F16 => WeightFormat::F16,
                Stored::Plain(_) => WeightFormat::F32,
            };
            if found != expected {
                return Err(wrong_tensor(
                    name,
                    format!("{expected} in a folder of preset {preset}"),
                    found.to_string(),
                ));
            }
        }
    }
    if tensors.len() > specs.len() {
        let known: BTreeSet<&str> = specs.iter().map(|spec| spec.name.as_str()).collect();
        if let Some(name) = tensors.keys().find(|name| !known.contains(name.as_str())) {
            let layers = config.layers.len();
            return Err(wrong_tensor(
                name,
                format!("only the tensors of the {layers} layers that the configuration describes"),
                "one that belongs to none".into(),
            ));
        }
    }
    Ok(())
}
