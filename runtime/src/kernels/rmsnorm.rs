//! `rmsnorm.wgsl`: root mean square normalisation of rows, or of a part of wider rows.

use super::{STEP, Target, assert_words, bindings, dispatch, shader};
use crate::gpu::{Buffer, Cost, Dispatch, Extent, Grid};

/// Lanes of a workgroup, which owns a row, at most.
const MOST_LANES: u32 = 512;

/// A part of each row of a buffer.
#[derive(Debug, Clone, Copy)]
pub struct Columns<'a> {
    pub buffer: &'a Buffer,
    /// f32 from one row to the next.
    pub stride: usize,
    /// f32 before the part.
    pub offset: usize,
}

impl<'a> Columns<'a> {
    /// Whole rows.
    pub fn rows(buffer: &'a Buffer, stride: usize) -> Self {
        Self { buffer, stride, offset: 0 }
    }
}

/// `y[r, :] = x[s, :] / rms(x[s, :]) * weight`.
#[derive(Debug)]
pub struct RmsNorm<'a> {
    pub step: &'a Buffer,
    pub x: Columns<'a>,
    /// `[width]`.
    pub weight: &'a Buffer,
    pub y: Columns<'a>,
    pub width: usize,
    pub eps: f32,
    /// Norms the rows that ask for logits, packed, instead of every row.
    pub logit_rows: bool,
}

impl RmsNorm<'_> {
    pub fn dispatch(&self, label: &str, target: Target) -> Dispatch {
        assert_words(self.weight, self.width as u64, "rmsnorm.weight");
        assert!(self.x.offset + self.width <= self.x.stride, "rmsnorm.x: the part ends outside of its row");
        assert!(self.y.offset + self.width <= self.y.stride, "rmsnorm.y: the part ends outside of its row");
        let most = MOST_LANES.min(target.limits.invocations) / 64 * 64;
        let wg = (self.width as u32 / 4).next_multiple_of(64).clamp(64, most);
        let constants =
            target.constants(vec![("WG", f64::from(wg)), ("LOGIT_ROWS", f64::from(u8::from(self.logit_rows)))]);
        let params = [
            self.width as u32,
            self.x.stride as u32,
            self.x.offset as u32,
            self.y.stride as u32,
            self.y.offset as u32,
            self.eps.to_bits(),
        ];
        let rows = if self.logit_rows { Extent::LogitRows { per: 1 } } else { Extent::Rows { per: 1 } };
        dispatch(
            label,
            "rmsnorm",
            vec![shader!("rmsnorm.wgsl"), STEP, target.lanes(wg as usize)],
            constants,
            &params,
            bindings(self.step, &[self.x.buffer, self.weight], &[self.y.buffer]),
            Grid::new(Extent::Fixed(1), rows),
        )
        .costs(Cost { bytes: 4 * self.width, row_bytes: 8 * self.width, ..Cost::default() })
    }
}
