//! `matmul_coop.wgsl` and, for a batch, `matmul_coop_batch.wgsl`: products with a weight matrix for many rows, on cooperative
//! matrices. The twins of `matmul.wgsl` for rows that [`super::half_rows`] has made.

use super::add_parts::AddParts;
use super::half_rows::{assert_fits, octs};
use super::product::{EPILOGUE, Epilogue, Piece, pieces};
use super::rmsnorm::Columns;
use super::{Matrix, STEP, Target, assert_words, bindings, dispatch, matrix_size, shader};
use crate::gpu::{Buffer, Cooperative, Cost, Dispatch, Extent, Grid, Limits};

/// Matrices of a subgroup, along rows and outputs.
const TILES: [u32; 2] = [2, 4];

/// Subgroups of a workgroup, along rows and outputs: tiles of 128 x 128.
const LARGE: [u32; 2] = [4, 2];

/// The same where tiles of the above would leave parts of a GPU without work: tiles of 64 x 128.
const SMALL: [u32; 2] = [2, 2];

/// Tiles up to which they are small: the processors of an NVIDIA H200. At 512 x 2048 x 8192, 128 small tiles make 153
/// TFLOP/s there and 64 large ones 109; at 512 x 2272 x 4096, 144 small ones make 75 and 72 large ones 107.
const AT_ONCE: u32 = 132;

/// Workgroups that keep those processors busy: so many, at most, share the small tiles of a product by parts of k.
const SHARING: u32 = 3 * AT_ONCE;

/// The same of `matmul_coop_batch.wgsl`, whose workgroups are twice as large: what does not run at once waits as long again.
const BATCH_SHARING: u32 = 2 * AT_ONCE;

/// Rows that it has at most, and outputs of a tile, in matrices.
const BATCH_MATRICES: [u32; 2] = [4, 8];

/// Blocks of k that a part has at least, and parts of a product at most: putting them together has a cost.
const PART_BLOCKS: u32 = 8;
const MOST_PARTS: u32 = 16;

/// The epilogue of a part of k. The others are [`Epilogue`]'s.
const PARTS: u8 = 4;

/// Parts of k for so many tiles, so that they are as many workgroups.
fn splits(sharing: u32, tiles: u32, k: usize) -> u32 {
    (sharing / tiles).min(blocks(k) / PART_BLOCKS).clamp(1, MOST_PARTS)
}

fn blocks(k: usize) -> u32 {
    octs(k) as u32 / 8
}

/// Rows and outputs of a tile.
fn tile(subgroups: [u32; 2], matrices: Cooperative) -> [u32; 2] {
    [0, 1].map(|i| subgroups[i] * TILES[i] * matrices.side)
}

/// Subgroups that share a block of k there: a lane then has one group of 32 of a block.
fn batch_shares(matrices: Cooperative) -> u32 {
    4 * matrices.side / matrices.lanes
}

/// Whether an adapter can have its workgroups: their lanes, rows of x and of W, and sums.
fn batch_fits(matrices: Cooperative, limits: &Limits) -> bool {
    let Cooperative { side, lanes } = matrices;
    let [rows, outputs] = BATCH_MATRICES.map(|n| n * side);
    let subgroups = 4 * batch_shares(matrices);
    let bytes = 8 * 18 * (rows + outputs) + 4 * subgroups * side * side + 4 * rows;
    subgroups * lanes <= limits.invocations && bytes <= limits.workgroup_memory
}

/// How a product is cut into workgroups.
struct Tiling {
    kernel: &'static str,
    source: &'static str,
    constants: Vec<(&'static str, f64)>,
    rows: u32,
    outputs: u32,
    /// Parts of k.
    splits: u32,
}

impl Tiling {
    /// Of a product with rows of `n` outputs and `k` inputs. `quads`: whether its parts can be put together by quads.
    fn new([rows, n, k]: [u32; 3], quads: bool, matrices: Cooperative, limits: &Limits) -> Self {
        let Cooperative { side, lanes } = matrices;
        let in_matrices = rows.div_ceil(side);
        if in_matrices <= BATCH_MATRICES[0] && batch_fits(matrices, limits) {
            let outputs = BATCH_MATRICES[1] * side;
            let sharing = if quads { BATCH_SHARING } else { 1 };
            return Self {
                kernel: "matmul_coop_batch",
                source: shader!("matmul_coop_batch.wgsl"),
                constants: vec![
                    ("LANES", f64::from(lanes)),
                    ("SHARES", f64::from(batch_shares(matrices))),
                    ("TILES_M", f64::from(in_matrices)),
                ],
                rows: in_matrices * side,
                outputs,
                splits: splits(sharing, n.div_ceil(outputs), k as usize),
            };
        }
        let small = tile(SMALL, matrices);
        let row_tiles = rows.div_ceil(small[0]);
        let tiles = row_tiles * n.div_ceil(small[1]);
        // A large one would have rows that never are.
        let subgroups = if tiles <= AT_ONCE || row_tiles == 1 { SMALL } else { LARGE };
        let [rows, outputs] = tile(subgroups, matrices);
        let constants = vec![
            ("LANES", f64::from(matrices.lanes)),
            ("SUBGROUPS_M", f64::from(subgroups[0])),
            ("SUBGROUPS_N", f64::from(subgroups[1])),
        ];
        let splits = if tiles > AT_ONCE || !quads { 1 } else { splits(SHARING, tiles, k as usize) };
        Self { kernel: "matmul_coop", source: shader!("matmul_coop.wgsl"), constants, rows, outputs, splits }
    }
}

/// Bytes of the buffer for the parts of any product of at most so many inputs.
pub fn parts_bytes(matrices: Cooperative, widest: usize) -> u64 {
    let any = blocks(widest) >= 2 * PART_BLOCKS;
    if any { 4 * tile(SMALL, matrices).iter().map(|n| u64::from(*n)).product::<u64>() * u64::from(SHARING) } else { 0 }
}

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
    /// As large as [`parts_bytes`] says.
    pub parts: &'a Buffer,
}

impl MatMulCoop<'_> {
    /// One dispatch, or one for each part of a weight that the adapter's limits cut; two where k is walked in parts.
    /// `most_rows` are those that the step may have.
    ///
    /// # Panics
    /// When a SwiGLU weight would have to be cut: its gate and up halves must be bound together.
    pub fn dispatches(&self, label: &str, matrices: Cooperative, most_rows: u32, target: Target) -> Vec<Dispatch> {
        let gated = self.epilogue == Epilogue::SwiGlu;
        let outputs = self.epilogue.outputs(self.weight);
        assert!(self.y.offset + outputs <= self.y.stride, "{label}: y has {} columns", self.y.stride);
        assert_words(self.y.buffer, self.y.stride as u64, label);
        assert_fits(self.x, self.weight, target.max_rows, label);

        // add_parts.wgsl reads up by quads.
        let quads = !gated || outputs.is_multiple_of(4);
        let sizes = [most_rows, self.weight.n() as u32, self.weight.k() as u32];
        let Tiling { kernel, source, constants, rows: tile_rows, outputs: tile_outputs, splits } =
            Tiling::new(sizes, quads, matrices, &target.limits);
        let in_parts = splits > 1;

        let mut all = Vec::new();
        for Piece { weight: part, n, forced_by_limits } in pieces(self.weight, self.epilogue, label, target, 3) {
            // Where k is walked in parts, gate and up are outputs like others.
            let columns = if in_parts { part.rows } else { n };
            let items = (columns as u32).div_ceil(if gated && !in_parts { tile_outputs / 2 } else { tile_outputs });
            let y = Columns { offset: self.y.offset + part.first_row, ..self.y };
            let sums = AddParts {
                step: self.step,
                x: self.x,
                parts: self.parts,
                splits,
                rows: most_rows.next_multiple_of(tile_rows),
                stride: items * tile_outputs,
                n,
                y,
                epilogue: self.epilogue,
                logit_rows: self.logit_rows,
            };
            let [stride, offset, part_stride] = match in_parts {
                true => [sums.stride, 0, sums.rows * sums.stride],
                false => [y.stride as u32, y.offset as u32, 0],
            };
            let params = [
                columns as u32,
                (self.weight.k_padded() / 32) as u32,
                octs(self.weight.k()) as u32,
                stride,
                offset,
                if self.logit_rows { 2 } else { 0 },
                part_stride,
            ];
            let epilogue = if in_parts { PARTS } else { self.epilogue as u8 };
            let mut constants = target.constants(constants.clone());
            constants.extend([("EPILOGUE", f64::from(epilogue)), ("SPLITS", f64::from(splits))]);
            constants.extend(part.dot_constants());
            let size = matrix_size(matrices.side);
            let mut sources = vec![STEP, EPILOGUE, size, shader!("parts/coop_product.wgsl")];
            sources.extend(part.group_sources());
            sources.push(source);
            let written = if in_parts { self.parts } else { self.y.buffer };
            let mut all_bindings = bindings(self.step, &[self.x], &[written]);
            all_bindings.extend(part.bindings());
            let rows =
                if self.logit_rows { Extent::LogitRows { per: tile_rows } } else { Extent::Rows { per: tile_rows } };
            let grid = Grid::new(Extent::Fixed(items * splits), rows);
            let mut d = dispatch(label, kernel, sources, constants, &params, all_bindings, grid);
            d.forced_by_limits = forced_by_limits;
            let moved = match self.epilogue {
                _ if in_parts => splits as usize * columns,
                Epilogue::Add => 2 * n,
                Epilogue::Store | Epilogue::SwiGlu | Epilogue::Relu2 => n,
            };
            let cost = Cost { row_bytes: 2 * self.weight.k() + 4 * moved, ..part.product_cost(moved) };
            all.push(d.costs(cost));
            if in_parts {
                let mut d = sums.dispatch(label, target);
                d.forced_by_limits = forced_by_limits;
                all.push(d);
            }
        }
        all
    }
}
