//! `y = norm(x) W^T`, and what is made of it. The twin of the kernels of `zebra_runtime::kernels::product`.

use zebra_runtime::kernels::product::Epilogue;

use super::{dot, relu2, silu};

/// A product of `rows` rows of x with `weight` `[n, k]`; SwiGLU's weight is `[gate; up]`.
#[derive(Debug)]
pub struct Product<'a> {
    /// Rows of x, one for each row of y.
    pub rows: &'a [usize],
    pub x: &'a [f32],
    pub x_stride: usize,
    pub x_offset: usize,
    /// Weight `[k]` and epsilon of x's RMS norm.
    pub norm: Option<(&'a [f32], f32)>,
    /// x (times the norm's weight) is rounded to int8 by groups of 32.
    pub rounded: bool,
    pub weight: &'a [f32],
    pub n: usize,
    pub k: usize,
    pub y_stride: usize,
    pub y_offset: usize,
    pub epilogue: Epilogue,
}

/// Rounds each 32 values to 127 steps of the largest among them.
pub fn rounded(x: &[f32]) -> Vec<f32> {
    let group = |g: &[f32]| {
        let top = g.iter().fold(0f32, |top, v| top.max(v.abs()));
        let inverse = if top > 0.0 { 127.0 / top } else { 0.0 };
        g.iter().map(|v| (v * inverse).round_ties_even() * (top / 127.0)).collect::<Vec<f32>>()
    };
    x.chunks(32).flat_map(group).collect()
}

/// A group of 32 coded values.
#[derive(Debug, Clone, PartialEq)]
pub struct Group {
    pub codes: Vec<i8>,
    pub scale: f32,
    /// Of the values before the norm's weight.
    pub squares: f32,
}

/// The groups of rows, times a norm's weight, as [`zebra_runtime::kernels::coded`] says.
pub fn coded(x: &[f32], width: usize, gain: Option<&Vec<f32>>) -> Vec<Group> {
    let group = |(i, group): (usize, &[f32])| {
        let first = 32 * i % width;
        let gained: Vec<f32> =
            group.iter().enumerate().map(|(j, v)| v * gain.map_or(1.0, |gain| gain[first + j])).collect();
        let top = gained.iter().fold(0f32, |top, v| top.max(v.abs()));
        let inverse = if top > 0.0 { 127.0 / top } else { 0.0 };
        Group {
            codes: gained.iter().map(|v| (v * inverse).round_ties_even() as i8).collect(),
            scale: top / 127.0,
            squares: group.iter().map(|v| v * v).sum(),
        }
    };
    x.chunks(32).enumerate().map(group).collect()
}

/// Rows of so many groups as the kernels lay them out.
pub fn coded_words(groups: &[Group], of_row: usize) -> Vec<u32> {
    let half = |group: &Group, first: usize| -> Vec<u32> {
        let word = |c: &[i8]| u32::from_le_bytes([0, 1, 2, 3].map(|b| c[b] as u8));
        group.codes[first..first + 16].chunks(4).map(word).collect()
    };
    let row = |row: &[Group]| {
        let mut words: Vec<u32> = row.iter().flat_map(|g| half(g, 0)).collect();
        words.extend(row.iter().flat_map(|g| half(g, 16)));
        words.extend(row.iter().flat_map(|g| [g.scale.to_bits(), g.squares.to_bits(), 0, 0]));
        words
    };
    groups.chunks(of_row).flat_map(row).collect()
}

/// The groups of rows that kernels laid out.
pub fn coded_groups(words: &[u32], of_row: usize) -> Vec<Group> {
    let bytes = |words: &[u32]| words.iter().flat_map(|w| w.to_le_bytes()).map(|b| b as i8).collect::<Vec<_>>();
    let group = |row: &[u32], g: usize| {
        let part = |p: usize| &row[4 * (p * of_row + g)..][..4];
        let codes = [bytes(part(0)), bytes(part(1))].concat();
        Group { codes, scale: f32::from_bits(part(2)[0]), squares: f32::from_bits(part(2)[1]) }
    };
    words.chunks(12 * of_row).flat_map(|row| (0..of_row).map(move |g| group(row, g))).collect()
}

/// Each value of coded rows, and its step.
pub fn decoded(words: &[u32], of_row: usize) -> Vec<(f64, f64)> {
    let group = |g: Group| g.codes.into_iter().map(move |c| (f64::from(c) * f64::from(g.scale), f64::from(g.scale)));
    coded_groups(words, of_row).into_iter().flat_map(group).collect()
}

/// Writes (or adds to) y.
pub fn product(m: &Product<'_>, y: &mut [f64]) {
    for (r, from) in m.rows.iter().enumerate() {
        let mut x = m.x[from * m.x_stride + m.x_offset..][..m.k].to_vec();
        let mut factor = 1.0;
        if let Some((weight, eps)) = m.norm {
            let mean = dot(&x, &x) / m.k as f64;
            factor = 1.0 / (mean + f64::from(eps)).sqrt();
            x.iter_mut().zip(weight).for_each(|(x, w)| *x *= w);
        }
        if m.rounded {
            x = rounded(&x);
        }
        let row = |n: usize| factor * dot(&x, &m.weight[n * m.k..][..m.k]);
        let y = &mut y[r * m.y_stride + m.y_offset..];
        match m.epilogue {
            Epilogue::Store => (0..m.n).for_each(|n| y[n] = row(n)),
            Epilogue::Add => (0..m.n).for_each(|n| y[n] += row(n)),
            Epilogue::SwiGlu => (0..m.n / 2).for_each(|n| y[n] = silu(row(n)) * row(m.n / 2 + n)),
            Epilogue::Relu2 => (0..m.n).for_each(|n| y[n] = relu2(row(n))),
        }
    }
}
