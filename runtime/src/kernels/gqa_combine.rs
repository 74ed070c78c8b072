//! `gqa_combine.wgsl`: the spans of an attention put together, where a head's values are what it gives.

use super::coded::{self, Coding};
use super::matrix::GROUP;
use super::mla_attend::Spans;
use super::mla_latent::CacheShape;
use super::{STEP, Target, assert_words, bindings, dispatch, shader};
use crate::gpu::{Buffer, Cost, Dispatch, Extent, Grid};

/// Lanes of a workgroup, in steps whose rows fill a GPU and in others, at most.
const LANES: usize = 128;
const MOST_LANES: usize = 512;
/// Lanes that share a quad where the adapter has them: with what each asks for at once, they hold all spans of a row.
const MOST_SHARES: usize = 16;

/// `o[r, h] = softmax-weighted values`.
#[derive(Debug)]
pub struct GqaCombine<'a> {
    pub step: &'a Buffer,
    pub shape: CacheShape,
    /// Query heads.
    pub heads: usize,
    /// As [`MlaAttend`](super::mla_attend::MlaAttend) had them.
    pub spans: Spans,
    pub sums: &'a Buffer,
    pub weights: &'a Buffer,
    /// `[rows, o_stride]`: heads of values. Not written where `codes` are.
    pub o: &'a Buffer,
    pub o_stride: usize,
    /// `[rows, heads * values / 32, 12]` words: o coded for the product that reads it, see [`super::coded`].
    pub codes: Option<&'a Buffer>,
}

impl GqaCombine<'_> {
    /// Whether o can be left coded: a head's values are whole groups.
    pub fn can_code(shape: CacheShape) -> bool {
        shape.values.is_multiple_of(GROUP)
    }

    fn lanes(&self, target: Target) -> usize {
        let quads = self.shape.value_quads();
        let most = MOST_LANES.min(target.limits.invocations as usize);
        let lanes = if self.spans.of_few_rows() { MOST_SHARES * quads } else { LANES.max(quads) };
        lanes.next_multiple_of(64).min(most)
    }

    pub fn dispatch(&self, label: &str, target: Target) -> Dispatch {
        let s = self.shape;
        let (lanes, quads) = (self.lanes(target), s.value_quads());
        assert!(quads <= lanes, "{label}: values of {}", s.values);
        assert!(self.heads * s.values <= self.o_stride, "{label}: rows of o are too short");
        assert_words(self.sums, (self.heads * 4 * quads) as u64, "gqa_combine.sums");
        assert_words(self.weights, (self.heads * 2) as u64, "gqa_combine.weights");
        if let Some(codes) = self.codes {
            assert!(Self::can_code(s), "{label}: heads of {} values are no whole groups", s.values);
            assert_words(codes, coded::words(1, self.heads * s.values) as u64, "gqa_combine.codes");
        }
        let coding = coded::parts(self.codes.map(|codes| Coding { codes, gain: None }), s.values, label);
        let [most, parts] = self.spans.params();
        let params = [self.heads as u32, s.values as u32, s.context as u32, most, parts, self.o_stride as u32];
        let mut constants = target.constants(vec![
            ("WG", lanes as f64),
            ("QUADS", quads as f64),
            ("SHARES", (lanes / quads) as f64),
            self.spans.constant(),
        ]);
        constants.extend(coding.constants);
        let mut sources =
            vec![shader!("gqa_combine.wgsl"), shader!("parts/spans_sum.wgsl"), shader!("parts/spans.wgsl"), STEP];
        sources.extend(coding.sources);
        let mut all = bindings(self.step, &[self.sums, self.weights], &[self.o]);
        all.extend(coding.bindings);
        dispatch(
            label,
            "gqa_combine",
            sources,
            constants,
            &params,
            all,
            Grid::new(Extent::Fixed(self.heads as u32), Extent::Rows { per: 1 }),
        )
        .costs(Cost { row_bytes: 8 * self.heads * s.values, ..Cost::default() })
    }
}
