//! `mla_combine_coop.wgsl`: `mla_combine.wgsl` on cooperative matrices, for steps of many rows.

use super::mla_combine::MlaCombine;
use super::mla_latent::CacheFormat;
use super::mla_query::whole;
use super::{STEP, Target, assert_words, bindings, dispatch as put_together, matrix_size, shader};
use crate::gpu::{Cooperative, Cost, Dispatch, Extent, Grid};
use crate::weights::WeightFormat;

/// Matrices of a workgroup along its lines, heads of several rows, and along a head's values.
const TILES: [usize; 2] = [2, 4];

/// Whether [`dispatch`] can be used: where factors fit f16, and a kv head's heads fit a workgroup.
pub fn fits(combine: &MlaCombine<'_>, matrices: Cooperative) -> bool {
    combine.shape.format != CacheFormat::F32
        && combine.kv_b.format() != WeightFormat::F32
        && combine.heads.heads / combine.heads.kv_heads <= TILES[0] * matrices.side as usize
}

/// [`MlaCombine`] on cooperative matrices; what it leaves is never coded.
///
/// # Panics
/// When [`fits`] says no.
pub fn dispatch(combine: &MlaCombine<'_>, label: &str, matrices: Cooperative, target: Target) -> Dispatch {
    let (s, h) = (combine.shape, combine.heads);
    assert!(fits(combine, matrices) && combine.codes.is_none(), "{label}: not for cooperative matrices");
    assert!(h.heads * h.v <= combine.o_stride, "{label}: rows of o are too short");
    assert_words(combine.sums, (4 * h.heads * s.latent_quads()) as u64, "mla_combine_coop.sums");
    assert_words(combine.weights, (2 * h.heads) as u64, "mla_combine_coop.weights");
    assert_words(combine.o, combine.o_stride as u64, "mla_combine_coop.o");
    let [lines, outputs] = TILES.map(|n| n * matrices.side as usize);
    let share = h.heads / h.kv_heads;
    let part = whole(combine.kv_b, label, target);
    let [most, parts] = combine.spans.params();
    let params = [
        h.heads as u32,
        share as u32,
        h.nope as u32,
        h.v as u32,
        (combine.kv_b.k_padded() / 32) as u32,
        s.context as u32,
        most,
        parts,
        combine.o_stride as u32,
    ];
    let mut constants = target.constants(vec![("QUADS", s.latent_quads() as f64), combine.spans.constant()]);
    constants.extend(part.dot_constants());
    let size = matrix_size(matrices.side);
    let mut sources = vec![shader!("mla_combine_coop.wgsl"), shader!("parts/spans.wgsl"), size, STEP];
    sources.extend(part.group_sources());
    let mut all = bindings(combine.step, &[combine.sums, combine.weights], &[combine.o]);
    all.extend(part.bindings());
    let grid = Grid::new(
        Extent::Fixed((h.kv_heads * h.v.div_ceil(outputs)) as u32),
        Extent::Rows { per: (lines / share) as u32 },
    );
    put_together(label, "mla_combine_coop", sources, constants, &params, all, grid).costs(Cost {
        bytes: part.bytes(h.kv_heads * h.v),
        row_bytes: 4 * h.heads * (s.latent + h.v),
        row_macs: h.heads * h.v * s.latent,
        ..Cost::default()
    })
}
