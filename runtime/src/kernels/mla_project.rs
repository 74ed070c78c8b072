//! `mla_project.wgsl`: a few rows' absorbed queries and cached rows, from [q_a | latent | k_pe] in one dispatch.

use super::mla_latent::CacheShape;
use super::mla_query::{MlaHeads, whole};
use super::rmsnorm::Columns;
use super::{Matrix, STEP, Target, assert_words, bindings, dispatch, read, shader};
use crate::gpu::{Buffer, Cost, Dispatch, Extent, Grid};
use crate::weights::WeightFormat;

/// Lanes of a workgroup, at most.
const MOST_LANES: usize = 1024;
/// Storage buffers it binds.
const BUFFERS: u32 = 9;

/// `query[r, h] = scale * [Wk[g(h)]^T q_nope | rope(q_pe)]` with `q = q_b_proj q_a`, and
/// `latents[slot, position] = [c | rope(k_pe)]`.
#[derive(Debug)]
pub struct MlaProject<'a> {
    pub step: &'a Buffer,
    pub shape: CacheShape,
    pub heads: MlaHeads,
    /// `[rows, stride]`: q_a, then from their offsets on the latent and k_pe.
    pub a: Columns<'a>,
    /// f32 before the latent in a row of `a`.
    pub c_offset: usize,
    /// f32 before k_pe in a row of `a`.
    pub k_offset: usize,
    /// See [`super::rope::turns`].
    pub turns: &'a Buffer,
    /// q_b_proj `[heads * (nope + rope), q_rank]`.
    pub q_b: &'a Matrix,
    /// kv_b_proj `[kv_heads * (nope + v), latent]`.
    pub kv_b: &'a Matrix,
    /// Of the softmax.
    pub scale: f32,
    /// `[rows, heads, row_quads]` vec4.
    pub query: &'a Buffer,
    /// `[slots, context, row_words]`.
    pub latents: &'a Buffer,
}

impl MlaProject<'_> {
    fn lanes(target: Target) -> usize {
        MOST_LANES.min(target.limits.invocations as usize)
    }

    /// Whether an adapter can run it for these heads: all that it reads and writes in one dispatch. No preset has
    /// kv_b_proj in q4, where four bits cost the most.
    pub fn fits(q_b: &Matrix, kv_b: &Matrix, heads: MlaHeads, shape: CacheShape, target: Target) -> bool {
        let lanes = Self::lanes(target);
        let quads = q_b.k_padded() / 4 + lanes + shape.row_quads();
        let memory = 16 * quads + 4 * (heads.nope + shape.rope);
        target.limits.storage_buffers >= BUFFERS
            && kv_b.format() != WeightFormat::Q4
            && heads.nope + shape.rope <= lanes
            && shape.latent_quads() <= lanes
            && memory <= target.limits.workgroup_memory as usize
            && q_b.parts(&target.limits, BUFFERS - 2).len() == 1
    }

    /// # Panics
    /// When [`MlaProject::fits`] says no: the plan asks first.
    pub fn dispatch(&self, label: &str, target: Target) -> Dispatch {
        let (s, h) = (self.shape, self.heads);
        assert!(Self::fits(self.q_b, self.kv_b, h, s, target), "{label}: does not fit into the adapter");
        assert!(self.a.offset == 0 && self.a.stride.is_multiple_of(4), "{label}: rows are no whole quads");
        assert!(self.q_b.k_padded() <= self.a.stride, "{label}: rows are shorter than q_a");
        assert!(self.c_offset + s.latent <= self.a.stride, "{label}: the latent ends outside of its row");
        assert!(self.k_offset + s.rope <= self.a.stride, "{label}: k_pe ends outside of its row");
        assert_words(self.latents, (s.row_words() * s.context) as u64, "mla_project.latents");
        assert_words(self.query, (4 * h.heads * s.row_quads()) as u64, "mla_project.query");
        let lanes = Self::lanes(target);
        let head_rows = h.nope + s.rope;
        let params = [
            h.heads as u32,
            (h.heads / h.kv_heads) as u32,
            h.nope as u32,
            s.rope as u32,
            (h.nope + h.v) as u32,
            (self.kv_b.k_padded() / 4) as u32,
            s.latent as u32,
            s.latent_quads() as u32,
            s.rope_quads() as u32,
            (self.a.stride / 4) as u32,
            self.c_offset as u32,
            self.k_offset as u32,
            s.row_words() as u32,
            s.context as u32,
            self.scale.to_bits(),
        ];
        let q_b = whole(self.q_b, label, target);
        let mut constants = target.constants(vec![
            ("WG", lanes as f64),
            ("X_QUADS", (self.q_b.k_padded() / 4) as f64),
            ("SPLIT", (lanes / head_rows) as f64),
            ("LATENT_QUADS", s.latent_quads() as f64),
            ("SHARES", (lanes / s.latent_quads()) as f64),
            ("HEAD_ROWS", head_rows as f64),
            ("ROW_QUADS", s.row_quads() as f64),
        ]);
        constants.extend(q_b.constants());
        let kv_b = match self.kv_b.format() {
            WeightFormat::F32 => shader!("parts/kv_b_f32.wgsl"),
            WeightFormat::F16 => shader!("parts/kv_b_f16.wgsl"),
            WeightFormat::Q8 | WeightFormat::Q4 => shader!("parts/kv_b_q8.wgsl"),
        };
        let mut sources = vec![shader!("mla_project.wgsl"), shader!("parts/rope.wgsl"), s.store_source(), kv_b, STEP];
        sources.extend(q_b.sources());
        let mut all = bindings(self.step, &[self.a.buffer, self.turns], &[self.query, self.latents]);
        all.extend(q_b.bindings());
        let kv_b = self.kv_b.buffers();
        assert!(kv_b.len() <= 2, "{label}: kv_b_proj does not fit into one binding");
        all.extend(kv_b.iter().enumerate().map(|(i, buffer)| read(12 + i as u32, buffer)));
        dispatch(
            label,
            "mla_project",
            sources,
            constants,
            &params,
            all,
            Grid::new(Extent::Fixed(h.heads as u32 + 1), Extent::Rows { per: 1 }),
        )
        .costs(Cost {
            bytes: q_b.bytes(h.heads * head_rows) + whole(self.kv_b, label, target).bytes(h.kv_heads * h.nope),
            row_bytes: 4 * (self.a.stride + s.row_words() + h.heads * (s.latent + s.rope)),
            row_macs: h.heads * (head_rows * self.q_b.k() + h.nope * s.latent),
            ..Cost::default()
        })
    }
}
