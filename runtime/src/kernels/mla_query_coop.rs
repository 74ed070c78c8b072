//! `mla_query_coop.wgsl`: `mla_query.wgsl` on cooperative matrices, for steps of many rows.

use super::mla_query::{MlaQuery, whole};
use super::{STEP, Target, assert_words, bindings, dispatch as put_together, matrix_size, shader};
use crate::gpu::{Cooperative, Cost, Dispatch, Extent, Grid};
use crate::weights::WeightFormat;

/// Matrices of a workgroup along its lines, heads of several rows, and along the latent.
const TILES: [usize; 2] = [2, 4];

/// Whether [`dispatch`] can be used: queries are whole quads, and a kv head's heads fit a workgroup.
pub fn fits(query: &MlaQuery<'_>, matrices: Cooperative) -> bool {
    let h = query.heads;
    query.kv_b.format() != WeightFormat::F32
        && [h.nope, query.shape.rope, query.q_stride].iter().all(|n| n.is_multiple_of(4))
        && h.heads / h.kv_heads <= TILES[0] * matrices.side as usize
}

/// [`MlaQuery`] on cooperative matrices.
///
/// # Panics
/// When [`fits`] says no.
pub fn dispatch(query: &MlaQuery<'_>, label: &str, matrices: Cooperative, target: Target) -> Dispatch {
    let (s, h) = (query.shape, query.heads);
    assert!(fits(query, matrices), "{label}: not for cooperative matrices");
    assert!(h.heads * (h.nope + s.rope) <= query.q_stride, "{label}: rows of q are too short");
    let words = (4 * h.heads * s.row_quads()) as u64 * u64::from(target.max_rows);
    assert_words(query.query, words, "mla_query_coop.query");
    let [lines, outputs] = TILES.map(|n| n * matrices.side as usize);
    let share = h.heads / h.kv_heads;
    let part = whole(query.kv_b, label, target);
    let params = [
        h.heads as u32,
        share as u32,
        (h.nope / 4) as u32,
        s.rope as u32,
        (h.nope + h.v) as u32,
        s.rope_quads() as u32,
        (query.kv_b.k_padded() / 32) as u32,
        (query.q_stride / 4) as u32,
        query.scale.to_bits(),
    ];
    let mut constants = target.constants(vec![("LATENT_QUADS", s.latent_quads() as f64)]);
    constants.extend(part.dot_constants());
    let size = matrix_size(matrices.side);
    let mut sources = vec![shader!("mla_query_coop.wgsl"), shader!("parts/rope.wgsl"), size, STEP];
    sources.extend(part.group_sources());
    let mut all = bindings(query.step, &[query.q, query.turns], &[query.query]);
    all.extend(part.bindings());
    let columns = (4 * s.latent_quads()).div_ceil(outputs) + 1;
    let grid = Grid::new(Extent::Fixed((h.kv_heads * columns) as u32), Extent::Rows { per: (lines / share) as u32 });
    put_together(label, "mla_query_coop", sources, constants, &params, all, grid).costs(Cost {
        bytes: part.bytes(h.kv_heads * h.nope),
        row_bytes: 4 * h.heads * (h.nope + s.latent + 2 * s.rope),
        row_macs: h.heads * h.nope * s.latent,
        ..Cost::default()
    })
}
