//! `matmul_coop.wgsl`: products with a weight matrix for many rows, on cooperative matrices. The twin of
//! `matmul.wgsl` for rows that [`super::half_rows`] has made.

use super::half_rows::{assert_fits, octs};
use super::product::{Epilogue, Piece, pieces};
use super::rmsnorm::Columns;
use super::{Matrix, STEP, Target, assert_words, bindings, dispatch, shader};
use crate::gpu::{Buffer, Cooperative, Cost, Dispatch, Extent, Grid};

/// Matrices of a subgroup, along rows and outputs.
const TILES: [u32; 2] = [2, 4];

/// Subgroups of a workgroup, along rows and outputs: tiles of 128 x 128.
const LARGE: [u32; 2] = [4, 2];

/// The same where tiles of the above would leave parts of a GPU without work: tiles of 64 x 128.
const SMALL: [u32; 2] = [2, 2];

/// The same where even those would be few, as of a batch: tiles of 64 x 64.
const TINY: [u32; 2] = [2, 1];

/// Tiles up to which they are small: the processors of an NVIDIA H200. At 512 x 2048 x 8192, 128 small tiles make 153
/// TFLOP/s there and 64 large ones 109; at 512 x 2272 x 4096, 144 small ones make 75 and 72 large ones 107.
const AT_ONCE: u32 = 132;

/// `y (+)= x weight^T`.
#[derive(Debug)]
pub struct MatMulCoop<'a> {
    pub step: &'a Buffer,
    /// Rows of the weight's inputs, made by [`super::half_rows::HalfRows`].
    pub x: &'a Buffer,
    /// `[n, k]`.
    pub weight: &'a Matrix,
    /// `[rows, stride]`.
    pub y: Columns<'a>,
    pub epilogue: Epilogue,
    /// Runs over the logit rows instead of the rows.
    pub logit_rows: bool,
}

impl MatMulCoop<'_> {
    /// One dispatch, or one for each part of a weight that the adapter's limits cut. `most_rows` are those that the step
    /// may have.
    ///
    /// # Panics
    /// When a SwiGLU weight would have to be cut: its gate and up halves must be bound together.
    pub fn dispatches(&self, label: &str, matrices: Cooperative, most_rows: u32, target: Target) -> Vec<Dispatch> {
        let gated = self.epilogue == Epilogue::SwiGlu;
        let outputs = self.epilogue.outputs(self.weight);
        assert!(self.y.offset + outputs <= self.y.stride, "{label}: y has {} columns", self.y.stride);
        assert_words(self.y.buffer, self.y.stride as u64, label);
        assert_fits(self.x, self.weight, target.max_rows, label);

        let tile = |subgroups: [u32; 2]| [0, 1].map(|i| subgroups[i] * TILES[i] * matrices.side);
        let [small_rows, small_outputs] = tile(SMALL);
        let subgroups = match most_rows.div_ceil(small_rows) * (self.weight.n() as u32).div_ceil(small_outputs) {
            // A lane of a small subgroup could not carry its part.
            tiles if tiles <= AT_ONCE / 2 && matrices.lanes >= 32 => TINY,
            tiles if tiles <= AT_ONCE => SMALL,
            _ => LARGE,
        };
        let [tile_rows, tile_outputs] = tile(subgroups);
        let mut all = Vec::new();
        for Piece { weight: part, n, forced_by_limits } in pieces(self.weight, self.epilogue, label, target, 3) {
            let params = [
                n as u32,
                (self.weight.k_padded() / 32) as u32,
                octs(self.weight.k()) as u32,
                self.y.stride as u32,
                (self.y.offset + part.first_row) as u32,
                if self.logit_rows { 2 } else { 0 },
            ];
            let mut constants = target.constants(vec![
                ("EPILOGUE", f64::from(self.epilogue as u8)),
                ("LANES", f64::from(matrices.lanes)),
                ("SUBGROUPS_M", f64::from(subgroups[0])),
                ("SUBGROUPS_N", f64::from(subgroups[1])),
            ]);
            constants.extend(part.dot_constants());
            let size = if matrices.side == 16 { shader!("parts/coop_16.wgsl") } else { shader!("parts/coop_8.wgsl") };
            let mut sources = vec![STEP, size];
            sources.extend(part.group_sources());
            sources.push(shader!("matmul_coop.wgsl"));
            let mut all_bindings = bindings(self.step, &[self.x], &[self.y.buffer]);
            all_bindings.extend(part.bindings());
            let rows =
                if self.logit_rows { Extent::LogitRows { per: tile_rows } } else { Extent::Rows { per: tile_rows } };
            let items = (n as u32).div_ceil(if gated { tile_outputs / 2 } else { tile_outputs });
            let grid = Grid::new(Extent::Fixed(items), rows);
            let mut d = dispatch(label, "matmul_coop", sources, constants, &params, all_bindings, grid);
            d.forced_by_limits = forced_by_limits;
            let y = if self.epilogue == Epilogue::Add { 2 * n } else { n };
            all.push(d.costs(Cost { row_bytes: 2 * self.weight.k() + 4 * y, ..part.product_cost(y) }));
        }
        all
    }
}
