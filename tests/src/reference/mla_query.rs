//! The absorbed query of a head: `scale [q_nope^T Wk | rope(q_pe)]`.

use super::rope::Rope;

/// `q` is `[nope + rope]` of a head, `wk` `[nope, latent]` of its kv head.
pub fn mla_query(
    q: &[f32],
    wk: &[f32],
    latent: usize,
    rope: &Rope,
    scale: f32,
    position: usize,
) -> (Vec<f64>, Vec<f64>) {
    let nope = wk.len() / latent;
    let scale = f64::from(scale);
    let absorbed =
        (0..latent).map(|i| scale * (0..nope).map(|d| f64::from(q[d]) * f64::from(wk[d * latent + i])).sum::<f64>());
    (absorbed.collect(), rope.turn(&q[nope..], position).iter().map(|v| scale * v).collect())
}
