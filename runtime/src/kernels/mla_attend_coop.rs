//! `mla_attend_coop.wgsl`: latent attention on cooperative matrices, the twin of `mla_attend.wgsl` for rows cached in
//! f16 or int8.

use super::mla_attend::{MlaAttend, Spans, cost};
use super::mla_latent::{CacheFormat, CacheShape};
use super::{STEP, Target, assert_words, bindings, shader};
use crate::gpu::{Cooperative, Dispatch, Extent, Grid, Limits};

/// Matrices along the heads of a workgroup.
const TILES_M: usize = 2;

/// Columns of matrices that a subgroup has sums for.
const MOST_COLUMNS: usize = 3;

/// Matrices of queries along the quads that a subgroup keeps in registers; more stay in workgroup memory.
const KEPT: usize = 14;

/// What a workgroup holds at once, as the adapter's limits allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Tiling {
    /// Matrices along the positions.
    tiles: usize,
    side: usize,
    lanes: usize,
}

impl Tiling {
    fn new(shape: CacheShape, matrices: Cooperative, limits: &Limits) -> Option<Self> {
        let tilings = [4, 2].map(|tiles| Self { tiles, side: matrices.side as usize, lanes: matrices.lanes as usize });
        tilings.into_iter().find(|t| t.fits(shape, limits))
    }

    fn heads(self) -> usize {
        TILES_M * self.side
    }

    fn subgroups(self) -> usize {
        TILES_M * self.tiles
    }

    /// Lines of queries that stay in workgroup memory.
    fn query_lines(self, shape: CacheShape) -> usize {
        if (4 * shape.row_quads()).div_ceil(self.side) > KEPT { self.heads() } else { 0 }
    }

    /// Whether every element of its matrices of sums is one of a head's latent.
    fn whole(self, shape: CacheShape, heads: usize) -> bool {
        heads.is_multiple_of(self.heads()) && (4 * shape.latent_quads()).is_multiple_of(self.side)
    }

    fn fits(self, shape: CacheShape, limits: &Limits) -> bool {
        let columns = (4 * shape.latent_quads()).div_ceil(self.side).div_ceil(self.subgroups());
        let row = (4 * shape.row_quads()).next_multiple_of(self.side) + 8;
        let positions = self.tiles * self.side;
        let scores = self.heads() * (positions + 8);
        // Cached rows and queries, scores, weights; a factor of each head, a word.
        let bytes = 2 * (positions + self.query_lines(shape)) * row + 4 * scores + 2 * scores + 4 * self.heads() + 16;
        shape.format != CacheFormat::F32
            && columns <= MOST_COLUMNS
            && bytes <= limits.workgroup_memory as usize
            && self.subgroups() * self.lanes <= limits.invocations as usize
    }
}

/// Whether [`dispatch`] can be used for rows of this shape.
pub fn fits(shape: CacheShape, matrices: Cooperative, limits: &Limits) -> bool {
    Tiling::new(shape, matrices, limits).is_some()
}

/// [`MlaAttend`] on cooperative matrices. The top it leaves is no more than the largest score, and no less than it by more
/// than 8.
///
/// # Panics
/// When [`fits`] says no.
pub fn dispatch(attend: &MlaAttend<'_>, label: &str, matrices: Cooperative, target: Target) -> Dispatch {
    let s = attend.shape;
    let [most, parts] = attend.spans.params();
    assert_words(attend.sums, (attend.heads * s.latent_quads() * 4) as u64, "mla_attend_coop.sums");
    assert_words(attend.weights, (attend.heads * 2) as u64, "mla_attend_coop.weights");
    let tiling = Tiling::new(s, matrices, &target.limits);
    let t = tiling.unwrap_or_else(|| panic!("{label}: rows of {} quads do not fit", s.row_quads()));
    let blocks = attend.heads.div_ceil(t.heads()) as u32;
    let params = [attend.heads as u32, s.context as u32, blocks, most, parts];
    let grid = Grid { items: [attend.spans.extent(), Extent::Fixed(blocks)], z: Extent::Rows { per: 1 } };
    let size = if t.side == 16 { shader!("parts/coop_16.wgsl") } else { shader!("parts/coop_8.wgsl") };
    let row = if s.format == CacheFormat::Q8 {
        shader!("parts/coop_cache_q8.wgsl")
    } else {
        shader!("parts/coop_cache_f16.wgsl")
    };
    super::dispatch(
        label,
        "mla_attend_coop",
        vec![shader!("mla_attend_coop.wgsl"), shader!("parts/spans.wgsl"), row, size, STEP],
        target.constants(vec![
            ("LANES", t.lanes as f64),
            ("TILES", t.tiles as f64),
            ("LATENT_QUADS", s.latent_quads() as f64),
            ("QUERY_QUADS", s.row_quads() as f64),
            ("ROW_VEC4", (s.row_words() / 4) as f64),
            ("QUERY_LINES", t.query_lines(s) as f64),
            ("WHOLE", f64::from(u8::from(t.whole(s, attend.heads)))),
            Spans::constant(),
        ]),
        &params,
        bindings(attend.step, &[attend.query, attend.latents], &[attend.sums, attend.weights]),
        grid,
    )
    .costs(cost(s, attend.heads))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn released_models_fit_where_there_are_matrix_units() {
        let limits = Limits {
            binding: 128 << 20,
            buffer: 256 << 20,
            workgroups: 65_535,
            workgroup_memory: 48 << 10,
            invocations: 1024,
            storage_buffers: 8,
            uniform_alignment: 256,
            subgroup: 32,
        };
        let matrices = Cooperative { side: 16, lanes: 32 };
        let tiles = |format, latent, rope| {
            let shape = CacheShape { format, latent, rope, context: 1 };
            Tiling::new(shape, matrices, &limits).map(|t| t.tiles)
        };
        for format in [CacheFormat::F16, CacheFormat::Q8] {
            assert_eq!(tiles(format, 128, 32), Some(4));
            assert_eq!(tiles(format, 128, 64), Some(4));
            assert_eq!(tiles(format, 160, 64), Some(4));
            assert_eq!(tiles(format, 512, 64), None);
        }
        assert_eq!(tiles(CacheFormat::F32, 128, 32), None);
    }
}
