//! `matvec.wgsl`: a product for few rows in f32.

use super::product::{Epilogue, Piece, Product, ProductKernel, Width, few_rows};
use super::{Target, shader};
use crate::gpu::Dispatch;

pub(super) fn dispatch(p: &Product<'_>, piece: &Piece<'_>, label: &str, width: Width, target: Target) -> Dispatch {
    // The order of each sum does not depend on the rows that share a workgroup.
    let (rows, rows_part) = few_rows(width);
    // A lane for every eight of k, so that all loads are under way at once.
    let wg = (p.weight.k_padded() / 8).next_multiple_of(64).clamp(64, 256);
    let (input, gain) = p.input();
    let four = shader!("parts/row_of_four.wgsl");
    let mut sources = vec![shader!("matvec.wgsl"), input, four, rows_part, target.lanes(wg)];
    sources.extend(piece.weight.sources());
    let mut constants = vec![("WG", wg as f64)];
    constants.extend(piece.weight.constants());
    let mut bindings = piece.weight.bindings();
    bindings.extend(gain);
    let items = piece.n.div_ceil(if p.epilogue == Epilogue::SwiGlu { 2 } else { 4 });
    p.dispatch(piece, ProductKernel { name: "matvec", sources, constants, bindings, items, rows }, None, label, target)
}
