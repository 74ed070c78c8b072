//! `gated_norm.wgsl`: the per-head gated norm of a scan's output.

use super::ssm_shape::SsmShape;
use super::{STEP, Target, assert_words, bindings, dispatch, shader};
use crate::gpu::{Buffer, Cost, Dispatch, Extent, Grid};

const MOST_LANES: usize = 256;

/// `y[r, h] = rmsnorm(y[r, h] * silu(z[r, h])) * weight[h]`, in place; or `y[r, h] * silu(z[r, h] + weight[h])`, as the
/// shape's form has it.
#[derive(Debug)]
pub struct GatedNorm<'a> {
    pub step: &'a Buffer,
    pub shape: SsmShape,
    /// `[rows, in_stride]`, the rows of in_proj.
    pub zxbcdt: &'a Buffer,
    /// A multiple of 4.
    pub in_stride: usize,
    /// `[d_inner]`, the norm's weight or z's bias.
    pub weight: &'a Buffer,
    /// `[rows, y_stride]`, read and written.
    pub y: &'a Buffer,
    /// A multiple of 4.
    pub y_stride: usize,
    pub eps: f32,
}

impl GatedNorm<'_> {
    /// # Panics
    /// When head_dim or a stride is no multiple of 4: the configuration refuses the one, the plan pads the other.
    pub fn dispatch(&self, label: &str, target: Target) -> Dispatch {
        let s = self.shape;
        assert!(
            s.head_dim.is_multiple_of(4) && self.in_stride.is_multiple_of(4) && self.y_stride.is_multiple_of(4),
            "{label}: no whole quads"
        );
        assert!(s.in_proj() <= self.in_stride && s.d_inner() <= self.y_stride, "{label}: rows are too short");
        assert_words(self.weight, s.d_inner() as u64, "gated_norm.weight");
        let head_quads = s.head_dim / 4;
        let most = MOST_LANES.min(target.limits.invocations as usize);
        let heads = (most / head_quads).clamp(1, s.heads);
        let params = [
            head_quads as u32,
            s.d_inner() as u32 / 4,
            self.in_stride as u32 / 4,
            s.z_column() as u32 / 4,
            self.y_stride as u32 / 4,
            self.eps.to_bits(),
        ];
        dispatch(
            label,
            "gated_norm",
            vec![shader!("gated_norm.wgsl"), s.gate(), STEP],
            target.constants(vec![("WG", (heads * head_quads) as f64)]),
            &params,
            bindings(self.step, &[self.zxbcdt, self.weight], &[self.y]),
            Grid::new(Extent::Fixed(s.heads.div_ceil(heads) as u32), Extent::Rows { per: 1 }),
        )
        .costs(Cost { bytes: 4 * s.d_inner(), row_bytes: 12 * s.d_inner(), ..Cost::default() })
    }
}
