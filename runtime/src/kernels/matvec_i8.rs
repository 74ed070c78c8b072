//! `matvec_i8.wgsl`: a product for few rows on int8 dot products, of weights that are quantized.

use super::matrix::GROUP;
use super::product::{Epilogue, Piece, Product, ProductKernel, Width, few_rows};
use super::{Target, coded, shader};
use crate::gpu::{Buffer, Dispatch, Limits};

/// Lanes of a workgroup whose outputs are not left coded.
const LANES: usize = 256;
/// Lanes of a workgroup, at most, of one row and of more, whose sums need more registers: what 65,536 leave to each.
const MOST_LANES: usize = 1024;
const MOST_LANES_OF_ROWS: usize = 512;
/// Lanes of a team, at most.
const MOST_TEAM: usize = 128;
/// Lanes of a team, at least, and where a workgroup has no more for the teams of a whole group.
const LEAST_TEAM: usize = 32;
const TINY_TEAM: usize = 16;
/// Workgroups that keep a large GPU busy: one for each of an NVIDIA H200's 132 processors, and some.
const ENOUGH: usize = 160;

/// x as its kernel takes it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Input<'a> {
    pub codes: &'a Buffer,
    /// Groups of a row of `codes`, and those before the part.
    pub stride: usize,
    pub offset: usize,
    /// The norm's 1 / rms is still to be applied.
    pub normed: bool,
}

/// How a product is shared among lanes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sharing {
    /// Lanes that share a set of four sums.
    team: usize,
    /// Teams of a workgroup.
    teams: usize,
}

impl Sharing {
    /// `groups` of k; where y is left coded, a workgroup makes 32 outputs.
    fn new(epilogue: Epilogue, n: usize, groups: usize, rows: u32, coded: bool, target: Target) -> Self {
        let most = if rows == 1 { MOST_LANES } else { MOST_LANES_OF_ROWS };
        let most = most.min(target.limits.invocations as usize);
        let per_team = outputs(epilogue);
        if coded {
            let teams = GROUP / per_team;
            let mut team = if LEAST_TEAM * teams <= most { LEAST_TEAM } else { TINY_TEAM };
            // Larger teams where there are few workgroups, as long as each lane has a group.
            while 2 * team <= groups.min(MOST_TEAM) && 2 * team * teams <= most && n.div_ceil(GROUP) < ENOUGH {
                team *= 2;
            }
            return Self { team, teams };
        }
        let lanes = LANES.min(most);
        let mut team = LEAST_TEAM;
        while 2 * team <= groups.min(lanes).min(MOST_TEAM) && n.div_ceil(per_team * lanes / team) < ENOUGH {
            team *= 2;
        }
        Self { team, teams: (lanes / team).max(1) }
    }
}

/// Outputs of a set of four sums.
fn outputs(epilogue: Epilogue) -> usize {
    if epilogue == Epilogue::SwiGlu { 2 } else { 4 }
}

/// Whether a workgroup can make a whole group of outputs, and so leave them coded.
pub(super) fn can_code(epilogue: Epilogue, target: Target) -> bool {
    let Limits { invocations, storage_buffers, .. } = target.limits;
    let lanes = GROUP / outputs(epilogue) * TINY_TEAM;
    // step, x, y, codes, gain, and a weight's words and scales.
    lanes <= invocations as usize && storage_buffers >= 7
}

pub(super) fn dispatch(
    p: &Product<'_>,
    piece: &Piece<'_>,
    x: Input<'_>,
    label: &str,
    width: Width,
    target: Target,
) -> Dispatch {
    let (rows, rows_part) = few_rows(width);
    let Sharing { team, teams } =
        Sharing::new(p.epilogue, piece.n, p.weight.k_padded() / GROUP, rows, p.y_codes.is_some(), target);
    let outputs = teams * outputs(p.epilogue);
    let coding = coded::parts(p.y_codes, rows as usize * outputs, label);
    let team_sums =
        if target.twins.subgroups { shader!("parts/teams_subgroup.wgsl") } else { shader!("parts/teams_plain.wgsl") };
    let mut sources =
        vec![shader!("matvec_i8.wgsl"), shader!("parts/input_coded.wgsl"), shader!("parts/row_of_four.wgsl")];
    sources.extend([rows_part, team_sums, shader!("parts/four.wgsl")]);
    sources.extend(piece.weight.dot_sources());
    sources.extend(coding.sources);
    // Sums of each row, and of squares.
    let slots = rows as usize + 1;
    let mut constants = vec![
        ("WG", (team * teams) as f64),
        ("TEAM", team as f64),
        ("TEAMS", teams as f64),
        ("OUTPUTS", outputs as f64),
        ("SLOT_SUMS", (slots * if target.twins.subgroups { team * teams } else { teams }) as f64),
        ("NORMED", f64::from(u8::from(x.normed))),
    ];
    constants.extend(target.shared(team));
    constants.extend(piece.weight.dot_constants());
    constants.extend(coding.constants);
    let mut bindings = piece.weight.bindings();
    bindings.extend(coding.bindings);
    let items = piece.n.div_ceil(outputs);
    let kernel = ProductKernel { name: "matvec_i8", sources, constants, bindings, items, rows };
    p.dispatch(piece, kernel, Some(x), label, target)
}
