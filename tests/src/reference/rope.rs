//! RoPE on interleaved pairs, with the factor of YaRN on cos and sin.

/// The frequencies and the attention factor.
#[derive(Debug, Clone)]
pub struct Rope {
    pub inv_freq: Vec<f32>,
    pub scale: f32,
}

impl Rope {
    /// Frequencies from 1 down, as theta 500,000 gives them.
    pub fn new(dim: usize, scale: f32) -> Self {
        let inv_freq = (0..dim / 2).map(|i| 500_000f64.powf(-2.0 * i as f64 / dim as f64) as f32).collect();
        Self { inv_freq, scale }
    }

    /// (y0, y1) = m (x0 cos a - x1 sin a, x0 sin a + x1 cos a), a = position * inv_freq.
    pub fn turn(&self, x: &[f32], position: usize) -> Vec<f64> {
        let m = f64::from(self.scale);
        let mut y = Vec::with_capacity(x.len());
        for (pair, f) in x.chunks_exact(2).zip(&self.inv_freq) {
            let (sin, cos) = (position as f64 * f64::from(*f)).sin_cos();
            let (a, b) = (f64::from(pair[0]), f64::from(pair[1]));
            y.extend([m * (a * cos - b * sin), m * (a * sin + b * cos)]);
        }
        y
    }
}
