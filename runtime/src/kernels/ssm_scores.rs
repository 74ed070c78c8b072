//! `ssm_scores.wgsl`: the part of the chunked scan that needs no state.

use super::ssm_shape::{SsmRows, SsmShape};
use super::{STEP, Target, assert_words, bindings, dispatch, shader};
use crate::gpu::{Buffer, Cost, Dispatch, Extent, Grid};

/// Lanes along a side of the shader's tile.
const SIDE: usize = 8;

/// `scores[i, j] = (C_i . B_j) dt_j decay(j..i) + (i == j) D` within each chunk of rows, and the decays around it.
#[derive(Debug)]
pub struct SsmScores<'a> {
    pub rows: SsmRows<'a>,
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
    /// When a buffer is too small: the plan sees to it.
    pub fn dispatch(&self, label: &str, target: Target) -> Dispatch {
        let m = self.rows;
        let s = m.shape;
        m.check(label);
        let chunk = Self::chunk(s.head_dim);
        assert_words(self.heads, 4 * s.heads as u64, "ssm_scores.heads");
        assert_words(self.scores, Self::words(s, target.max_rows as usize) as u64, "ssm_scores.scores");
        let own = [m.in_stride, m.u_stride / 4, s.heads].map(|v| v as u32);
        dispatch(
            label,
            "ssm_scores",
            vec![shader!("ssm_scores.wgsl"), shader!("parts/ssm_shape.wgsl"), shader!("parts/softplus.wgsl"), STEP],
            target.constants(vec![("CHUNK", chunk as f64), ("TILE", (chunk / SIDE) as f64)]),
            &[s.params().as_slice(), &own].concat(),
            bindings(m.step, &[m.zxbcdt, m.u, self.heads], &[self.scores]),
            Grid::new(Extent::Fixed(s.heads as u32), Extent::Rows { per: chunk as u32 }),
        )
        .costs(Cost {
            row_bytes: 4 * (s.xb_channels() + s.d_inner + s.heads * chunk),
            row_macs: s.d_inner * chunk,
            ..Cost::default()
        })
    }
}
