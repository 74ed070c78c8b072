//! Rows for products of f16, each with a power of two. The twin of `half_rows.wgsl`.

use super::rmsnorm::rmsnorm;

/// Writes the numbers that a row stands for, x or its norm with `(weight, eps)`, and returns the exponent e by which
/// they are held as f16: the largest lies in 16 .. 32 once it is divided by 2^e.
pub fn half_rows(x: &[f32], norm: Option<(&[f32], f32)>, v: &mut [f64]) -> i32 {
    match norm {
        Some((weight, eps)) => rmsnorm(x, weight, eps, v),
        None => v.iter_mut().zip(x).for_each(|(v, x)| *v = f64::from(*x)),
    }
    let most = v[..x.len()].iter().fold(0.0, |most: f64, v| most.max(v.abs()));
    // No smaller than what f32 has numbers for, 2^e and 2^-e both.
    (most.log2().floor() as i32 - 4).max(-126)
}
