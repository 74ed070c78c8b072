//! `matmul_i8.wgsl`: products with a quantized weight for many rows, on int8 dot products.

use super::matrix::GROUP;
use super::product::{EPILOGUE, Epilogue, Piece, pieces};
use super::rmsnorm::Columns;
use super::{Matrix, STEP, Target, assert_words, bindings, coded, dispatch, shader};
use crate::gpu::{Buffer, Cost, Dispatch, Extent, Grid};

/// Rows, and outputs, that a workgroup owns: `TILE` of the shader.
const TILE: usize = 64;

/// Storage buffers beside the weight's: the step, x's codes, y.
const OTHERS: u32 = 3;

/// `y (+)= x weight^T`, x in int8 as [`super::quantize_rows::QuantizeRows`] leaves it.
#[derive(Debug)]
pub struct MatMulI8<'a> {
    pub step: &'a Buffer,
    /// `[rows, 3, k / 32, 4]` words, see [`super::coded`], k padded to whole groups of 32.
    pub codes: &'a Buffer,
    /// Without padding.
    pub k: usize,
    /// `[n, k]`, quantized.
    pub weight: &'a Matrix,
    /// `[rows, stride]`.
    pub y: Columns<'a>,
    pub epilogue: Epilogue,
    /// Runs over the logit rows instead of the rows.
    pub logit_rows: bool,
}

impl MatMulI8<'_> {
    /// One dispatch, or one for each part of a weight that the adapter's limits cut.
    ///
    /// # Panics
    /// When the weight is not quantized, or when a SwiGLU weight would have to be cut: its gate and up halves must be
    /// bound together.
    pub fn dispatches(&self, label: &str, target: Target) -> Vec<Dispatch> {
        assert!(self.weight.format().is_quantized(), "{label}: {} is not quantized", self.weight.label());
        assert_eq!(self.k, self.weight.k(), "{label}: x and weight differ in k");
        let groups = self.k.div_ceil(GROUP);
        let outputs = self.epilogue.outputs(self.weight);
        assert!(self.y.offset + outputs <= self.y.stride, "{label}: y has {} columns", self.y.stride);
        assert_words(self.codes, coded::words(1, self.k) as u64, "matmul_i8.codes");
        assert_words(self.y.buffer, self.y.stride as u64, "matmul_i8.y");

        let mut all = Vec::new();
        let per_item = if self.epilogue == Epilogue::SwiGlu { TILE / 2 } else { TILE };
        for Piece { weight: part, n, forced_by_limits } in pieces(self.weight, self.epilogue, label, target, OTHERS) {
            let params = [
                n as u32,
                groups as u32,
                self.y.stride as u32,
                (self.y.offset + part.first_row) as u32,
                if self.logit_rows { 2 } else { 0 },
            ];
            let mut constants = target.constants(vec![("EPILOGUE", f64::from(self.epilogue as u8))]);
            constants.extend(part.dot_constants());
            let mut sources = vec![shader!("matmul_i8.wgsl"), STEP, EPILOGUE];
            sources.extend(part.tile_sources());
            let mut all_bindings = bindings(self.step, &[self.codes], &[self.y.buffer]);
            all_bindings.extend(part.bindings());
            let per = TILE as u32;
            let rows = if self.logit_rows { Extent::LogitRows { per } } else { Extent::Rows { per } };
            let grid = Grid::new(Extent::Fixed(n.div_ceil(per_item) as u32), rows);
            let mut d = dispatch(label, "matmul_i8", sources, constants, &params, all_bindings, grid);
            d.forced_by_limits = forced_by_limits;
            // x has a byte an input, a scale and what pads it a group.
            let y = if self.epilogue == Epilogue::Add { 2 * n } else { n };
            let cost = part.product_cost(y);
            all.push(d.costs(Cost { row_bytes: 48 * groups + 4 * y, ..cost }));
        }
        all
    }
}
