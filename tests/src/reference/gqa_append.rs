//! What a row leaves of its heads: queries times the softmax's scale, and `[v | k]` of each kv head.

use super::rope::Rope;

/// A head whose first elements are turned, by halves: (i, i + n / 2) of the n elements that `rope` turns.
pub fn turned(head: &[f32], rope: &Rope, position: usize) -> Vec<f64> {
    let half = rope.inv_freq.len();
    let pairs: Vec<f32> = (0..half).flat_map(|i| [head[i], head[i + half]]).collect();
    let pairs = rope.turn(&pairs, position);
    let mut all: Vec<f64> = head.iter().map(|v| f64::from(*v)).collect();
    for i in 0..half {
        (all[i], all[i + half]) = (pairs[2 * i], pairs[2 * i + 1]);
    }
    all
}
