//! `half_rows.wgsl`: rows as f16 with a power of two each, what [`super::matmul_coop`] multiplies.

use super::product::Norm;
use super::rmsnorm::Columns;
use super::{Matrix, STEP, Target, assert_words, bindings, dispatch, shader};
use crate::gpu::{Buffer, Cost, Dispatch, Extent, Grid};

/// Inputs that `matmul_coop.wgsl` takes at once: rows are padded to whole blocks.
const BLOCK: usize = 64;

/// Lanes of a workgroup, which owns a row, at most.
const MOST_LANES: u32 = 256;

/// Eights of one row.
pub(crate) fn octs(width: usize) -> usize {
    width.next_multiple_of(BLOCK) / 8
}

/// Bytes of the buffer of `rows` rows of `width` inputs, of which a plan may use one for all of its products.
pub fn bytes(rows: u32, width: usize) -> u64 {
    16 * u64::from(rows) * (1 + octs(width) as u64)
}

/// `y[r, :] = f16(v[s, :] / 2^e)`.
#[derive(Debug)]
pub struct HalfRows<'a> {
    pub step: &'a Buffer,
    /// `[rows, stride]`, stride and offset multiples of 32, padded with zeros.
    pub x: Columns<'a>,
    pub norm: Option<Norm<'a>>,
    /// As large as [`bytes`] says.
    pub y: &'a Buffer,
    pub width: usize,
    /// Takes the rows that ask for logits, packed, instead of every row.
    pub logit_rows: bool,
}

impl HalfRows<'_> {
    pub fn dispatch(&self, label: &str, target: Target) -> Dispatch {
        let padded = self.width.next_multiple_of(32);
        assert!(
            self.x.stride.is_multiple_of(32) && self.x.offset.is_multiple_of(32),
            "{label}: x is not in whole groups of 32"
        );
        assert!(self.x.offset + padded <= self.x.stride, "{label}: x has {} columns", self.x.stride);
        let octs = octs(self.width);
        assert_words(self.y, bytes(target.max_rows, self.width) / 4, label);

        let most = MOST_LANES.min(target.limits.invocations) / 32 * 32;
        let wg = (octs as u32).next_multiple_of(32).clamp(32, most);
        let constants =
            target.constants(vec![("WG", f64::from(wg)), ("LOGIT_ROWS", f64::from(u8::from(self.logit_rows)))]);
        let params = [
            self.width as u32,
            (self.x.stride / 4) as u32,
            (self.x.offset / 4) as u32,
            (padded / 4) as u32,
            octs as u32,
            self.norm.map_or(0.0, |norm| norm.eps).to_bits(),
        ];
        let mut inputs = vec![self.x.buffer];
        let part = match self.norm {
            Some(norm) => {
                assert_words(norm.weight, self.width as u64, label);
                inputs.push(norm.weight);
                shader!("parts/half_norm.wgsl")
            }
            None => shader!("parts/half_plain.wgsl"),
        };
        let rows = if self.logit_rows { Extent::LogitRows { per: 1 } } else { Extent::Rows { per: 1 } };
        dispatch(
            label,
            "half_rows",
            vec![shader!("half_rows.wgsl"), STEP, part],
            constants,
            &params,
            bindings(self.step, &inputs, &[self.y]),
            Grid::new(Extent::Fixed(1), rows),
        )
        .costs(Cost { row_bytes: 6 * self.width, ..Cost::default() })
    }
}

/// Whether rows of this buffer fit a weight's inputs.
pub(crate) fn assert_fits(x: &Buffer, weight: &Matrix, max_rows: u32, label: &str) {
    assert_words(x, bytes(max_rows, weight.k()) / 4, label);
}
