//! `mla_project.wgsl`: a few rows' absorbed queries and cached rows, from [q_a | latent | k_pe] in one dispatch.

use super::matrix::GROUP;
use super::mla_latent::CacheShape;
use super::mla_query::{MlaHeads, whole};
use super::rmsnorm::Columns;
use super::slots::{SLOTS, Slots};
use super::{Matrix, STEP, Target, assert_words, bindings, coded, dispatch, read, shader};
use crate::gpu::{Buffer, Cost, Dispatch, Extent, Grid};
use crate::weights::WeightFormat;

/// Lanes of a workgroup, at most: what a lane asks for at once takes up to 128 registers.
const MOST_LANES: usize = 512;
/// Lanes of a workgroup, at least.
const LEAST_LANES: usize = 128;
/// Lanes of a team, at least, without subgroups.
const LEAST_TEAM: usize = 16;
/// Storage buffers it binds, beside q_a's codes.
const BUFFERS: u32 = 9;

/// How a head's products are shared among lanes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sharing {
    /// Outputs of q_b_proj that a workgroup makes.
    rows: usize,
    /// Parts of q_a, each for a lane.
    items: usize,
    /// Lanes that share four outputs.
    team: usize,
    teams: usize,
    /// Sets of four outputs of each team.
    rounds: usize,
}

impl Sharing {
    fn new(q_b: &Matrix, heads: MlaHeads, shape: CacheShape, coded: bool, target: Target) -> Self {
        let most = MOST_LANES.min(target.limits.invocations as usize);
        let rows = heads.nope.max(shape.rope);
        let items = q_b.k_padded() / if coded { GROUP } else { 8 };
        let sets = rows.div_ceil(4);
        let mut team = if target.twins.subgroups { 32 } else { LEAST_TEAM };
        while team < items && 2 * team * sets <= most {
            team *= 2;
        }
        let needed = LEAST_LANES.max(rows).max(shape.latent_quads()).max(4 * shape.rope_quads());
        let teams = sets.max(needed.div_ceil(team)).min(most / team).max(1);
        Self { rows, items, team, teams, rounds: sets.div_ceil(teams) }
    }

    fn lanes(self) -> usize {
        self.team * self.teams
    }

    /// Sums that teams exchange: numbers with subgroups, quads without.
    fn sums(self, target: Target) -> usize {
        self.rounds * if target.twins.subgroups { self.lanes() } else { self.teams }
    }

    /// Bytes of workgroup memory.
    fn memory(self, shape: CacheShape, target: Target) -> usize {
        let exchange =
            if target.twins.subgroups { 4 * self.sums(target) } else { 16 * (self.sums(target) + self.lanes()) };
        16 * (self.lanes() + shape.row_quads()) + 4 * self.rows + exchange
    }
}

/// `query[r, h] = scale * [Wk[g(h)]^T q_nope | rope(q_pe)]` with `q = q_b_proj q_a`, and
/// `latents[slot, position] = [c | rope(k_pe)]`.
#[derive(Debug)]
pub struct MlaProject<'a> {
    pub step: &'a Buffer,
    pub shape: CacheShape,
    pub heads: MlaHeads,
    /// `[rows, stride]`: q_a, then from their offsets on the latent and k_pe.
    pub a: Columns<'a>,
    /// `[rows, 3, stride / 32, 4]` words: the same rows coded, see [`super::coded`]. Where q_b_proj is quantized its product
    /// then takes these, and is of int8.
    pub a_codes: Option<&'a Buffer>,
    /// f32 before the latent in a row of `a`.
    pub c_offset: usize,
    /// f32 before k_pe in a row of `a`.
    pub k_offset: usize,
    /// See [`super::rope::turns`].
    pub turns: &'a Buffer,
    /// q_b_proj `[heads * (nope + rope), q_rank]`.
    pub q_b: &'a Matrix,
    /// kv_b_proj `[kv_heads * (nope + v), latent]`.
    pub kv_b: &'a Matrix,
    /// Of the softmax.
    pub scale: f32,
    /// `[rows, heads, row_quads]` vec4.
    pub query: &'a Buffer,
    /// `[context, row_words]` of each slot.
    pub latents: &'a Slots,
}

impl MlaProject<'_> {
    /// Whether an adapter can run it for these heads, with q_a coded or not: all that it reads and writes in one dispatch.
    /// No preset has kv_b_proj in q4, where four bits cost the most.
    pub fn fits(q_b: &Matrix, kv_b: &Matrix, heads: MlaHeads, shape: CacheShape, coded: bool, target: Target) -> bool {
        let sharing = Sharing::new(q_b, heads, shape, coded, target);
        let (lanes, limits) = (sharing.lanes(), target.limits);
        let buffers = BUFFERS + u32::from(coded);
        limits.storage_buffers >= buffers
            && kv_b.format() != WeightFormat::Q4
            && (q_b.format().is_quantized() || !coded)
            && lanes <= limits.invocations as usize
            && sharing.rows.max(shape.latent_quads()).max(4 * shape.rope_quads()) <= lanes
            && sharing.memory(shape, target) <= limits.workgroup_memory as usize
            && q_b.parts(&limits, buffers - 2).len() == 1
    }

    /// # Panics
    /// When [`MlaProject::fits`] says no: the plan asks first.
    pub fn dispatch(&self, label: &str, target: Target) -> Dispatch {
        let (s, h) = (self.shape, self.heads);
        let coded = self.a_codes.is_some();
        assert!(Self::fits(self.q_b, self.kv_b, h, s, coded, target), "{label}: does not fit into the adapter");
        assert!(self.a.offset == 0 && self.a.stride.is_multiple_of(4), "{label}: rows are no whole quads");
        assert!(self.q_b.k_padded() <= self.a.stride, "{label}: rows are shorter than q_a");
        assert!(self.c_offset + s.latent <= self.a.stride, "{label}: the latent ends outside of its row");
        assert!(self.k_offset + s.rope <= self.a.stride, "{label}: k_pe ends outside of its row");
        self.latents.assert_each(s.row_words() * s.context, "mla_project.latents");
        assert_words(self.query, (4 * h.heads * s.row_quads()) as u64, "mla_project.query");
        if let Some(codes) = self.a_codes {
            assert!(self.a.stride.is_multiple_of(GROUP), "{label}: rows are no whole groups");
            assert_words(codes, coded::words(1, self.a.stride) as u64, "mla_project.a_codes");
        }
        let sharing = Sharing::new(self.q_b, h, s, coded, target);
        let shares = sharing.lanes() / s.latent_quads();
        let [first_slot, slots] = self.latents.params();
        let params = [
            h.heads as u32,
            (h.heads / h.kv_heads) as u32,
            h.nope as u32,
            s.rope as u32,
            (h.nope + h.v) as u32,
            (self.kv_b.k_padded() / 4) as u32,
            s.latent as u32,
            s.latent_quads() as u32,
            s.rope_quads() as u32,
            (self.a.stride / 4) as u32,
            (self.a.stride / GROUP) as u32,
            self.c_offset as u32,
            self.k_offset as u32,
            s.row_words() as u32,
            s.context as u32,
            self.scale.to_bits(),
            first_slot,
            slots,
        ];
        let q_b = whole(self.q_b, label, target);
        let mut constants = target.constants(vec![
            ("WG", sharing.lanes() as f64),
            ("TEAM", sharing.team as f64),
            ("TEAMS", sharing.teams as f64),
            ("ROUNDS", sharing.rounds as f64),
            ("SLOT_SUMS", sharing.sums(target) as f64),
            ("ITEMS", sharing.items as f64),
            ("PAIRS", f64::from(u8::from(sharing.items > sharing.team))),
            ("LATENT_QUADS", s.latent_quads() as f64),
            ("SHARES", shares as f64),
            ("EACH", h.nope.div_ceil(shares) as f64),
            ("HEAD_ROWS", sharing.rows as f64),
            ("ROW_QUADS", s.row_quads() as f64),
        ]);
        constants.extend(target.shared(sharing.team));
        constants.extend(if coded { q_b.dot_constants() } else { q_b.constants() });
        let teams = if target.twins.subgroups {
            shader!("parts/teams_subgroup.wgsl")
        } else {
            shader!("parts/teams_plain.wgsl")
        };
        let product = if coded { shader!("parts/project_i8.wgsl") } else { shader!("parts/project_f32.wgsl") };
        let kv_b = match self.kv_b.format() {
            WeightFormat::F32 => shader!("parts/kv_b_f32.wgsl"),
            WeightFormat::F16 => shader!("parts/kv_b_f16.wgsl"),
            WeightFormat::Q8 | WeightFormat::Q4 => shader!("parts/kv_b_q8.wgsl"),
        };
        let mut sources = vec![shader!("mla_project.wgsl"), product, teams, kv_b];
        sources.extend([shader!("parts/rope.wgsl"), s.store_source(), SLOTS, STEP]);
        sources.extend(coded.then_some(shader!("parts/four.wgsl")));
        sources.extend(if coded { q_b.dot_sources() } else { q_b.sources() });
        let mut all = bindings(self.step, &[self.a.buffer, self.turns], &[self.query, &self.latents.buffer]);
        all.extend(q_b.bindings());
        all.extend(self.a_codes.map(|codes| read(14, codes)));
        let kv_b = self.kv_b.buffers();
        assert!(kv_b.len() <= 2, "{label}: kv_b_proj does not fit into one binding");
        all.extend(kv_b.iter().enumerate().map(|(i, buffer)| read(12 + i as u32, buffer)));
        dispatch(
            label,
            "mla_project",
            sources,
            constants,
            &params,
            all,
            Grid::new(Extent::Fixed(2 * h.heads as u32 + 1), Extent::Rows { per: 1 }),
        )
        .costs(Cost {
            bytes: q_b.bytes(h.heads * (h.nope + s.rope)) + whole(self.kv_b, label, target).bytes(h.kv_heads * h.nope),
            row_bytes: 4 * (self.a.stride + s.row_words() + h.heads * (s.latent + s.rope)),
            row_macs: h.heads * ((h.nope + s.rope) * self.q_b.k() + h.nope * s.latent),
            ..Cost::default()
        })
    }
}
