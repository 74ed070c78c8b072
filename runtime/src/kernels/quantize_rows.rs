//! `quantize_rows.wgsl`: rows rounded to int8, normed or as they are, for products on int8 dot products.

use super::matrix::GROUP;
use super::product::Norm;
use super::rmsnorm::Columns;
use super::{STEP, Target, assert_words, coded, dispatch, shader};
use crate::gpu::{Access, Binding, Buffer, Cost, Dispatch, Extent, Grid};

/// Lanes of a workgroup that owns a row, at most.
const MOST_LANES: u32 = 512;

/// Lanes of a workgroup that owns a part of a row, at most.
const MOST_LANES_OF_PART: u32 = 256;

/// `scale[r, g] = max |v[r, :]| in group g / 127`, `codes[r, :] = round(v[r, :] / scale)`, `v = x` or `norm(x)`.
#[derive(Debug)]
pub struct QuantizeRows<'a> {
    pub step: &'a Buffer,
    /// Stride and offset multiples of 4. Nothing is asked of what pads its rows.
    pub x: Columns<'a>,
    pub norm: Option<Norm<'a>>,
    /// `[rows, 3, k / 32, 4]` words, see [`super::coded`], k padded to whole groups of 32; no sums of squares.
    pub codes: &'a Buffer,
    /// k without its padding.
    pub width: usize,
    /// Takes the rows that ask for logits, packed, instead of every row.
    pub logit_rows: bool,
}

impl QuantizeRows<'_> {
    pub fn dispatch(&self, label: &str, target: Target) -> Dispatch {
        let groups = self.width.div_ceil(GROUP);
        let quads = (groups * GROUP / 4) as u32;
        assert!(
            self.x.stride.is_multiple_of(4) && self.x.offset.is_multiple_of(4),
            "{label}: quantize_rows.x is not in whole quads"
        );
        assert!(self.x.offset + self.width <= self.x.stride, "{label}: quantize_rows.x ends outside of its row");
        assert_words(self.codes, coded::words(1, self.width) as u64, "quantize_rows.codes");

        let mut bindings = vec![
            Binding { number: 0, access: Access::Read, buffer: self.step.clone() },
            Binding { number: 2, access: Access::Read, buffer: self.x.buffer.clone() },
            Binding { number: 4, access: Access::ReadWrite, buffer: self.codes.clone() },
        ];
        let most = if self.norm.is_some() { MOST_LANES } else { MOST_LANES_OF_PART };
        let wg = quads.next_multiple_of(64).clamp(64, most.min(target.limits.invocations) / 64 * 64);
        let (part, lanes, workgroups, eps) = match self.norm {
            Some(norm) => {
                assert_words(norm.weight, self.width.next_multiple_of(4) as u64, "quantize_rows.weight");
                bindings.push(Binding { number: 3, access: Access::Read, buffer: norm.weight.clone() });
                (shader!("parts/quantize_normed.wgsl"), target.lanes(wg as usize), 1, norm.eps)
            }
            // Nothing is summed.
            None => (shader!("parts/quantize_plain.wgsl"), shader!("parts/lanes_plain.wgsl"), quads.div_ceil(wg), 0.0),
        };
        let params =
            [self.width as u32, groups as u32, (self.x.stride / 4) as u32, (self.x.offset / 4) as u32, eps.to_bits()];
        let constants =
            target.constants(vec![("WG", f64::from(wg)), ("LOGIT_ROWS", f64::from(u8::from(self.logit_rows)))]);
        let rows = if self.logit_rows { Extent::LogitRows { per: 1 } } else { Extent::Rows { per: 1 } };
        dispatch(
            label,
            "quantize_rows",
            vec![shader!("quantize_rows.wgsl"), STEP, part, lanes],
            constants,
            &params,
            bindings,
            Grid::new(Extent::Fixed(workgroups), rows),
        )
        .costs(Cost { row_bytes: 4 * self.width + 36 * groups, ..Cost::default() })
    }
}
