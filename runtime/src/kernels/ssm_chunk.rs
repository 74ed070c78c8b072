//! `ssm_chunk.wgsl`: the selective scan by chunks of rows, for steps that have many of one slot.

use super::ssm_scores::SsmScores;
use super::ssm_shape::SsmRows;
use super::{STEP, Target, assert_words, bindings, dispatch, shader};
use crate::gpu::{Buffer, Cost, Dispatch, Extent, Grid};

/// Workgroup memory that every adapter has, in quads of f32.
const MEMORY: usize = 16_384 / 16;
/// Sums of y that a lane can hold in registers.
const MOST_OUTPUTS: usize = 16;

/// `S = a S + dt x B^T, y = S C + D x`: [`super::ssm_scan::SsmScan`] between its convolution, which is
/// [`super::ssm_conv::SsmConv`], and its norm, [`super::gated_norm::GatedNorm`]. The convolution's state is carried on.
#[derive(Debug)]
pub struct SsmChunk<'a> {
    pub rows: SsmRows<'a>,
    /// What [`SsmScores`] made of the same rows.
    pub scores: &'a Buffer,
    /// `[slots, state]`, read and carried on.
    pub state: &'a Buffer,
    /// `[rows, y_stride]`.
    pub y: &'a Buffer,
    pub y_stride: usize,
}

/// How a workgroup's lanes share their part of a head's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Tiling {
    /// Rows of the state of which each lane has one quad.
    rows: usize,
    /// Rows of which a lane has a quad.
    keep: usize,
    /// Quads from row to row of the tiles: odd, so that rows do not share banks.
    pitch: usize,
    lanes: usize,
    /// Sums of y in a lane.
    outputs: usize,
    /// Quads of workgroup memory.
    memory: usize,
}

impl Tiling {
    fn new(head_dim: usize) -> Self {
        let chunk = SsmScores::chunk(head_dim);
        let quads = head_dim / 4;
        let rows = match head_dim {
            d if d % 16 == 0 && d <= 64 => 16,
            d if d % 8 == 0 && d <= 64 => 8,
            _ => 4,
        };
        let with = |keep: usize| {
            let (lanes, block) = (rows * quads, rows * keep);
            let pitch = ((chunk + head_dim) / 4) | 1;
            let outputs = (chunk * block).div_ceil(lanes);
            Self { rows, keep, pitch, lanes, outputs, memory: (chunk + block) * pitch }
        };
        // Blocks of 16 rows were the fastest on an H100. Rows that one lane keeps share what it reads of B.
        let fits = |t: &Self| {
            let block = t.rows * t.keep;
            block <= 16 && head_dim.is_multiple_of(block) && quads.is_multiple_of(t.keep) && t.memory <= MEMORY
        };
        [4, 2].map(with).into_iter().find(fits).unwrap_or_else(|| with(1))
    }
}

impl SsmChunk<'_> {
    /// # Panics
    /// When head_dim is no multiple of 4 or over 128: the configuration refuses it before.
    pub fn dispatch(&self, label: &str, target: Target) -> Dispatch {
        let m = self.rows;
        let s = m.shape;
        m.check(label);
        let chunk = SsmScores::chunk(s.head_dim);
        let tiling = Tiling::new(s.head_dim);
        assert!(tiling.memory <= MEMORY && tiling.outputs <= MOST_OUTPUTS, "{label}: {tiling:?}");
        assert!(s.d_inner <= self.y_stride, "{label}: rows are too short");
        assert_words(self.scores, SsmScores::words(s, target.max_rows as usize) as u64, "ssm_chunk.scores");
        let block = tiling.rows * tiling.keep;
        let blocks = s.head_dim / block;
        let own = [m.in_stride, m.u_stride / 4, self.y_stride, s.heads, blocks].map(|v| v as u32);
        dispatch(
            label,
            "ssm_chunk",
            vec![shader!("ssm_chunk.wgsl"), shader!("parts/ssm_shape.wgsl"), STEP],
            target.constants(vec![
                ("WG", tiling.lanes as f64),
                ("QUADS", (s.head_dim / 4) as f64),
                ("CHUNK", chunk as f64),
                ("ROWS", tiling.rows as f64),
                ("KEEP", tiling.keep as f64),
                ("BLOCK", block as f64),
                ("OUTPUTS", tiling.outputs as f64),
                ("PITCH", tiling.pitch as f64),
                ("LEFT", (chunk * tiling.pitch) as f64),
                ("RIGHT", (block * tiling.pitch) as f64),
            ]),
            &[s.params().as_slice(), &own].concat(),
            bindings(m.step, &[m.zxbcdt, m.u, self.scores], &[self.state, self.y]),
            Grid::new(Extent::Fixed((s.heads * blocks) as u32), Extent::Segments),
        )
        .costs(Cost {
            row_bytes: 4 * (s.channels() + s.d_inner + s.heads * chunk),
            row_macs: s.d_inner * (2 * s.head_dim + chunk),
            segment_bytes: 8 * s.d_inner * s.head_dim,
            ..Cost::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_head_dim_tiles_evenly_and_fits() {
        for head_dim in (4..=128).step_by(4) {
            let t = Tiling::new(head_dim);
            let block = t.rows * t.keep;
            assert_eq!(head_dim % block, 0, "{head_dim}: {t:?}");
            assert_eq!(t.lanes % block, 0, "{head_dim}: {t:?}");
            assert!(t.memory <= MEMORY && t.outputs <= MOST_OUTPUTS && t.lanes <= 256, "{head_dim}: {t:?}");
        }
    }
}
