//! `mla_combine.wgsl`: the spans of an attention put together and taken back from latents to values.

use super::mla_attend::Spans;
use super::mla_latent::CacheShape;
use super::mla_query::{MlaHeads, whole};
use super::{Matrix, STEP, Target, bindings, dispatch, shader};
use crate::gpu::{Buffer, Dispatch, Extent, Grid};

const WG: usize = 256;

/// `o[r, h] = Wv[g(h)] softmax-weighted latent`.
#[derive(Debug)]
pub struct MlaCombine<'a> {
    pub step: &'a Buffer,
    pub shape: CacheShape,
    pub heads: MlaHeads,
    /// As [`MlaAttend`](super::mla_attend::MlaAttend) had them.
    pub spans: Spans,
    pub sums: &'a Buffer,
    pub weights: &'a Buffer,
    /// kv_b_proj `[kv_heads * (nope + v), latent]`.
    pub kv_b: &'a Matrix,
    /// `[rows, o_stride]`: heads of `v`.
    pub o: &'a Buffer,
    pub o_stride: usize,
}

impl MlaCombine<'_> {
    pub fn dispatch(&self, label: &str, target: Target) -> Dispatch {
        let (s, h) = (self.shape, self.heads);
        assert!(s.latent_quads() <= WG, "{label}: a latent of {}", s.latent);
        assert!(h.heads * h.v <= self.o_stride, "{label}: rows of o are too short");
        let [most, parts] = self.spans.params();
        assert!(most as usize <= WG, "{label}: {most} spans of a row");
        let part = whole(self.kv_b, label, target);
        let params = [
            h.heads as u32,
            (h.heads / h.kv_heads) as u32,
            h.nope as u32,
            h.v as u32,
            (self.kv_b.k_padded() / 8) as u32,
            s.context as u32,
            most,
            parts,
            self.o_stride as u32,
        ];
        let mut constants = target.constants(vec![
            ("WG", WG as f64),
            ("LATENT_QUADS", s.latent_quads() as f64),
            ("LATENT_QUADS_PADDED", (self.kv_b.k_padded() / 4) as f64),
            ("SHARES", (WG / s.latent_quads()) as f64),
            Spans::constant(),
        ]);
        constants.extend(part.constants());
        let mut sources = vec![shader!("mla_combine.wgsl"), shader!("parts/spans.wgsl"), STEP];
        sources.extend(part.sources());
        let mut all = bindings(self.step, &[self.sums, self.weights], &[self.o]);
        all.extend(part.bindings());
        dispatch(
            label,
            "mla_combine",
            sources,
            constants,
            &params,
            all,
            Grid::new(Extent::Fixed(h.heads as u32), Extent::Rows { per: 1 }),
        )
    }
}
