//! `mla_attend_wide.wgsl`: attention on cooperative matrices over latents that are too wide for `mla_attend_coop.wgsl`.

use super::mla_attend::{MlaAttend, cost};
use super::mla_latent::{CacheFormat, CacheShape};
use super::{STEP, Target, bindings, dispatch as put_together, matrix_size, shader};
use crate::gpu::{Cooperative, Dispatch, Extent, Grid, Limits};

const SUBGROUPS: usize = 8;

/// Matrices along a row that a subgroup keeps queries, or has sums, for.
const MOST_STEPS: usize = 8;

/// Matrices along the lines of a workgroup: heads.
const TILES_M: usize = 2;

/// What a workgroup holds at once, as the adapter's limits allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Tiling {
    /// Matrices along the positions: among so many the subgroups that share a key's columns are divided.
    tiles: usize,
    /// Matrices along a key for each subgroup.
    steps: usize,
}

impl Tiling {
    /// More positions at once wait less often for each other.
    fn new(shape: CacheShape, matrices: Cooperative, limits: &Limits) -> Option<Self> {
        let side = matrices.side as usize;
        let along = (4 * shape.key_quads()).div_ceil(side);
        let tilings = [2, 1].map(|tiles| Self { tiles, steps: along.div_ceil(SUBGROUPS / tiles) });
        tilings.into_iter().find(|t| t.fits(shape, matrices, limits))
    }

    fn fits(self, shape: CacheShape, matrices: Cooperative, limits: &Limits) -> bool {
        let side = matrices.side as usize;
        let (lines, positions) = (TILES_M * side, self.tiles * side);
        // Cached rows, parts of scores, weights; a factor of each line, a word.
        let rows = 2 * positions * (SUBGROUPS / self.tiles * self.steps * side + 8);
        let bytes = rows + 4 * lines * (SUBGROUPS * side + 8) + 2 * lines * (positions + 8) + 4 * lines + 16;
        shape.format != CacheFormat::F32
            && shape.kv_heads == 1
            && shape.keys_from == 0
            && shape.values == shape.latent
            && self.steps <= MOST_STEPS
            && (4 * shape.value_quads()).div_ceil(side).div_ceil(SUBGROUPS) <= MOST_STEPS
            && bytes <= limits.workgroup_memory as usize
            && SUBGROUPS * matrices.lanes as usize <= limits.invocations as usize
    }
}

/// Whether [`dispatch`] can be used for rows of this shape.
pub fn fits(shape: CacheShape, matrices: Cooperative, limits: &Limits) -> bool {
    Tiling::new(shape, matrices, limits).is_some()
}

/// [`MlaAttend`] on cooperative matrices. The top it leaves is no more than the largest score, and no less than it by
/// more than 8.
///
/// # Panics
/// When [`fits`] says no.
pub fn dispatch(attend: &MlaAttend<'_>, label: &str, matrices: Cooperative, target: Target) -> Dispatch {
    let s = attend.shape;
    let group = attend.group(label);
    let tiling = Tiling::new(s, matrices, &target.limits);
    let t = tiling.unwrap_or_else(|| panic!("{label}: rows of {} quads do not fit", s.row_quads()));
    let side = matrices.side as usize;
    let lines = TILES_M * side;
    let blocks = attend.heads.div_ceil(lines) as u32;
    let whole = attend.heads.is_multiple_of(lines) && (4 * s.value_quads()).is_multiple_of(side);
    let grid =
        Grid { items: [attend.spans.extent(), Extent::Fixed(blocks), Extent::Fixed(1)], z: Extent::Rows { per: 1 } };
    let size = matrix_size(matrices.side);
    let row = s.coop_source();
    put_together(
        label,
        "mla_attend_wide",
        vec![
            shader!("mla_attend_wide.wgsl"),
            shader!("parts/spans.wgsl"),
            shader!("parts/coop_line.wgsl"),
            row,
            size,
            STEP,
        ],
        target.constants(vec![
            ("LANES", f64::from(matrices.lanes)),
            ("LATENT_QUADS", s.latent_quads() as f64),
            ("ROW_QUADS", s.row_quads() as f64),
            ("ROW_VEC4", (s.row_words() / 4) as f64),
            ("TILES", t.tiles as f64),
            ("STEPS", t.steps as f64),
            ("WHOLE", f64::from(u8::from(whole))),
            attend.spans.constant(),
        ]),
        &attend.params(blocks, group),
        bindings(attend.step, &[attend.query, &attend.latents.buffer], &[attend.sums, attend.weights]),
        grid,
    )
    .costs(cost(s, attend.heads))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn released_models_fit_where_there_are_matrix_units() {
        let limits = Limits { workgroup_memory: 48 << 10, invocations: 1024, ..Limits::LEAST };
        let matrices = Cooperative { side: 16, lanes: 32 };
        for format in [CacheFormat::F16, CacheFormat::Q8] {
            for (latent, rope, tiles) in [(816, 64, 1), (512, 32, 1), (160, 64, 2), (128, 32, 2)] {
                let t = Tiling::new(CacheShape::mla(format, latent, rope, 1), matrices, &limits);
                assert_eq!(t.map(|t| t.tiles), Some(tiles), "{format:?} {latent} {rope}");
            }
            assert!(!fits(CacheShape::mla(format, 1024, 64, 1), matrices, &limits));
            assert!(!fits(CacheShape::gqa(format, 1, 128, 128, 1), matrices, &limits));
        }
        assert!(!fits(CacheShape::mla(CacheFormat::F32, 816, 64, 1), matrices, &limits));
    }
}
