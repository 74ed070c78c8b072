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
    /// As [`super::ssm_scan::SsmScan`] has it.
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
    /// Tiles along p and along n.
    sides: [usize; 2],
    /// Rows in workgroup memory at once.
    slab: usize,
    span: usize,
}

impl Tiling {
    fn new(head_dim: usize, d_state: usize, limits: &Limits) -> Self {
        let quads = [head_dim / 4, d_state / 4];
        let tile = if quads[0].max(quads[1]) > 16 { 16 } else { 8 };
        let sides = quads.map(|q| q.div_ceil(tile));
        let with = |slab| Self { tile, sides, slab, span: MOST_SPAN.min(4 * tile * tile) };
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
    /// Rows of a chunk. The fewer there are, the less there is to multiply, and the more states to keep: of large ones
    /// as many as [`super::ssm_chunk::SsmChunk`] has workgroup memory for.
    pub fn chunk(shape: SsmShape, limits: &Limits) -> usize {
        if shape.head_dim * shape.d_state > 64 * 64 && limits.workgroup_memory >= 32_000 { 64 } else { 32 }
    }

    /// f32 of `states` for a step of so many rows of so many slots: `[chunks and segments, heads][N, P]`.
    pub fn words(shape: SsmShape, rows: usize, slots: usize, limits: &Limits) -> usize {
        let chunks = rows.div_ceil(Self::chunk(shape, limits));
        (chunks + slots.min(rows).max(1) - 1) * shape.taps_offset()
    }

    /// # Panics
    /// When head_dim is no multiple of 4 or over 128, which the configuration refuses before, or a buffer too small.
    pub fn dispatch(&self, label: &str, target: Target) -> Dispatch {
        let m = self.rows;
        let s = m.shape;
        m.check(label);
        let chunk = Self::chunk(s, &target.limits);
        let words = Self::words(s, target.max_rows as usize, target.slots as usize, &target.limits);
        let [x, b, _] = s.part_channels();
        assert_words(self.heads, 4 * s.heads as u64, "ssm_states.heads");
        assert_words(self.states, words as u64, "ssm_states.states");
        let Tiling { tile, sides, slab, span } = Tiling::new(s.head_dim, s.d_state, &target.limits);
        let own = [m.in_stride, m.u_stride / 4, s.heads, sides[0], sides[1]].map(|v| v as u32);
        let mut sources = vec![shader!("ssm_states.wgsl"), shader!("parts/softplus.wgsl"), STEP];
        sources.extend(s.sources());
        let mut constants = target.constants(vec![
            ("WG", (tile * tile) as f64),
            ("T", tile as f64),
            ("CHUNK", chunk as f64),
            ("SLAB", slab as f64),
            ("TILE", (slab * tile) as f64),
            ("TILES", (2 * slab * tile) as f64),
            ("LOADS", slab.div_ceil(tile) as f64),
            ("SPAN", span as f64),
            ("SPAN_QUADS", (span / 4) as f64),
        ]);
        constants.extend(s.constants());
        dispatch(
            label,
            "ssm_states",
            sources,
            constants,
            &[s.params().as_slice(), &own].concat(),
            bindings(m.step, &[m.zxbcdt, m.u, self.heads], &[self.state, self.states]),
            Grid::new(Extent::Fixed((s.heads * sides[0] * sides[1]) as u32), Extent::Segments),
        )
        .costs(Cost {
            row_bytes: 4 * (x + b + s.heads + s.taps_offset() / chunk),
            row_macs: s.taps_offset(),
            segment_bytes: 8 * s.taps_offset(),
            ..Cost::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::ssm_shape::{MOST, SsmForm};
    use super::*;

    #[test]
    fn every_head_fits() {
        for (memory, p) in [16 << 10, 48 << 10].into_iter().flat_map(|m| (4..=MOST).step_by(4).map(move |p| (m, p))) {
            for n in (4..=MOST).step_by(4) {
                let limits = Limits { workgroup_memory: memory, ..Limits::LEAST };
                let t = Tiling::new(p, n, &limits);
                let form = SsmForm::Discrete { groups: 1 };
                let chunk = SsmStates::chunk(SsmShape { form, heads: 1, head_dim: p, d_state: n }, &limits);
                assert!(t.sides.iter().zip([p, n]).all(|(side, v)| t.tile * side * 4 >= v), "{p} x {n}: {t:?}");
                assert!(t.memory() <= memory as usize, "{p} x {n}: {t:?}");
                assert!(t.span / 4 <= t.tile * t.tile && t.slab <= 2 * t.tile, "{p} x {n}: {t:?}");
                assert!(t.span.is_multiple_of(chunk) && chunk.is_multiple_of(t.slab), "{p} x {n}: {t:?}");
            }
        }
    }
}
