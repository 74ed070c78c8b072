//! `matmul.wgsl`: a product for many rows in f32, tiled.

use super::product::{Epilogue, Piece, Product, ProductKernel};
use super::{Target, shader};
use crate::gpu::Dispatch;

/// `gathers`: x has all rows of the step, and y those that ask for logits.
pub(super) fn dispatch(p: &Product<'_>, piece: &Piece<'_>, gathers: bool, label: &str, target: Target) -> Dispatch {
    let mut sources = vec![shader!("matmul.wgsl"), shader!("parts/input_plain.wgsl")];
    sources.extend(piece.weight.sources());
    let mut constants = piece.weight.constants();
    if gathers {
        constants.push(("GATHERS", 1.0));
    }
    let kernel = ProductKernel {
        name: "matmul",
        sources,
        constants,
        bindings: piece.weight.bindings(),
        items: piece.n.div_ceil(if p.epilogue == Epilogue::SwiGlu { 32 } else { 64 }),
        rows: 64,
    };
    p.dispatch(piece, kernel, None, label, target)
}
