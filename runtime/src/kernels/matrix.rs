//! A weight matrix on the GPU: its format, its shape and the buffers that hold it.

use super::{read, shader};
use crate::gpu::{Binding, Buffer, Cost, Limits, Purpose};
use crate::weights::WeightFormat;

/// Inputs that share a scale.
pub const GROUP: usize = 32;

/// A matrix `[n, k]`, rows padded to whole groups of 32 with zeros, in buffers that the adapter can bind.
#[derive(Debug, Clone)]
pub struct Matrix {
    label: String,
    format: WeightFormat,
    n: usize,
    k: usize,
    pieces: Vec<Buffer>,
    piece_rows: usize,
    scales: Option<Buffer>,
}

/// Rows of a matrix that one dispatch binds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Part<'a> {
    matrix: &'a Matrix,
    pieces: &'a [Buffer],
    pub first_row: usize,
    pub rows: usize,
}

impl Matrix {
    /// Describes the buffers of a matrix; where one binding is too small for it, it is cut by rows.
    pub fn new(label: &str, format: WeightFormat, n: usize, k: usize, limits: &Limits) -> Self {
        let row = Self::row_bytes(format, k);
        let most = (limits.binding.min(limits.buffer) / row.max(1)).max(1) as usize;
        let piece_rows = if n <= most { n } else { n.div_ceil(n.div_ceil(most)) };
        let pieces = (0..n.div_ceil(piece_rows))
            .map(|i| {
                let rows = piece_rows.min(n - i * piece_rows) as u64;
                Buffer::new(format!("{label}[{i}]"), rows * row, Purpose::Weights)
            })
            .collect();
        let scales = (Self::scale_bytes(format, k) > 0)
            .then(|| Buffer::new(format!("{label}.scale"), n as u64 * Self::scale_bytes(format, k), Purpose::Weights));
        Self { label: label.into(), format, n, k, pieces, piece_rows, scales }
    }

    /// Bytes of a row's weights.
    pub fn row_bytes(format: WeightFormat, k: usize) -> u64 {
        let groups = k.div_ceil(GROUP) as u64;
        groups
            * match format {
                WeightFormat::F32 => 128,
                WeightFormat::F16 => 64,
                WeightFormat::Q8 => 32,
                WeightFormat::Q4 => 16,
            }
    }

    /// Bytes of a row's scales.
    pub fn scale_bytes(format: WeightFormat, k: usize) -> u64 {
        match format {
            WeightFormat::F32 | WeightFormat::F16 => 0,
            WeightFormat::Q8 | WeightFormat::Q4 => 2 * k.div_ceil(GROUP) as u64,
        }
    }

    /// Outputs.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Inputs, without the padding.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Inputs with the padding: what a row of activations must be padded to.
    pub fn k_padded(&self) -> usize {
        self.k.next_multiple_of(GROUP)
    }

    pub fn format(&self) -> WeightFormat {
        self.format
    }

    pub fn label(&self) -> &str {
        &self.label
    }

    /// All of its buffers.
    pub fn buffers(&self) -> Vec<Buffer> {
        self.pieces.iter().chain(&self.scales).cloned().collect()
    }

    /// Where rows `first..first + rows` are to be written, as (buffer, byte offset, rows) for each piece they touch.
    pub fn places(&self, first: usize, rows: usize) -> Vec<(&Buffer, u64, usize)> {
        let row = Self::row_bytes(self.format, self.k);
        let mut places = Vec::new();
        let mut at = first;
        while at < first + rows {
            let (piece, inside) = (at / self.piece_rows, at % self.piece_rows);
            let count = (first + rows - at).min(self.piece_rows - inside);
            places.push((&self.pieces[piece], inside as u64 * row, count));
            at += count;
        }
        places
    }

    /// The buffer of scales, `[n, k / 32]` f16.
    pub fn scales(&self) -> Option<&Buffer> {
        self.scales.as_ref()
    }

    /// The parts to bind in dispatches that have room for so many more storage buffers.
    pub(crate) fn parts(&self, limits: &Limits, others: u32) -> Vec<Part<'_>> {
        let room = limits.storage_buffers.saturating_sub(others + u32::from(self.scales.is_some()));
        let together = if room >= 4 { 4 } else { 1 };
        self.pieces
            .chunks(together)
            .enumerate()
            .map(|(i, pieces)| {
                let first_row = i * together * self.piece_rows;
                Part { matrix: self, pieces, first_row, rows: (self.n - first_row).min(together * self.piece_rows) }
            })
            .collect()
    }
}

impl Part<'_> {
    /// The shader part that binds its words.
    fn pieces_source(&self) -> &'static str {
        if self.pieces.len() == 1 { shader!("parts/pieces_1.wgsl") } else { shader!("parts/pieces_4.wgsl") }
    }

    /// The shader parts that read it.
    pub(crate) fn sources(&self) -> Vec<&'static str> {
        let pieces = self.pieces_source();
        let scales = shader!("parts/scales.wgsl");
        match self.matrix.format {
            WeightFormat::F32 => vec![pieces, shader!("parts/weight_f32.wgsl")],
            WeightFormat::F16 => vec![pieces, shader!("parts/weight_f16.wgsl")],
            WeightFormat::Q8 => vec![pieces, scales, shader!("parts/weight_q8.wgsl")],
            WeightFormat::Q4 => vec![pieces, scales, shader!("parts/weight_q4.wgsl")],
        }
    }

    /// Bytes of so many of its rows, with their scales.
    pub(crate) fn bytes(&self, rows: usize) -> usize {
        let (format, k) = (self.matrix.format, self.matrix.k);
        rows * (Matrix::row_bytes(format, k) + Matrix::scale_bytes(format, k)) as usize
    }

    /// The cost of a product with all of it that reads or writes so many f32 of a row of y.
    pub(crate) fn product_cost(&self, y: usize) -> Cost {
        let k = self.matrix.k;
        Cost { bytes: self.bytes(self.rows), row_bytes: 4 * (k + y), row_macs: self.rows * k, ..Cost::default() }
    }

    /// The parts that read it for int8 dot products.
    ///
    /// # Panics
    /// When its format is not quantized: such products are f32's.
    pub(crate) fn dot_sources(&self) -> Vec<&'static str> {
        let pieces = self.pieces_source();
        let dot = match self.matrix.format {
            WeightFormat::Q8 => shader!("parts/dot_q8.wgsl"),
            WeightFormat::Q4 => shader!("parts/dot_q4.wgsl"),
            WeightFormat::F32 | WeightFormat::F16 => panic!("{} is not quantized", self.matrix.label),
        };
        vec![pieces, shader!("parts/scales.wgsl"), dot]
    }

    /// The shader parts that read it by whole groups, as f16.
    ///
    /// # Panics
    /// When its format is f32: such products are f32's.
    pub(crate) fn group_sources(&self) -> Vec<&'static str> {
        let pieces = self.pieces_source();
        let scales = shader!("parts/scales.wgsl");
        match self.matrix.format {
            WeightFormat::F32 => panic!("{} is f32, which loses digits as f16", self.matrix.label),
            WeightFormat::F16 => vec![pieces, shader!("parts/group_f16.wgsl")],
            WeightFormat::Q8 => vec![pieces, scales, shader!("parts/group_q8.wgsl")],
            WeightFormat::Q4 => vec![pieces, scales, shader!("parts/group_q4.wgsl")],
        }
    }

    /// The constants that [`Part::sources`] need.
    pub(crate) fn constants(&self) -> Vec<(&'static str, f64)> {
        self.constants_of(match self.matrix.format {
            WeightFormat::F32 | WeightFormat::F16 => 16,
            WeightFormat::Q8 => 8,
            WeightFormat::Q4 => 4,
        })
    }

    /// The constants that [`Part::dot_sources`] need.
    pub(crate) fn dot_constants(&self) -> Vec<(&'static str, f64)> {
        self.constants_of(16)
    }

    /// `word`: bytes of the parts' `Word`.
    fn constants_of(&self, word: u64) -> Vec<(&'static str, f64)> {
        let mut all = Vec::new();
        if self.matrix.scales.is_some() && self.first_row > 0 {
            all.push(("FIRST_GROUP", (self.first_row * self.matrix.k.div_ceil(GROUP)) as f64));
        }
        if self.pieces.len() == 1 {
            return all;
        }
        let words = self.matrix.piece_rows as u64 * Matrix::row_bytes(self.matrix.format, self.matrix.k) / word;
        all.push(("PIECE_WORDS", words as f64));
        all
    }

    /// [`Part::dot_sources`], and the part that lays a group out for lanes that share it.
    ///
    /// # Panics
    /// When its format is not quantized.
    pub(crate) fn tile_sources(&self) -> Vec<&'static str> {
        let mut all = self.dot_sources();
        all.push(match self.matrix.format {
            WeightFormat::Q4 => shader!("parts/tile_q4.wgsl"),
            _ => shader!("parts/tile_q8.wgsl"),
        });
        all
    }

    /// Its bindings. Fewer than four pieces are filled up with the last one, which is never read there.
    pub(crate) fn bindings(&self) -> Vec<Binding> {
        let slots = if self.pieces.len() == 1 { 1 } else { 4 };
        let mut all: Vec<Binding> =
            (0..slots).map(|i| read(10 + i as u32, &self.pieces[i.min(self.pieces.len() - 1)])).collect();
        if let Some(scales) = &self.matrix.scales {
            all.push(read(9, scales));
        }
        all
    }
}
