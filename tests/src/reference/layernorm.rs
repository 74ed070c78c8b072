//! `y = (x - mean) / sqrt(var + eps) * (1 + weight) + bias`.

/// One row.
pub fn layernorm(x: &[f32], weight: &[f32], bias: &[f32], eps: f32, y: &mut [f64]) {
    let n = x.len() as f64;
    let mean = x.iter().map(|v| f64::from(*v)).sum::<f64>() / n;
    let variance = x.iter().map(|v| (f64::from(*v) - mean).powi(2)).sum::<f64>() / n;
    for i in 0..x.len() {
        let normed = (f64::from(x[i]) - mean) / (variance + f64::from(eps)).sqrt();
        y[i] = normed * (1.0 + f64::from(weight[i])) + f64::from(bias[i]);
    }
}
