//! Stores checkpoints: plans which tensor goes where in safetensors shards, and quantizes one checkpoint into another.
//! Knows no file system: bytes go to a [`ShardSink`] with their place.

use std::collections::BTreeMap;

use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use serde_json::{Map, Value, json};

use super::checkpoint::{
    Checkpoint, MatrixChunk, MatrixSink, PRESET_KEY, QuantizedTensor, SCALE_SUFFIX, TENSORS_KEY, VERSION, VERSION_KEY,
};
use super::format::{GROUP, Preset, WeightFormat};
use super::safetensors::{Dtype, INDEX_FILE, SINGLE_FILE};
use crate::Result;
use crate::config::{TensorKind, TensorSpec};
use crate::files::Files;

/// Takes the bytes of files that are written in pieces.
pub trait ShardSink {
    /// Puts `bytes` at `offset` of `file`, which begins to exist with its first piece.
    fn write<'a>(&'a mut self, file: &'a str, offset: u64, bytes: &'a [u8]) -> LocalBoxFuture<'a, Result<()>>;
}

/// How the tensors of a checkpoint are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Storage {
    /// All in one float type, as AMD's checkpoints are.
    Plain(Dtype),
    /// Matrices as a preset says, everything else f32, and the metadata that say so.
    Preset(Preset),
}

/// One file of a checkpoint.
#[derive(Debug, Clone)]
pub struct Shard {
    /// Its name.
    pub file: String,
    /// What it begins with: the length of the header and the header.
    pub head: Vec<u8>,
    /// Its size, the head included.
    pub bytes: u64,
}

/// Where the bytes of one stored tensor go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place<'a> {
    /// Its file.
    pub file: &'a str,
    /// Where it begins in the file.
    pub offset: u64,
    /// How many bytes it has.
    pub bytes: u64,
}

/// Which tensor goes where.
#[derive(Debug, Clone)]
pub struct ShardLayout {
    shards: Vec<Shard>,
    /// Tensor name to (shard, offset in the file, bytes).
    places: BTreeMap<String, (usize, u64, u64)>,
    index: Option<Vec<u8>>,
}

/// A tensor as a safetensors header has it.
struct Part {
    name: String,
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: u64,
}

impl Part {
    fn new(name: String, dtype: Dtype, shape: Vec<usize>) -> Self {
        let elements: u64 = shape.iter().map(|&d| d as u64).product();
        Self { name, dtype, shape, bytes: elements * dtype.bitsize() as u64 / 8 }
    }
}

impl ShardLayout {
    /// The most bytes of a shard that `zebra quantize` writes.
    pub const SHARD_BYTES: u64 = 2 << 30;

    /// Plans the files of a checkpoint with these tensors, of at most `most_bytes` each, unless a single tensor is
    /// larger. One file is called `model.safetensors`; several are numbered and have an index.
    pub fn new(specs: &[TensorSpec], storage: Storage, most_bytes: u64) -> Self {
        /// Room for a shard's header.
        const HEAD_BYTES: u64 = 1 << 20;
        let mut groups: Vec<Vec<&TensorSpec>> = Vec::new();
        let mut room = 0;
        for spec in specs {
            let bytes: u64 = stored_parts(spec, storage).iter().map(|part| part.bytes).sum();
            match groups.last_mut() {
                Some(group) if bytes <= room => group.push(spec),
                _ => {
                    groups.push(vec![spec]);
                    room = most_bytes.saturating_sub(HEAD_BYTES).max(bytes);
                }
            }
            room -= bytes;
        }

        let mut layout = Self { shards: Vec::new(), places: BTreeMap::new(), index: None };
        let mut weight_map = Map::new();
        let mut total = 0;
        for (i, specs) in groups.iter().enumerate() {
            let file = match groups.len() {
                1 => SINGLE_FILE.to_string(),
                count => format!("model-{:05}-of-{count:05}.safetensors", i + 1),
            };
            let mut parts: Vec<Part> = specs.iter().flat_map(|spec| stored_parts(spec, storage)).collect();
            // Wide types first, so that every tensor is aligned to its type.
            parts.sort_by_key(|part| std::cmp::Reverse(part.dtype.bitsize()));

            let mut header = Map::new();
            header.insert("__metadata__".into(), metadata(specs, storage));
            let mut end = 0;
            for part in &parts {
                let entry = json!({
                    "dtype": part.dtype.to_string(),
                    "shape": part.shape,
                    "data_offsets": [end, end + part.bytes],
                });
                header.insert(part.name.clone(), entry);
                end += part.bytes;
            }
            let mut text = Value::Object(header).to_string();
            while !text.len().is_multiple_of(8) {
                text.push(' ');
            }
            let head = [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat();

            let mut offset = head.len() as u64;
            for part in parts {
                weight_map.insert(part.name.clone(), file.clone().into());
                layout.places.insert(part.name, (i, offset, part.bytes));
                offset += part.bytes;
            }
            total += end;
            layout.shards.push(Shard { file, head, bytes: offset });
        }
        if layout.shards.len() > 1 {
            let index = json!({"metadata": {"total_size": total}, "weight_map": weight_map});
            layout.index = Some(format!("{index:#}\n").into_bytes());
        }
        layout
    }

    /// The files that hold tensors.
    pub fn shards(&self) -> &[Shard] {
        &self.shards
    }

    /// Bytes of all files that hold tensors.
    pub fn bytes(&self) -> u64 {
        self.shards.iter().map(|shard| shard.bytes).sum()
    }

    /// Where a stored tensor goes; the scales of a quantized one are a tensor of their own, [`scale_name`].
    pub fn place(&self, name: &str) -> Option<Place<'_>> {
        let &(shard, offset, bytes) = self.places.get(name)?;
        Some(Place { file: &self.shards[shard].file, offset, bytes })
    }

    /// Writes the headers, and the index where there is one: everything but the tensors.
    pub async fn write_heads(&self, sink: &mut dyn ShardSink) -> Result<()> {
        for shard in &self.shards {
            sink.write(&shard.file, 0, &shard.head).await?;
        }
        match &self.index {
            Some(index) => sink.write(INDEX_FILE, 0, index).await,
            None => Ok(()),
        }
    }

    /// The place of a tensor that this layout was made for.
    fn known(&self, name: &str) -> Place<'_> {
        self.place(name).unwrap_or_else(|| panic!("the layout was made for other tensors: no \"{name}\""))
    }
}

/// The name under which the scales of a quantized tensor are stored.
pub fn scale_name(name: &str) -> String {
    format!("{name}{SCALE_SUFFIX}")
}

/// What a tensor becomes in a file.
fn stored_parts(spec: &TensorSpec, storage: Storage) -> Vec<Part> {
    let plain = |dtype| vec![Part::new(spec.name.clone(), dtype, spec.shape.clone())];
    let preset = match storage {
        Storage::Plain(dtype) => return plain(dtype),
        Storage::Preset(preset) => preset,
    };
    let (TensorKind::Matrix, &[n, k]) = (spec.kind, spec.shape.as_slice()) else {
        return plain(Dtype::F32);
    };
    let format = preset.format_of(&spec.name);
    let code_type = match format {
        WeightFormat::F32 => return plain(Dtype::F32),
        WeightFormat::F16 => return plain(Dtype::F16),
        WeightFormat::Q8 => Dtype::I8,
        WeightFormat::Q4 => Dtype::U8,
    };
    vec![
        Part::new(spec.name.clone(), code_type, vec![n, format.row_words(k)]),
        Part::new(scale_name(&spec.name), Dtype::F16, vec![n, k.div_ceil(GROUP)]),
    ]
}

/// The `__metadata__` of a shard: every shard describes its own tensors.
fn metadata(specs: &[&TensorSpec], storage: Storage) -> Value {
    let mut metadata = json!({"format": "pt"});
    if let Storage::Preset(preset) = storage {
        let tensors: BTreeMap<&str, QuantizedTensor> = specs
            .iter()
            .filter(|spec| spec.kind == TensorKind::Matrix)
            .map(|spec| {
                let format = preset.format_of(&spec.name).name().to_string();
                (spec.name.as_str(), QuantizedTensor { format, shape: spec.shape.clone() })
            })
            .collect();
        metadata[VERSION_KEY] = VERSION.into();
        metadata[PRESET_KEY] = preset.name().into();
        // Metadata hold strings only.
        metadata[TENSORS_KEY] = json!(tensors).to_string().into();
    }
    metadata
}

/// Stores a checkpoint again in `preset`, with the files that go along: configurations, tokenizer, licences. `progress`
/// gets the weights done and their total number.
pub async fn quantize(
    files: &dyn Files,
    preset: Preset,
    sink: &mut dyn ShardSink,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<()> {
    let checkpoint = Checkpoint::open(files).await?;
    checkpoint.preset(Some(preset), preset)?;
    for name in files.names().await? {
        if goes_along(&name) {
            copy(files, &name, sink).await?;
        }
    }
    write_tensors(&checkpoint, preset, sink, progress).await
}

/// Whether a file beside the weights belongs to the quantized model too.
fn goes_along(name: &str) -> bool {
    let told = ["LICENSE", "LICENCE", "NOTICE", "README", "USE_POLICY"];
    (name.ends_with(".json") && name != INDEX_FILE)
        || name.ends_with(".jinja")
        || told.iter().any(|start| name.to_uppercase().starts_with(start))
}

async fn copy(files: &dyn Files, name: &str, sink: &mut dyn ShardSink) -> Result<()> {
    const CHUNK: u64 = 8 << 20;
    let size = files.size(name).await?.unwrap_or(0);
    let mut at = 0;
    loop {
        let end = size.min(at + CHUNK);
        let bytes = files.read(name, at..end).await?;
        // Also when it is empty: an empty file is a file.
        sink.write(name, at, &bytes).await?;
        at = end;
        if at == size {
            return Ok(());
        }
    }
}

async fn write_tensors(
    checkpoint: &Checkpoint<'_>,
    preset: Preset,
    sink: &mut dyn ShardSink,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<()> {
    let layout = ShardLayout::new(checkpoint.tensors(), Storage::Preset(preset), ShardLayout::SHARD_BYTES);
    layout.write_heads(sink).await?;
    let total = checkpoint.parameters();
    let mut done = 0;
    progress(done, total);
    for spec in checkpoint.tensors() {
        let place = layout.known(&spec.name);
        match (spec.kind, spec.shape.as_slice()) {
            (TensorKind::Matrix, &[n, k]) => {
                let format = preset.format_of(&spec.name);
                let scales = format.is_quantized().then(|| layout.known(&scale_name(&spec.name)));
                let mut writer = MatrixWriter {
                    sink: &mut *sink,
                    words: place,
                    row_words: format.row_words(k),
                    row_kept: place.bytes as usize / n,
                    scales,
                    row_scales: format.row_scales(k),
                    columns: k,
                    done,
                    total,
                    progress: &mut *progress,
                };
                checkpoint.matrix(&spec.name, n, k, format, &mut writer).await?;
            }
            _ => {
                let values = checkpoint.vector(&spec.name, &spec.shape).await?;
                let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
                sink.write(place.file, place.offset, &bytes).await?;
            }
        }
        done += spec.elements();
        progress(done, total);
    }
    Ok(())
}

/// Puts the chunks of a matrix where the layout wants them.
struct MatrixWriter<'a> {
    sink: &'a mut dyn ShardSink,
    words: Place<'a>,
    row_words: usize,
    /// Bytes of a row that are stored: f16 and f32 tensors keep their plain shape, without the padding.
    row_kept: usize,
    scales: Option<Place<'a>>,
    row_scales: usize,
    columns: usize,
    done: u64,
    total: u64,
    progress: &'a mut dyn FnMut(u64, u64),
}

impl MatrixWriter<'_> {
    async fn put(&mut self, chunk: MatrixChunk<'_>) -> Result<()> {
        let first = chunk.first_row as u64;
        let at = self.words.offset + first * self.row_kept as u64;
        if self.row_kept == self.row_words {
            self.sink.write(self.words.file, at, chunk.words).await?;
        } else {
            let kept: Vec<u8> =
                chunk.words.chunks_exact(self.row_words).flat_map(|row| &row[..self.row_kept]).copied().collect();
            self.sink.write(self.words.file, at, &kept).await?;
        }
        if let Some(scales) = self.scales {
            self.sink.write(scales.file, scales.offset + first * self.row_scales as u64, chunk.scales).await?;
        }
        (self.progress)(self.done + (chunk.first_row + chunk.rows) as u64 * self.columns as u64, self.total);
        Ok(())
    }
}

impl MatrixSink for MatrixWriter<'_> {
    fn write<'a>(&'a mut self, chunk: MatrixChunk<'a>) -> LocalBoxFuture<'a, Result<()>> {
        self.put(chunk).boxed_local()
    }
}
