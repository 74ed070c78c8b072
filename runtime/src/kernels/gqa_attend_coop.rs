//! `gqa_attend_coop.wgsl`: grouped-query attention of single rows on cooperative matrices, the twin of `mla_attend.wgsl`
//! for values and keys cached in f16 or int8.

use super::mla_attend::{MlaAttend, cost};
use super::mla_latent::{CacheFormat, CacheShape};
use super::{STEP, Target, bindings, shader};
use crate::gpu::{Cooperative, Dispatch, Extent, Grid, Limits};

/// Matrices along a key, and along a value, that a subgroup keeps in registers.
const MOST_STEPS: usize = 8;

/// Columns of a group of int8, of which lanes share whole loads.
const GROUP: usize = 32;

/// Lines that are weighed at least: a lane weighs positions by pairs.
const LEAST_LINES: usize = 4;

/// Matrices along the positions: what registers hold of one wide head, or of twice as many positions.
fn tiles(shape: CacheShape, matrices: Cooperative) -> usize {
    if 2 * shape.values <= MOST_STEPS * matrices.side as usize { 2 } else { 1 }
}

/// Whether [`dispatch`] can be used for rows of this shape.
pub fn fits(shape: CacheShape, matrices: Cooperative, limits: &Limits) -> bool {
    let (s, side) = (shape, matrices.side as usize);
    let positions = tiles(s, matrices) * side;
    let groups = if s.format == CacheFormat::Q8 { s.values / GROUP } else { 1 };
    let pairs = groups * side * (positions + 8) / 2;
    // Values and keys, their scales; scores, weights; a factor of each line, a word.
    let rows = positions * (2 * 2 * (s.values + 8) + 16);
    let bytes = rows + (8 + 4) * pairs + 4 * side + 16;
    s.format != CacheFormat::F32
        && s.rope == 0
        && s.keys_from == s.values
        && s.latent == 2 * s.values
        && s.values >= GROUP
        && s.values.is_power_of_two()
        && s.values <= MOST_STEPS * side
        && bytes <= limits.workgroup_memory as usize
}

/// [`MlaAttend`] on cooperative matrices. The top it leaves is no more than the largest score, and no less than it by more
/// than 4.
///
/// # Panics
/// When [`fits`] says no.
pub fn dispatch(attend: &MlaAttend<'_>, label: &str, matrices: Cooperative, target: Target) -> Dispatch {
    let s = attend.shape;
    let group = attend.group(label);
    let side = matrices.side as usize;
    assert!(fits(s, matrices, &target.limits), "{label}: heads of {} do not fit", s.values);
    let blocks = (s.kv_heads * group.div_ceil(side)) as u32;
    let items = [attend.spans.extent(), Extent::Fixed(blocks), Extent::Fixed(1)];
    let grid = Grid { items, z: Extent::Rows { per: 1 } };
    let size = if side == 16 { shader!("parts/coop_16.wgsl") } else { shader!("parts/coop_8.wgsl") };
    let row = if s.format == CacheFormat::Q8 {
        shader!("parts/gqa_coop_q8.wgsl")
    } else {
        shader!("parts/gqa_coop_f16.wgsl")
    };
    super::dispatch(
        label,
        "gqa_attend_coop",
        vec![shader!("gqa_attend_coop.wgsl"), shader!("parts/spans.wgsl"), row, size, STEP],
        target.constants(vec![
            ("LANES", f64::from(matrices.lanes)),
            ("TILES", tiles(s, matrices) as f64),
            ("HEAD_QUADS", s.value_quads() as f64),
            ("LINES", group.next_power_of_two().clamp(LEAST_LINES, side) as f64),
            ("KV_HEADS", s.kv_heads as f64),
            ("ROW_VEC4", (s.row_words() / 4) as f64),
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
    fn heads_of_released_models_fit() {
        let limits = Limits { workgroup_memory: 32 << 10, ..Limits::LEAST };
        let matrices = Cooperative { side: 16, lanes: 32 };
        let fits = |format, head_dim, v| fits(CacheShape::gqa(format, 8, head_dim, v, 1), matrices, &limits);
        for format in [CacheFormat::F16, CacheFormat::Q8] {
            assert!([32, 64, 128].into_iter().all(|head_dim| fits(format, head_dim, head_dim)), "{format:?}");
            assert!(!fits(format, 80, 80) && !fits(format, 256, 256) && !fits(format, 64, 32), "{format:?}");
            assert!(!super::fits(CacheShape::mla(format, 128, 32, 1), matrices, &limits));
        }
        assert!(!fits(CacheFormat::F32, 64, 64));
    }
}
