//! Checkpoints of this repository, as they are and spoilt one thing at a time: each must be refused by name.

#![allow(clippy::unwrap_used)]

mod families;
mod files;
mod formats;
mod llama;
mod llamba;
mod mambainllama;
mod minitron;
mod quantized;
mod xecomla;
mod zebra;

use std::borrow::Cow;
use std::path::PathBuf;

use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use pollster::block_on;
use serde_json::{Value, json};

use super::safetensors::Dtype;
use super::*;
use crate::config::{CONFIG_FILE, ConfigFiles, Family, HYBRID_CONFIG_FILE, MixerKind, MlpKind, ModelConfig, NormKind};
use crate::files::MemoryFiles;
use crate::{Error, Result};

/// Tensors of a safetensors file: name, type, shape, bytes.
type Tensors = Vec<(String, Dtype, Vec<usize>, Vec<u8>)>;

/// A checkpoint's files, to be spoilt one at a time.
#[derive(Clone)]
struct Folder(Vec<(String, Vec<u8>)>);

impl Folder {
    /// A checkpoint of this repository.
    fn load(path: &str) -> Self {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
        let mut files = Vec::new();
        for entry in std::fs::read_dir(&folder).unwrap() {
            let entry = entry.unwrap();
            files.push((entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap()));
        }
        Self(files)
    }

    fn fixture(name: &str) -> Self {
        Self::load(&format!("tests/fixtures/{name}"))
    }

    fn tiny() -> Self {
        Self::fixture("tiny-gqa")
    }

    fn bytes(&mut self, name: &str) -> &mut Vec<u8> {
        &mut self.0.iter_mut().find(|(n, _)| n == name).unwrap().1
    }

    fn remove(&mut self, name: &str) {
        self.0.retain(|(n, _)| n != name);
    }

    fn json(&mut self, name: &str, edit: impl FnOnce(&mut Value)) {
        let bytes = self.bytes(name);
        let mut value = serde_json::from_slice(bytes).unwrap();
        edit(&mut value);
        *bytes = serde_json::to_vec(&value).unwrap();
    }

    /// Edits the header of a safetensors file; the data stay as they are.
    fn header(&mut self, name: &str, edit: impl FnOnce(&mut Value)) {
        let bytes = self.bytes(name);
        let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let mut header = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
        edit(&mut header);
        *bytes = with_header(&header.to_string(), &bytes[8 + length..]);
    }

    /// Replaces `model.safetensors` by one with edited tensors, written by the safetensors crate.
    fn tensors(&mut self, edit: impl FnOnce(&mut Tensors)) {
        let bytes = self.bytes("model.safetensors");
        let parsed = ::safetensors::SafeTensors::deserialize(bytes).unwrap();
        let mut list: Vec<_> = parsed
            .iter()
            .map(|(name, view)| (name.to_string(), view.dtype(), view.shape().to_vec(), view.data().to_vec()))
            .collect();
        edit(&mut list);
        let views = list.iter().map(|(name, dtype, shape, data)| {
            (name.clone(), ::safetensors::tensor::TensorView::new(*dtype, shape.clone(), data).unwrap())
        });
        *bytes = ::safetensors::serialize(views, None).unwrap();
    }

    fn memory(&self) -> MemoryFiles {
        MemoryFiles::new("test", self.0.iter().map(|(n, b)| (n.clone(), Cow::Owned(b.clone()))).collect())
    }

    fn config(&self) -> ModelConfig {
        block_on(Checkpoint::open(&self.memory())).unwrap().config().clone()
    }

    /// The message with which the checkpoint is refused.
    fn refusal(&self) -> String {
        let files = self.memory();
        match block_on(Checkpoint::open(&files)) {
            Ok(_) => panic!("a spoilt checkpoint was opened"),
            Err(error) => error.to_string(),
        }
    }
}

fn with_header(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
}

#[track_caller]
fn assert_says(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "{message:?} does not say {part:?}");
    }
}

/// What makes a configuration wrong: a file, an edit of it, and what the refusal says.
type Case = (&'static str, fn(&mut Value), &'static [&'static str]);

#[track_caller]
fn assert_refused(fixture: &str, cases: &[Case]) {
    for (file, edit, says) in cases {
        let mut folder = Folder::fixture(fixture);
        folder.json(file, edit);
        assert_says(&folder.refusal(), says);
    }
}

/// Keeps a matrix whole.
#[derive(Default)]
struct Collect {
    rows: usize,
    chunks: usize,
    words: Vec<u8>,
    scales: Vec<u8>,
}

impl MatrixSink for Collect {
    fn write<'a>(&'a mut self, chunk: MatrixChunk<'a>) -> LocalBoxFuture<'a, Result<()>> {
        assert_eq!(chunk.first_row, self.rows);
        assert!(chunk.words.len() <= 8 << 20);
        self.rows += chunk.rows;
        self.chunks += 1;
        self.words.extend_from_slice(chunk.words);
        self.scales.extend_from_slice(chunk.scales);
        async { Ok(()) }.boxed_local()
    }
}

fn read_matrix(checkpoint: &Checkpoint, name: &str, n: usize, k: usize, format: WeightFormat) -> Result<Collect> {
    let mut sink = Collect::default();
    block_on(checkpoint.matrix(name, n, k, format, &mut sink))?;
    assert_eq!(sink.rows, n);
    assert_eq!(sink.words.len(), n * format.row_words(k));
    assert_eq!(sink.scales.len(), n * format.row_scales(k));
    Ok(sink)
}

/// The matrix's weights without the padding.
fn decode(matrix: &Collect, k: usize, format: WeightFormat) -> Vec<f32> {
    let mut row = vec![0.0; k.next_multiple_of(GROUP)];
    let mut all = Vec::new();
    let (w, s) = (format.row_words(k), format.row_scales(k));
    for n in 0..matrix.rows {
        format::decode_row(format, &matrix.words[n * w..][..w], &matrix.scales[n * s..][..s], &mut row);
        assert!(row[k..].iter().all(|&pad| pad == 0.0), "padding is not zero");
        all.extend_from_slice(&row[..k]);
    }
    all
}

fn rms(values: impl ExactSizeIterator<Item = f32>) -> f64 {
    let n = values.len() as f64;
    (values.map(|v| f64::from(v).powi(2)).sum::<f64>() / n).sqrt()
}

/// A reproducible value, spread about as trained weights are.
fn weight(i: usize) -> f32 {
    let uniform = |salt: u32| {
        let mut x = (i as u32).wrapping_mul(0x9e37_79b9) ^ salt;
        for (shift, factor) in [(16, 0x7feb_352d), (15, 0x846c_a68b)] {
            x = (x ^ x >> shift).wrapping_mul(factor);
        }
        f64::from((x ^ x >> 16) >> 8) / f64::from(1 << 24)
    };
    let (u, v) = (uniform(1), uniform(2));
    (0.02 * (-2.0 * (u + 1e-9).ln()).sqrt() * (2.0 * std::f64::consts::PI * v).cos()) as f32
}

/// Files written in pieces, to memory.
#[derive(Default)]
struct Written(Vec<(String, Vec<u8>)>);

impl ShardSink for Written {
    fn write<'a>(&'a mut self, file: &'a str, offset: u64, bytes: &'a [u8]) -> LocalBoxFuture<'a, Result<()>> {
        let at = match self.0.iter().position(|(name, _)| name == file) {
            Some(at) => at,
            None => {
                self.0.push((file.to_string(), Vec::new()));
                self.0.len() - 1
            }
        };
        let whole = &mut self.0[at].1;
        let (start, end) = (offset as usize, offset as usize + bytes.len());
        whole.resize(whole.len().max(end), 0xee);
        whole[start..end].copy_from_slice(bytes);
        async { Ok(()) }.boxed_local()
    }
}

/// A folder's tensors stored again in a preset, its other files kept.
fn quantized(folder: &Folder, preset: Preset) -> Folder {
    let files = folder.memory();
    let checkpoint = block_on(Checkpoint::open(&files)).unwrap();
    let mut written = Written::default();
    let mut steps = Vec::new();
    block_on(quantize(&files, preset, &mut written, &mut |done, total| steps.push((done, total)))).unwrap();
    assert!(steps.is_sorted() && steps.last() == Some(&(checkpoint.parameters(), checkpoint.parameters())));
    Folder(written.0)
}
