//! `add_parts.wgsl`: what [`super::matmul_coop`] left of the parts of k, put together.

use super::product::{EPILOGUE, Epilogue};
use super::rmsnorm::Columns;
use super::{STEP, Target, assert_words, bindings, dispatch, shader};
use crate::gpu::{Buffer, Cost, Dispatch, Extent, Grid};

/// Lanes of a workgroup, each with four outputs.
const LANES: u32 = 64;

/// `y[r, :] = 2^e[r] (parts[0, r, :] + parts[1, r, :] + ..)`, or what the epilogue makes of it.
#[derive(Debug)]
pub struct AddParts<'a> {
    pub step: &'a Buffer,
    /// Rows whose exponents the sums lack, made by [`super::half_rows::HalfRows`].
    pub x: &'a Buffer,
    /// `[splits, rows, stride]` sums in f32.
    pub parts: &'a Buffer,
    pub splits: u32,
    /// Rows of a part.
    pub rows: u32,
    /// Of a row of a part, a multiple of 4; of SwiGLU it is `[gate | up]`.
    pub stride: u32,
    /// Outputs; of SwiGLU a multiple of 4.
    pub n: usize,
    /// `[rows, stride]`.
    pub y: Columns<'a>,
    pub epilogue: Epilogue,
    /// Runs over the logit rows instead of the rows.
    pub logit_rows: bool,
}

impl AddParts<'_> {
    pub fn dispatch(&self, label: &str, target: Target) -> Dispatch {
        assert!(self.y.offset + self.n <= self.y.stride, "{label}: y has {} columns", self.y.stride);
        let gated = self.epilogue == Epilogue::SwiGlu;
        let columns = if gated { 2 * self.n } else { self.n };
        assert!(self.stride.is_multiple_of(4) && columns <= self.stride as usize, "{label}: rows of {}", self.stride);
        assert!(!gated || self.n.is_multiple_of(4), "{label}: up is not in whole quads");
        assert!(self.splits > 0, "{label}: nothing to add");
        assert_words(self.y.buffer, self.y.stride as u64, label);
        assert_words(self.x, 4 * u64::from(target.max_rows), label);
        let part = u64::from(self.rows) * u64::from(self.stride);
        assert_words(self.parts, u64::from(self.splits) * part, label);
        let params = [
            self.n as u32,
            self.splits,
            self.stride / 4,
            part as u32 / 4,
            self.n as u32 / 4,
            self.y.stride as u32,
            self.y.offset as u32,
        ];
        let constants = target.constants(vec![("WG", f64::from(LANES)), ("EPILOGUE", f64::from(self.epilogue as u8))]);
        let workgroups = (self.n as u32).div_ceil(4 * LANES);
        let rows = if self.logit_rows { Extent::LogitRows { per: 1 } } else { Extent::Rows { per: 1 } };
        // The residual is read and written.
        let moved = self.splits as usize * columns + if self.epilogue == Epilogue::Add { 2 * self.n } else { self.n };
        dispatch(
            label,
            "add_parts",
            vec![shader!("add_parts.wgsl"), STEP, EPILOGUE],
            constants,
            &params,
            bindings(self.step, &[self.x, self.parts], &[self.y.buffer]),
            Grid::new(Extent::Fixed(workgroups), rows),
        )
        .costs(Cost { row_bytes: 4 * moved, ..Cost::default() })
    }
}
