//! `ssm_chunk.wgsl`: the selective scan by chunks of rows, for steps that have many of one slot.

use super::ssm_shape::SsmRows;
use super::ssm_states::SsmStates;
use super::{STEP, Target, assert_words, bindings, dispatch, shader};
use crate::gpu::{Buffer, Cost, Dispatch, Extent, Grid};

/// Quads of what is summed over that the shader has in workgroup memory at once.
const SLAB: usize = 4;
/// Quads that a lane can load of each matrix before the ones at hand are multiplied.
const MOST_LOADS: [usize; 2] = [2, 4];

/// `S = a S + dt x B^T, y = S C + D x`: [`super::ssm_scan::SsmScan`] between its convolution, which is
/// [`super::ssm_conv::SsmConv`], and its norm, [`super::gated_norm::GatedNorm`], with the states of [`SsmStates`].
#[derive(Debug)]
pub struct SsmChunk<'a> {
    pub rows: SsmRows<'a>,
    /// As [`super::ssm_scan::SsmScan`] has it.
    pub heads: &'a Buffer,
    /// What [`SsmStates`] made of the same rows.
    pub states: &'a Buffer,
    /// `[rows, y_stride]`.
    pub y: &'a Buffer,
    /// A multiple of 4.
    pub y_stride: usize,
}

/// How a workgroup shares a chunk's rows of a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Tiling {
    lanes: usize,
    /// Quads that a lane loads at once: of CHUNK rows of C or B, and of 16 rows of S or x.
    loads: [usize; 2],
    /// Quads of workgroup memory: of the scores, with C, of B or S or x.
    scores: usize,
    left: usize,
    right: usize,
}

impl Tiling {
    fn new(head_dim: usize, chunk: usize) -> Self {
        let (quads, chunk_quads) = (head_dim / 4, chunk / 4);
        let lanes = (chunk_quads * chunk_quads).max(chunk / 8 * quads);
        let (lines, rows) = (chunk * SLAB, 4 * SLAB * quads);
        let scores = (chunk + 1) * chunk_quads;
        Self {
            lanes,
            loads: [lines.div_ceil(lanes), rows.div_ceil(lanes)],
            scores,
            left: scores + lines + chunk_quads,
            right: rows.max(lines + chunk_quads),
        }
    }
}

impl SsmChunk<'_> {
    /// # Panics
    /// When head_dim is no multiple of 4 or over 128, which the configuration refuses before, or a buffer too small.
    pub fn dispatch(&self, label: &str, target: Target) -> Dispatch {
        let m = self.rows;
        let s = m.shape;
        m.check(label);
        let chunk = SsmStates::chunk(s, &target.limits);
        let tiling = Tiling::new(s.head_dim, chunk);
        let words = SsmStates::words(s, target.max_rows as usize, target.slots as usize, &target.limits);
        assert!(tiling.loads[0] <= MOST_LOADS[0] && tiling.loads[1] <= MOST_LOADS[1], "{label}: {tiling:?}");
        assert!(s.d_inner() <= self.y_stride && self.y_stride.is_multiple_of(4), "{label}: rows are too short");
        assert_words(self.heads, 4 * s.heads as u64, "ssm_chunk.heads");
        assert_words(self.states, words as u64, "ssm_chunk.states");
        let own = [m.in_stride, m.u_stride / 4, s.heads, self.y_stride / 4].map(|v| v as u32);
        let mut sources = vec![shader!("ssm_chunk.wgsl"), shader!("parts/softplus.wgsl"), STEP];
        sources.extend(s.sources());
        let mut constants = target.constants(vec![
            ("WG", tiling.lanes as f64),
            ("CHUNK", chunk as f64),
            ("CHUNK_QUADS", (chunk / 4) as f64),
            ("LEFT_LOADS", tiling.loads[0] as f64),
            ("RIGHT_LOADS", tiling.loads[1] as f64),
            ("SCORES", tiling.scores as f64),
            ("LEFT", tiling.left as f64),
            ("RIGHT", tiling.right as f64),
        ]);
        constants.extend(s.constants());
        dispatch(
            label,
            "ssm_chunk",
            sources,
            constants,
            &[s.params().as_slice(), &own].concat(),
            bindings(m.step, &[m.zxbcdt, m.u, self.heads, self.states], &[self.y]),
            Grid {
                items: [Extent::Fixed(s.heads as u32), Extent::Segments, Extent::Fixed(1)],
                z: Extent::Rows { per: chunk as u32 },
            },
        )
        .costs(Cost {
            row_bytes: 4 * (s.channels() + s.heads + s.d_inner() + s.taps_offset() / chunk),
            row_macs: s.taps_offset() + s.heads * (s.head_dim + s.d_state) * chunk / 2,
            ..Cost::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_head_dim_fits() {
        for head_dim in (4..=128).step_by(4) {
            for (chunk, memory) in [(32, 16 << 10), (64, 32_000)] {
                let t = Tiling::new(head_dim, chunk);
                let bytes = 16 * (t.left + t.right + 2 * chunk / 4);
                assert!(bytes <= memory && t.lanes <= 256, "{head_dim}: {bytes} bytes, {t:?}");
                assert!(t.loads[0] <= MOST_LOADS[0] && t.loads[1] <= MOST_LOADS[1], "{head_dim}: {t:?}");
            }
        }
    }
}
