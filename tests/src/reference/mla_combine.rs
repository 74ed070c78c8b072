//! Spans of one head put together, then `o = Wv latent`.

/// A span's unnormalised sum `[width]`, its maximum and its sum of weights.
#[derive(Debug, Clone)]
pub struct Span {
    pub sum: Vec<f32>,
    pub top: f32,
    pub weight: f32,
}

/// The softmax-weighted mean over all spans.
pub fn together(spans: &[Span], width: usize) -> Vec<f64> {
    let top = spans.iter().map(|s| f64::from(s.top)).fold(f64::NEG_INFINITY, f64::max);
    let fade = |s: &Span| (f64::from(s.top) - top).exp();
    let total: f64 = spans.iter().map(|s| fade(s) * f64::from(s.weight)).sum();
    (0..width).map(|i| spans.iter().map(|s| fade(s) * f64::from(s.sum[i])).sum::<f64>() / total).collect()
}

/// `wv` is `[v, latent]` of the head's kv head.
pub fn mla_combine(spans: &[Span], wv: &[f32], latent: usize) -> Vec<f64> {
    let o = together(spans, latent);
    wv.chunks(latent).map(|row| row.iter().zip(&o).map(|(w, o)| f64::from(*w) * o).sum()).collect()
}
