//! `y = x W^T`, and what is made of it. The twin of `matvec.wgsl` and of `matmul.wgsl`.

use zebra_runtime::kernels::matmul::Epilogue;

use super::{dot, silu};

/// A product of `rows` rows of x with `weight` `[n, k]`; SwiGLU's weight is `[gate; up]`.
#[derive(Debug)]
pub struct MatMul<'a> {
    pub rows: usize,
    pub x: &'a [f32],
    pub x_stride: usize,
    pub x_offset: usize,
    pub weight: &'a [f32],
    pub n: usize,
    pub k: usize,
    pub y_stride: usize,
    pub y_offset: usize,
    pub epilogue: Epilogue,
}

/// Writes (or adds to) y.
pub fn matmul(m: &MatMul<'_>, y: &mut [f64]) {
    for r in 0..m.rows {
        let x = &m.x[r * m.x_stride + m.x_offset..][..m.k];
        let row = |n: usize| dot(x, &m.weight[n * m.k..][..m.k]);
        let y = &mut y[r * m.y_stride + m.y_offset..];
        match m.epilogue {
            Epilogue::Store => (0..m.n).for_each(|n| y[n] = row(n)),
            Epilogue::Add => (0..m.n).for_each(|n| y[n] += row(n)),
            Epilogue::SwiGlu => (0..m.n / 2).for_each(|n| y[n] = silu(row(n)) * row(m.n / 2 + n)),
        }
    }
}
