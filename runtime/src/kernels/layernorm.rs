//! `layernorm.wgsl`: layer norms of rows, with a bias, in f32 and, for products of few rows, coded.

use super::coded::{self, Coding};
use super::matrix::GROUP;
use super::rmsnorm::Columns;
use super::{STEP, Target, assert_words, bindings, dispatch, shader};
use crate::gpu::{Buffer, Cost, Dispatch, Extent, Grid};

/// Lanes of a workgroup, which owns a row, at most: those that round their values keep them in workgroup memory, of which
/// 16 KB are sure.
const MOST_LANES: u32 = 256;

/// Storage buffers where rows are left coded: the step, x, weight, bias, y, codes.
const CODED_BUFFERS: u32 = 6;

/// `y[r, :] = (x[r, :] - mean) / sqrt(var + eps) * (1 + weight) + bias`.
#[derive(Debug)]
pub struct LayerNorm<'a> {
    pub step: &'a Buffer,
    /// Whole rows, the stride a multiple of 32.
    pub x: Columns<'a>,
    /// `[width]`, padded to whole groups of 32.
    pub weight: &'a Buffer,
    /// `[width]`, padded to whole groups of 32.
    pub bias: &'a Buffer,
    /// Whole rows, the stride a multiple of 32; what pads them becomes zero.
    pub y: Columns<'a>,
    /// Where y is left coded too, if [`LayerNorm::can_code`].
    pub codes: Option<&'a Buffer>,
    pub width: usize,
    pub eps: f32,
}

impl LayerNorm<'_> {
    /// Whether y can be left coded.
    pub fn can_code(target: Target) -> bool {
        target.limits.storage_buffers >= CODED_BUFFERS
    }

    pub fn dispatch(&self, label: &str, target: Target) -> Dispatch {
        let padded = self.width.next_multiple_of(GROUP);
        for (name, rows) in [("x", self.x), ("y", self.y)] {
            let whole = rows.offset == 0 && rows.stride.is_multiple_of(GROUP) && padded <= rows.stride;
            assert!(whole, "{label}: layernorm.{name} has no whole rows of {padded}");
            assert_words(rows.buffer, rows.stride as u64, "layernorm.rows");
        }
        assert_words(self.weight, padded as u64, "layernorm.weight");
        assert_words(self.bias, padded as u64, "layernorm.bias");
        let quads = (padded / 4) as u32;
        let wg = quads.next_multiple_of(64).clamp(64, MOST_LANES.min(target.limits.invocations) / 64 * 64);
        let codes = self.codes.map(|codes| {
            assert_words(codes, coded::words(1, self.width) as u64, "layernorm.codes");
            Coding { codes, gain: None }
        });
        let coding = coded::parts(codes, 4 * wg.min(quads) as usize, label);
        let mut sources = vec![shader!("layernorm.wgsl"), STEP, target.lanes(wg as usize)];
        sources.extend(coding.sources);
        let mut constants = target.constants(vec![("WG", f64::from(wg))]);
        constants.extend(coding.constants);
        let params =
            [self.width as u32, quads, (self.x.stride / 4) as u32, (self.y.stride / 4) as u32, self.eps.to_bits()];
        let mut all = bindings(self.step, &[self.x.buffer, self.weight, self.bias], &[self.y.buffer]);
        all.extend(coding.bindings);
        let grid = Grid::new(Extent::Fixed(1), Extent::Rows { per: 1 });
        dispatch(label, "layernorm", sources, constants, &params, all, grid).costs(Cost {
            bytes: 8 * self.width,
            row_bytes: 8 * self.width,
            ..Cost::default()
        })
    }
}
