//! `gqa_append.wgsl`: turns a row's queries and keys, and appends its keys and values to its slot's cache.

use super::mla_latent::CacheShape;
use super::rmsnorm::Columns;
use super::slots::{SLOTS, Slots};
use super::{STEP, Target, assert_words, bindings, dispatch, shader};
use crate::gpu::{Buffer, Cost, Dispatch, Extent, Grid};

/// Lanes of a workgroup at most.
const MOST_LANES: usize = 128;

/// `query[r, h] = scale * rope(q[h])`, `latents[slot, position, g] = [v[g] | rope(k[g])]`.
#[derive(Debug)]
pub struct GqaAppend<'a> {
    pub step: &'a Buffer,
    /// As [`CacheShape::gqa`] makes it.
    pub shape: CacheShape,
    /// Query heads; none where only keys and values are to be appended.
    pub heads: usize,
    /// Elements of a head that are turned, from the first on: even, all of them in most models.
    pub rope: usize,
    /// `[rows, stride]`: at `offset` the query heads one after another.
    pub q: Columns<'a>,
    /// f32 of a row before its kv heads' keys, and before their values.
    pub k_offset: usize,
    pub v_offset: usize,
    /// See [`super::rope::turns`]: of `rope / 2` pairs.
    pub turns: &'a Buffer,
    /// Of the softmax.
    pub scale: f32,
    /// `[rows, heads, key_quads]` vec4.
    pub query: &'a Buffer,
    /// `[context, kv_heads, row_words]` of each slot.
    pub latents: &'a Slots,
}

impl GqaAppend<'_> {
    pub fn dispatch(&self, label: &str, target: Target) -> Dispatch {
        let s = self.shape;
        let (head_dim, v) = (s.latent - s.keys_from, s.values);
        let ends = [
            self.q.offset + self.heads * head_dim,
            self.k_offset + s.kv_heads * head_dim,
            self.v_offset + s.kv_heads * v,
        ];
        assert!(ends.iter().all(|end| *end <= self.q.stride), "{label}: heads end outside of their row");
        assert!(self.rope <= head_dim && self.rope.is_multiple_of(2), "{label}: {} of {head_dim} turned", self.rope);
        assert!(s.rope == 0, "{label}: a cache of latents");
        self.latents.assert_each(s.position_words() * s.context, "gqa_append.latents");
        assert_words(self.query, (4 * self.heads * s.key_quads()) as u64, "gqa_append.query");
        let columns = 4 * s.row_quads();
        let [first_slot, slots] = self.latents.params();
        let params = [
            self.heads as u32,
            s.kv_heads as u32,
            head_dim as u32,
            v as u32,
            self.rope as u32,
            s.keys_from as u32,
            4 * s.key_quads() as u32,
            s.latent_quads() as u32,
            s.rope_quads() as u32,
            s.row_words() as u32,
            s.context as u32,
            self.q.stride as u32,
            self.q.offset as u32,
            self.k_offset as u32,
            self.v_offset as u32,
            self.scale.to_bits(),
            first_slot,
            slots,
        ];
        dispatch(
            label,
            "gqa_append",
            vec![shader!("gqa_append.wgsl"), shader!("parts/rope.wgsl"), s.store_source(), SLOTS, STEP],
            target.constants(vec![
                ("WG", columns.next_multiple_of(32).min(MOST_LANES) as f64),
                ("ROW_COLUMNS", columns as f64),
                ("HALVES", 1.0),
            ]),
            &params,
            bindings(self.step, &[self.q.buffer, self.turns], &[self.query, &self.latents.buffer]),
            Grid::new(Extent::Fixed((self.heads + s.kv_heads) as u32), Extent::Rows { per: 1 }),
        )
        .costs(Cost {
            row_bytes: 4 * (2 * self.heads * head_dim + s.kv_heads * (head_dim + v) + s.position_words()),
            ..Cost::default()
        })
    }
}
