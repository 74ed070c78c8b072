//! `[c | rope(k_pe)]` of a row, as it is appended to its slot's cache.

use super::rope::Rope;

/// The row's numbers before they are packed.
pub fn mla_latent(c: &[f32], k_pe: &[f32], rope: &Rope, position: usize) -> (Vec<f64>, Vec<f64>) {
    (c.iter().map(|v| f64::from(*v)).collect(), rope.turn(k_pe, position))
}
