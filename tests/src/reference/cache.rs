//! Rows of the cache in their words, and what numbers they stand for. All formats: quads of the latent, then
//! quads of the roped k_pe, each padded with zeros. f32: a word a number. f16: two numbers a word. q8: the latent in
//! int8, four a word, then an f16 scale for each eight quads, two a word, then the roped part in f16. Zeros fill a row
//! up to whole 16 bytes.

use half::f16;
use zebra_runtime::kernels::mla_latent::{CacheFormat, CacheShape};

fn halves(a: f32, b: f32) -> u32 {
    u32::from(f16::from_f32(a).to_bits()) | u32::from(f16::from_f32(b).to_bits()) << 16
}

fn half_at(words: &[u32], i: usize) -> f32 {
    f16::from_bits((words[i / 2] >> (16 * (i % 2))) as u16).to_f32()
}

/// A row's words.
pub fn encode(s: &CacheShape, latent: &[f32], rope: &[f32]) -> Vec<u32> {
    let mut c = latent.to_vec();
    c.resize(4 * s.latent.div_ceil(4), 0.0);
    let mut k = rope.to_vec();
    k.resize(4 * s.rope.div_ceil(4), 0.0);
    let mut words: Vec<u32> = match s.format {
        CacheFormat::F32 => c.iter().chain(&k).map(|v| v.to_bits()).collect(),
        CacheFormat::F16 => [c, k].concat().chunks(2).map(|p| halves(p[0], p[1])).collect(),
        CacheFormat::Q8 => {
            let scales: Vec<f32> = c
                .chunks(32)
                .map(|g| f16::from_f32(g.iter().fold(0.0f32, |m, v| m.max(v.abs())) / 127.0).to_f32())
                .collect();
            let code = |i: usize| {
                let scale = scales[i / 32];
                if scale == 0.0 { 0u8 } else { (c[i] / scale).round().clamp(-127.0, 127.0) as i8 as u8 }
            };
            let codes = (0..c.len() / 4).map(|q| u32::from_le_bytes([0, 1, 2, 3].map(|j| code(4 * q + j))));
            let pairs = scales.chunks(2).map(|p| halves(p[0], p.get(1).copied().unwrap_or(0.0)));
            codes.chain(pairs).chain(k.chunks(2).map(|p| halves(p[0], p[1]))).collect()
        }
    };
    words.resize(words.len().next_multiple_of(4), 0);
    words
}

/// A row's numbers: the latent and the roped part, without padding.
pub fn decode(s: &CacheShape, words: &[u32]) -> (Vec<f32>, Vec<f32>) {
    let quads = s.latent.div_ceil(4);
    match s.format {
        CacheFormat::F32 => {
            let at = |i: usize| f32::from_bits(words[i]);
            ((0..s.latent).map(at).collect(), (0..s.rope).map(|i| at(4 * quads + i)).collect())
        }
        CacheFormat::F16 => (
            (0..s.latent).map(|i| half_at(words, i)).collect(),
            (0..s.rope).map(|i| half_at(words, 4 * quads + i)).collect(),
        ),
        CacheFormat::Q8 => {
            let scales = &words[quads..];
            let rope = &scales[quads.div_ceil(16)..];
            let latent = |i: usize| f32::from((words[i / 4] >> (8 * (i % 4))) as i8) * half_at(scales, i / 32);
            ((0..s.latent).map(latent).collect(), (0..s.rope).map(|i| half_at(rope, i)).collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    #[test]
    fn a_row_comes_back_within_its_format() {
        for (format, most) in [(CacheFormat::F32, 0.0), (CacheFormat::F16, 2f32.powi(-10)), (CacheFormat::Q8, 0.02)] {
            for (latent, rope) in [(16, 8), (160, 64), (33, 6)] {
                let s = CacheShape::mla(format, latent, rope, 1);
                let (c, k) = (Random::new(3).normals(latent, 1.0), Random::new(4).normals(rope, 1.0));
                let words = encode(&s, &c, &k);
                assert_eq!(words.len(), s.row_words());
                let (c2, k2) = decode(&s, &words);
                assert_eq!((c2.len(), k2.len()), (latent, rope));
                for (a, b) in c.iter().chain(&k).zip(c2.iter().chain(&k2)) {
                    assert!((a - b).abs() <= most * a.abs().max(1.0), "{format:?}: {a} {b}");
                }
            }
        }
    }
}
