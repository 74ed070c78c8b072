//! Products with a weight matrix: which kernels make one, for few rows and for many, and what they share.

use super::coded::{self, Coding};
use super::half_rows::HalfRows;
use super::matmul_coop::MatMulCoop;
use super::matmul_i8::MatMulI8;
use super::matrix::GROUP;
use super::quantize_rows::QuantizeRows;
use super::rmsnorm::{Columns, RmsNorm};
use super::{Matrix, STEP, Target, assert_words, bindings, dispatch, matmul, matrix, matvec, matvec_i8, shader};
use crate::gpu::{Binding, Buffer, Cost, Dispatch, Extent, Grid};
use crate::weights::WeightFormat;

/// Storage buffers beside the weight's where y is left coded: step, x, y, its codes, the next norm's gain.
const CODED_OTHERS: u32 = 5;

/// The part for it.
pub(super) const EPILOGUE: &str = shader!("parts/epilogue.wgsl");

/// What becomes of the sums.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Epilogue {
    /// `y = x W^T`.
    Store,
    /// `y += x W^T`: y is the residual stream.
    Add,
    /// The weight is `[gate; up]`, `y = silu(x gate^T) * (x up^T)`.
    SwiGlu,
    /// `y = relu(x W^T)^2`.
    Relu2,
}

impl Epilogue {
    /// Columns of y that a weight makes.
    pub(super) fn outputs(self, weight: &Matrix) -> usize {
        if self == Epilogue::SwiGlu { weight.n() / 2 } else { weight.n() }
    }
}

/// How many rows the product is planned for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Width {
    /// A step of one row: matrix-vector.
    Single,
    /// A step of a few rows: matrix-vector, some rows for each reading of the weights.
    Narrow,
    /// A step of more rows, each of a slot of its own: tiles.
    Batch,
    /// A step of many rows: tiles.
    Wide,
}

impl Width {
    /// Whether products are made in tiles of rows.
    pub fn is_tiled(self) -> bool {
        matches!(self, Width::Batch | Width::Wide)
    }
}

/// The RMS norm of a product's x.
#[derive(Debug, Clone, Copy)]
pub struct Norm<'a> {
    /// `[k]`.
    pub weight: &'a Buffer,
    pub eps: f32,
}

/// Where a step of many rows keeps what is made of x before the product.
#[derive(Debug, Clone, Copy)]
pub struct Scratch<'a> {
    /// Rows in f32, normed.
    pub rows: Columns<'a>,
    /// Coded rows, as [`QuantizeRows`] leaves them.
    pub codes: &'a Buffer,
    /// Rows in f16, as [`HalfRows`] leaves them.
    pub half: &'a Buffer,
    /// Sums of parts of k, for [`MatMulCoop`].
    pub parts: &'a Buffer,
}

/// `y (+)= norm(x) weight^T`.
#[derive(Debug, Clone, Copy)]
pub struct Product<'a> {
    pub step: &'a Buffer,
    /// `[rows, stride]`, stride and offset multiples of 32, padded with zeros.
    pub x: Columns<'a>,
    /// Whole rows of x, times the norm's weight, coded by what made them: a product of few rows on int8 dot products
    /// reads these and not x.
    pub x_codes: Option<&'a Buffer>,
    pub norm: Option<Norm<'a>>,
    /// `[n, k]`.
    pub weight: &'a Matrix,
    /// `[rows, stride]`.
    pub y: Columns<'a>,
    /// Where y is left coded too, if [`Product::can_code`]. Of an activation only the codes are written then.
    pub y_codes: Option<Coding<'a>>,
    pub epilogue: Epilogue,
    /// Runs over the logit rows: reads the rows of x that they name, and packs those of y.
    pub logit_rows: bool,
    pub scratch: Scratch<'a>,
}

/// A part of the product that one dispatch makes.
pub(super) struct Piece<'a> {
    pub weight: matrix::Part<'a>,
    /// Outputs of it.
    pub n: usize,
    pub forced_by_limits: bool,
}

impl<'a> Product<'a> {
    /// One dispatch, or one for each part of a weight that the adapter's limits cut; of many rows one before them that
    /// prepares x, where there is something to prepare, and one after each that puts its parts of k together, if it has
    /// any.
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
        assert!(self.y.offset + self.outputs() <= self.y.stride, "{label}: y has {} columns", self.y.stride);
        assert_words(self.y.buffer, self.y.stride as u64, label);
        if let Some(norm) = self.norm {
            assert_words(norm.weight, k as u64, "the norm's weight");
        }
        if width.is_tiled() && !target.twins.plain {
            return self.of_many_rows(label, width, target);
        }
        if target.twins.matvec_i8 && self.weight.format().is_quantized() {
            return self.of_few_coded_rows(label, width, target);
        }
        assert!(self.y_codes.is_none(), "{label}: only products on int8 dot products leave y coded");
        let pieces = self.pieces(label, target, if self.norm.is_some() { 4 } else { 3 });
        pieces.iter().map(|piece| matvec::dispatch(self, piece, label, width, target)).collect()
    }

    /// Whether y can be left coded: a product of few rows with this weight.
    pub fn can_code(weight: &Matrix, epilogue: Epilogue, target: Target) -> bool {
        let whole = weight.parts(&target.limits, CODED_OTHERS).len() == 1;
        target.twins.matvec_i8 && weight.format().is_quantized() && whole && matvec_i8::can_code(epilogue, target)
    }

    fn of_few_coded_rows(&self, label: &str, width: Width, target: Target) -> Vec<Dispatch> {
        let mut all = Vec::new();
        let x = match self.x_codes {
            Some(codes) => {
                assert_words(codes, coded::words(1, self.x.stride) as u64, label);
                let (stride, offset) = (self.x.stride / GROUP, self.x.offset / GROUP);
                matvec_i8::Input { codes, stride, offset, normed: self.norm.is_some() }
            }
            None => {
                let (step, x, norm, codes, width) = (self.step, self.x, self.norm, self.scratch.codes, self.weight.k());
                all.push(QuantizeRows { step, x, norm, codes, width, logit_rows: false }.dispatch(label, target));
                matvec_i8::Input { codes, stride: width.div_ceil(GROUP), offset: 0, normed: false }
            }
        };
        let others = if let Some(Coding { codes, gain }) = self.y_codes {
            assert_words(codes, coded::words(1, self.outputs()) as u64, label);
            let whole = self.y.offset == 0 && self.y.stride.is_multiple_of(GROUP);
            assert!(whole && Self::can_code(self.weight, self.epilogue, target), "{label}: y cannot be left coded");
            if gain.is_some() { CODED_OTHERS } else { CODED_OTHERS - 1 }
        } else {
            3
        };
        let pieces = self.pieces(label, target, others);
        all.extend(pieces.iter().map(|piece| matvec_i8::dispatch(self, piece, x, label, width, target)));
        all
    }

    fn of_many_rows(&self, label: &str, width: Width, target: Target) -> Vec<Dispatch> {
        let Scratch { rows, codes, half, parts } = self.scratch;
        let (step, x, weight, logit_rows) = (self.step, self.x, self.weight, self.logit_rows);
        let k = weight.k();
        if let Some(matrices) = target.twins.matmul_coop.filter(|_| weight.format() != WeightFormat::F32) {
            let prepare = HalfRows { step, x, norm: self.norm, y: half, width: k, logit_rows };
            let product = MatMulCoop { step, x: half, weight, y: self.y, epilogue: self.epilogue, logit_rows, parts };
            let mut all = vec![prepare.dispatch(label, target)];
            let most_rows = if width == Width::Batch { target.slots } else { target.max_rows };
            all.extend(product.dispatches(label, matrices, most_rows, target));
            return all;
        }
        if target.twins.matmul_i8 && weight.format().is_quantized() {
            let quantize = QuantizeRows { step, x, norm: self.norm, codes, width: k, logit_rows };
            let (y, epilogue) = (self.y, self.epilogue);
            let product = MatMulI8 { step, codes, k, weight, y, epilogue, logit_rows };
            let mut all = vec![quantize.dispatch(label, target)];
            all.extend(product.dispatches(label, target));
            return all;
        }
        let Some(norm) = self.norm else {
            let pieces = self.pieces(label, target, 3);
            return pieces.iter().map(|p| matmul::dispatch(self, p, logit_rows, label, target)).collect();
        };
        let prepare = RmsNorm { step, x, weight: norm.weight, y: rows, width: k, eps: norm.eps, logit_rows };
        let product = Product { x: rows, norm: None, ..*self };
        let mut all = vec![prepare.dispatch(label, target)];
        // The norm has gathered them.
        let pieces = product.pieces(label, target, 3);
        all.extend(pieces.iter().map(|p| matmul::dispatch(&product, p, false, label, target)));
        all
    }

    fn cost(&self, weight: &matrix::Part<'_>) -> Cost {
        // The residual is read and written.
        weight.product_cost(if self.epilogue == Epilogue::Add { 2 * weight.rows } else { self.outputs() })
    }

    /// Columns of y.
    fn outputs(&self) -> usize {
        self.epilogue.outputs(self.weight)
    }

    fn pieces(&self, label: &str, target: Target, others: u32) -> Vec<Piece<'a>> {
        pieces(self.weight, self.epilogue, label, target, others)
    }

    /// A dispatch over a piece: what `parts/product.wgsl` declares, and the kernel's own.
    pub(super) fn dispatch(
        &self,
        piece: &Piece<'_>,
        kernel: ProductKernel,
        coded: Option<matvec_i8::Input<'_>>,
        label: &str,
        target: Target,
    ) -> Dispatch {
        let (x, stride, offset) = match coded {
            Some(x) => (x.codes, 3 * x.stride, x.offset),
            None => (self.x.buffer, self.x.stride / 4, self.x.offset / 4),
        };
        let norm = self.norm.map_or(0, |norm| norm.eps.to_bits());
        let params = [
            piece.n as u32,
            (self.weight.k_padded() / 8) as u32,
            stride as u32,
            offset as u32,
            self.y.stride as u32,
            (self.y.offset + piece.weight.first_row) as u32,
            if self.logit_rows { 2 } else { 0 },
            self.weight.k() as u32,
            norm,
        ];
        let mut constants = target.constants(kernel.constants);
        constants.push(("EPILOGUE", f64::from(self.epilogue as u8)));
        let mut sources = vec![STEP, shader!("parts/product.wgsl"), EPILOGUE];
        sources.extend(kernel.sources);
        let mut all = bindings(self.step, &[x], &[self.y.buffer]);
        all.extend(kernel.bindings);
        let rows = match self.logit_rows {
            true => Extent::LogitRows { per: kernel.rows },
            false => Extent::Rows { per: kernel.rows },
        };
        let grid = Grid::new(Extent::Fixed(kernel.items as u32), rows);
        let mut d = dispatch(label, kernel.name, sources, constants, &params, all, grid);
        d.forced_by_limits = piece.forced_by_limits;
        d.costs(self.cost(&piece.weight))
    }

    /// The part that reads x, and its binding.
    pub(super) fn input(&self) -> (&'static str, Option<Binding>) {
        match self.norm {
            None => (shader!("parts/input_plain.wgsl"), None),
            Some(norm) => (shader!("parts/input_normed.wgsl"), Some(super::read(4, norm.weight))),
        }
    }
}

/// The parts of the weight for dispatches that bind `others` storage buffers beside it.
///
/// # Panics
/// When a SwiGLU weight would have to be cut: its gate and up halves must be bound together.
pub(super) fn pieces<'a>(
    weight: &'a Matrix,
    epilogue: Epilogue,
    label: &str,
    target: Target,
    others: u32,
) -> Vec<Piece<'a>> {
    let piece = |(i, part): (usize, matrix::Part<'a>)| {
        let n = if epilogue == Epilogue::SwiGlu {
            assert!(part.rows == weight.n(), "{label}: gate and up do not fit into the adapter's bindings");
            epilogue.outputs(weight)
        } else {
            part.rows
        };
        Piece { weight: part, n, forced_by_limits: i > 0 }
    };
    weight.parts(&target.limits, others).into_iter().enumerate().map(piece).collect()
}

/// What a kernel of a product adds to what they share.
pub(super) struct ProductKernel {
    pub name: &'static str,
    pub sources: Vec<&'static str>,
    pub constants: Vec<(&'static str, f64)>,
    pub bindings: Vec<Binding>,
    /// Workgroups along the outputs.
    pub items: usize,
    /// Rows that a workgroup owns.
    pub rows: u32,
}

/// The part that says how many rows a workgroup of few rows owns, and that number.
pub(super) fn few_rows(width: Width) -> (u32, &'static str) {
    match width {
        Width::Single => (1, shader!("parts/rows_1.wgsl")),
        Width::Narrow | Width::Batch | Width::Wide => (4, shader!("parts/rows_4.wgsl")),
    }
}
