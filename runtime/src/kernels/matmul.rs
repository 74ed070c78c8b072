//! `matvec.wgsl` and `matmul.wgsl`: products with a weight matrix, for few rows and for many.

use super::rmsnorm::Columns;
use super::{Matrix, STEP, Target, assert_words, bindings, dispatch, shader};
use crate::gpu::{Buffer, Dispatch, Extent, Grid};

/// What becomes of the sums.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Epilogue {
    /// `y = x W^T`.
    Store,
    /// `y += x W^T`: y is the residual stream.
    Add,
    /// The weight is `[gate; up]`, `y = silu(x gate^T) * (x up^T)`.
    SwiGlu,
}

/// How many rows the product is planned for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Width {
    /// A step of one row: matrix-vector.
    Single,
    /// A step of a few rows: matrix-vector, some rows for each reading of the weights.
    Narrow,
    /// A step of many rows: tiles.
    Wide,
}

/// `y (+)= x weight^T`.
#[derive(Debug)]
pub struct MatMul<'a> {
    pub step: &'a Buffer,
    /// `[rows, stride]`, stride and offset multiples of 32, padded with zeros.
    pub x: Columns<'a>,
    /// `[n, k]`.
    pub weight: &'a Matrix,
    /// `[rows, stride]`.
    pub y: Columns<'a>,
    pub epilogue: Epilogue,
    /// Runs over the logit rows instead of the rows.
    pub logit_rows: bool,
}

impl MatMul<'_> {
    /// One dispatch, or one for each part of a weight that the adapter's limits cut.
    ///
    /// # Panics
    /// When a SwiGLU weight would have to be cut: its gate and up halves must be bound together.
    pub fn dispatches(&self, label: &str, width: Width, target: Target) -> Vec<Dispatch> {
        let k = self.weight.k_padded();
        assert!(
            self.x.stride.is_multiple_of(32) && self.x.offset.is_multiple_of(32),
            "{label}: x is not in whole groups of 32"
        );
        assert!(self.x.offset + k <= self.x.stride, "{label}: x has {} columns, k is {k}", self.x.stride);
        let outputs = if self.epilogue == Epilogue::SwiGlu { self.weight.n() / 2 } else { self.weight.n() };
        assert!(self.y.offset + outputs <= self.y.stride, "{label}: y has {} columns", self.y.stride);
        assert_words(self.y.buffer, self.y.stride as u64, label);
        let tiled = width == Width::Wide && !target.plain;

        let mut all = Vec::new();
        for (i, part) in self.weight.parts(&target.limits, 3).into_iter().enumerate() {
            let n = if self.epilogue == Epilogue::SwiGlu {
                assert!(part.rows == self.weight.n(), "{label}: gate and up do not fit into the adapter's bindings");
                outputs
            } else {
                part.rows
            };
            let params = [
                n as u32,
                (k / 8) as u32,
                (self.x.stride / 4) as u32,
                (self.x.offset / 4) as u32,
                self.y.stride as u32,
                (self.y.offset + part.first_row) as u32,
                if self.logit_rows { 2 } else { 0 },
            ];
            let mut constants = target.constants(vec![("EPILOGUE", f64::from(self.epilogue as u8))]);
            constants.extend(part.constants());
            let mut sources = vec![STEP, shader!("parts/product.wgsl")];
            sources.extend(part.sources());
            let mut all_bindings = bindings(self.step, &[self.x.buffer], &[self.y.buffer]);
            all_bindings.extend(part.bindings());
            let rows = |per| if self.logit_rows { Extent::LogitRows { per } } else { Extent::Rows { per } };
            let mut d = if tiled {
                sources.push(shader!("matmul.wgsl"));
                let items = n.div_ceil(if self.epilogue == Epilogue::SwiGlu { 32 } else { 64 }) as u32;
                let grid = Grid::new(Extent::Fixed(items), rows(64));
                dispatch(label, "matmul", sources, constants, &params, all_bindings, grid)
            } else {
                // The order of each sum does not depend on the rows that share a workgroup.
                let (per, text) = match width {
                    Width::Single => (1, shader!("parts/rows_1.wgsl")),
                    Width::Narrow | Width::Wide => (4, shader!("parts/rows_4.wgsl")),
                };
                // A lane for every eight of k, so that all loads are under way at once.
                let wg = (k / 8).next_multiple_of(64).clamp(64, 256);
                sources.extend([shader!("matvec.wgsl"), target.lanes(wg), text]);
                constants.push(("WG", wg as f64));
                let items = n.div_ceil(if self.epilogue == Epilogue::SwiGlu { 2 } else { 4 }) as u32;
                dispatch(
                    label,
                    "matvec",
                    sources,
                    constants,
                    &params,
                    all_bindings,
                    Grid::new(Extent::Fixed(items), rows(per)),
                )
            };
            d.forced_by_limits = i > 0;
            all.push(d.costs(part.product_cost(if self.epilogue == Epilogue::Add { 2 * n } else { n })));
        }
        all
    }
}
