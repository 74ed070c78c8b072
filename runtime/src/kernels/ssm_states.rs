//! `ssm_states.wgsl`: the states that enter the chunks of a scan, for steps that have many rows of one slot.

use super::ssm_shape::{SsmRows, SsmShape};
use super::{STEP, Target, assert_words, bindings, dispatch, shader};
use crate::gpu::{Buffer, Cost, Dispatch, Extent, Grid, Limits};

/// Rows whose decays a workgroup has at hand, at most.
const MOST_SPAN: usize = 512;

/// `S = decay S + sum_j after_j x_j B_j^T` over each chunk of rows. The convolution's state is carried on too.
#[derive(Debug)]
pub struct SsmStates<'a> {
    pub rows: SsmRows<'a>,
    /// `[heads]` of (A_log, D, dt_bias, 0).
    pub heads: &'a Buffer,
    /// `[slots, state]`, read and carried on.
    pub state: &'a Buffer,
    /// [`SsmStates::words`] f32.
    pub states: &'a Buffer,
}

/// How workgroups share a head's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Tiling {
    /// Quads along a side of a workgroup's tile.
    tile: usize,
    /// Tiles along a side of the state.
    side: usize,
    /// Rows in workgroup memory at once.
    slab: usize,
    span: usize,
}

impl Tiling {
    fn new(head_dim: usize, limits: &Limits) -> Self {
        let quads = head_dim / 4;
        let tile = if quads > 16 { 16 } else { 8 };
        let with = |slab| Self { tile, side: quads.div_ceil(tile), slab, span: MOST_SPAN.min(4 * tile * tile) };
        let most = limits.workgroup_memory as usize;
        // The more rows are on their way at once, the fewer waits: a lane loads two of them at most.
        [32, 16].map(with).into_iter().find(|t| t.slab <= 2 * tile && t.memory() <= most).unwrap_or_else(|| with(8))
    }

    /// Bytes of workgroup memory.
    fn memory(self) -> usize {
        2 * 2 * 16 * self.slab * self.tile + 6 * self.span
    }
}

impl SsmStates<'_> {
    /// Rows of a chunk. The fewer there are, the less there is to multiply, and the more states to keep: of large heads
    /// as many as [`super::ssm_chunk::SsmChunk`] has workgroup memory for.
    pub fn chunk(head_dim: usize, limits: &Limits) -> usize {
        if head_dim > 64 && limits.workgroup_memory >= 32_000 { 64 } else { 32 }
    }

    /// f32 of `states` for a step of so many rows of so many slots: `[chunks and segments, heads][N, P]`.
    pub fn words(shape: SsmShape, rows: usize, slots: usize, limits: &Limits) -> usize {
        let chunks = rows.div_ceil(Self::chunk(shape.head_dim, limits));
        (chunks + slots.min(rows).max(1) - 1) * shape.d_inner * shape.head_dim
    }

    /// # Panics
    /// When head_dim is no multiple of 4 or over 128, which the configuration refuses before, or a buffer too small.
    pub fn dispatch(&self, label: &str, target: Target) -> Dispatch {
        let m = self.rows;
        let s = m.shape;
        m.check(label);
        let chunk = Self::chunk(s.head_dim, &target.limits);
        let words = Self::words(s, target.max_rows as usize, target.slots as usize, &target.limits);
        assert_words(self.heads, 4 * s.heads as u64, "ssm_states.heads");
        assert_words(self.states, words as u64, "ssm_states.states");
        let Tiling { tile, side, slab, span } = Tiling::new(s.head_dim, &target.limits);
        let own = [m.in_stride, m.u_stride / 4, s.heads, side].map(|v| v as u32);
        dispatch(
            label,
            "ssm_states",
            vec![shader!("ssm_states.wgsl"), shader!("parts/ssm_shape.wgsl"), shader!("parts/softplus.wgsl"), STEP],
            target.constants(vec![
                ("WG", (tile * tile) as f64),
                ("T", tile as f64),
                ("QUADS", (s.head_dim / 4) as f64),
                ("CHUNK", chunk as f64),
                ("SLAB", slab as f64),
                ("TILE", (slab * tile) as f64),
                ("TILES", (2 * slab * tile) as f64),
                ("LOADS", slab.div_ceil(tile) as f64),
                ("SPAN", span as f64),
                ("SPAN_QUADS", (span / 4) as f64),
            ]),
            &[s.params().as_slice(), &own].concat(),
            bindings(m.step, &[m.zxbcdt, m.u, self.heads], &[self.state, self.states]),
            Grid::new(Extent::Fixed((s.heads * side * side) as u32), Extent::Segments),
        )
        .costs(Cost {
            row_bytes: 4 * (2 * s.xb_channels() + s.heads + s.d_inner * s.head_dim / chunk),
            row_macs: s.d_inner * s.head_dim,
            segment_bytes: 8 * s.d_inner * s.head_dim,
            ..Cost::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_head_dim_fits() {
        for (memory, head_dim) in
            [16 << 10, 48 << 10].into_iter().flat_map(|m| (4..=128).step_by(4).map(move |d| (m, d)))
        {
            let limits = Limits { workgroup_memory: memory, ..Limits::LEAST };
            let t = Tiling::new(head_dim, &limits);
            let chunk = SsmStates::chunk(head_dim, &limits);
            assert!(t.memory() <= memory as usize && t.tile * t.side * 4 >= head_dim, "{head_dim}: {t:?}");
            assert!(t.span / 4 <= t.tile * t.tile && t.slab <= 2 * t.tile, "{head_dim}: {t:?}");
            assert!(t.span.is_multiple_of(chunk) && chunk.is_multiple_of(t.slab), "{head_dim}: {t:?}");
        }
    }
}
