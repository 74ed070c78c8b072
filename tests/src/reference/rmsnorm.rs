//! `y = x / sqrt(mean(x^2) + eps) * weight`.

/// One row.
pub fn rmsnorm(x: &[f32], weight: &[f32], eps: f32, y: &mut [f64]) {
    let mean = x.iter().map(|v| f64::from(*v) * f64::from(*v)).sum::<f64>() / x.len() as f64;
    let scale = 1.0 / (mean + f64::from(eps)).sqrt();
    for i in 0..x.len() {
        y[i] = f64::from(x[i]) * scale * f64::from(weight[i]);
    }
}
