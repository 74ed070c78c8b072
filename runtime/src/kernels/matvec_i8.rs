//! `matvec_i8.wgsl`: a product for few rows on int8 dot products, of weights that are quantized.

use super::product::{Epilogue, Piece, Product, ProductKernel, Width, few_rows};
use super::{Target, shader};
use crate::gpu::Dispatch;

/// Lanes of a workgroup, at most.
const MOST_LANES: usize = 256;
/// Lanes of a team, at least: a multiple of the subgroups of every adapter known.
const LEAST_TEAM: usize = 64;
/// Workgroups that fill a large GPU: with fewer a workgroup takes fewer outputs.
const ENOUGH: usize = 256;
/// Outputs for which a workgroup rounds x again, where there are more than enough of them.
const MOST_TURNS: usize = 4;

/// How a product is shared among lanes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sharing {
    lanes: usize,
    /// Lanes that share a set of four sums.
    team: usize,
    /// Groups of k in workgroup memory at once.
    block: usize,
    /// Sets of a team.
    turns: usize,
    /// Quads of sums that lanes exchange.
    sums: usize,
}

impl Sharing {
    fn new(sets: usize, groups: usize, rows: usize, target: Target) -> Self {
        // Two groups a lane, where there are many.
        let team =
            if target.subgroups { (groups / 2).next_power_of_two().clamp(LEAST_TEAM, MOST_LANES) } else { LEAST_TEAM };
        let mut lanes = team;
        while target.subgroups && 2 * lanes <= MOST_LANES && sets.div_ceil(2 * lanes / team) >= ENOUGH {
            lanes *= 2;
        }
        // Two sets of sums for each row, and one of squares.
        let sums = (2 * rows + 1) * if target.subgroups { lanes / 4 } else { lanes };
        let memory = target.limits.workgroup_memory as usize - 16 * sums - 4 * lanes;
        let block = groups.min(memory / (rows * (32 + 8)));
        let enough = sets.div_ceil(lanes / team) / ENOUGH;
        let turns = if block < groups { 1 } else { (enough / 4).clamp(1, MOST_TURNS) };
        Self { lanes, team, block, turns, sums }
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
        ("TURNS", sharing.turns as f64),
        ("CODES", (2 * rows as usize * sharing.block) as f64),
        ("UNITS", (rows as usize * sharing.block) as f64),
        ("SLOT_SUMS", sharing.sums as f64),
    ];
    constants.extend(piece.weight.dot_constants());
    let mut bindings = piece.weight.bindings();
    bindings.extend(gain);
    let items = sets.div_ceil(sharing.lanes / sharing.team * sharing.turns);
    p.dispatch(piece, ProductKernel { name: "matvec_i8", sources, constants, bindings, items, rows }, label, target)
}
