//! `mla_attend.wgsl`: latent attention over spans of the context.

use super::mla_latent::CacheShape;
use super::{STEP, Target, assert_words, bindings, dispatch, shader};
use crate::gpu::{Buffer, Cost, Dispatch, Extent, Grid};

/// Lanes of a workgroup and positions it takes at a time.
const WG: usize = 128;

/// Latent width that a workgroup's lanes can hold, a quad each.
pub const MOST_LATENT: usize = 4 * WG;

/// `sums[r, h, span] = sum_s exp(query . cached[s] - top) latent[s]` with the top and the sum of weights.
#[derive(Debug)]
pub struct MlaAttend<'a> {
    pub step: &'a Buffer,
    pub shape: CacheShape,
    /// Query heads.
    pub heads: usize,
    /// Positions of one workgroup, a multiple of 128.
    pub span: usize,
    /// `[rows, heads, row_quads]` vec4.
    pub query: &'a Buffer,
    /// `[slots, context, row_words]`.
    pub latents: &'a Buffer,
    /// `[rows, heads, spans, latent_quads]` vec4.
    pub sums: &'a Buffer,
    /// `[rows, heads, spans]` vec2.
    pub weights: &'a Buffer,
}

impl MlaAttend<'_> {
    /// Spans of a whole context.
    pub fn spans(shape: CacheShape, span: usize) -> usize {
        shape.context.div_ceil(span)
    }

    /// # Panics
    /// When the latent is wider than [`MOST_LATENT`]: the configuration refuses it before.
    pub fn dispatch(&self, label: &str, target: Target) -> Dispatch {
        let s = self.shape;
        let spans = Self::spans(s, self.span);
        assert!(self.span.is_multiple_of(WG), "{label}: a span of {} positions", self.span);
        assert!(s.latent <= MOST_LATENT, "{label}: a latent of {}", s.latent);
        assert_words(self.sums, (self.heads * spans * s.latent_quads() * 4) as u64, "mla_attend.sums");
        assert_words(self.weights, (self.heads * spans * 2) as u64, "mla_attend.weights");
        let shares = WG / s.latent_quads();
        // Eight heads at a time, so that a row is read seldom, where workgroup memory holds their queries.
        let fixed = 16 * (2 * WG + 32 + WG);
        let each = 16 * s.row_quads();
        let room = (target.limits.workgroup_memory as usize).saturating_sub(fixed) / each;
        assert!(room >= 4, "{label}: queries of {} do not fit into workgroup memory", 4 * s.row_quads());
        let heads = if room >= 8 { 8 } else { 4 };
        let blocks = self.heads.div_ceil(heads) as u32;
        let params = [
            self.heads as u32,
            s.latent_quads() as u32,
            s.rope_quads() as u32,
            s.row_words() as u32,
            s.context as u32,
            self.span as u32,
            spans as u32,
            blocks,
        ];
        let grid = Grid {
            items: [Extent::Positions { per: self.span as u32 }, Extent::Fixed(blocks)],
            z: Extent::Rows { per: 1 },
        };
        dispatch(
            label,
            "mla_attend",
            vec![shader!("mla_attend.wgsl"), s.source(), STEP],
            target.constants(vec![
                ("HEADS", heads as f64),
                ("HALVES", (heads / 4) as f64),
                ("QUERY_QUADS", s.row_quads() as f64),
                ("QUERY_WORDS", (heads * s.row_quads()) as f64),
                ("LATENT_QUADS", s.latent_quads() as f64),
                ("SHARES", shares as f64),
            ]),
            &params,
            bindings(self.step, &[self.query, self.latents], &[self.sums, self.weights]),
            grid,
        )
        .costs(Cost {
            row_bytes: 4 * self.heads * (2 * s.latent + s.rope),
            position_bytes: 4 * s.row_words(),
            position_macs: self.heads * (2 * s.latent + s.rope),
            ..Cost::default()
        })
    }
}
