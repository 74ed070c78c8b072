//! `mla_query.wgsl`: queries taken into the latent space, with their roped part.

use super::mla_latent::CacheShape;
use super::mla_query_coop;
use super::{Matrix, STEP, Target, assert_words, bindings, dispatch, shader};
use crate::gpu::{Buffer, Cost, Dispatch, Extent, Grid};

const WG: usize = 256;

/// The heads of an MLA mixer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MlaHeads {
    pub heads: usize,
    pub kv_heads: usize,
    /// qk_nope_head_dim.
    pub nope: usize,
    /// v_head_dim.
    pub v: usize,
}

/// `query[r, h] = scale * [Wk[g(h)]^T q_nope | rope(q_pe)]`.
#[derive(Debug)]
pub struct MlaQuery<'a> {
    pub step: &'a Buffer,
    pub shape: CacheShape,
    pub heads: MlaHeads,
    /// `[rows, q_stride]`: heads of `nope + rope`.
    pub q: &'a Buffer,
    pub q_stride: usize,
    /// See [`super::rope::turns`].
    pub turns: &'a Buffer,
    /// kv_b_proj `[kv_heads * (nope + v), latent]`.
    pub kv_b: &'a Matrix,
    /// Of the softmax.
    pub scale: f32,
    /// `[rows, heads, row_quads]` vec4.
    pub query: &'a Buffer,
}

impl MlaQuery<'_> {
    /// On cooperative matrices in steps of many rows, where the adapter has them and factors fit f16.
    pub fn query(&self, label: &str, wide: bool, target: Target) -> Dispatch {
        match target.twins.matmul_coop.filter(|m| wide && mla_query_coop::fits(self, *m)) {
            Some(matrices) => mla_query_coop::dispatch(self, label, matrices, target),
            None => self.dispatch(label, target),
        }
    }

    pub fn dispatch(&self, label: &str, target: Target) -> Dispatch {
        let (s, h) = (self.shape, self.heads);
        assert!(s.latent_quads() <= WG, "{label}: a latent of {}", s.latent);
        assert!(h.heads * (h.nope + s.rope) <= self.q_stride, "{label}: rows of q are too short");
        assert_words(self.query, (4 * h.heads * s.row_quads()) as u64 * u64::from(target.max_rows), "mla_query.query");
        let part = whole(self.kv_b, label, target);
        let params = [
            h.heads as u32,
            (h.heads / h.kv_heads) as u32,
            h.nope as u32,
            s.rope as u32,
            (h.nope + h.v) as u32,
            s.rope_quads() as u32,
            (self.kv_b.k_padded() / 4) as u32,
            self.q_stride as u32,
            self.scale.to_bits(),
        ];
        let mut constants = target.constants(vec![
            ("WG", WG as f64),
            ("LATENT_QUADS", s.latent_quads() as f64),
            ("SHARES", (WG / s.latent_quads()) as f64),
        ]);
        constants.extend(part.constants());
        let mut sources = vec![shader!("mla_query.wgsl"), shader!("parts/rope.wgsl"), STEP];
        sources.extend(part.sources());
        let mut all = bindings(self.step, &[self.q, self.turns], &[self.query]);
        all.extend(part.bindings());
        dispatch(
            label,
            "mla_query",
            sources,
            constants,
            &params,
            all,
            Grid::new(Extent::Fixed(h.heads as u32), Extent::Rows { per: 1 }),
        )
        .costs(Cost {
            bytes: part.bytes(h.kv_heads * h.nope),
            row_bytes: 4 * h.heads * (h.nope + s.latent + 2 * s.rope),
            row_macs: h.heads * h.nope * s.latent,
            ..Cost::default()
        })
    }
}

/// kv_b_proj in one binding: it has a few MB in every geometry.
pub(super) fn whole<'a>(kv_b: &'a Matrix, label: &str, target: Target) -> super::matrix::Part<'a> {
    let parts = kv_b.parts(&target.limits, 5);
    assert!(parts.len() == 1, "{label}: kv_b_proj does not fit into one binding");
    parts[0]
}
