//! Latent attention of one head over some positions: the softmax-weighted latent, and log sum exp of the scores.

/// `query` and each of `cached` are `[latent | rope]`.
pub fn mla_attend(query: &[f32], cached: &[Vec<f32>], latent: usize) -> (Vec<f64>, f64) {
    let scores: Vec<f64> = cached.iter().map(|row| super::dot(query, row)).collect();
    let top = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = scores.iter().map(|s| (s - top).exp()).sum();
    let o = (0..latent)
        .map(|i| cached.iter().zip(&scores).map(|(row, s)| (s - top).exp() / sum * f64::from(row[i])).sum())
        .collect();
    (o, top + sum.ln())
}
