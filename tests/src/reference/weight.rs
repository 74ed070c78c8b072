//! Weight matrices in their bytes, and what numbers the bytes stand for.
//!
//! Groups of 32 along k, G = ceil(k / 32), the last one padded with zeros:
//! f32 `[n][32 G]`; f16 `[n][32 G]`; q8: i8 `[n][32 G]` with f16 scales `[n][G]`, w = q s;
//! q4: bytes `[n][G][16]` with f16 scales `[n][G]`, byte 4j + b (j, b < 4) holds element 8j + b in its low nibble and
//! element 8j + 4 + b in its high one, w = (nibble - 8) s.

use half::f16;
use zebra_runtime::weights::WeightFormat;

use crate::random::Random;

/// A matrix `[n, k]` as it lies in memory.
#[derive(Debug, Clone)]
pub struct Weight {
    pub format: WeightFormat,
    pub n: usize,
    pub k: usize,
    pub words: Vec<u8>,
    /// Empty for formats without scales.
    pub scales: Vec<u8>,
}

/// Every format.
pub const FORMATS: [WeightFormat; 4] = [WeightFormat::F32, WeightFormat::F16, WeightFormat::Q8, WeightFormat::Q4];

impl Weight {
    /// Draws a matrix whose values have a standard deviation near 1 / sqrt(k): codes and scales are drawn directly,
    /// extreme codes, negative scales and scales of zero among them.
    pub fn random(format: WeightFormat, n: usize, k: usize, random: &mut Random) -> Self {
        let groups = k.div_ceil(32);
        let size = 1.0 / (k as f32).sqrt();
        let (mut words, mut scales) = (Vec::new(), Vec::new());
        for _ in 0..n {
            for g in 0..groups {
                let inside = |i: usize| g * 32 + i < k;
                match format {
                    WeightFormat::F32 => {
                        for i in 0..32 {
                            let v = if inside(i) { size * random.normal() } else { 0.0 };
                            words.extend(v.to_le_bytes());
                        }
                    }
                    WeightFormat::F16 => {
                        for i in 0..32 {
                            let v = if inside(i) { size * random.normal() } else { 0.0 };
                            words.extend(f16::from_f32(v).to_le_bytes());
                        }
                    }
                    WeightFormat::Q8 => {
                        let code = |i: usize| if inside(i) { random.below(255) as i32 - 127 } else { 0 };
                        words.extend((0..32).map(code).map(|code| code as u8));
                        scales.extend(scale(size / 73.0, random).to_le_bytes());
                    }
                    WeightFormat::Q4 => {
                        let codes: Vec<u8> =
                            (0..32).map(|i| if inside(i) { random.below(16) as u8 } else { 8 }).collect();
                        for j in 0..4 {
                            words.extend((0..4).map(|b| codes[8 * j + b] | codes[8 * j + 4 + b] << 4));
                        }
                        scales.extend(scale(size / 4.6, random).to_le_bytes());
                    }
                }
            }
        }
        Self { format, n, k, words, scales }
    }

    /// The numbers, `[n, k]` without padding. Each is exact in f32.
    pub fn values(&self) -> Vec<f32> {
        let groups = self.k.div_ceil(32);
        let mut values = Vec::with_capacity(self.n * self.k);
        for row in 0..self.n {
            for i in 0..self.k {
                let scale = || {
                    let at = 2 * (row * groups + i / 32);
                    f16::from_le_bytes([self.scales[at], self.scales[at + 1]]).to_f32()
                };
                let at = row * 32 * groups + i;
                values.push(match self.format {
                    WeightFormat::F32 => f32::from_le_bytes([0, 1, 2, 3].map(|b| self.words[4 * at + b])),
                    WeightFormat::F16 => f16::from_le_bytes([self.words[2 * at], self.words[2 * at + 1]]).to_f32(),
                    WeightFormat::Q8 => f32::from(self.words[at] as i8) * scale(),
                    WeightFormat::Q4 => {
                        let (j, e) = (i % 32 / 8, i % 8);
                        let byte = self.words[(row * groups + i / 32) * 16 + 4 * j + e % 4];
                        let nibble = if e < 4 { byte & 15 } else { byte >> 4 };
                        (f32::from(nibble) - 8.0) * scale()
                    }
                });
            }
        }
        values
    }
}

fn scale(size: f32, random: &mut Random) -> f16 {
    match random.below(16) {
        0 => f16::ZERO,
        1 => f16::from_f32(-size),
        _ => f16::from_f32(size * random.uniform(0.5, 1.5)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nibbles_stand_where_the_layout_says() {
        let mut words = vec![0x88u8; 16];
        words[5] = 0x1f; // j = 1, b = 1: element 9 in the low nibble, 13 in the high one.
        let w =
            Weight { format: WeightFormat::Q4, n: 1, k: 32, words, scales: f16::from_f32(0.5).to_le_bytes().into() };
        let mut expected = [0.0; 32];
        expected[9] = 3.5;
        expected[13] = -3.5;
        assert_eq!(w.values(), expected);
    }

    #[test]
    fn each_row_and_group_has_its_own_scale() {
        let words = [vec![3u8; 64], vec![0xfdu8; 64]].concat();
        let scales = [1.0, 2.0, 4.0, 8.0].iter().flat_map(|s| f16::from_f32(*s).to_le_bytes()).collect();
        let v = Weight { format: WeightFormat::Q8, n: 2, k: 33, words, scales }.values();
        assert_eq!((v[0], v[32], v[33], v[65]), (3.0, 6.0, -12.0, -24.0));
    }

    #[test]
    fn drawn_weights_have_the_size_they_claim() {
        for format in FORMATS {
            let v = Weight::random(format, 64, 96, &mut Random::new(7)).values();
            let square = v.iter().map(|v| v * v).sum::<f32>() / v.len() as f32 * 96.0;
            assert!((0.5..2.0).contains(&square), "{format:?}: {square}");
        }
    }
}
