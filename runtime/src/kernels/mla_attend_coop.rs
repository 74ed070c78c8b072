//! `mla_attend_coop.wgsl`: attention on cooperative matrices, the twin of `mla_attend.wgsl` for rows cached in
//! f16 or int8.

use super::mla_attend::{MlaAttend, cost};
use super::mla_latent::{CacheFormat, CacheShape};
use super::{STEP, Target, bindings, matrix_size, mla_attend_wide, shader};
use crate::gpu::{Cooperative, Dispatch, Extent, Grid, Limits};

/// Matrices along the lines of a workgroup: heads, or heads of several rows.
const TILES_M: usize = 2;

/// Columns of matrices that a subgroup has sums for.
const MOST_COLUMNS: usize = 3;

/// Matrices of queries along the quads that a subgroup keeps in registers; more stay in workgroup memory.
const KEPT: usize = 14;

/// Heads of a kv head from which on one row fills enough of a workgroup's lines.
const MANY_HEADS: usize = 8;

/// What the rows of a step are, for the choice of a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepRows {
    /// Most are of different slots.
    Apart,
    /// Many are of one slot, one after another: prompts.
    Runs,
}

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

    fn lines(self) -> usize {
        TILES_M * self.side
    }

    /// Rows of a workgroup, and heads of each.
    fn rows(self, group: usize, rows: StepRows) -> (usize, usize) {
        if rows == StepRows::Runs && 2 * group <= self.lines() {
            (self.lines() / group, group)
        } else {
            (1, self.lines())
        }
    }

    fn subgroups(self) -> usize {
        TILES_M * self.tiles
    }

    /// Lines of queries that stay in workgroup memory.
    fn query_lines(self, shape: CacheShape) -> usize {
        if (4 * shape.key_quads()).div_ceil(self.side) > KEPT { self.lines() } else { 0 }
    }

    /// Whether every element of its matrices of sums is one of a head's value.
    fn whole(self, shape: CacheShape, group: usize, rows: usize) -> bool {
        rows == 1 && group.is_multiple_of(self.lines()) && (4 * shape.value_quads()).is_multiple_of(self.side)
    }

    fn fits(self, shape: CacheShape, limits: &Limits) -> bool {
        let columns = (4 * shape.value_quads()).div_ceil(self.side).div_ceil(self.subgroups());
        let row = shape.keys_from + (4 * shape.key_quads()).next_multiple_of(self.side) + 8;
        let positions = self.tiles * self.side;
        let scores = self.lines() * (positions + 8);
        // Cached rows and queries, scores, weights; a factor of each line, a word.
        let bytes = 2 * (positions + self.query_lines(shape)) * row + 4 * scores + 2 * scores + 4 * self.lines() + 16;
        shape.format != CacheFormat::F32
            && shape.keys_from.is_multiple_of(self.side)
            && columns <= MOST_COLUMNS
            && bytes <= limits.workgroup_memory as usize
            && self.subgroups() * self.lanes <= limits.invocations as usize
    }
}

/// Whether [`dispatch`] can be used for rows of this shape.
pub fn fits(shape: CacheShape, matrices: Cooperative, limits: &Limits) -> bool {
    Tiling::new(shape, matrices, limits).is_some()
}

/// The attention of a step on an adapter. On cooperative matrices where lines of queries fill them: heads of a latent, many
/// heads of a kv head, or, in prompts, heads of several rows, which then share what they read. Few heads of one row leave
/// matrices empty: `mla_attend.wgsl` has them in f32, where they are none of [`super::gqa_attend`]'s.
pub fn attend(attend: &MlaAttend<'_>, label: &str, rows: StepRows, target: Target) -> Dispatch {
    let s = attend.shape;
    let latents = s.keys_from == 0;
    let fills = latents || rows == StepRows::Runs || attend.heads / s.kv_heads >= MANY_HEADS;
    match target.twins.mla_attend_coop.filter(|_| fills) {
        Some(matrices) if fits(s, matrices, &target.limits) => dispatch(attend, label, rows, matrices, target),
        Some(matrices) if mla_attend_wide::fits(s, matrices, &target.limits) => {
            mla_attend_wide::dispatch(attend, label, matrices, target)
        }
        _ => attend.dispatch(label, target),
    }
}

/// [`MlaAttend`] on cooperative matrices. The top it leaves is no more than the largest score, and no less than it by more
/// than 8.
///
/// # Panics
/// When [`fits`] says no.
pub fn dispatch(
    attend: &MlaAttend<'_>,
    label: &str,
    rows: StepRows,
    matrices: Cooperative,
    target: Target,
) -> Dispatch {
    let s = attend.shape;
    let group = attend.group(label);
    let tiling = Tiling::new(s, matrices, &target.limits);
    let t = tiling.unwrap_or_else(|| panic!("{label}: rows of {} quads do not fit", s.row_quads()));
    let (rows, row_heads) = t.rows(group, rows);
    let blocks = (s.kv_heads * group.div_ceil(row_heads)) as u32;
    let segments = if rows > 1 { Extent::Segments } else { Extent::Fixed(1) };
    let items = [attend.spans.extent(), Extent::Fixed(blocks), segments];
    let grid = Grid { items, z: Extent::Rows { per: rows as u32 } };
    let size = matrix_size(matrices.side);
    let row = s.coop_source();
    super::dispatch(
        label,
        "mla_attend_coop",
        vec![
            shader!("mla_attend_coop.wgsl"),
            shader!("parts/spans.wgsl"),
            shader!("parts/coop_line.wgsl"),
            row,
            size,
            STEP,
        ],
        target.constants(vec![
            ("LANES", t.lanes as f64),
            ("TILES", t.tiles as f64),
            ("LATENT_QUADS", s.latent_quads() as f64),
            ("ROW_QUADS", s.row_quads() as f64),
            ("QUERY_QUADS", s.key_quads() as f64),
            ("VALUE_QUADS", s.value_quads() as f64),
            ("KEYS_FROM", (s.keys_from / 4) as f64),
            ("KV_HEADS", s.kv_heads as f64),
            ("ROW_VEC4", (s.row_words() / 4) as f64),
            ("QUERY_LINES", t.query_lines(s) as f64),
            ("WHOLE", f64::from(u8::from(t.whole(s, group, rows)))),
            ("ROWS", rows as f64),
            ("ROW_HEADS", row_heads as f64),
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
            let shape = CacheShape::mla(format, latent, rope, 1);
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
