//! Which tensors of a checkpoint go where: the list a plan leaves for the loader.

use crate::gpu::{Buffer, Limits, Purpose};
use crate::kernels::Matrix;
use crate::weights::Preset;

/// One thing to load.
#[derive(Debug)]
pub enum Load {
    /// Matrices stacked along n in one buffer: (checkpoint name, rows, first row).
    Matrix { matrix: Matrix, parts: Vec<(String, usize, usize)> },
    /// f32 values, interleaved when there is more than one tensor: element i of tensor j goes to `i * stride + j`.
    Vectors { buffer: Buffer, names: Vec<String>, shape: Vec<usize>, stride: usize },
}

/// Describes every weight of a model while its plan is made.
#[derive(Debug)]
pub struct Tensors {
    preset: Preset,
    limits: Limits,
    pub loads: Vec<Load>,
}

impl Tensors {
    pub fn new(preset: Preset, limits: Limits) -> Self {
        Self { preset, limits, loads: Vec::new() }
    }

    /// A matrix `[n, k]` of the checkpoint.
    pub fn matrix(&mut self, name: &str, n: usize, k: usize) -> Matrix {
        self.stacked(name, &[(name, n)], k, 1)
    }

    /// Matrices of one input width stacked along n, each beginning at a multiple of `align` rows. The rows between
    /// them are zeros and so are their outputs.
    pub fn stacked(&mut self, label: &str, parts: &[(&str, usize)], k: usize, align: usize) -> Matrix {
        let mut n = 0;
        let mut placed = Vec::new();
        for (name, rows) in parts {
            let first = usize::next_multiple_of(n, align);
            placed.push(((*name).to_owned(), *rows, first));
            n = first + rows;
        }
        let matrix = Matrix::new(label, self.preset.format_of(parts[0].0), n, k, &self.limits);
        self.loads.push(Load::Matrix { matrix: matrix.clone(), parts: placed });
        matrix
    }

    /// f32 values of one tensor of the checkpoint.
    pub fn vector(&mut self, name: &str, shape: &[usize]) -> Buffer {
        self.vectors(name, &[name], shape, 1)
    }

    /// Tensors of one shape interleaved, `stride` f32 for each element.
    pub fn vectors(&mut self, label: &str, names: &[&str], shape: &[usize], stride: usize) -> Buffer {
        let count: usize = shape.iter().product();
        // A norm's weight is read in whole groups of 32, as the rows are that it is for.
        let buffer = Buffer::new(label, 4 * (count * stride).next_multiple_of(32) as u64, Purpose::Weights);
        self.loads.push(Load::Vectors {
            buffer: buffer.clone(),
            names: names.iter().map(|n| (*n).to_owned()).collect(),
            shape: shape.to_vec(),
            stride,
        });
        buffer
    }

    /// Every buffer of the list.
    pub fn buffers(&self) -> Vec<Buffer> {
        self.loads
            .iter()
            .flat_map(|load| match load {
                Load::Matrix { matrix, .. } => matrix.buffers(),
                Load::Vectors { buffer, .. } => vec![buffer.clone()],
            })
            .collect()
    }
}
