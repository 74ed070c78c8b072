//! `ssm_scores.wgsl`: the part of the chunked scan that needs no state.

use super::ssm_conv::SsmShape;
use super::{STEP, Target, assert_words, bindings, dispatch, shader};
use crate::gpu::{Buffer, Cost, Dispatch, Extent, Grid};

/// Lanes along a side of the shader's tile.
const SIDE: usize = 8;

/// `scores[i, j] = (C_i . B_j) dt_j decay(j..i) + (i == j) D` within each chunk of rows, and the decays around it.
#[derive(Debug)]
pub struct SsmScores<'a> {
    pub step: &'a Buffer,
    pub shape: SsmShape,
    /// `[rows, in_stride]`, the rows of in_proj.
    pub zxbcdt: &'a Buffer,
    pub in_stride: usize,
    /// `[rows, u_stride]`, convolved.
    pub u: &'a Buffer,
    /// A multiple of 4.
    pub u_stride: usize,
    /// `[heads]` of (A_log, D, dt_bias, 0).
    pub heads: &'a Buffer,
    /// [`SsmScores::words`] f32.
    pub scores: &'a Buffer,
}

impl SsmScores<'_> {
    /// Rows of a chunk: what leaves 16 rows of the state room in 16 KiB of workgroup memory.
    pub fn chunk(head_dim: usize) -> usize {
        if head_dim <= 64 { 16 } else { 8 }
    }

    /// f32 of `scores` for a step of so many rows: `[chunks, heads][chunk + 2, chunk]`.
    pub fn words(shape: SsmShape, rows: usize) -> usize {
        let chunk = Self::chunk(shape.head_dim);
        rows.div_ceil(chunk) * shape.heads * (chunk + 2) * chunk
    }

    /// # Panics
    /// When head_dim is no multiple of 4, or a buffer too small: the plan sees to both.
    pub fn dispatch(&self, label: &str, target: Target) -> Dispatch {
        let s = self.shape;
        let chunk = Self::chunk(s.head_dim);
        assert!(
            s.head_dim.is_multiple_of(4) && self.u_stride.is_multiple_of(4),
            "{label}: rows of u are no whole quads"
        );
        assert!(s.in_proj() <= self.in_stride && s.channels() <= self.u_stride, "{label}: rows are too short");
        assert_words(self.heads, 4 * s.heads as u64, "ssm_scores.heads");
        assert_words(self.scores, Self::words(s, target.max_rows as usize) as u64, "ssm_scores.scores");
        let params = [
            s.head_dim as u32,
            s.repeat() as u32,
            s.repeated(),
            self.in_stride as u32,
            (2 * s.d_inner + 2 * s.d_xb) as u32,
            self.u_stride as u32 / 4,
            s.xb_channels() as u32,
            2 * s.xb_channels() as u32,
            s.heads as u32,
        ];
        dispatch(
            label,
            "ssm_scores",
            vec![shader!("ssm_scores.wgsl"), shader!("parts/conv_input.wgsl"), shader!("parts/softplus.wgsl"), STEP],
            target.constants(vec![("CHUNK", chunk as f64), ("TILE", (chunk / SIDE) as f64)]),
            &params,
            bindings(self.step, &[self.zxbcdt, self.u, self.heads], &[self.scores]),
            Grid::new(Extent::Fixed(s.heads as u32), Extent::Rows { per: chunk as u32 }),
        )
        .costs(Cost {
            row_bytes: 4 * (s.xb_channels() + s.d_inner + s.heads * chunk),
            row_macs: s.d_inner * chunk,
            ..Cost::default()
        })
    }
}
