//! Attention of one head over some positions: the softmax-weighted value, and log sum exp of the scores.

/// The first columns of each of `cached` are the value, those from `keys_from` on the key.
pub fn mla_attend(query: &[f32], cached: &[Vec<f32>], values: usize, keys_from: usize) -> (Vec<f64>, f64) {
    let scores: Vec<f64> = cached.iter().map(|row| super::dot(query, &row[keys_from..])).collect();
    let top = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = scores.iter().map(|s| (s - top).exp()).sum();
    let o = (0..values)
        .map(|i| cached.iter().zip(&scores).map(|(row, s)| (s - top).exp() / sum * f64::from(row[i])).sum())
        .collect();
    (o, top + sum.ln())
}
