//! `matvec_i8.wgsl`: a product for few rows on int8 dot products, of weights that are quantized.

use super::product::{Epilogue, Piece, Product, ProductKernel, Width, few_rows};
use super::{Target, shader};
use crate::gpu::Dispatch;

/// Lanes of a workgroup.
const LANES: usize = 256;
/// Lanes of a team, at most.
const MOST_TEAM: usize = 128;
/// Lanes of a team and of its workgroup where they exchange sums by workgroup memory.
const PLAIN_TEAM: usize = 64;
/// Workgroups that keep a large GPU busy: one for each of an NVIDIA H200's 132 processors, and some.
const ENOUGH: usize = 160;

/// How a product is shared among lanes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sharing {
    lanes: usize,
    /// Lanes that share a set of four sums.
    team: usize,
    /// Groups of k in workgroup memory at once.
    block: usize,
    /// Words or quads of sums that lanes exchange.
    sums: usize,
}

impl Sharing {
    fn new(sets: usize, groups: usize, rows: usize, target: Target) -> Self {
        let lanes = if target.subgroups { LANES } else { PLAIN_TEAM };
        // Larger teams where there would be too few workgroups for a large GPU.
        let mut team = if target.subgroups { (target.limits.subgroup as usize).clamp(32, MOST_TEAM) } else { lanes };
        while 2 * team <= groups.min(lanes).min(MOST_TEAM) && sets.div_ceil(lanes / team) < ENOUGH {
            team *= 2;
        }
        // Sums of each row, and of squares.
        let sums = (rows + 1) * lanes;
        let exchange = if target.subgroups { 4 * sums } else { 16 * sums + 4 * lanes };
        let memory = target.limits.workgroup_memory as usize - exchange;
        let block = groups.min(memory / (rows * (32 + 8)));
        Self { lanes, team, block, sums }
    }
}

pub(super) fn dispatch(p: &Product<'_>, piece: &Piece<'_>, label: &str, width: Width, target: Target) -> Dispatch {
    let (rows, rows_part) = few_rows(width);
    let sets = piece.n.div_ceil(if p.epilogue == Epilogue::SwiGlu { 2 } else { 4 });
    let sharing = Sharing::new(sets, p.weight.k_padded() / 32, rows as usize, target);
    let (input, gain) = p.input();
    let teams = if target.subgroups { shader!("parts/teams_subgroup.wgsl") } else { shader!("parts/teams_plain.wgsl") };
    let four = shader!("parts/row_of_four.wgsl");
    let mut sources = vec![shader!("matvec_i8.wgsl"), input, four, rows_part, teams];
    sources.extend(piece.weight.dot_sources());
    let mut constants = vec![
        ("WG", sharing.lanes as f64),
        ("TEAM", sharing.team as f64),
        ("BLOCK", sharing.block as f64),
        ("CODES", (4 * rows as usize * sharing.block) as f64),
        ("UNITS", (rows as usize * sharing.block) as f64),
        ("SLOT_SUMS", sharing.sums as f64),
    ];
    constants.extend(piece.weight.dot_constants());
    let mut bindings = piece.weight.bindings();
    bindings.extend(gain);
    let items = sets.div_ceil(sharing.lanes / sharing.team);
    p.dispatch(piece, ProductKernel { name: "matvec_i8", sources, constants, bindings, items, rows }, label, target)
}
