//! `y = x W^T` of an x in int8, and what is made of it.

use zebra_runtime::kernels::product::Epilogue;

use super::{relu2, silu};

/// A product of `rows` rows of x with `weight` `[n, k]`; SwiGLU's weight is `[gate; up]`.
#[derive(Debug)]
pub struct MatMulI8<'a> {
    pub rows: usize,
    /// `[rows, groups * 32]`.
    pub codes: &'a [i8],
    /// `[rows, groups]`.
    pub scales: &'a [f32],
    pub weight: &'a [f32],
    pub n: usize,
    pub k: usize,
    pub y_stride: usize,
    pub y_offset: usize,
    pub epilogue: Epilogue,
}

/// Writes (or adds to) y.
pub fn matmul_i8(m: &MatMulI8<'_>, y: &mut [f64]) {
    let groups = m.k.div_ceil(32);
    for r in 0..m.rows {
        let x = |i: usize| f64::from(m.codes[r * groups * 32 + i]) * f64::from(m.scales[r * groups + i / 32]);
        let x: Vec<f64> = (0..m.k).map(x).collect();
        let row = |n: usize| -> f64 {
            let weight = &m.weight[n * m.k..][..m.k];
            x.iter().zip(weight).map(|(x, w)| x * f64::from(*w)).sum()
        };
        let y = &mut y[r * m.y_stride + m.y_offset..];
        match m.epilogue {
            Epilogue::Store => (0..m.n).for_each(|n| y[n] = row(n)),
            Epilogue::Add => (0..m.n).for_each(|n| y[n] += row(n)),
            Epilogue::SwiGlu => (0..m.n / 2).for_each(|n| y[n] = silu(row(n)) * row(m.n / 2 + n)),
            Epilogue::Relu2 => (0..m.n).for_each(|n| y[n] = relu2(row(n))),
        }
    }
}
