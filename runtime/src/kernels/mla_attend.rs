//! `mla_attend.wgsl`: attention over spans of the context, of latents or of keys and values of kv heads.

use std::cmp::Reverse;

use super::mla_latent::CacheShape;
use super::slots::{SLOTS, Slots};
use super::{STEP, Target, assert_words, bindings, dispatch, shader};
use crate::gpu::{Buffer, Cost, Dispatch, Extent, Grid, Limits};

/// Width of a latent, or of a value, that a workgroup's lanes can hold, a quad each.
pub const MOST_LATENT: usize = 1024;

/// Bytes of workgroup memory that the widest of them need; 512 columns fit into what WebGPU promises.
pub const LATENT_MEMORY: u32 = 32 << 10;

/// Spans of a row at most in a step of few rows. With two blocks of heads they fill a GPU of 132 cores; more only make
/// `mla_combine.wgsl` longer.
const MOST_SPANS: u32 = 128;

/// Spans of all rows of a wide step, where it has fewer rows than that.
const WIDE_PARTS: u32 = 512;

/// Numbers that a span leaves, from which on spans are longer and in wide steps fewer.
const HEAVY_SUMS: usize = 16 << 10;

/// Heads of a workgroup at most. More heads read a row less often; fewer share a short context among more workgroups.
const MOST_HEADS: usize = 16;

/// How the contexts of a step's rows are cut into spans, a workgroup each; `parts/spans.wgsl` computes the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spans {
    /// Spans of a row at most.
    most: u32,
    /// Spans of all rows of a step at most; a row has one whatever it says.
    parts: u32,
    /// Positions of the shortest span, of which all are multiples.
    unit: u32,
}

impl Spans {
    /// Positions of the shortest span, where nothing else is said.
    pub const UNIT: u32 = 32;

    /// For steps of few rows: a row's spans follow from its own length alone, so that it does not matter which rows it
    /// runs with.
    pub fn narrow(context: usize) -> Self {
        Self::new(context, MOST_SPANS, u32::MAX)
    }

    /// For steps of many rows, which fill a GPU with fewer spans or with one each.
    pub fn wide(context: usize) -> Self {
        Self::new(context, MOST_SPANS, WIDE_PARTS)
    }

    /// One order of summation, however many rows there are.
    pub fn one() -> Self {
        Self { most: 1, parts: 1, unit: Self::UNIT }
    }

    /// At most `most` spans of each row, and `parts` of all.
    pub fn new(context: usize, most: u32, parts: u32) -> Self {
        Self { most, parts, unit: Self::UNIT }.within(context)
    }

    /// As many spans or fewer, in multiples of so many positions, of which `UNIT` is a divisor; at most `most` of a row.
    #[must_use]
    pub fn in_units(self, unit: u32, most: u32) -> Self {
        Self { most: self.most.min(most).max(1), unit, ..self }
    }

    /// Longer ones, and half as many in a wide step, where the sums that a span leaves are as much as [`HEAVY_SUMS`]:
    /// queries and sums would be moved for longer than cached rows.
    pub fn of_sums(self, heads: usize, shape: CacheShape) -> Self {
        if self.most == 1 || 4 * heads * shape.value_quads() < HEAVY_SUMS {
            return self;
        }
        let parts = if self.of_few_rows() { self.parts } else { self.parts / 2 };
        Self { parts, unit: 2 * self.unit, ..self }.within(shape.context)
    }

    fn within(self, context: usize) -> Self {
        Self { most: self.most.clamp(1, (context as u32).div_ceil(self.unit).max(1)), ..self }
    }

    /// Spans that each row of a step has room for.
    pub fn of_step(self, rows: usize) -> usize {
        (self.parts / (rows as u32).max(1)).clamp(1, self.most) as usize
    }

    /// Positions of a span of a row, in a step of so many rows.
    pub fn positions(self, length: usize, rows: usize) -> usize {
        length.div_ceil(self.of_step(rows) * self.unit as usize) * self.unit as usize
    }

    /// Spans of all rows together that buffers must have room for, in steps of at most so many rows.
    pub fn room(self, rows: usize) -> usize {
        rows.max((rows * self.most as usize).min(self.parts as usize))
    }

    /// Spans of the longest row of a step.
    pub fn extent(self) -> Extent {
        Extent::Spans { unit: self.unit, most: self.most, parts: self.parts }
    }

    /// Whether they are for steps of few rows.
    pub(crate) fn of_few_rows(self) -> bool {
        self.parts == u32::MAX
    }

    pub(crate) fn params(self) -> [u32; 2] {
        [self.most, self.parts]
    }

    pub(crate) fn constant(self) -> (&'static str, f64) {
        ("SPAN_UNIT", f64::from(self.unit))
    }
}

/// What a workgroup holds at once, as the adapter's limits allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Tiling {
    lanes: usize,
    heads: usize,
    /// Positions; divides [`Spans::UNIT`].
    tile: usize,
    /// Lanes that share a score's quads.
    k_shares: usize,
}

impl Tiling {
    /// Of what fits: most lanes, fewest heads too many in the last block, most lanes at work on scores (from three
    /// quarters on it is the same), most scores of a tile, most heads.
    fn new(shape: CacheShape, heads: usize, limits: &Limits) -> Option<Self> {
        let mut all = Vec::new();
        for lanes in [256, 128] {
            for tile in [1, 2, 4, 8, 16, 32] {
                for block in [4, 8, 16].into_iter().filter(|&block| block <= MOST_HEADS) {
                    all.extend((1..=16).map(|k_shares| Self { lanes, heads: block, tile, k_shares }));
                }
            }
        }
        all.into_iter().filter(|t| t.fits(shape, limits)).max_by_key(|t| {
            let idle = t.lanes / 4;
            let at_work = t.scores().min(t.lanes - idle);
            (t.lanes, Reverse(heads.next_multiple_of(t.heads)), at_work, t.heads * t.tile, t.heads, t.k_shares)
        })
    }

    fn pair(self) -> usize {
        if self.heads > 4 { 2 } else { 1 }
    }

    fn fours(self) -> usize {
        self.heads / 4
    }

    /// Positions of a tile as the scores are laid out.
    fn slots(self) -> usize {
        self.tile.next_multiple_of(4)
    }

    /// Lanes that score, each four heads at four positions.
    fn scores(self) -> usize {
        self.k_shares * self.fours() * self.slots() / 4
    }

    /// Lanes that a share of the positions needs to sum latents.
    fn sums(self, shape: CacheShape) -> usize {
        self.fours() / self.pair() * shape.value_quads()
    }

    /// vec4 of the shader's `pool`.
    fn pool(self, shape: CacheShape) -> usize {
        let work = self.heads * shape.key_quads() + self.k_shares * self.fours() * self.slots();
        work.max(4 * self.lanes)
    }

    fn fits(self, shape: CacheShape, limits: &Limits) -> bool {
        let row = (shape.row_words() / 4) | 1;
        let vec4s = self.pool(shape) + self.tile * row + self.fours() * self.slots() + self.heads + self.fours();
        16 * vec4s <= limits.workgroup_memory as usize
            && self.lanes <= limits.invocations as usize
            && self.fours() * self.slots() <= self.lanes
            && self.sums(shape) <= self.lanes
            && self.scores() <= self.lanes
    }
}

/// `sums[r, h, span] = sum_s exp(query . key[s] - top) value[s]` with the top and the sum of weights: keys and values are
/// columns of the cached rows of the head's kv head, see [`CacheShape`].
#[derive(Debug)]
pub struct MlaAttend<'a> {
    pub step: &'a Buffer,
    pub shape: CacheShape,
    /// Query heads: so many of each kv head, one after another.
    pub heads: usize,
    pub spans: Spans,
    /// `[rows, heads, key_quads]` vec4.
    pub query: &'a Buffer,
    /// `[context, kv_heads, row_words]` of each slot. Rows of others run nothing.
    pub latents: &'a Slots,
    /// `[rows, heads, spans, value_quads]` vec4.
    pub sums: &'a Buffer,
    /// `[rows, heads, spans]` vec2.
    pub weights: &'a Buffer,
}

/// Whether an adapter has the workgroup memory for rows of this shape.
pub fn fits(shape: CacheShape, heads: usize, limits: &Limits) -> bool {
    Tiling::new(shape, heads / shape.kv_heads, limits).is_some()
}

impl MlaAttend<'_> {
    /// Heads of a kv head; checks the buffers on the way.
    pub(super) fn group(&self, label: &str) -> usize {
        let s = self.shape;
        assert!(self.heads.is_multiple_of(s.kv_heads), "{label}: {} heads of {} kv heads", self.heads, s.kv_heads);
        assert_words(self.query, (self.heads * s.key_quads() * 4) as u64, "mla_attend.query");
        self.latents.assert_each(s.position_words() * s.context, "mla_attend.latents");
        assert_words(self.sums, (self.heads * s.value_quads() * 4) as u64, "mla_attend.sums");
        assert_words(self.weights, (self.heads * 2) as u64, "mla_attend.weights");
        self.heads / s.kv_heads
    }

    pub(super) fn params(&self, blocks: u32, group: usize) -> [u32; 8] {
        let [most, parts] = self.spans.params();
        let [first_slot, slots] = self.latents.params();
        [self.heads as u32, self.shape.context as u32, blocks, most, parts, group as u32, first_slot, slots]
    }

    /// # Panics
    /// When values are wider than [`MOST_LATENT`]: the configuration refuses it before.
    pub fn dispatch(&self, label: &str, target: Target) -> Dispatch {
        let s = self.shape;
        let group = self.group(label);
        assert!(s.values <= MOST_LATENT, "{label}: values of {}", s.values);
        let tiling = Tiling::new(s, group, &target.limits);
        let t = tiling.unwrap_or_else(|| {
            panic!("{label}: a tile of {} quads does not fit into workgroup memory", s.row_quads());
        });
        let blocks = (s.kv_heads * group.div_ceil(t.heads)) as u32;
        let items = [self.spans.extent(), Extent::Fixed(blocks), Extent::Fixed(1)];
        let grid = Grid { items, z: Extent::Rows { per: 1 } };
        dispatch(
            label,
            "mla_attend",
            vec![shader!("mla_attend.wgsl"), shader!("parts/spans.wgsl"), s.source(), SLOTS, STEP],
            target.constants(vec![
                ("WG", t.lanes as f64),
                ("HEADS", t.heads as f64),
                ("PAIR", t.pair() as f64),
                ("TILE", t.tile as f64),
                ("LATENT_QUADS", s.latent_quads() as f64),
                ("QUERY_QUADS", s.key_quads() as f64),
                ("VALUE_QUADS", s.value_quads() as f64),
                ("KEYS_FROM", (s.keys_from / 4) as f64),
                ("KV_HEADS", s.kv_heads as f64),
                ("ROW_VEC4", (s.row_words() / 4) as f64),
                ("K_SHARES", t.k_shares as f64),
                ("SHARES", (t.lanes / t.sums(s)) as f64),
                ("POOL", t.pool(s) as f64),
                self.spans.constant(),
            ]),
            &self.params(blocks, group),
            bindings(self.step, &[self.query, &self.latents.buffer], &[self.sums, self.weights]),
            grid,
        )
        .costs(cost(s, self.heads))
    }
}

/// What attention moves and computes.
pub(super) fn cost(s: CacheShape, heads: usize) -> Cost {
    let (key, value) = (s.latent + s.rope - s.keys_from, s.values);
    Cost {
        row_bytes: 4 * heads * (key + value),
        position_bytes: 4 * s.position_words(),
        position_macs: heads * (key + value),
        ..Cost::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::mla_latent::CacheFormat;

    fn tiling(format: CacheFormat, latent: usize, rope: usize, heads: usize, memory: u32) -> Option<Tiling> {
        let shape = CacheShape::mla(format, latent, rope, 1);
        Tiling::new(shape, heads, &Limits { workgroup_memory: memory, ..Limits::LEAST })
    }

    #[test]
    fn every_cache_fits_into_little_memory() {
        for format in [CacheFormat::F32, CacheFormat::F16, CacheFormat::Q8] {
            for latent in 1..=MOST_LATENT {
                for rope in [2, 32, 64] {
                    let memory = if latent <= 512 { 16 << 10 } else { LATENT_MEMORY };
                    assert!(tiling(format, latent, rope, 32, memory).is_some(), "{format:?} {latent} {rope}");
                }
            }
        }
    }

    #[test]
    fn every_head_fits_into_little_memory() {
        for format in [CacheFormat::F32, CacheFormat::F16, CacheFormat::Q8] {
            for head_dim in 1..=MOST_LATENT {
                for group in [1, 3, 4, 8, 16] {
                    let shape = CacheShape::gqa(format, 1, head_dim, head_dim, 1);
                    let memory = if head_dim <= 256 { 16 << 10 } else { LATENT_MEMORY };
                    let limits = Limits { workgroup_memory: memory, ..Limits::LEAST };
                    assert!(Tiling::new(shape, group, &limits).is_some(), "{format:?} {head_dim} {group}");
                }
            }
        }
    }

    #[test]
    fn grouped_queries_keep_the_lanes_at_work() {
        for (head_dim, group) in [(64, 3), (64, 4), (128, 4), (128, 8)] {
            for format in [CacheFormat::F16, CacheFormat::Q8] {
                let shape = CacheShape::gqa(format, 8, head_dim, head_dim, 1);
                let limits = Limits { workgroup_memory: 48 << 10, ..Limits::LEAST };
                let t = Tiling::new(shape, group, &limits);
                assert!(
                    t.is_some_and(|t| t.scores() >= t.lanes / 2 && t.tile == 32),
                    "{head_dim} {group} {format:?}: {t:?}"
                );
            }
        }
    }

    #[test]
    fn released_models_keep_the_lanes_at_work() {
        for (latent, rope, heads) in [(128, 32, 32), (128, 64, 24), (160, 64, 32)] {
            for format in [CacheFormat::F16, CacheFormat::Q8] {
                for memory in [16 << 10, 32 << 10, 48 << 10] {
                    let t = tiling(format, latent, rope, heads, memory);
                    assert!(t.is_some_and(|t| t.scores() >= t.lanes / 2), "{latent} {format:?} {memory}: {t:?}");
                }
            }
        }
    }
}
