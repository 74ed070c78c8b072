//! `gqa_attend.wgsl`: attention of grouped queries for rows that are apart, the twin of `mla_attend.wgsl` that is bound by
//! what it reads of the cache.

use super::matrix::GROUP;
use super::mla_attend::{MlaAttend, Spans, cost};
use super::mla_latent::{CacheFormat, CacheShape};
use super::slots::SLOTS;
use super::{STEP, Target, bindings, shader};
use crate::gpu::{Dispatch, Extent, Grid, Limits};

/// Lanes of four heads, and positions that they take at a time.
const LANES: usize = 128;
/// Lanes of a team, at most, and where subgroups are not made use of.
const MOST_TEAM: usize = 32;
/// Columns of a head, at most: the scales of a cached row in int8 are 16 bytes then.
const MOST_COLUMNS: usize = 128;
/// Workgroups of a row, at most: some for each of a large GPU's 132 processors.
const WORKGROUPS: u32 = 512;
/// Spans of a row at most, where few heads leave room for more.
const MOST_SPANS: u32 = 128;

/// What a workgroup holds, as shape and adapter have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Tiling {
    /// Of four heads each.
    fours: usize,
    /// Lanes of a team.
    team: usize,
    /// Teams exchange by subgroup operations.
    subgroups: bool,
}

impl Tiling {
    fn new(shape: CacheShape, group: usize, target: Target) -> Self {
        let subgroup = 1 << (target.limits.subgroup as usize).min(MOST_TEAM).ilog2();
        let subgroups = target.twins.subgroups && subgroup >= value_vec4(shape);
        let team = if subgroups { subgroup } else { MOST_TEAM };
        let one = Self { fours: 1, team, subgroups };
        let two = Self { fours: 2, ..one };
        if group > 4 && two.fits(shape, &target.limits) { two } else { one }
    }

    fn lanes(self) -> usize {
        self.fours * LANES
    }

    /// vec4 of queries in workgroup memory.
    fn queries(self, shape: CacheShape) -> usize {
        let columns = if shape.format == CacheFormat::F32 { 16 } else { 32 };
        self.fours * turns(shape) * columns
    }

    fn pool(self) -> usize {
        4 * self.lanes()
    }

    fn teams(self) -> usize {
        self.lanes() / self.team
    }

    fn fits(self, shape: CacheShape, limits: &Limits) -> bool {
        let shown = if self.subgroups { 0 } else { self.lanes() };
        let vec4s = self.pool() + self.queries(shape) + 2 * self.teams() + shown;
        16 * vec4s <= limits.workgroup_memory as usize && self.lanes() <= limits.invocations as usize
    }
}

/// 16 bytes of a value, or of a key.
fn value_vec4(shape: CacheShape) -> usize {
    shape.values / numbers(shape)
}

/// Numbers in 16 bytes.
fn numbers(shape: CacheShape) -> usize {
    match shape.format {
        CacheFormat::F32 => 4,
        CacheFormat::F16 => 8,
        CacheFormat::Q8 => 16,
    }
}

/// Turns in which four lanes go through a key.
fn turns(shape: CacheShape) -> usize {
    value_vec4(shape).div_ceil(4)
}

/// Whether [`dispatch`] can be used for rows of this shape: keys and values are of the same whole groups, or, where there
/// are none, of what four lanes take in whole turns.
pub fn fits(shape: CacheShape, target: Target) -> bool {
    let columns = shape.values;
    let whole = if shape.format == CacheFormat::Q8 { GROUP } else { 4 * numbers(shape) };
    columns.is_multiple_of(whole)
        && columns <= MOST_COLUMNS
        && shape.keys_from == columns
        && shape.latent == 2 * columns
        && shape.rope == 0
        && Tiling::new(shape, 1, target).fits(shape, &target.limits)
}

/// What [`dispatch`] makes of spans: none is shorter than what a workgroup's lanes take at a time, and rows of a step of few
/// have as many as fill a GPU.
pub fn spans(shape: CacheShape, spans: Spans) -> Spans {
    let most = (WORKGROUPS / shape.kv_heads as u32).min(MOST_SPANS);
    let units = (shape.context).div_ceil(LANES) as u32;
    spans.in_units(LANES as u32, units.min(most))
}

/// [`MlaAttend`] for rows that are apart: each reads all of its context by itself.
///
/// # Panics
/// When [`fits`] says no.
pub fn dispatch(attend: &MlaAttend<'_>, label: &str, target: Target) -> Dispatch {
    let s = attend.shape;
    let group = attend.group(label);
    assert!(fits(s, target), "{label}: rows of {} quads do not fit", s.row_quads());
    let t = Tiling::new(s, group, target);
    let blocks = (s.kv_heads * group.div_ceil(4 * t.fours)) as u32;
    let items = [attend.spans.extent(), Extent::Fixed(blocks), Extent::Fixed(1)];
    let grid = Grid { items, z: Extent::Rows { per: 1 } };
    let format = match s.format {
        CacheFormat::F32 => vec![shader!("parts/attend_f32.wgsl"), shader!("parts/attend_float.wgsl")],
        CacheFormat::F16 => vec![shader!("parts/attend_f16.wgsl"), shader!("parts/attend_float.wgsl")],
        CacheFormat::Q8 => vec![shader!("parts/attend_q8.wgsl")],
    };
    let lanes = if t.subgroups { shader!("parts/attend_subgroup.wgsl") } else { shader!("parts/attend_plain.wgsl") };
    let value = value_vec4(s);
    let shares = t.team / value;
    let even = shares * value == t.team && t.team.is_multiple_of(shares);
    let mut sources = vec![shader!("gqa_attend.wgsl"), lanes, shader!("parts/spans.wgsl"), SLOTS, STEP];
    sources.extend(format);
    super::dispatch(
        label,
        "gqa_attend",
        sources,
        target.constants(vec![
            ("WG", t.lanes() as f64),
            ("FOURS", t.fours as f64),
            ("LANES", LANES as f64),
            ("TEAM", t.team as f64),
            ("KEY_VEC4", value as f64),
            ("VALUE_VEC4", value as f64),
            ("KEY_AT", value as f64),
            ("SCALES_AT", (2 * value) as f64),
            ("KV_HEADS", s.kv_heads as f64),
            ("ROW_VEC4", (s.row_words() / 4) as f64),
            ("QUERY_QUADS", s.key_quads() as f64),
            ("QUERIES", t.queries(s) as f64),
            ("POOL", t.pool() as f64),
            ("ALL_TEAMS", t.teams() as f64),
            ("EVEN", f64::from(u8::from(even))),
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
    use crate::kernels::Twins;

    fn tiling(format: CacheFormat, head_dim: usize, group: usize, subgroup: u32, memory: u32) -> Tiling {
        let limits = Limits { workgroup_memory: memory, subgroup, ..Limits::LEAST };
        let twins = Twins { subgroups: subgroup > 4, ..Twins::portable() };
        let target = Target { twins, max_rows: 8, slots: 1, limits };
        let shape = CacheShape::gqa(format, 8, head_dim, head_dim, 1);
        assert!(fits(shape, target), "{format:?} {head_dim}");
        Tiling::new(shape, group, target)
    }

    #[test]
    fn every_head_of_whole_groups_fits_into_little_memory() {
        for format in [CacheFormat::F32, CacheFormat::F16, CacheFormat::Q8] {
            for head_dim in [32, 64, 96, 128] {
                for subgroup in [4, 8, 16, 32, 64] {
                    let t = tiling(format, head_dim, 8, subgroup, 16 << 10);
                    assert_eq!((t.fours, t.teams() * t.team), (1, LANES), "{format:?} {head_dim} {subgroup}");
                }
            }
        }
    }

    #[test]
    fn many_heads_share_what_is_read() {
        let t = |group| tiling(CacheFormat::Q8, 128, group, 32, 32 << 10);
        assert_eq!([1, 4, 5, 8].map(|group| t(group).fours), [1, 1, 2, 2]);
        assert!(t(4).subgroups && t(4).team == 32);
        // A value needs more lanes than these subgroups have.
        assert!(!tiling(CacheFormat::F32, 128, 4, 16, 32 << 10).subgroups);
    }
}
