//! `mla_combine.wgsl`: the spans of an attention put together and taken back from latents to values.

use super::coded::{self, Coding};
use super::matrix::GROUP;
use super::mla_attend::Spans;
use super::mla_combine_coop;
use super::mla_latent::CacheShape;
use super::mla_query::{MlaHeads, whole};
use super::{Matrix, STEP, Target, assert_words, bindings, dispatch, shader};
use crate::gpu::{Buffer, Cost, Dispatch, Extent, Grid};

/// Lanes of a workgroup in steps whose rows fill a GPU, and in others so many as the latent asks for, at most.
const LANES: usize = 256;
const MOST_LANES: usize = 640;
/// The same for latents of more octs than lanes that share a row of Wv ask for at once: 816 columns are 204 quads.
const WIDE_LANES: usize = 1024;
/// Octs of a row of Wv that a lane asks for before anything else.
const OCTS_AHEAD: usize = 7;
/// Lanes that share a quad of the latent where the adapter has them: with what each asks for at once, they hold all spans
/// of a row.
const MOST_SHARES: usize = 16;

/// `o[r, h] = Wv[g(h)] softmax-weighted latent`.
#[derive(Debug)]
pub struct MlaCombine<'a> {
    pub step: &'a Buffer,
    pub shape: CacheShape,
    pub heads: MlaHeads,
    /// As [`MlaAttend`](super::mla_attend::MlaAttend) had them.
    pub spans: Spans,
    pub sums: &'a Buffer,
    pub weights: &'a Buffer,
    /// kv_b_proj `[kv_heads * (nope + v), latent]`.
    pub kv_b: &'a Matrix,
    /// `[rows, o_stride]`: heads of `v`. Not written where `codes` are.
    pub o: &'a Buffer,
    pub o_stride: usize,
    /// `[rows, heads * v / 32, 12]` words: o coded for the product that reads it, see [`super::coded`].
    pub codes: Option<&'a Buffer>,
}

impl MlaCombine<'_> {
    /// Whether o can be left coded: a head's values are whole groups.
    pub fn can_code(heads: MlaHeads) -> bool {
        heads.v.is_multiple_of(GROUP)
    }

    /// Lanes of a workgroup, and those that share a row of Wv.
    fn lanes(&self, target: Target) -> (usize, usize) {
        let share = |lanes| if 8 * self.heads.v <= lanes { 8 } else { 4 };
        if !self.spans.of_few_rows() {
            return (LANES, share(LANES));
        }
        let most = target.limits.invocations as usize;
        if self.kv_b.k_padded() / 8 > OCTS_AHEAD * 8 {
            let lanes = WIDE_LANES.min(most).max(LANES);
            return (lanes, if lanes == WIDE_LANES { 16 } else { 8 });
        }
        let asked = (MOST_SHARES * self.shape.latent_quads()).next_multiple_of(128);
        let lanes = asked.min(MOST_LANES).min(most).max(LANES);
        (lanes, share(lanes))
    }

    /// On cooperative matrices in steps of many rows, where the adapter has them and factors fit f16.
    pub fn combine(&self, label: &str, target: Target) -> Dispatch {
        let wide = !self.spans.of_few_rows() && !target.twins.plain && self.codes.is_none();
        match target.twins.matmul_coop.filter(|m| wide && mla_combine_coop::fits(self, *m)) {
            Some(matrices) => mla_combine_coop::dispatch(self, label, matrices, target),
            None => self.dispatch(label, target),
        }
    }

    pub fn dispatch(&self, label: &str, target: Target) -> Dispatch {
        let (s, h) = (self.shape, self.heads);
        let (lanes, lanes_a_row) = self.lanes(target);
        assert!(s.latent_quads() <= lanes, "{label}: a latent of {}", s.latent);
        assert!(h.heads * h.v <= self.o_stride, "{label}: rows of o are too short");
        let [most, parts] = self.spans.params();
        let part = whole(self.kv_b, label, target);
        let octs = self.kv_b.k_padded() / 8;
        let mut rows = h.v.min(lanes / lanes_a_row);
        if let Some(codes) = self.codes {
            assert!(Self::can_code(h), "{label}: heads of {} values are no whole groups", h.v);
            assert_words(codes, coded::words(1, h.heads * h.v) as u64, "mla_combine.codes");
            rows = rows / GROUP * GROUP;
        }
        // Few rows leave a GPU room for more workgroups than heads; each puts the latent together by itself.
        let parts_of_v = if self.spans.of_few_rows() && lanes_a_row > 8 { h.v.div_ceil(rows) } else { 1 };
        let part_rows = if parts_of_v > 1 { rows } else { h.v };
        let coding = coded::parts(self.codes.map(|codes| Coding { codes, gain: None }), rows, label);
        let params = [
            h.heads as u32,
            (h.heads / h.kv_heads) as u32,
            h.nope as u32,
            h.v as u32,
            octs as u32,
            s.context as u32,
            most,
            parts,
            self.o_stride as u32,
        ];
        let mut constants = target.constants(vec![
            ("WG", lanes as f64),
            ("QUADS", s.latent_quads() as f64),
            ("LATENT_QUADS_PADDED", (self.kv_b.k_padded() / 4) as f64),
            ("SHARES", (lanes / s.latent_quads()) as f64),
            ("LANES_A_ROW", lanes_a_row as f64),
            ("ROWS", rows as f64),
            ("PARTS", parts_of_v as f64),
            ("PART_ROWS", part_rows as f64),
            ("OCTS", octs.div_ceil(lanes_a_row) as f64),
            self.spans.constant(),
        ]);
        constants.extend(part.constants());
        constants.extend(coding.constants);
        let mut sources =
            vec![shader!("mla_combine.wgsl"), shader!("parts/spans_sum.wgsl"), shader!("parts/spans.wgsl"), STEP];
        sources.extend(part.sources());
        sources.extend(coding.sources);
        let mut all = bindings(self.step, &[self.sums, self.weights], &[self.o]);
        all.extend(part.bindings());
        all.extend(coding.bindings);
        dispatch(
            label,
            "mla_combine",
            sources,
            constants,
            &params,
            all,
            Grid::new(Extent::Fixed((h.heads * parts_of_v) as u32), Extent::Rows { per: 1 }),
        )
        .costs(Cost {
            bytes: part.bytes(h.kv_heads * h.v),
            row_bytes: 4 * h.heads * (s.latent + h.v),
            row_macs: h.heads * h.v * s.latent,
            ..Cost::default()
        })
    }
}
